"""A softmax head that fits where one logit is expected."""

from __future__ import annotations

from torch import Tensor, nn


class SoftmaxLinear(nn.Linear):
    """Two logits for each output, benign and malignant, given as their difference.

    The softmax of two logits is the sigmoid of their difference, so the loss, calibration and everything after it are
    those of one logit. Only the optimiser sees another parametrisation.

    Args:
        in_features: of the layer before.
        outputs: differences; there are twice as many logits.
    """

    def __init__(self, in_features: int, outputs: int) -> None:
        super().__init__(in_features, 2 * outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) → (B, outputs)."""
        logits = super().forward(features).view(-1, self.out_features // 2, 2)  # (B, outputs, benign and malignant)
        difference: Tensor = logits[..., 1] - logits[..., 0]
        return difference
