"""Lightning callbacks: seeds of each step, reports, and stopping on losses that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from pipeline.errors import UnfinishedError
from pipeline.training.data import Batch
from pipeline.training.tracker import Tracker

_NAMED = 10  # cases that an error names


class StepSeeds(Callback):
    """Draws of a step (dropout) depend on (seed, process, epoch, batch) alone.

    So a resumed training does not need the random state of the earlier one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch, on every device."""
        place = (self._seed, trainer.global_rank, trainer.current_epoch, batch_idx)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))


class TerminateOnNonFiniteLoss(Callback):
    """Ends the training before a loss that is not finite reaches the weights.

    Args:
        case_ids: of the training cases, to name those of the batch.
    """

    def __init__(self, case_ids: Sequence[str]) -> None:
        self._case_ids = case_ids
        self._batch: tuple[Batch, int] | None = None
        self._copied: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remember which cases are about to be seen."""
        self._batch = batch, batch_idx

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Check the loss; a GPU's is copied, and checked after its backward pass has been started.

        Raises:
            UnfinishedError: when it is not finite, naming the cases.
        """
        if loss.is_cuda:
            copied = loss.detach().to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied = copied, event
        else:
            self._require_finite(trainer, loss)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check a GPU's loss, before the weights are changed.

        Raises:
            UnfinishedError: when it is not finite, naming the cases.
        """
        if self._copied is not None:
            loss, event = self._copied
            event.synchronize()
            self._copied = None
            self._require_finite(trainer, loss)

    def _require_finite(self, trainer: pl.Trainer, loss: torch.Tensor) -> None:
        if self._batch is None or bool(torch.isfinite(loss)):
            return
        batch, number = self._batch
        names = [self._case_ids[case] for case in batch.cases.tolist()]
        listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        raise UnfinishedError(
            f"the loss of epoch {trainer.current_epoch + 1}, batch {number + 1} is {loss.item()}; look at its cases "
            f"({listed}), or lower training.learning_rate; the weights before it are kept"
        )


class ResumedStop(Callback):
    """Does not start another epoch of a training that had decided to stop and was killed before it ended."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the decision of the checkpoint."""
        stopping = trainer.early_stopping_callback
        if isinstance(stopping, EarlyStopping) and stopping.stopped_epoch:
            trainer.should_stop = True


class Report(Callback):
    """Records each epoch's metrics in the tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record what was logged, and the learning rate, of the last layer where others learn slower."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        values["learning_rate"] = trainer.optimizers[0].param_groups[-1]["lr"]
        self._tracker.metrics(values, step=trainer.current_epoch + 1)
