"""The detector's loss: penalty-reduced focal loss of the heat maps, and L1 of offsets and log diameters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.models.detector import DetectorOutput

_FOCUS, _NEAR = 2.0, 4.0  # of hard cells; away from cells near a lesion's
OFFSET_WEIGHT, DIAMETER_WEIGHT, ATTRIBUTE_WEIGHT = 0.5, 0.5, 0.25


def heat_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Penalty-reduced focal loss of each class, (C,).

    Divided by the number of lesions of the class in the batch, at least 1.

    Args:
        logits: (B, C, r, a, s).
        targets: the same shape, in [0, 1]; 1 marks a lesion's cell, NaN counts for nothing.

    Source: Lin et al., 2017 (focal loss); Zhou et al., 2019 (penalty reduction).
    """
    logits = logits.float()
    known = targets.isfinite()
    targets = targets.nan_to_num()
    probability = torch.sigmoid(logits)
    positive = (targets == 1).float()
    positives = functional.logsigmoid(logits) * (1 - probability) ** _FOCUS * positive
    quiet = functional.logsigmoid(-logits) * probability**_FOCUS * (1 - targets) ** _NEAR * (1 - positive)
    total = -((positives + quiet) * known).sum(dim=(0, 2, 3, 4))
    return total / positive.mul(known).sum(dim=(0, 2, 3, 4)).clamp_min(1)


def detection_loss(output: DetectorOutput, heat: Tensor, regression: Tensor) -> dict[str, Tensor]:
    """The parts of the loss; ``loss`` is their weighted sum.

    Args:
        output: of a batch.
        heat: (B, C, r, a, s), see ``heat_loss``.
        regression: (B, 5, r, a, s): offset, log diameter, and the weight of both.
    """
    by_class = heat_loss(output.heat, heat)
    weight = regression[:, 4:]
    total = weight.sum().clamp_min(1)
    offset = ((output.offset.float() - regression[:, :3]).abs() * weight).sum() / total
    diameter = ((output.log_diameter.float() - regression[:, 3:4]).abs() * weight).sum() / total
    loss = by_class[0] + ATTRIBUTE_WEIGHT * by_class[1:].sum() + OFFSET_WEIGHT * offset + DIAMETER_WEIGHT * diameter
    return {"loss": loss, "heat": by_class[0], "attributes": by_class[1:].sum(), "offset": offset, "diameter": diameter}
