"""The Lightning module: loss on logits, AdamW, validation metrics of each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import lightning.pytorch as pl
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from pipeline.config.training import Training
from pipeline.errors import UnfinishedError
from pipeline.models.stages import keep_frozen_statistics, learning_rates
from pipeline.training.data import Batch
from pipeline.training.processes import processes


def prior_offset(labels: Tensor, class_balance: str) -> float:
    """How far class balancing moves the logit above the one of the data's own prevalence.

    Weighting malignant cases by (benign / malignant), and drawing both classes equally often, both act as
    if the odds of malignancy were 1. Source: Saerens et al., 2002.
    """
    if class_balance == "none":
        return 0.0
    positives = float(labels.sum())
    return math.log((len(labels) - positives) / positives)


class ClippedByNorm(pl.LightningModule):
    """A module whose gradients are clipped by their norm over all parameters."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip; Lightning's own refuses a fused optimiser, which only fp16 must not have."""
        if gradient_clip_val:
            clip_grad_norm_(self.parameters(), gradient_clip_val)


class Classifier(ClippedByNorm):
    """Trains a network with a logit for each of F findings, each with an independent sigmoid.

    Args:
        network: images (B, 1, R, A[, S]) → (B, F + K), the logits and K auxiliary values.
        config: optimiser and schedule.
        findings: F.
        steps: optimiser steps of the whole training.
        positive_weight: of a malignant case in the loss.
        training_forward: function by which training calls the network; the network itself by default.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Training,
        *,
        steps: int,
        findings: int = 1,
        positive_weight: float = 1.0,
        training_forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.findings = network, findings
        # Not a second attribute of the network, whose weights would then have two names.
        self._training_forward = None if isinstance(training_forward, nn.Module) else training_forward
        self._config, self._steps = config, steps
        self.register_buffer("positive_weight", torch.tensor(positive_weight), persistent=False)
        self._validation: list[tuple[Tensor, Tensor]] = []

    def train(self, mode: bool = True) -> Self:  # torch's signature
        """Training or evaluation mode; frozen batch normalisations keep their loaded statistics."""
        super().train(mode)
        keep_frozen_statistics(self.network)
        return self

    def on_train_epoch_start(self) -> None:
        """Set training mode, with frozen batch normalisations in evaluation mode."""
        keep_frozen_statistics(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, F)."""
        logits: Tensor = self.network(images)[:, : self.findings]  # (B, F + K) -> (B, F)
        return logits

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch: of the logits and of the auxiliary columns; unknown values are left out."""
        targets, auxiliary = batch.targets, batch.auxiliary
        outputs = (self._training_forward or self.network)(batch.images)  # (B, F + K)
        loss = _log_loss(outputs[:, : self.findings], targets, self.positive_weight)
        if self._config.auxiliary and bool((known := auxiliary.isfinite()).any()):
            loss = loss + self._config.auxiliary.weight * mse_loss(outputs[:, self.findings :][known], auxiliary[known])
        self.log(
            "train_loss", loss, on_epoch=True, on_step=False, batch_size=len(targets), prog_bar=True, sync_dist=True
        )
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the gradient norm of the first layer, before clipping: it vanishes when units saturate."""
        gradient = next(self.network.parameters()).grad
        if gradient is not None:
            self.log("first_layer_gradient", gradient.norm(), on_epoch=True, on_step=False)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect logits; the epoch's metrics need all of them."""
        self._validation.append((self(batch.images).float().cpu(), batch.labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        """Unweighted log loss of all known labels, and mean AUROC over findings, of the validation split."""
        everyone = [output for part in processes().gather(self._validation) for output in part]
        logits, labels = (torch.cat(parts) for parts in zip(*everyone, strict=True))
        self._validation = []
        if not bool(torch.isfinite(logits).all()):
            raise UnfinishedError("the network gives logits that are not finite; lower training.learning_rate")
        values = {
            "validation_log_loss": float(_log_loss(logits, labels)),
            "validation_auroc": _mean_auroc(labels, logits),
        }
        self.log_dict(values, prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, with the configured schedule stepped after every batch."""
        config = self._config
        named = dict(self.network.named_parameters())
        rates = learning_rates(self.network, config.learning_rate, config.layer_decay)
        same = config.layer_decay == 1  # as one group, so that earlier trainings are repeated to the bit
        optimizer = AdamW(
            [weight for weight in self.parameters() if weight.requires_grad]
            if same
            else [{"params": [named[name] for name in names], "lr": rate} for names, rate in rates],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            # A third of the unfused time; with fp16 it would unscale the gradients after they were clipped.
            fused=config.precision != "16-mixed",
        )
        largest = config.learning_rate if same else [rate for _, rate in rates]
        schedule = _schedule(optimizer, config, self._steps, largest)
        if schedule is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _log_loss(logits: Tensor, targets: Tensor, positive_weight: Tensor | None = None) -> Tensor:
    """Mean over the labels of (B, F) that are known, so that a missing one neither pulls nor counts; 0 of none."""
    known = targets.isfinite().to(logits.dtype)
    total = binary_cross_entropy_with_logits(
        logits, targets.nan_to_num(), weight=known, pos_weight=positive_weight, reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def _mean_auroc(labels: Tensor, logits: Tensor) -> float:
    known = labels.isfinite()
    areas = [
        roc_auc_score(column[at].numpy(), scores[at].numpy())
        for column, scores, at in zip(labels.T, logits.T, known.T, strict=True)
    ]
    return sum(map(float, areas)) / len(areas)


def _schedule(optimizer: Optimizer, config: Training, steps: int, largest: float | list[float]) -> LRScheduler | None:
    if config.schedule == "one_cycle":
        return OneCycleLR(optimizer, max_lr=largest, total_steps=steps)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return None
