"""Time of a training by activity, and an estimate of the time left."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler
from rich.table import Table

from pipeline.console import table_text
from pipeline.machine import peak_memory_megabytes
from pipeline.training.data import Batch
from pipeline.training.tracker import Tracker

_STARVED = 0.3  # share of loading and augmentation in the training steps from which a warning is printed
# Parts of Lightning's names of actions, in the order in which they are tried.
_PARTS = {
    "loading": ("train_dataloader_next", "train_next"),
    "augmentation": ("CasesDataModule.on_after_batch_transfer",),
    "forward": (".training_step",),
    "backward": (".backward",),
    "optimizer": ("run_training_batch", "optimizer_step", "WeightAveraging"),
    "validation": (".validation_step", "val_next"),
    "logging": ("[Callback]",),  # progress, tracking and checkpoints
}


class TimeShares(Profiler):
    """Adds up the time of Lightning's actions by purpose, each without the actions inside it.

    Args:
        exact: wait for a GPU before and after each action, which costs some of its speed; without it a GPU's work is
            counted where the processor next waits for it.
    """

    def __init__(self, *, exact: bool = False) -> None:
        super().__init__()
        self._exact = exact and torch.cuda.is_available()
        self._open: list[tuple[float, float]] = []  # begin, and seconds of the actions inside
        self._seconds = dict.fromkeys((*_PARTS, "rest"), 0.0)

    def start(self, action_name: str) -> None:
        """Called when Lightning begins an action."""
        self._wait()
        self._open.append((time.perf_counter(), 0.0))

    def stop(self, action_name: str) -> None:
        """Called when Lightning ends the action that it began last."""
        self._wait()
        begin, inside = self._open.pop()
        seconds = time.perf_counter() - begin
        if self._open:
            outer, before = self._open[-1]
            self._open[-1] = outer, before + seconds
        named = (part for part, names in _PARTS.items() if any(name in action_name for name in names))
        self._seconds[next(named, "rest")] += seconds - inside

    def shares(self) -> dict[str, float]:
        """Shares of the time of a training, which add up to 1; ``rest`` is all other actions."""
        total = sum(self._seconds.values()) or 1.0
        return {part: seconds / total for part, seconds in self._seconds.items()}

    def _wait(self) -> None:
        if self._exact:
            torch.cuda.synchronize()


class Pace(Callback):
    """Cases a second, memory and the time left, for the progress bar and the tracker; a warning when data are slow.

    Args:
        shares: the trainer's profiler.
    """

    def __init__(self, shares: TimeShares) -> None:
        self._shares = shares
        self._begun = 0.0
        self._first_epoch = 0
        self._seen, self._epoch_begun = 0, 0.0
        self._warned = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._begun, self._first_epoch = time.perf_counter(), trainer.current_epoch

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the epoch's clock: a resumed epoch has no other beginning."""
        if batch_idx == 0:
            self._seen, self._epoch_begun = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log the pace; the estimate of the time left counts all epochs up to the maximum."""
        now = time.perf_counter()
        self._seen += len(batch.cases) * trainer.world_size
        done = trainer.current_epoch - self._first_epoch + (batch_idx + 1) / trainer.num_training_batches
        left = (trainer.max_epochs or 0) - self._first_epoch - done
        pl_module.log_dict(
            {
                # On the CPU, because a copy to a GPU waits for the GPU's queue.
                "cases_per_second": torch.tensor(self._seen / (now - self._epoch_begun)),
                "minutes_left": torch.tensor((now - self._begun) / done * left / 60),
            },
            prog_bar=True,
            on_step=True,
            on_epoch=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log memory, and warn once of a device that waits for data."""
        memory = {"system/process_memory_megabytes": peak_memory_megabytes()}
        if torch.cuda.is_available():
            memory["system/gpu_memory_megabytes"] = torch.cuda.max_memory_allocated() / 2**20
        pl_module.log_dict(memory)
        shares = self._shares.shares()
        waiting = shares["loading"] + shares["augmentation"]
        steps = waiting + shares["forward"] + shares["backward"] + shares["optimizer"]
        if not self._warned and waiting > _STARVED * steps > 0:
            self._warned = True
            print(
                f"the data path takes {waiting / steps:.0%} of the training steps (loading "
                f"{shares['loading'] / steps:.0%}, augmentation {shares['augmentation'] / steps:.0%}): keep data.cache "
                "on a local disk, raise training.loader_workers, or drop augmentation that costs more than it gives",
                file=sys.stderr,
            )


def report_shares(shares: dict[str, float], tracker: Tracker, *, step: int) -> None:
    """Print the shares of the time, and record them in the tracker."""
    table = Table("part", "share of the time", title="where the time of the training went")
    for name, share in shares.items():
        table.add_row(name, f"{share:.1%}")
    print(table_text(table, width=80), file=sys.stderr)
    tracker.metrics({f"profile_{name}": share for name, share in shares.items()}, step=step)
