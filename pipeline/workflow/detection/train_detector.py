"""Train a detector, from tables to a model: read, fit, calibrate, judge, save, track, register."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.config.detection import DetectionConfig
from pipeline.console import one_line
from pipeline.errors import CaseError, UsageError
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.calibration.fallback import CalibrationFit
from pipeline.evaluation.detection.evaluate_detection import DetectionEvaluation
from pipeline.files import sha256_json, write_csv, write_text
from pipeline.progress import ProgressReport
from pipeline.redaction import map_texts, redact
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.detector_directory import (
    LoadedDetector,
)
from pipeline.scoring.finding.finder import Finder
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.tracking.system_metrics import system_metrics
from pipeline.training.detection.fit import FittedDetector, fit_detector
from pipeline.workflow.detection.calibrate_detector import fit_calibrators, validation_judge
from pipeline.workflow.detection.candidate_pictures import GridScan, candidate_pictures
from pipeline.workflow.detection.detection_experiment import DetectionExperiment
from pipeline.workflow.detection.detection_files import DetectionSources, detection_text, write_detection
from pipeline.workflow.detection.judge_detector import JudgedScans, judge_searches
from pipeline.workflow.detection.record_detector import record_detector
from pipeline.workflow.detection.save_trained import as_found, save_trained
from pipeline.workflow.detection.search_scans import Searches, search_scans
from pipeline.workflow.detection.training_scans import ReadScans, read_scans
from pipeline.workflow.learning.provenance import origin
from pipeline.workflow.learning.record import record_start
from pipeline.workflow.learning.run import saying_what_is_kept
from pipeline.workflow.learning.run_folder import SUMMARY, RunRecord, find_run, new_folder


@dataclass(frozen=True, eq=False)
class DetectorTrainingResult:
    """Result of the training of a detector.

    Attributes:
        folder: of the run: ``model``, ``report.html``, ``evaluation.json``, ``candidates.parquet``, ``summary.txt``.
        model_uri: MLflow URI of the detector: a registered version, or the run's.
        evaluation: on the test split.
        rejected: scans that could not be searched, with the reason.
        is_calibrated: whether the probability of class ``nodule`` could be calibrated; else it is not registered.
        summary: what the command prints.
    """

    folder: Path
    model_uri: str
    evaluation: DetectionEvaluation
    rejected: tuple[tuple[Case, CaseError], ...]
    is_calibrated: bool
    summary: str

    @property
    def report(self) -> Path:
        """The page about the detector."""
        return self.folder / "report.html"


@dataclass(frozen=True, eq=False)
class _Learnt:
    """A fitted detector and what it was fitted on."""

    fitted: FittedDetector
    train: ReadScans
    validation: ReadScans


@dataclass(frozen=True, eq=False)
class _Searched:
    """Searches of a split's scans, and hex SHA-256 of their bytes by scan."""

    searches: Searches
    digests: Mapping[str, str]


def train_detector(experiment: DetectionExperiment, *, resume: str | None = None) -> DetectorTrainingResult:
    """Train a detector.

    Args:
        experiment: configuration, tables and splits.
        resume: folder or MLflow id of a run that was killed, which goes on from its last whole epoch.

    Raises:
        UsageError: when the scans that can be read leave a split without a lesion, or are smaller than a patch.
        UnfinishedError: when the training could not finish; what was learnt is kept.
    """
    config, started = experiment.config, datetime.now(UTC)
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    shown = map_texts(config.model_dump(mode="json"), redact)
    name = f"{config.name} {started:%Y-%m-%d %H:%M}{simulated}"
    tables = sha256_json([experiment.table.scans.digest, experiment.table.lesions.digest])
    record = RunRecord(None, name, shown, tables)
    folder, record = find_run(resume, config, record) if resume else (new_folder(config, started), record)
    with (
        saying_what_is_kept(folder),
        open_run(config.tracking, name=record.name, tags=_tags(config), resume=record.run_id) as run,
        system_metrics(run),
    ):
        replace(record, run_id=run.run_id).write(folder)
        record_start(run, config)
        return _train(experiment, folder, run)


def _train(experiment: DetectionExperiment, folder: Path, run: TrackedRun) -> DetectorTrainingResult:
    config = experiment.config
    learnt = _learn(experiment, folder, run)
    bare = as_found(folder, experiment, learnt.fitted, [Calibrator("none") for _ in config.classes])
    calibration = _search(bare, experiment, "calibration")
    fits = fit_calibrators(calibration.searches, experiment.table, config.classes)
    digests = {
        "train": learnt.train.digests,
        "validation": learnt.validation.digests,
        "calibration": tuple(calibration.digests.values()),
    }
    provenance = origin(config, experiment.splits, run.run_id, _table_digests(experiment, digests))
    provenance["calibration"] = {name: fit.to_json() for name, fit in zip(config.classes, fits, strict=True)}
    calibrators = [fit.calibrator for fit in fits]
    detector = save_trained(
        folder / "model",
        experiment,
        learnt.fitted,
        calibrators,
        digests,
        provenance,
        measures=learnt.train.measures,
    )
    test = _search(detector, experiment, "test")
    judged = judge_searches(test.searches, resamples=config.evaluation.resamples, seed=config.seed)
    sources = _sources(experiment, detector, judged, fits[0])
    if config.evaluation.pictures:
        finder = Finder(detector, root=experiment.table.root)
        sources = replace(sources, pictures=candidate_pictures(judged, lambda case: _grid_scan(finder, case)))
    write_detection(sources, folder)
    _write_splits(experiment, folder / "splits.csv")
    version = record_detector(run, config, detector, judged, folder, registered=fits[0].is_calibrated)
    parts = (learnt.train.rejected, learnt.validation.rejected, calibration.searches.rejected, test.searches.rejected)
    rejected = tuple(pair for part in parts for pair in part)
    lines = [
        *detection_text(sources),
        f"best epoch {learnt.fitted.best_epoch} of {learnt.fitted.epochs}, by CPM of the validation split",
        f"calibrator: {fits[0].describe()}",
        *([version.describe()] if version else []),
        f"{len(rejected)} scans rejected; research use, not a medical device",
        f"report: {folder / 'report.html'}",
        "MLflow: malignancy ui",
    ]
    summary = "\n".join(lines)
    write_text(folder / SUMMARY, summary + "\n")
    model_uri = version.uri if version else f"runs:/{run.run_id}/model"
    return DetectorTrainingResult(folder, model_uri, judged.evaluation, rejected, fits[0].is_calibrated, summary)


def _table_digests(experiment: DetectionExperiment, images: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Digests of the tables, and of the data as used: tables, splits and the bytes of the scans fitted on."""
    tables = {"scans_sha256": experiment.table.scans.digest, "lesions_sha256": experiment.table.lesions.digest}
    used = [sorted(tables.values()), experiment.splits.digest, {name: sorted(part) for name, part in images.items()}]
    return tables | {"dataset_sha256": sha256_json(used)}


def _learn(experiment: DetectionExperiment, folder: Path, run: TrackedRun) -> _Learnt:
    """Read the training and validation scans, and fit."""
    config = experiment.config
    train = read_scans(experiment, experiment.of("train"), what="training scans read")
    validation = read_scans(experiment, experiment.of("validation"), what="validation scans read")
    for part, name in ((train, "train"), (validation, "validation")):
        _require_lesions(experiment, part, name)
    small = next((scan for scan in train.scans if min(scan.voxels.shape) < config.grid.patch), None)
    if small is not None:
        sides = " x ".join(map(str, small.voxels.shape))
        raise UsageError(
            f"grid.patch: {config.grid.patch} voxels of {config.grid.spacing_mm:g} mm are more than scan "
            f"{small.scan_id!r} has ({sides}); lower grid.patch, or leave the scan out"
        )
    judge = validation_judge(validation.scans, [str(case.patient_id) for case in validation.cases], config)
    fitted = fit_detector(train.scans, config, judge=judge, folder=folder / "checkpoints", tracker=run)
    return _Learnt(fitted, train, validation)


def _require_lesions(experiment: DetectionExperiment, part: ReadScans, name: str) -> None:
    for case, error in part.rejected:
        print(one_line(f"rejected {case.case_id}: {error.code}: {error.reason}"), file=sys.stderr)
    if not any(not lesion.ignore for scan in part.scans for lesion in scan.lesions):
        first = f" (first rejected: {part.rejected[0][1]})" if part.rejected else ""
        raise UsageError(
            f"{experiment.table.scans.path}: no scan of split {name!r} that can be read has a lesion{first}"
        )


def _search(detector: LoadedDetector, experiment: DetectionExperiment, split: str) -> _Searched:
    """Search a split's scans with a detector."""
    finder, digests = Finder(detector, root=experiment.table.root), dict[str, str]()

    def search(case: Case) -> tuple[Candidate, ...]:
        result = finder.search(case)
        digests[case.case_id] = result.facts.digest
        return result.candidates

    cases = list(experiment.of(split))
    with ProgressReport(f"{split} scans searched", total=len(cases)) as report:

        def told(case: Case) -> tuple[Candidate, ...]:
            try:
                return search(case)
            finally:
                report.advance()

        searches = search_scans(told, experiment.table, cases, groups=experiment.config.evaluation.groups)
    return _Searched(searches, digests)


def _sources(
    experiment: DetectionExperiment, detector: LoadedDetector, judged: JudgedScans, fit: CalibrationFit
) -> DetectionSources:
    scans = len(experiment.table.scans.cases)
    test = len(judged.searches.scans) + len(judged.searches.rejected)
    flow = {"given": scans, "of other splits": scans - test}
    codes = Counter(str(error.code) for _, error in judged.searches.rejected)
    flow |= {f"rejected, {code}": count for code, count in codes.items()}
    return DetectionSources(
        title=experiment.config.name,
        description=detector.description,
        calibration=fit.describe(),
        judged=judged,
        judged_on="test split",
        flow=flow | {"judged": len(judged.searches.scans)},
    )


def _grid_scan(finder: Finder, case: Case) -> GridScan:
    scan = finder.read(case)
    return GridScan(scan.voxels, scan.affine)


def _write_splits(experiment: DetectionExperiment, path: Path) -> None:
    rows = [
        (case.case_id, case.patient_id, experiment.splits.of[case.case_id]) for case in experiment.table.scans.cases
    ]
    write_csv(path, ("case_id", "patient_id", "split"), rows, exact=("case_id", "patient_id"))


def _tags(config: DetectionConfig) -> dict[str, str]:
    return {
        "label_source": config.data.label_source,
        "intensities": config.data.intensities,
        "modality": config.data.modality,
        "network": config.network.name,
        "kind": "detection",
    }
