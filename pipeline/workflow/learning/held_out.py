"""Logits of cases by networks that were not fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.cases.splits import AGREEMENT
from pipeline.config.experiment import Config
from pipeline.evaluation.arrays import FloatArray
from pipeline.models.networks import predict_logits
from pipeline.training.data import ImageRows
from pipeline.workflow.cohort import Cohort, Usable


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Logits of networks that were not fitted on the cases.

    Attributes:
        logits: (N, F), each usable case by the networks that left it out; NaN where none did.
        pairs: (M, 2, F), of cases that two of the model's networks (or folds) had left out, the logits of both.
        networks: number of networks that the model's logit is the mean of.
    """

    logits: FloatArray
    pairs: FloatArray
    networks: int


def held_out_logits(parts: Sequence[Cohort], networks: Sequence[nn.Module], config: Config) -> HeldOut:
    """Logits by a model's networks: of test cases their mean, as in scoring; of others by the one that left it out.

    Args:
        parts: the same cases as each network saw them.
        networks: one a part.
        config: the experiment.
    """
    usable = parts[0].usable
    logits = np.full((len(usable), len(config.data.findings)), np.nan)
    for part, network in zip(parts, networks, strict=True):
        rows = [index for index, case in enumerate(part.usable) if case.split not in ("train", "test", AGREEMENT)]
        logits[rows] = _predict([network], usable, rows, config)
    tested = _rows(usable, "test")
    logits[tested] = _predict(networks, usable, tested, config)
    again = [_again(part, [network], logits, config) for part, network in zip(parts, networks, strict=True)]
    return HeldOut(logits, np.concatenate(again), len(networks))


def out_of_fold_logits(parts: Sequence[Cohort], folds: Sequence[Sequence[nn.Module]], config: Config) -> HeldOut:
    """Mean logits by the networks of each fold, of its test cases and of the cases that were set aside for it.

    Args:
        parts: the same cases as the networks of each fold saw them.
        folds: the networks of each.
        config: the experiment.
    """
    usable = parts[0].usable
    logits = np.full((len(usable), len(config.data.findings)), np.nan)
    for part, networks in zip(parts, folds, strict=True):
        tested = _rows(part.usable, "test")
        logits[tested] = _predict(networks, usable, tested, config)
    again = [_again(part, networks, logits, config) for part, networks in zip(parts, folds, strict=True)]
    return HeldOut(logits, np.concatenate(again), len(folds))


def _again(part: Cohort, networks: Sequence[nn.Module], logits: FloatArray, config: Config) -> FloatArray:
    """Logits of set-aside cases by the networks that left them out and by these networks, (M, 2, F)."""
    rows = _rows(part.usable, AGREEMENT)
    return np.stack([logits[rows], _predict(networks, part.usable, rows, config)], axis=1)


def _rows(usable: Sequence[Usable], split: str) -> list[int]:
    return [index for index, prepared in enumerate(usable) if prepared.split == split]


def _predict(networks: Sequence[nn.Module], usable: Sequence[Usable], rows: list[int], config: Config) -> FloatArray:
    """The networks' mean logits (M, F) of some cases."""
    if not rows:
        return np.empty((0, len(config.data.findings)))
    size = config.training.batch_size
    images = ImageRows([usable[row].input.voxels for row in rows])
    batches = [images[places] for places in torch.split(torch.arange(len(rows)), size)]
    logits: FloatArray = np.stack(
        [
            np.concatenate([predict_logits(network, batch, batch_size=size).numpy() for batch in batches])
            for network in networks
        ]
    )
    return np.asarray(logits.mean(axis=0))
