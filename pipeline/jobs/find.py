"""``malignancy find``: find lesion candidates in whole scans and, with a classifier, score them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pipeline.cases.inputs import Arrived, Inputs, one_scan_a_case, read_inputs
from pipeline.config.experiment import Tracking
from pipeline.errors import UsageError
from pipeline.files import private_folder, write_json, write_text
from pipeline.scoring.backends import Backend
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.finding.detector_description import DetectorDescription, verify_detector
from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.finding.scan_tables import ScanTables
from pipeline.scoring.finding.scan_worker import FinderSetup
from pipeline.scoring.lock import exclusive
from pipeline.scoring.model_verification import verify_model
from pipeline.scoring.output_folder import require_own
from pipeline.scoring.rows import ModelIdentity, ScoreTables, now
from pipeline.scoring.sink import Sink
from pipeline.tracking.registry import model_folder, model_folders
from pipeline.tracking.scoring_runs import load_in_background, record_scoring
from pipeline.workflow.learning.resumption import compare_with_input
from pipeline.workflow.reporting.finding_summary import FindingRun, finding_text, summarise_finding
from pipeline.workflow.scoring_run import (
    ScoreOptions,
    collect,
    engine_rows,
    require_no_other_use,
    require_unchanged,
    saying_what_a_full_disk_keeps,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FindResult:
    """Results of a search in its output folder.

    Attributes:
        folder: the output folder.
        summary: counts by status and code, candidates, throughput: what ``summary.json`` holds.
        summary_text: the same in words, as the command prints it.
    """

    folder: Path
    summary: dict[str, Any]
    summary_text: str

    @property
    def candidates(self) -> pd.DataFrame:
        """One row a candidate: a manifest; see `pipeline.scoring.finding.scan_tables`."""
        return self._table("candidates")

    @property
    def scans(self) -> pd.DataFrame:
        """One row a scan, those of earlier runs into the folder among them."""
        return self._table("scans")

    @property
    def scores(self) -> pd.DataFrame:
        """With a classifier, one row a candidate."""
        return self._table("scores")

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        return pd.read_parquet(self.folder / f"{name}.parquet")


@dataclass(frozen=True)
class FindingHeader:
    """Common properties of all rows of a search's output folder.

    Attributes:
        identity: of the detector.
        classifier: of the second stage; None without one.
        members: of the classifier; 0 for a single model.
        source: the input as it was named.
        threshold: of the classifier, from which rows are positive.
        columns: of the input's table that candidates keep.
    """

    identity: ModelIdentity
    classifier: ModelIdentity | None
    members: int
    source: str
    threshold: float | None
    columns: list[str]


def find(
    detector_name: str, source: str, out: Path, options: ScoreOptions | None = None, *, classifiers: str | None = None
) -> FindResult:
    """Search whole scans into an output folder, going on where an earlier run into it ended.

    Args:
        detector_name: a detector's directory, or an MLflow model URI.
        source: manifest, folder, scan or URL; one scan a case.
        out: output folder; made when missing.
        options: how; as the command does by default. Batches hold one scan.
        classifiers: a lesion model, or several joined by commas as an ensemble, that scores each candidate; None
            searches alone.

    Raises:
        UsageError: when the folder holds rows of other models or another source, inputs have changed, or the models do
            not go together.
        ModelError: when a model is damaged, or no detector.
        UnfinishedError: when too many scans failed, or golden scans drifted.
    """
    options = replace(options or ScoreOptions(), batch_size=1)
    if options.lesions:
        raise UsageError(
            "--lesions and --find: rows are of lesions that somebody marked, or of those that a detector finds; leave "
            "one out, or score twice into two folders"
        )
    models = _verified(detector_name, classifiers)
    inputs = one_scan_a_case(read_inputs(source))
    setup = FinderSetup.on_this_machine(
        models.folder,
        models.detector.identity,
        root=inputs.root,
        classifiers=models.classifier_folders,
        workers=options.workers,
        backend=options.backend,
    )
    require_no_other_use(out)
    private_folder(out)
    require_own(out)
    started, clock = now(), perf_counter()
    with exclusive(out), saying_what_a_full_disk_keeps(out):
        sink = _sink(out, models, inputs, options)
        before = compare_with_input(inputs, sink.finished, models.covariates)
        require_unchanged(before, out, options)
        if options.track:
            load_in_background()
        arrived = Arrived(options.min_age_seconds)
        todo = before.unfinished(arrived(inputs.cases()))
        new = collect(
            engine_rows(setup, todo, models.detector.identity, options), sink, inputs, options, what="scans searched"
        )
        sink.leave_out(before.gone if inputs.digest else ())
        run = FindingRun(
            inputs=inputs,
            detector=models.detector,
            identity=models.detector.identity,
            classifier=models.classifier,
            scorer=models.scorer(options.backend),
            counts=sink.finish(),
            new=new,
            waiting=arrived.waiting,
            gone=len(before.gone),
            started_at=started,
            seconds=perf_counter() - clock,
        )
        return _summarised(run, sink, out, options)


def _summarised(run: FindingRun, sink: Sink[ScanRow], out: Path, options: ScoreOptions) -> FindResult:
    _write_images_root(out, run.inputs)
    summary = summarise_finding(run, sink.tables())
    text = finding_text(run, summary, out)
    write_text(out / "summary.txt", text + "\n")
    write_json(out / "summary.json", summary)
    if options.track:
        summary |= {"mlflow_run": record_scoring(summary, kind="finding")}
        write_json(out / "summary.json", summary)
    return FindResult(out, summary, text)


@dataclass(frozen=True)
class _Models:
    """A detector whose digests have been verified, and the classifier of the second stage."""

    folder: Path
    detector: DetectorDescription
    classifier_folders: tuple[Path, ...]
    classifier: Ensemble | None

    @property
    def covariates(self) -> Collection[str]:
        """Columns that the classifier needs."""
        return () if self.classifier is None else self.classifier.descriptions[0].covariates

    def scorer(self, backend: Backend) -> ModelIdentity | None:
        """Of the classifier, as its rows name it; None without one."""
        return None if self.classifier is None else self.classifier.identity(backend)


def _verified(detector_name: str, classifiers: str | None) -> _Models:
    folders = model_folders(classifiers) if classifiers else ()
    classifier = Ensemble.of([verify_model(folder) for folder in folders]) if folders else None
    folder, detector = verified_detector(detector_name, classifier)
    return _Models(folder, detector, folders, classifier)


def verified_detector(name: str, classifier: Ensemble | None) -> tuple[Path, DetectorDescription]:
    """The directory and the description of a detector whose digests have been verified.

    Args:
        name: a detector's directory, or an MLflow model URI.
        classifier: that is to score what it finds; None for a search alone.

    Raises:
        ModelError: when it is damaged, or no detector.
        UsageError: when it is not found, or the classifier cannot score what it finds.
    """
    folder = model_folder(name, Tracking()).absolute()
    detector = verify_detector(folder)
    if classifier is not None:
        _require_fit(detector, classifier)
    return folder, detector


def _sink(out: Path, models: _Models, inputs: Inputs, options: ScoreOptions) -> Sink[ScanRow]:
    classifier, scorer = models.classifier, models.scorer(options.backend)
    scores = None if classifier is None else ScoreTables(classifier.member_columns, classifier.finding_columns)
    tables = ScanTables(models.detector.classes, scores, scorer, inputs.columns)
    header = FindingHeader(
        identity=models.detector.identity,
        classifier=scorer,
        members=0 if classifier is None else classifier.member_columns,
        source=inputs.source,
        threshold=None if classifier is None else classifier.threshold,
        columns=list(inputs.columns),
    )
    return Sink(out, header, tables, restart=options.restart)


def _require_fit(detector: DetectorDescription, classifier: Ensemble) -> None:
    """Refuse a classifier that cannot score what the detector finds.

    Raises:
        UsageError: naming what does not fit.
    """
    model = classifier.descriptions[0]
    takes = model.preprocessing
    if takes.region != "lesion" or takes.dimensions != 3:
        raise UsageError(
            f"{model.name} takes {model.input_contract}, and a detector finds lesions in volumes; "
            "name a 3D model of lesions"
        )
    if model.modality != detector.modality:
        raise UsageError(
            f"{model.name} takes {model.modality} and the detector {detector.name} {detector.modality}; "
            "name two of one modality"
        )


def _write_images_root(out: Path, inputs: Inputs) -> None:
    """Write the images' folder beside the candidates, so that scoring finds the images.

    Images that lie elsewhere than on this machine have no such folder; their candidates are scored by ``score --find``.
    """
    root = inputs.root
    if root is None:
        case = next(inputs.cases())
        root = None if case.url is not None else case.path.parent.resolve()
    if root is None or "://" in inputs.source:
        (out / "candidates.yaml").unlink(missing_ok=True)
        return
    import yaml

    write_text(out / "candidates.yaml", yaml.safe_dump({"images_root": str(root)}, allow_unicode=True))
