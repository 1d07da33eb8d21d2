"""``malignancy pretrain``: weights that a training can start from, learnt from readings instead of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.workflow.learning.experiment import read_experiment

if TYPE_CHECKING:
    from pipeline.workflow.learning.pretraining import PretrainingResult


def pretrain(
    config_path: Path, overrides: Sequence[str] = (), *, out: Path, folds: int | None = None
) -> PretrainingResult:
    """Learn the columns of ``training.auxiliary`` from cases that the training will neither calibrate nor judge on.

    Args:
        config_path: the experiment, as it will be trained.
        overrides: ``section.key=value``.
        out: file of weights to write.
        folds: of the training, which leave out every labelled patient; None does as ``training.folds`` says.
    """
    experiment = read_experiment(config_path, overrides, folds=folds)
    from pipeline.workflow.learning.pretraining import run_pretraining

    return run_pretraining(experiment, out)
