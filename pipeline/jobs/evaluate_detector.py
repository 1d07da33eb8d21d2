"""``malignancy evaluate`` of a detector: evaluate it on whole scans, alone or with a classifier of its candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.scan_table import ScanTable, is_ignored, read_scan_table
from pipeline.config.experiment import Tracking
from pipeline.console import one_line
from pipeline.errors import CalibrationError, UsageError
from pipeline.evaluation.detection.evaluate_detection import DetectionEvaluation
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.evaluation.intervals.interval import Interval
from pipeline.files import atomic_folder, require_free
from pipeline.scoring.description_file import is_detector
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.finding.detector_copy import copy_with_scan_probability
from pipeline.scoring.finding.detector_directory import LoadedDetector, load_detector
from pipeline.scoring.finding.finder import Finder
from pipeline.scoring.finding.scan_worker import ScanWorker
from pipeline.scoring.model_directory import Model, load_model
from pipeline.scoring.rows import ModelIdentity
from pipeline.scoring.scorer import Scorer
from pipeline.tracking.registry import model_folder
from pipeline.workflow.detection.candidate_pictures import GridScan, candidate_pictures
from pipeline.workflow.detection.chosen_scans import ChosenScans, choose_judged_scans
from pipeline.workflow.detection.detection_files import DetectionSources, detection_text, write_detection
from pipeline.workflow.detection.judge_detector import JudgedScans, judge_searches, with_scan_probability
from pipeline.workflow.detection.second_stage import fit_on_scans, judge_at_both_centres, search_and_classify
from pipeline.workflow.judging.table_truth import truth_differences

_RESAMPLES = 2000
DETECTOR_FOLDER = "detector"


@dataclass(frozen=True)
class DetectorOptions:
    """Options of a detector's evaluation.

    Attributes:
        classifier: model directory or MLflow model URI of the lesions' classifier.
        lesions: their table, where it is not ``lesions.csv`` beside that of the scans.
        pictures: show candidates, which are images of patients, in the report.
        resamples: of the bootstrap over patients.
    """

    classifier: str | None = None
    lesions: Path | None = None
    pictures: bool = False
    resamples: int = _RESAMPLES


@dataclass(frozen=True)
class DetectionResult:
    """Result of a detector's evaluation.

    Attributes:
        folder: ``report.html``, ``evaluation.json``, ``candidates.parquet``, ``scans.csv`` and figures.
        evaluation: of the detector.
        scan_probability: applied to the scans; None where none was fitted.
        detector: directory of the detector with the probability of a scan that was fitted here; None where none was.
        rejected: scans that could not be searched: id, code and reason.
        summary: what the command prints.
    """

    folder: Path
    evaluation: DetectionEvaluation
    scan_probability: ScanProbability | None
    detector: Path | None
    rejected: tuple[tuple[str, str, str], ...]
    summary: str

    @property
    def intervals(self) -> Mapping[str, Interval]:
        """Statistics with their intervals, as ``intervals["cpm"]``; those that the scans do not define are absent."""
        return self.evaluation.intervals

    @property
    def report(self) -> Path:
        """The page about the detector."""
        return self.folder / "report.html"


def is_detector_name(name: str) -> bool:
    """Whether a MODEL argument names a detector.

    Raises:
        ModelError: when MLflow has no such model.
    """
    return is_detector(model_folder(name, Tracking()))


def evaluate_detector(
    detector_name: str, scans: Path, out: Path, options: DetectorOptions | None = None
) -> DetectionResult:
    """Search the scans of the test split, or all where the table names none, and judge what was found.

    Scans of patients that the detector or the classifier has seen are left out and counted. With a classifier, the
    probability of a scan is fitted on the calibration split, unless the detector has one for this classifier.

    Args:
        detector_name: detector directory or MLflow model URI.
        scans: table of the scans, with the lesions' table beside it.
        out: new folder.
        options: of the evaluation.

    Raises:
        UsageError: when ``out`` is not a new folder, no scan can be judged, or none of them holds a lesion.
        TableError: when a table has a fault.
        ModelError: when a model is damaged, or of the other kind.
    """
    options = options or DetectorOptions()
    require_free(out)
    table = read_scan_table(scans, options.lesions)
    source = model_folder(detector_name, Tracking())
    detector = load_detector(source)
    classifier = None if options.classifier is None else load_model(model_folder(options.classifier, Tracking()))
    chosen = choose_judged_scans(
        table, detector.description.patients, None if classifier is None else classifier.description.patients
    )
    _require_lesions(table, chosen.judged)
    finder = Finder(detector, root=table.root)
    judged, fitted = _judge(finder, table, chosen, classifier, options.resamples)
    sources = _sources(detector, classifier, table, chosen, judged)
    if options.pictures:
        sources = replace(sources, pictures=candidate_pictures(judged, lambda case: _grid_scan(finder, case)))
    with atomic_folder(out) as folder:
        write_detection(sources, folder)
        if fitted:
            assert judged.scan_probability is not None  # it was fitted here
            copy_with_scan_probability(source, folder / DETECTOR_FOLDER, judged.scan_probability)
    rejected = tuple((case.case_id, str(error.code), error.reason) for case, error in judged.searches.rejected)
    return DetectionResult(
        folder=out,
        evaluation=judged.evaluation,
        scan_probability=judged.scan_probability,
        detector=out / DETECTOR_FOLDER if fitted else None,
        rejected=rejected,
        summary="\n".join([*_summary(sources, chosen, rejected), *_places(out, fitted=fitted)]),
    )


def _summary(sources: DetectionSources, chosen: ChosenScans, rejected: Sequence[tuple[str, str, str]]) -> list[str]:
    lines = [*detection_text(sources), *sources.differences]
    lines += [f"{count} scans of {reason} were left out" for reason, count in chosen.left_out.items()]
    return lines + [one_line(f"rejected {scan_id}: {code}: {reason}") for scan_id, code, reason in rejected]


def _places(out: Path, *, fitted: bool) -> list[str]:
    """Lines with the paths of the written files."""
    return [f"report: {out / 'report.html'}", *([f"detector: {out / DETECTOR_FOLDER}"] if fitted else [])]


def _require_lesions(table: ScanTable, scans: Sequence[Case]) -> None:
    """Refuse, before any scan is searched, scans without a lesion to be found."""
    if not any(not is_ignored(lesion) for case in scans for lesion in table.lesions_of[case.case_id]):
        raise UsageError(
            f"{table.lesions.path}: has no lesion in the {len(scans)} scans to be judged, so that sensitivity is "
            "undefined; give scans with lesions"
        )


def _judge(
    finder: Finder, table: ScanTable, chosen: ChosenScans, classifier: Model | None, resamples: int
) -> tuple[JudgedScans, bool]:
    """The result on the judged scans, and whether the probability of a scan was fitted here."""
    detector = finder.detector
    digests = detector.description.digests
    scorer = None if classifier is None else Scorer(classifier, root=table.root)
    worker = ScanWorker(finder, ModelIdentity(detector.label, digests.model, digests.preprocessing), scorer)
    classified = search_and_classify(worker, table, chosen.judged)
    judged = judge_searches(classified.searches, resamples=resamples)
    if classifier is None or scorer is None:
        return judged, False

    def classify(cases: Sequence[Case]) -> list[float | None]:
        return [row.probability for row in score_cases(scorer, cases)]

    stage = judge_at_both_centres(classify, table, classified, judged.matches, resamples=resamples)
    judged = replace(judged, classified=classified, second_stage=stage)
    digest, known = classifier.description.digests.model, detector.scan_probability
    fitted = known if known is not None and known.classifier_digest == digest else None
    if fitted is None:
        try:
            held_out = search_and_classify(worker, table, chosen.calibration, what="calibration scans searched")
            fitted = fit_on_scans(held_out, classifier_digest=digest)
        except CalibrationError as error:
            return replace(judged, no_scan_probability=str(error)), False
    return with_scan_probability(judged, classified, fitted), fitted is not known


def _sources(
    detector: LoadedDetector, classifier: Model | None, table: ScanTable, chosen: ChosenScans, judged: JudgedScans
) -> DetectionSources:
    description, named = detector.description, any(case.split for case in table.scans.cases)
    given_count, left_out = len(table.scans.cases), sum(chosen.left_out.values())
    flow = {"given": given_count, "of other splits": given_count - len(chosen.judged) - left_out, **chosen.left_out}
    codes = Counter(str(error.code) for _, error in judged.searches.rejected)
    flow |= {f"rejected, {code}": count for code, count in codes.items()}
    flow["judged"] = len(judged.searches.scans)
    differences = truth_differences(
        table.scans.facts,
        label_source=description.lesions.source,
        intensities=description.lesions.intensities,
        of="the detector",
    )
    return DetectionSources(
        title=f"{description.name} on {table.scans.path.name}",
        description=description,
        calibration=detector.calibrators[0].describe(),
        judged=judged,
        judged_on="test split" if named else table.scans.path.name,
        flow={step: count for step, count in flow.items() if count or step in ("given", "judged")},
        classifier="" if classifier is None else classifier.label,
        differences=tuple(differences.lines),
    )


def _grid_scan(finder: Finder, case: Case) -> GridScan:
    scan = finder.read(case)
    return GridScan(scan.voxels, scan.affine)
