"""From training scans to the weights that do best on the validation scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

from pipeline.config.detection import DetectionConfig
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.detector import Detector
from pipeline.training.callbacks import Report
from pipeline.training.checkpoints import BEST, LAST, last_checkpoint, readable
from pipeline.training.detection.mining import mine
from pipeline.training.detection.module import DetectorTraining
from pipeline.training.detection.patches import HardNegative, PatchSampler
from pipeline.training.detection.scans import TrainingScan
from pipeline.training.fit import load_best, quiet_lightning, trainer_settings
from pipeline.training.interruption import keyboard_interrupts
from pipeline.training.progress import EpochProgress, NetworkPlace
from pipeline.training.tracker import Tracker

MONITORED = "validation_cpm"
_MOST_HARD = 2000  # kept; the latest of each scan
Judge = Callable[[Detector], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class FittedDetector:
    """What training found.

    Attributes:
        network: with the weights of the best epoch, on the CPU, in evaluation mode.
        best_epoch: counted from 1.
        epochs: how many were run.
        validation: what was measured at the best epoch.
    """

    network: Detector
    best_epoch: int
    epochs: int
    validation: Mapping[str, float]


def fit_detector(
    scans: Sequence[TrainingScan], config: DetectionConfig, *, judge: Judge, folder: Path, tracker: Tracker
) -> FittedDetector:
    """Train a detector; deterministic for a configuration on one kind of processor and number of threads.

    Args:
        scans: of the training split.
        config: the experiment.
        judge: measures a detector on the validation scans; ``validation_cpm`` chooses the epoch.
        folder: gets ``last.ckpt`` and ``best.ckpt``; from a ``last.ckpt`` that it holds the training goes on.
        tracker: is told each epoch's numbers.

    Raises:
        UnfinishedError: when a loss is not finite or a checkpoint cannot be written.
        KeyboardInterrupt: on Ctrl-C, after ``last.ckpt`` of the last whole epoch is on disk.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    settings, classes = config.training, len(config.classes)
    network = Detector(config.network, classes=classes)
    to_fast_layout(network)
    sampler = PatchSampler(scans, config.grid, settings, classes=classes, seed=config.seed)
    module = DetectorTraining(network, settings, sampler)
    best = ModelCheckpoint(
        folder,
        Path(BEST).stem,
        monitor=MONITORED,
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    told = {"train_loss": "loss", MONITORED: "validation CPM"}
    callbacks = [
        _Mining(sampler, config),
        _Judging(judge),
        Report(tracker),
        EpochProgress(NetworkPlace(), told),
        best,
        last_checkpoint(folder),
    ]
    with quiet_lightning():
        trainer = _trainer(config, folder, callbacks)
        with keyboard_interrupts(trainer):
            loader: DataLoader[int] = DataLoader(list(range(settings.steps_per_epoch)), batch_size=None)  # type: ignore[arg-type]
            trainer.fit(module, loader, ckpt_path=readable(folder / LAST), weights_only=True)
    return _load_best(module, best, epochs=trainer.current_epoch)


class _Mining(Callback):
    """After each epoch but the last, searches some training scans for false positives; kept in the checkpoint."""

    def __init__(self, sampler: PatchSampler, config: DetectionConfig) -> None:
        self._sampler, self._config = sampler, config

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        config, scans, epoch = self._config, self._sampler.scans, trainer.current_epoch
        count = min(config.training.mined_scans, len(scans))
        if not count or not config.training.hard_share or epoch + 1 == config.training.max_epochs:
            return
        # In turn, from a random order: each scan is searched before any is searched again.
        order = np.random.default_rng(config.seed).permutation(len(scans))
        chosen = [int(number) for number in np.resize(np.roll(order, -epoch * count), count)]
        with _evaluating(pl_module) as network:
            mined = mine(network, scans, chosen, config)
        kept = [negative for negative in self._sampler.hard if negative.scan not in chosen]
        self._sampler.hard = (kept + mined)[-_MOST_HARD:]
        pl_module.log("hard_negatives", float(len(self._sampler.hard)))

    def state_dict(self) -> dict[str, Any]:
        """What has been mined, for the checkpoint."""
        hard = self._sampler.hard
        return {"hard": [(negative.scan, negative.voxel.tolist(), negative.probability) for negative in hard]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._sampler.hard = [
            HardNegative(scan, np.array(voxel), probability) for scan, voxel, probability in state_dict["hard"]
        ]


class _Judging(Callback):
    """Measures the detector on the validation scans after each epoch."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with _evaluating(pl_module) as network:
            pl_module.log_dict(dict(self._judge(network)))


class _evaluating:  # noqa: N801  # a context manager, used as a function
    """The network in evaluation mode, put back afterwards."""

    def __init__(self, module: pl.LightningModule) -> None:
        assert isinstance(module, DetectorTraining)
        self._network = module.network

    def __enter__(self) -> Detector:
        return self._network.eval()

    def __exit__(self, *_: object) -> None:
        self._network.train()


def _trainer(config: DetectionConfig, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    settings = config.training
    return pl.Trainer(
        devices=1,
        max_epochs=settings.max_epochs,
        callbacks=callbacks,
        **trainer_settings(settings, folder),
        deterministic="warn",
    )


def _load_best(module: DetectorTraining, best: ModelCheckpoint, *, epochs: int) -> FittedDetector:
    best_epoch = load_best(module, best)
    validation = {} if best.best_model_score is None else {MONITORED: float(best.best_model_score)}
    return FittedDetector(module.network.eval(), best_epoch, epochs, validation)
