"""The Python interface: what ``import pipeline`` offers, each function the command of the same name.

Functions return results; wrong usage, a damaged model or a table that cannot be used raises an exception of
``pipeline.errors``. Nothing heavy is imported before a function is called.

Research use; not a medical device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.loaded_model import LoadedModel, model_name
from pipeline.loaded_model import load_model as load_model

if TYPE_CHECKING:
    from pipeline.jobs.audit import AuditResult
    from pipeline.jobs.check import CheckResult
    from pipeline.jobs.evaluate_detector import DetectionResult
    from pipeline.jobs.find import FindResult
    from pipeline.jobs.heat_map import HeatMap
    from pipeline.jobs.score import ScoringResult
    from pipeline.workflow.detection.train_detector import DetectorTrainingResult
    from pipeline.workflow.learning.run import TrainingResult
    from pipeline.workflow.reporting.evaluation_result import EvaluationResult


def train(
    config: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    folds: int | None = None,
    resume: str | None = None,
) -> TrainingResult | DetectorTrainingResult:
    """Train, calibrate, judge, track and register a model: a classifier, or a detector with ``task: detection``.

    Args:
        config: the configuration, a YAML file.
        overrides: values by dotted key, as ``{"training.max_epochs": 8}``, or texts as ``"training.max_epochs=8"``.
        folds: of cross-validation by patient; None does as ``training.folds`` says.
        resume: folder or MLflow id of a run that was killed, which goes on; None starts a new one.

    Returns:
        ``folder``, ``model_uri``, ``evaluation``, ``rejected``, ``report`` and ``summary`` of the run.

    Raises:
        UsageError: for a configuration or table that cannot be used.
        UnfinishedError: when the training could not finish; what was learnt is kept.
    """
    from pipeline.jobs.train import train as job

    result = job(Path(config), _texts(overrides), folds=folds, resume=resume)
    if result is None:
        raise RuntimeError(
            "pipeline.train: one process at a time; start a distributed training as `torchrun ... malignancy train`"
        )
    return result


def check(
    source: str | Path, *, model: str | Path | LoadedModel | None = None, lesions: Sequence[str | Path] = ()
) -> CheckResult:
    """Look at every case of a manifest, folder or scan, before anything is computed.

    Args:
        source: manifest, folder searched for scans, or one scan.
        model: whose preprocessing and acceptance envelope are asked as well.
        lesions: annotation files or folders that lesion centres are taken from.

    Returns:
        ``rejected`` and ``warnings`` (cases), ``faults`` (of the table), and ``summary`` in words.

    Raises:
        UsageError: when there is no such input.
    """
    from pipeline.jobs.check import check as job

    return job(
        Path(source), model_name=None if model is None else model_name(model), lesions=[Path(path) for path in lesions]
    )


def audit(*inputs: str | Path) -> AuditResult:
    """Look for leaks between splits, tables and models, and for images that are labelled both benign and malignant.

    Args:
        inputs: manifests or folders of scans, configurations (whose table is split as training would), models.

    Returns:
        ``leaks`` and ``conflicts`` (matches with their cases), ``notes``, and ``summary`` in words.

    Raises:
        UsageError: without a table of cases, or when an input is none of these.
    """
    from pipeline.jobs.audit import audit as job

    return job([str(source) for source in inputs])


def score(
    model: str | Path | LoadedModel | Sequence[str | Path | LoadedModel],
    source: str | Path,
    *,
    out: str | Path,
    **options: Any,
) -> ScoringResult:
    """Score every scan of an input into an output folder, one row each; a killed run goes on when called again.

    Args:
        model: one, or several as an ensemble.
        source: manifest, folder searched for scans, one scan, or a URL of these.
        out: output folder.
        options: as in ``pipeline.jobs.score.ScoreOptions``: ``workers``, ``batch_size``, ``engine``, ``track``, …

    Returns:
        ``rows`` (a DataFrame, one row an input) and ``summary`` (counts, throughput, drift).

    Raises:
        UsageError: when the folder holds rows of another model or source, or inputs have changed.
        UnfinishedError: when too many cases failed, or golden scans drifted.
    """
    from pipeline.jobs.score import ScoreOptions
    from pipeline.jobs.score import score as job

    several = not isinstance(model, str | Path | LoadedModel)
    names = [model_name(source) for source in model] if several else [model_name(model)]  # type: ignore[union-attr,arg-type]
    return job(",".join(names), str(source), Path(out), ScoreOptions(**options))


def find(
    detector: str | Path,
    source: str | Path,
    *,
    out: str | Path,
    classifier: str | Path | LoadedModel | None = None,
    **options: Any,
) -> FindResult:
    """Find lesions in whole scans, and score each with a classifier; a killed run goes on when called again.

    Args:
        detector: a detector's directory, or an MLflow model URI.
        source: manifest, folder searched for scans, one scan, or a URL of these.
        out: output folder.
        classifier: scores each candidate; None searches alone.
        options: as in ``pipeline.jobs.score.ScoreOptions``: ``workers``, ``engine``, ``timeout_seconds``, ``track``, …

    Returns:
        ``candidates`` and ``scans`` (DataFrames, one row a candidate and one a scan), ``scores`` with a classifier, and
        ``summary``.

    Raises:
        UsageError: when the folder holds rows of another model or source, or inputs have changed.
        UnfinishedError: when too many scans failed, or golden scans drifted.
    """
    from pipeline.jobs.find import find as job
    from pipeline.jobs.score import ScoreOptions

    classifiers = None if classifier is None else model_name(classifier)
    return job(str(detector), str(source), Path(out), ScoreOptions(**options), classifiers=classifiers)


def heat_map(detector: str | Path, scan: str | Path) -> HeatMap:
    """Compute a detector's heat map of one whole scan.

    Args:
        detector: a detector's directory, or an MLflow model URI.
        scan: one scan, a folder that holds one DICOM series, or a table of one row.

    Returns:
        ``voxels`` (the scan on the detector's grid) and ``probabilities`` (the heat map), and the index of a place in
        millimetres in each: ``voxel_at`` and ``cell_at``.

    Raises:
        CaseError: for a scan that cannot be searched.
        ModelError: when the detector is damaged, or none.
        UsageError: when ``scan`` names no scan, or several.

    Example:
        >>> import pipeline
        >>> pipeline.heat_map("nowhere", "ct.nii.gz")
        Traceback (most recent call last):
            ...
        pipeline.errors.ModelError: nowhere: holds no model.json; give a model directory or an MLflow model URI
    """
    from pipeline.jobs.heat_map import heat_map as job

    return job(str(detector), str(scan))


def evaluate(
    model: str | Path | LoadedModel,
    manifest: str | Path,
    *,
    out: str | Path,
    champion: bool = True,
    prevalence: float | None = None,
) -> EvaluationResult:
    """Judge a model on labelled cases of patients that it has not seen.

    Args:
        model: a model directory, an MLflow model URI, or a loaded model.
        manifest: labelled cases.
        out: new folder for predictions, figures and the report.
        champion: judge the registered model's champion on the same cases too.
        prevalence: share of malignant cases in use, for which net benefit and predictive values are restated.

    Returns:
        ``intervals`` (as ``intervals["auroc"]``), ``calibration``, ``evaluation``, ``rejected`` and ``report``.

    Raises:
        TableError: when the manifest has a fault, or too few cases are left.
        UsageError: when ``out`` is not a new folder.
    """
    from pipeline.jobs.evaluate import EvaluateOptions, evaluate_model

    options = EvaluateOptions(champion=champion, prevalence=prevalence)
    return evaluate_model(model_name(model), Path(manifest), Path(out), options)


def evaluate_detector(
    detector: str | Path,
    scans: str | Path,
    *,
    out: str | Path,
    classifier: str | Path | LoadedModel | None = None,
    pictures: bool = False,
) -> DetectionResult:
    """Judge a detector on whole scans of patients that it has not seen; with a classifier, both together.

    Args:
        detector: a detector directory or an MLflow model URI.
        scans: table of the scans, with ``lesions.csv`` beside it.
        out: new folder for the report, figures, candidates and numbers.
        classifier: of the lesions that are found; fits and judges the probability that a scan holds a malignant lesion.
        pictures: show candidates, which are images of patients, in the report.

    Returns:
        ``intervals`` (as ``intervals["cpm"]``), ``evaluation``, ``scan_probability``, ``detector`` (the directory of
        the detector with a scan probability that was fitted here), ``rejected`` and ``report``.

    Raises:
        TableError: when a table has a fault.
        UsageError: when ``out`` is not a new folder, no scan can be judged, or none of them holds a lesion.
    """
    from pipeline.jobs.evaluate_detector import DetectorOptions
    from pipeline.jobs.evaluate_detector import evaluate_detector as job

    options = DetectorOptions(None if classifier is None else model_name(classifier), pictures=pictures)
    return job(str(detector), Path(scans), Path(out), options)


def _texts(overrides: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Overrides as the command line has them; values as JSON, which is YAML."""
    import json

    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]
    return list(overrides)
