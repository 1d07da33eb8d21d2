"""``malignancy train``: from a configuration to a calibrated, judged, tracked, registered model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.workflow.experiment import read_experiment


def train(
    config_path: Path,
    overrides: Sequence[str] = (),
    *,
    folds: int | None = None,
    resume: str | None = None,
    profile: bool = False,
) -> int:
    """Train as configured and print what came of it; the last line is ``model: <URI>``.

    What the table can bear is judged and printed before torch is imported and a scan is read.

    Args:
        config_path: the experiment.
        overrides: ``section.key=value``.
        folds: train one network a fold, judge every case by the one that never saw its patient, and make one model of
            all of them; None does as ``training.folds`` says.
        resume: folder or MLflow id of a run that was killed. None starts a new run.
        profile: print and track where the time of the training goes.

    Returns:
        0, or 1 when cases were rejected or no calibrator could be fitted.
    """
    experiment = read_experiment(config_path, overrides, folds=folds)
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, the first one speaks
        print("\n".join(experiment.describe()), flush=True)
    from pipeline.workflow.training import run_training

    result = run_training(experiment, resume=resume, profile=profile)
    if result is None:
        return 0
    print(result.summary)
    print(f"model: {result.model_uri}")
    return int(bool(result.rejected) or not result.is_calibrated)
