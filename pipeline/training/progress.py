"""Progress of a training: each epoch's loss, AUROC and the time left, for this network and the later ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from pipeline.progress import ProgressReport

_TITLES = {"train_loss": "loss", "validation_auroc": "validation AUROC"}
EVERY_SECONDS = 2.0  # between lines of a log, because with few cases an epoch takes a tenth of a second


@dataclass(frozen=True)
class NetworkPlace:
    """Which of a training's networks is being fitted.

    Attributes:
        number: from 1.
        total: of members and folds together.
    """

    number: int = 1
    total: int = 1

    def __str__(self) -> str:
        return "training, epoch" if self.total == 1 else f"network {self.number} of {self.total}, epoch"


class EpochProgress(Callback):
    """Shows each epoch: a bar on a terminal; elsewhere a line an epoch, but at most one every two seconds.

    Args:
        place: among the training's networks.
        titles: of the logged numbers that are shown, by their names.
    """

    def __init__(self, place: NetworkPlace, titles: Mapping[str, str] = _TITLES) -> None:
        self._place, self._titles = place, titles
        self._report: ProgressReport | None = None
        self._started, self._first = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._first = time.monotonic(), trainer.current_epoch
        self._report = ProgressReport(
            str(self._place), total=trainer.max_epochs, done=self._first, every_seconds=EVERY_SECONDS
        )
        self._report.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch."""
        assert self._report is not None
        epochs, done = trainer.max_epochs or 0, trainer.current_epoch + 1
        an_epoch = (time.monotonic() - self._started) / (done - self._first)
        left = an_epoch * (epochs - done + (self._place.total - self._place.number) * epochs)
        known = {
            title: float(trainer.callback_metrics[name])
            for name, title in self._titles.items()
            if name in trainer.callback_metrics
        }
        note = ", ".join(f"{title} {value:.3f}" for title, value in known.items())
        self._report.advance(note, seconds_left=left, last=done == epochs)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the bar, however the training ended."""
        if self._report is not None:
            self._report.__exit__(None, None, None)
            self._report = None


class History(Callback):
    """Each epoch's numbers, for the learning curve; kept in the checkpoint, so that a resumed training has them all.

    Attributes:
        epochs: numbers by name, an epoch each.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the logged numbers."""
        names = ("train_loss", "validation_log_loss", "validation_auroc")
        self.epochs.append(
            {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
        )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.epochs = list(state_dict["epochs"])
