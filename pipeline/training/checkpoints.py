"""Atomic checkpoints: the previous one is kept until the next is on disk."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from pipeline.config.experiment import Config
from pipeline.config.training import EarlyStopping
from pipeline.errors import UnfinishedError
from pipeline.files import atomic_write

BEST, LAST = "best.ckpt", "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the previous checkpoint, synchronises, and then replaces it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UnfinishedError: when it cannot be written; an earlier file at ``path`` is untouched.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError for a full disk
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            reason = str(cause).splitlines()[0]
            raise UnfinishedError(
                f"{path}: the checkpoint could not be written ({reason}); the previous one is kept: "
                "free space and continue with --resume"
            ) from error


def readable(path: Path) -> Path | None:
    """A checkpoint that training can go on from; None where there is none.

    Raises:
        UnfinishedError: when it is cut short or damaged.
    """
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="meta", weights_only=True, mmap=False)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UnfinishedError(
            f"{path}: {path.stat().st_size} bytes that are no whole checkpoint; restore the file, or move it away: "
            "with --resume this network then starts from its first epoch, and everything else that is finished is kept"
        ) from error
    return path


class _LastCheckpoint(ModelCheckpoint):
    """A name of its own, because Lightning distinguishes the states of callbacks by class and monitored metric."""


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Callback of the checkpoint that the next epoch starts from."""
    return _LastCheckpoint(
        folder, Path(LAST).stem, save_on_train_epoch_end=True, every_n_epochs=1, enable_version_counter=False
    )


def checkpoints(config: Config, folder: Path) -> list[ModelCheckpoint]:
    """Checkpoint callbacks: first the one whose weights are used (under early stopping the best), then ``last``."""
    last = last_checkpoint(folder)
    if not config.training.early_stopping:
        return [last]
    monitor, mode = monitored(config.training.early_stopping)
    return [ModelCheckpoint(folder, Path(BEST).stem, monitor=monitor, mode=mode, enable_version_counter=False), last]


def monitored(stop: EarlyStopping) -> tuple[str, str]:
    """The metric that chooses the epoch, and whether ``"max"`` or ``"min"`` of it is best."""
    return f"validation_{stop.monitor}", "max" if stop.monitor == "auroc" else "min"
