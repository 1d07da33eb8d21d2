"""Train a network on prepared cases, and load the best weights on the validation split."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import nn

from pipeline.config.detection import DetectionTraining
from pipeline.config.experiment import Config
from pipeline.config.training import Training
from pipeline.errors import UnfinishedError
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network, keep_outputs
from pipeline.training.batch_norm import estimate_batch_norm
from pipeline.training.callbacks import Report, ResumedStop, StepSeeds, TerminateOnNonFiniteLoss
from pipeline.training.checkpoints import LAST, AtomicCheckpointIO, checkpoints, monitored, readable
from pipeline.training.data import CasesDataModule, CaseTensors
from pipeline.training.gpu import set_tf32, training_forward
from pipeline.training.initial_weights import start_from_weights
from pipeline.training.interruption import keyboard_interrupts
from pipeline.training.memory import out_of_memory
from pipeline.training.module import Classifier, prior_offset
from pipeline.training.precision import precision_of
from pipeline.training.processes import processes, share_batch_norm, uses_gpu
from pipeline.training.progress import EpochProgress, History, NetworkPlace
from pipeline.training.shared_memory import OUT_OF_IT
from pipeline.training.timing import Pace, TimeShares, report_shares
from pipeline.training.tracker import Tracker


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result of a training.

    Attributes:
        network: with the weights of the best epoch, on the CPU, in evaluation mode.
        best_epoch: counted from 1.
        epochs: how many were run.
        validation: metrics of the best epoch; empty without a validation split.
        prior_offset: offset of the logit by class balancing; 0 without it.
        history: numbers of each epoch: ``train_loss``, and with a validation split ``validation_log_loss``
            and ``validation_auroc``.
    """

    network: nn.Module
    best_epoch: int
    epochs: int
    validation: Mapping[str, float]
    prior_offset: float
    history: tuple[Mapping[str, float], ...] = ()


def fit(
    train: CaseTensors,
    validation: CaseTensors | None,
    config: Config,
    *,
    folder: Path,
    tracker: Tracker,
    place: NetworkPlace | None = None,
    profile: bool = False,
) -> Fitted:
    """Train a network; deterministic for a configuration on one kind of processor.

    Args:
        train: fits the weights.
        validation: stops training and chooses the epoch; never seen by the optimiser. None only without early
            stopping.
        config: the experiment.
        folder: gets ``last.ckpt``, and under early stopping ``best.ckpt``. A ``last.ckpt`` in it is resumed, to the
            weights that the training would have reached without the interruption (the same to the bit, on one kind of
            CPU).
        tracker: receives each epoch's metrics.
        place: among the networks of the training, to print each epoch on stderr; None prints nothing.
        profile: print and track where the time goes.

    Raises:
        UnfinishedError: when a loss or logit is not finite, a checkpoint cannot be written, a loader process dies, or
            the device's memory does not hold a batch.
        KeyboardInterrupt: on Ctrl-C, after ``last.ckpt`` of the last whole epoch is on disk.
    """
    _seed(config)
    settings = config.training
    data = CasesDataModule(train, validation, config)
    offset = prior_offset(train.labels[:, 0], settings.class_balance)
    network = _untrained_network(train, config)
    steps_an_epoch = math.ceil(len(data.batches) / settings.accumulate_batches)
    epochs = planned_epochs(steps_an_epoch, settings)
    module = Classifier(
        network,
        settings,
        findings=train.labels.shape[1],
        steps=epochs * steps_an_epoch,
        positive_weight=math.exp(offset) if settings.class_balance == "weighted_loss" else 1.0,
        training_forward=training_forward(network, settings),
    )
    best, *others = checkpoints(config, folder)
    shares = TimeShares(exact=profile)
    history = History()
    progress = [EpochProgress(place)] if place and processes().rank == 0 else []
    callbacks = [*_callbacks(train, config), Pace(shares), Report(tracker), history, *progress, best, *others]
    with quiet_lightning():
        trainer = _trainer(config, folder, callbacks, shares, epochs=epochs)
        if not _run(trainer, module, data, readable(folder / LAST)):
            raise out_of_memory(module.network, train, config)
    if profile:
        report_shares(shares.shares(), tracker, step=trainer.current_epoch)
    fitted = _load_best(module, best, trainer, offset=offset)
    if settings.precise_batch_norm:
        estimate_batch_norm(fitted.network, train, batch_size=settings.batch_size, seed=config.seed)
    return replace(fitted, history=tuple(history.epochs))


def _seed(config: Config) -> None:
    """Seed every generator, and set what else decides whether a training can be repeated."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if uses_gpu(config.training):
        set_tf32(allowed=config.training.gpu.tf32)
    # Filling each new tensor helps to find reads of uninitialised memory, and costs every step some time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _untrained_network(train: CaseTensors, config: Config) -> nn.Module:
    """The network with its initial weights, in the memory layout that is fast where it is trained."""
    settings = config.training
    outputs = train.labels.shape[1] + train.auxiliary.shape[1]
    network = build_network(config.network, dimensions=config.preprocessing.dimensions, outputs=outputs)
    start_from_weights(network, config)
    to_fast_layout(network, channels_last=settings.gpu.channels_last or not uses_gpu(settings))
    return share_batch_norm(network, on_gpu=uses_gpu(settings)) if processes().count > 1 else network


def planned_epochs(steps_an_epoch: int, settings: Training) -> int:
    """How many epochs a training has unless it stops early: more than ``max_epochs`` where those are few steps."""
    return max(settings.max_epochs, math.ceil(settings.min_steps / steps_an_epoch))


def _run(trainer: pl.Trainer, module: Classifier, data: CasesDataModule, last: Path | None) -> bool:
    """Fit.

    Returns:
        False when the device's memory was too small; the exception is dropped, since it references the tensors.
    """
    try:
        with keyboard_interrupts(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except torch.OutOfMemoryError:
        return False
    except (RuntimeError, ConnectionError, EOFError) as error:  # which one depends on the moment of the death
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        if fault := data.shared_memory_fault() or (OUT_OF_IT if "shared memory" in str(error) else None):
            raise UnfinishedError(f"a loader process died: {fault}; then continue with --resume") from error
        raise UnfinishedError(
            f"a loader process died ({str(error).splitlines()[0]}) while these cases were read: "
            f"{', '.join(data.being_read()) or 'none'}; look at them and continue with --resume"
        ) from error
    return True


def _callbacks(train: CaseTensors, config: Config) -> list[Callback]:
    settings = config.training
    callbacks: list[Callback] = [
        StepSeeds(config.seed),
        TerminateOnNonFiniteLoss(train.case_ids),
        ResumedStop(),
    ]
    if settings.early_stopping:
        monitor, mode = monitored(settings.early_stopping)
        patience = settings.early_stopping.patience
        callbacks.insert(0, EarlyStopping(monitor=monitor, mode=mode, patience=patience, check_finite=True))
    if settings.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    return callbacks


def _trainer(config: Config, folder: Path, callbacks: list[Callback], shares: TimeShares, *, epochs: int) -> pl.Trainer:
    settings = config.training
    return pl.Trainer(
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy="ddp" if settings.devices * settings.num_nodes > 1 else "auto",
        use_distributed_sampler=False,  # batches are divided where they are drawn
        accumulate_grad_batches=settings.accumulate_batches,
        profiler=shares,
        max_epochs=epochs,
        callbacks=callbacks,
        **trainer_settings(settings, folder),
        deterministic="warn" if settings.gpu.deterministic or not uses_gpu(settings) else False,
        benchmark=(uses_gpu(settings) and not settings.gpu.deterministic) or None,
    )


def trainer_settings(settings: Training | DetectionTraining, folder: Path) -> dict[str, Any]:
    """Arguments of Lightning's trainer for every training: our checkpoints, and no output of its own."""
    return {
        "accelerator": settings.accelerator,
        "precision": precision_of(settings),
        "gradient_clip_val": settings.gradient_clip or None,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }


def load_best(module: pl.LightningModule, best: ModelCheckpoint) -> int:
    """Load the weights of the best epoch, on the CPU.

    Returns:
        The epoch, counted from 1.

    Raises:
        UnfinishedError: when they are not there.
    """
    if readable(Path(best.best_model_path)) is None:
        raise UnfinishedError(f"{best.best_model_path}: is missing; restore it, or start the training again")
    checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.cpu().load_state_dict(checkpoint["state_dict"])
    return int(checkpoint["epoch"]) + 1


def _load_best(module: Classifier, best: ModelCheckpoint, trainer: pl.Trainer, *, offset: float) -> Fitted:
    best_epoch = load_best(module, best)
    keep_outputs(module.network, module.findings)
    if best.monitor is not None and best.best_model_score is not None:
        validation = {best.monitor: float(best.best_model_score)}
    else:
        validation = {key: float(value) for key, value in trainer.callback_metrics.items() if "validation" in key}
    return Fitted(
        network=module.network.eval(),
        best_epoch=best_epoch,
        epochs=trainer.current_epoch,
        validation=validation,
        prior_offset=offset,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's hints about loaders and hardware, which are of no use to this project's users."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
