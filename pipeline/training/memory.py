"""Find a batch size that fits the device's memory, for the error when a batch does not."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import AdamW

from pipeline.config.experiment import Config
from pipeline.errors import UnfinishedError
from pipeline.imaging.augmentation import build_augmentation
from pipeline.imaging.batch_augmentation import BatchAugmentation
from pipeline.training.data import CaseBatches, CaseTensors
from pipeline.training.precision import precision_of
from pipeline.training.processes import processes, uses_gpu

_SMALLEST = 2  # batch normalisation cannot use one case
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def out_of_memory(network: nn.Module, cases: CaseTensors, config: Config) -> UnfinishedError:
    """The error of a training whose batch does not fit, with a batch size that does.

    Args:
        network: of the training that has ended; it is used up in trying.
        cases: of the training.
        config: the experiment.
    """
    settings = config.training
    reason = f"training.batch_size: {settings.batch_size} cases do not fit the device's memory"
    remedy = (
        "the checkpoint of the last whole epoch is kept: if another program holds the memory, continue with --resume"
    )
    if processes().count > 1:  # the other processes wait for batch statistics, so no trial is possible
        return UnfinishedError(f"{reason}; start again with fewer, or {remedy}")
    fits = largest_fitting(lambda size: _try_step(network, cases, config, size), below=settings.batch_size)
    if fits is None:
        return UnfinishedError(
            f"{reason}, nor do {_SMALLEST}; choose a smaller network or preprocessing.size, or precision auto; {remedy}"
        )
    batches = math.ceil(settings.batch_size * settings.accumulate_batches / fits)
    return UnfinishedError(
        f"{reason}, {fits} do: start again with training.batch_size={fits} training.accumulate_batches={batches} "
        f"(as many cases a step); {remedy}"
    )


def largest_fitting(step: Callable[[int], None], *, below: int) -> int | None:
    """The first of a half, a quarter, an eighth … of a batch size with which a step fits the memory.

    Args:
        step: is given a batch size.
        below: a batch size that does not fit.

    Returns:
        None when not even two cases fit.
    """
    size = below // 2
    while size >= _SMALLEST:
        release_memory()
        if _fits(step, size):
            return size
        size //= 2
    return None


def release_memory() -> None:
    """Free memory that is no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fits(step: Callable[[int], None], size: int) -> bool:
    try:
        step(size)
    except torch.OutOfMemoryError:
        return False
    return True


def _try_step(network: nn.Module, cases: CaseTensors, config: Config, size: int) -> None:
    """One step as training makes it: augmentation, forward, backward and the optimiser's moments."""
    device = torch.device("cuda" if uses_gpu(config.training) else "cpu")
    network.to(device).train()
    places = [place % len(cases) for place in range(size)]
    images = CaseBatches(cases)[places].images.to(device)
    composed = build_augmentation(config.augmentation, dimensions=config.preprocessing.dimensions)
    images = BatchAugmentation(composed, seed=0)(images, epoch=0, cases=places)
    lower = _AUTOCAST.get(precision_of(config.training))
    with torch.autocast(device.type, dtype=lower, enabled=lower is not None):
        total = network(images).float().sum()
    total.backward()
    AdamW(network.parameters(), lr=0.0, weight_decay=0.0).step()
    network.zero_grad()
