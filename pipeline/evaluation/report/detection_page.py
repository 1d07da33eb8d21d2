"""The report of a detector: one self-contained HTML page about its lesions and its scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.evaluation.detection.evaluate_detection import DetectionEvaluation, sensitivity_name
from pipeline.evaluation.detection.froc import RATES
from pipeline.evaluation.detection.probabilities import ProbabilityJudgement
from pipeline.evaluation.detection.second_stage import SecondStage
from pipeline.evaluation.report.page import ReportPicture, render_page

DETECTION_STATISTICS: Mapping[str, str] = {
    "cpm": "CPM, mean of the seven sensitivities",
    **{sensitivity_name(rate): f"Sensitivity at {rate:g} false positives a scan" for rate in RATES},
    "localisation_median_mm": "Distance of hits from the centre, median, mm",
    "localisation_p90_mm": "Distance of hits from the centre, 90th percentile, mm",
    "diameter_error_median_mm": "Absolute error of the diameter of hits, median, mm",
}
PROBABILITY_STATISTICS: Mapping[str, str] = {
    "auroc": "AUROC",
    "brier_score": "Brier score",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration in the large (intercept)",
    "observed_expected": "Observed over expected (O:E)",
    "ici": "ICI, mean distance of the calibration curve",
}
SECOND_STAGE_STATISTICS: Mapping[str, str] = {
    "auroc_found": "AUROC at the centres that were found",
    "auroc_true": "AUROC at the true centres",
    "auroc_difference": "Found less true, paired",
}
DETECTION_FIGURE_TEXTS: Mapping[str, str] = {
    "froc": "Sensitivity against false positives a scan over all thresholds; CPM is the mean of the seven circles. "
    "Between two thresholds the curve is interpolated.",
    "froc_by_diameter": "The same by diameter of the lesion; false positives are those of all scans. Classes of fewer "
    "than 10 patients are left out.",
    "localisation": "How far from a lesion's centre its hit lies. Missed lesions are not shown.",
    "candidate_reliability": "Observed against predicted share of candidates that lie in a lesion.",
    "scan_reliability": "Observed against predicted share of scans that hold a malignant lesion.",
}


@dataclass(frozen=True)
class DetectionReport:
    """Everything that the page of a detector shows. Sections without content are left out.

    Attributes:
        title: headline of the page.
        detector: name and short digest.
        calibration: of the candidates' probabilities, in a few words.
        evaluation: of the scans judged.
        judged_on: which scans these are, as ``test split``.
        badges: short warnings under the title, as ``simulated intensities``.
        flow: scans by what became of them, in order, as ``{"given": 60, "rejected, E_SLICE_GAP": 1}``.
        second_stage: the classifier at found and at true centres; None without a classifier.
        classifier: name and short digest of the classifier; blank without one.
        scans: judgement of the scans' probabilities; None where they have none.
        scan_probability: how they are computed, or why there are none.
        figures: PNG bytes by name, in order.
        pictures: best and worst candidates.
        data: facts about data and labels, by name.
        provenance: name and value.
        made_at: when the report was made; None for now.
    """

    title: str
    detector: str
    calibration: str
    evaluation: DetectionEvaluation
    judged_on: str = "test split"
    badges: tuple[str, ...] = ("research use; not a medical device",)
    flow: Mapping[str, int] = field(default_factory=dict)
    second_stage: SecondStage | None = None
    classifier: str = ""
    scans: ProbabilityJudgement | None = None
    scan_probability: str = ""
    figures: Mapping[str, bytes] = field(default_factory=dict)
    pictures: tuple[ReportPicture, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    made_at: datetime | None = None


def render_detection_report(report: DetectionReport) -> str:
    """The page as HTML text: escaped, styled inline, with pictures inside; it loads nothing from anywhere."""
    return render_page(
        "detection.html.j2",
        made_at=report.made_at,
        report=report,
        evaluation=report.evaluation,
        names=DETECTION_STATISTICS,
        probability_names=PROBABILITY_STATISTICS,
        second_stage_names=SECOND_STAGE_STATISTICS,
        figure_texts=DETECTION_FIGURE_TEXTS,
    )
