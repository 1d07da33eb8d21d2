"""``malignancy evaluate`` of a detector: judge it on whole scans, alone or with a classifier behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.scan_table import read_scan_table
from pipeline.config.experiment import Tracking
from pipeline.console import one_line
from pipeline.evaluation.detection.evaluate_detection import DetectionEvaluation
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.evaluation.intervals.interval import Interval
from pipeline.files import atomic_folder, require_free
from pipeline.scoring.finding.detector_directory import load_detector, save_with_scan_probability
from pipeline.scoring.finding.finder import Finder
from pipeline.scoring.model_directory import load_model
from pipeline.tracking.registry import model_folder
from pipeline.workflow.detection.candidate_pictures import candidate_pictures
from pipeline.workflow.detection.chosen_scans import choose_scans
from pipeline.workflow.detection.detection_files import detection_text, write_detection
from pipeline.workflow.detection.search_scans import Searches, search_scans

_RESAMPLES = 2000
DETECTOR_FOLDER = "detector"


@dataclass(frozen=True)
class DetectorOptions:
    """What is judged beside the detector itself.

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
    """What judging a detector found, and where it stands.

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
        options: what is judged besides.

    Raises:
        UsageError: when ``out`` is not a new folder, no scan can be judged, or none of them holds a lesion.
        TableError: when a table has a fault.
        ModelError: when a model is damaged, or of the other kind.
    """
    options = options or DetectorOptions()
    require_free(out)
    table = read_scan_table(scans, options.lesions)
    detector = load_detector(model_folder(detector_name, Tracking()))
    classifier = None if options.classifier is None else load_model(model_folder(options.classifier, Tracking()))
    chosen = choose_scans(
        table, detector.description.patients, None if classifier is None else classifier.description.patients
    )
    _require_lesions(table, chosen.judged)
    finder = Finder(detector, root=table.root)

    def search(cases: Sequence[Case]) -> Searches:
        return search_scans(lambda case: finder.search(case).candidates, table, cases)

    judged, fitted = _judge(search, table, chosen, detector, classifier, options)
    sources = _sources(detector, classifier, table, chosen, judged)
    if options.pictures:
        sources = replace(sources, pictures=candidate_pictures(judged, lambda case: _grid_scan(finder, case)))
    with atomic_folder(out) as folder:
        write_detection(sources, folder)
        if fitted:
            assert judged.scan_probability is not None  # that is what was fitted
            save_with_scan_probability(folder / DETECTOR_FOLDER, detector, judged.scan_probability)
    rejected = tuple((case.case_id, str(error.code), error.reason) for case, error in judged.searches.rejected)
    lines = [*detection_text(sources), *sources.differences]
    lines += [f"{count} scans of {reason} were left out" for reason, count in chosen.left_out.items()]
    lines += [one_line(f"rejected {scan_id}: {code}: {reason}") for scan_id, code, reason in rejected]
    lines.append(f"report: {out / 'report.html'}")
    if fitted:
        lines.append(f"detector: {out / DETECTOR_FOLDER}")
    return DetectionResult(
        folder=out,
        evaluation=judged.evaluation,
        scan_probability=judged.scan_probability,
        detector=out / DETECTOR_FOLDER if fitted else None,
        rejected=rejected,
        summary="\n".join(lines),
    )
