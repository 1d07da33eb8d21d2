"""The Lightning module of a detector: loss of patches, AdamW with a one-cycle schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from pipeline.config.detection import DetectionTraining
from pipeline.errors import UnfinishedError
from pipeline.models.detector import Detector
from pipeline.training.detection.losses import detection_loss
from pipeline.training.detection.patches import PatchBatch, PatchSampler
from pipeline.training.module import ClippedByNorm

_MOVING_STATISTICS = 0.6  # share of the steps in which batch normalisation goes by the batch
_WARM_UP = 0.15  # share of the steps in which the learning rate rises


class DetectorTraining(ClippedByNorm):
    """Trains a detector.

    Args:
        network: to train.
        config: optimiser and schedule.
        sampler: draws the patches of each step.
    """

    def __init__(self, network: Detector, config: DetectionTraining, sampler: PatchSampler) -> None:
        super().__init__()
        self.network = network
        self._config, self._sampler = config, sampler

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Hold the statistics of batch normalisation still in the last part of the training.

        A batch is mostly patches around lesions, which is no sample of a scan: weights must fit the statistics that
        finding uses.
        """
        del batch, batch_idx
        if self.global_step >= _MOVING_STATISTICS * self._config.max_epochs * self._config.steps_per_epoch:
            for layer in self.network.modules():
                if isinstance(layer, nn.BatchNorm3d):
                    layer.eval()

    def training_step(self, _: Tensor, __: int) -> Tensor:
        """Loss of one step's patches, its parts logged.

        They are drawn here, by the number of the step, so that what has just been mined is among them, in a resumed
        training too: a loader would have read ahead.

        Raises:
            UnfinishedError: when it is not finite, before it reaches the weights.
        """
        batch = PatchBatch(*(part.to(self.device) for part in self._sampler.batch(self.global_step)))
        parts = detection_loss(self.network(batch.images), batch.heat, batch.regression)
        loss = parts.pop("loss")
        if not bool(torch.isfinite(loss)):
            names = ", ".join(sorted({self._sampler.scans[number].scan_id for number in batch.scans.tolist()}))
            raise UnfinishedError(
                f"the loss of epoch {self.current_epoch + 1} is {loss.item()}; look at its scans ({names}), or lower "
                "training.learning_rate; the weights before it are kept"
            )
        values = {"train_loss": loss, **{f"train_{name}_loss": value for name, value in parts.items()}}
        self.log_dict(values, on_epoch=True, on_step=False, batch_size=len(batch.images))
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, with the schedule stepped after every batch."""
        config = self._config
        optimizer = AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        steps = config.max_epochs * config.steps_per_epoch
        schedule = OneCycleLR(optimizer, max_lr=config.learning_rate, total_steps=steps, pct_start=_WARM_UP)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
