"""``malignancy train``: from a configuration to a calibrated, judged, tracked, registered model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.file import is_detection
from pipeline.errors import UsageError
from pipeline.workflow.learning.experiment import read_experiment

if TYPE_CHECKING:
    from pipeline.workflow.detection.train_detector import DetectorTrainingResult
    from pipeline.workflow.learning.run import TrainingResult


def train(
    config_path: Path,
    overrides: Sequence[str] = (),
    *,
    folds: int | None = None,
    resume: str | None = None,
    profile: bool = False,
) -> TrainingResult | DetectorTrainingResult | None:
    """Train as configured.

    The plan is made and printed from the table before torch is imported and a scan is read.

    Args:
        config_path: the experiment.
        overrides: ``section.key=value``.
        folds: train one network a fold, judge every case by the one that never saw its patient, and make one model of
            all of them; None does as ``training.folds`` says.
        resume: folder or MLflow id of a run that was killed. None starts a new run.
        profile: print and track where the time of the training goes.

    Returns:
        What came of it; None in the processes of a distributed training that only take part in its steps.
    """
    if is_detection(config_path, overrides):
        if folds is not None or profile:
            raise UsageError("--folds and --profile are not for task: detection; leave them out")
        return _train_detector(config_path, overrides, resume=resume)
    experiment = read_experiment(config_path, overrides, folds=folds)
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, only the first prints
        print("\n".join(experiment.describe()), flush=True)
    from pipeline.workflow.learning.run import run_training

    return run_training(experiment, resume=resume, profile=profile)


def _train_detector(config_path: Path, overrides: Sequence[str], *, resume: str | None) -> DetectorTrainingResult:
    from pipeline.workflow.detection.detection_experiment import read_detection_experiment

    experiment = read_detection_experiment(config_path, overrides)
    print("\n".join(experiment.describe()), flush=True)
    from pipeline.workflow.detection.train_detector import train_detector

    return train_detector(experiment, resume=resume)
