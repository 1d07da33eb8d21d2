"""Train a model from prepared splits: read, fit, calibrate, judge, save, track, register."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.splits import JOINED_SPLITS
from pipeline.config.experiment import Config
from pipeline.config.inputs import SPLITS
from pipeline.console import one_line
from pipeline.errors import CaseError, UnfinishedError
from pipeline.evaluation.results import Evaluation
from pipeline.files import write_text
from pipeline.redaction import map_texts, redact
from pipeline.tracking.faults import StoreError
from pipeline.tracking.runs import open_run
from pipeline.tracking.system_metrics import system_metrics
from pipeline.training.checkpoints import LAST
from pipeline.training.initial_weights import initial_weights
from pipeline.training.processes import Processes, join
from pipeline.training.tracker import NullTracker
from pipeline.workflow.cohort import Cohort, prepare_cohort, require_classes_in_splits
from pipeline.workflow.judging.regressions import require_regressions
from pipeline.workflow.learning.experiment import Experiment
from pipeline.workflow.learning.finish import finish
from pipeline.workflow.learning.folds import around_fold, fold_names, fold_parts, learn_folds
from pipeline.workflow.learning.learn import case_tensors, fit_members, learn, member_parts
from pipeline.workflow.learning.record import record_model, record_start
from pipeline.workflow.learning.run_folder import SUMMARY, RunRecord, find_run, new_folder
from pipeline.workflow.learning.seen_patients import require_unseen
from pipeline.workflow.reporting.training_summary import training_summary


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """Result of a training.

    Attributes:
        folder: of the run: ``model``, ``predictions.parquet``, ``evaluation.json``, ``report.html``, ``summary.txt``.
        model_uri: MLflow URI of the model: a registered version, or the run's.
        evaluation: of the label, on the test split or out of fold.
        rejected: cases that could not be read, with the reason.
        is_calibrated: whether a calibrator could be fitted; without one the model is not registered.
        summary: what the command prints.
    """

    folder: Path
    model_uri: str
    evaluation: Evaluation
    rejected: tuple[tuple[Case, CaseError], ...]
    is_calibrated: bool
    summary: str

    @property
    def report(self) -> Path:
        """The page about the model."""
        return self.folder / "report.html"


def run_training(experiment: Experiment, *, resume: str | None = None, profile: bool = False) -> TrainingResult | None:
    """Run a training.

    Args:
        experiment: configuration, table and splits.
        resume: folder or MLflow id of a run that was killed; it continues to the same result, with at most one epoch
            trained again. None starts a new run.
        profile: print and track where the time of the training goes.

    Returns:
        What came of it; None in the processes of a distributed training that only take part in its steps.
    """
    config, manifest = experiment.config, experiment.manifest
    group = join(config.training)
    if group.rank > 0:
        _follow(experiment, group)
        return None
    weights = initial_weights(config)
    if weights:
        require_unseen(experiment)
        print(*weights.lines(), sep="\n", flush=True)
    started = datetime.now(UTC)
    name = _run_name(experiment, started)
    # How many networks are fitted at a time may change when a training goes on.
    settings = config.model_dump(mode="json", exclude={"training": {"networks_at_once"}})
    shown = map_texts(settings, redact) | ({"the weights' digest": weights.sha256} if weights else {})
    record = RunRecord(None, name, shown, manifest.digest)
    if resume:
        folder, record = find_run(resume, config, record)
    else:
        folder = new_folder(config, started)
    with (
        saying_what_is_kept(folder),
        open_run(config.tracking, name=record.name, tags=_tags(config), resume=record.run_id) as run,
        system_metrics(run),
    ):
        replace(record, run_id=run.run_id).write(folder)
        record_start(run, config)
        cohort = _read_cases(experiment)
        _require_learnable(cohort, experiment)
        group.from_first(folder)
        checkpoints = folder / "checkpoints"
        if experiment.folds:
            fitted, judgement = learn_folds(
                cohort, config, checkpoints, run, name=record.name, tags=_tags(config), profile=profile
            )
        else:
            fitted, judgement = learn(cohort, config, checkpoints, run, profile=profile)
        trained = finish(folder, experiment, cohort, fitted, judgement, run=run, weights=weights)
        version = record_model(run, trained)
    summary = training_summary(trained, version)
    write_text(folder / SUMMARY, summary + "\n")
    return TrainingResult(
        folder=folder,
        model_uri=version.uri if version else f"runs:/{run.run_id}/model",
        evaluation=judgement.evaluation,
        rejected=cohort.rejected,
        is_calibrated=judgement.is_calibrated,
        summary=summary,
    )


@contextmanager
def saying_what_is_kept(folder: Path) -> Iterator[None]:
    """Add to an error of the store or a full disk what is kept and how to continue."""
    try:
        yield
    except StoreError as error:
        raise UnfinishedError(f"{error}{_kept(folder)}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename2 or error.filename or f"{folder} or the tracking store"
        raise UnfinishedError(f"{place}: the disk is full; free some space{_kept(folder)}") from error


def _kept(folder: Path) -> str:
    if (folder / "model").is_dir():  # saved in one step, when everything is learnt and judged
        return f"; the trained model is whole in {folder / 'model'}, and --resume {folder} records it"
    return f"; then --resume {folder} goes on" if any(folder.glob(f"checkpoints/**/{LAST}")) else ""


def _follow(experiment: Experiment, group: Processes) -> None:
    """Take part in the steps of a training as one of its other processes, without any output."""
    folder = group.from_first(Path()) / "checkpoints"  # sent when the first process has read and cached every scan
    cohort = prepare_cohort(experiment.manifest, experiment.splits.of, experiment.config)
    for fold, parts in _network_parts(cohort, experiment).items():
        fit_members(parts, experiment.config, folder / fold, NullTracker())


def _parts(cohort: Cohort, experiment: Experiment) -> dict[str, Cohort]:
    """The cohort as each fold splits it; without folds itself, under no name."""
    if not experiment.folds:
        return {"": cohort}
    return {fold: around_fold(cohort, fold, experiment.config) for fold in fold_names(cohort)}


def _network_parts(cohort: Cohort, experiment: Experiment) -> dict[str, list[Cohort]]:
    """The cohort as each network of each fold sees it; without folds itself, under no name."""
    config = experiment.config
    if not experiment.folds:
        return {"": member_parts(cohort, config)}
    return {fold: fold_parts(cohort, fold, config) for fold in fold_names(cohort)}


def _read_cases(experiment: Experiment) -> Cohort:
    """Read every labelled case, print the rejected ones, and refuse a split without a class."""
    config, manifest = experiment.config, experiment.manifest
    cohort = prepare_cohort(manifest, experiment.splits.of, config)
    for case, error in cohort.rejected:
        print(one_line(f"rejected {case.case_id}: {error.code}: {error.reason}"), file=sys.stderr)
    splits: tuple[str, ...] = SPLITS
    if config.training.member_count > 1 or experiment.folds:
        splits = ("train", "validation", "test") if config.training.early_stopping else JOINED_SPLITS
    parts = _parts(cohort, experiment).values() if cohort.usable else [cohort]
    for part in parts:
        require_classes_in_splits(part, manifest, config.data.findings, splits=splits)
    return cohort


def _require_learnable(cohort: Cohort, experiment: Experiment) -> None:
    """Check, before the first epoch, targets and regressions that would stop a later fold or the evaluation."""
    config = experiment.config
    for parts in _network_parts(cohort, experiment).values():
        for part in parts:
            case_tensors(part, "train", config)
    for part in _parts(cohort, experiment).values():
        require_regressions(part.usable, config)


def _run_name(experiment: Experiment, started: datetime) -> str:
    config = experiment.config
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    folds = f", {experiment.folds} folds" if experiment.folds else ""
    return f"{config.name} {started:%Y-%m-%d %H:%M}{folds}{simulated}"


def _tags(config: Config) -> dict[str, str]:
    return {
        "label_source": config.data.label_source,
        "intensities": config.data.intensities,
        "modality": config.data.modality,
        "network": config.network.name,
        "calibration": config.calibration.method,
        "kind": "training",
    }
