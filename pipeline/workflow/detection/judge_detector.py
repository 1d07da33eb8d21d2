"""Evaluate a detector on searched scans, after training and for ``malignancy evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation.detection.evaluate_detection import (
    DIAMETER_EDGES_MM,
    DetectionEvaluation,
    evaluate_detection,
)
from pipeline.evaluation.detection.matching import Matches, match_scans
from pipeline.evaluation.detection.probabilities import (
    LabelledProbabilities,
    ProbabilityJudgement,
    judge_probabilities,
)
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.evaluation.detection.second_stage import SecondStage
from pipeline.workflow.detection.search_scans import Searches
from pipeline.workflow.detection.second_stage import (
    ClassifiedScans,
    labelled_scan_probabilities,
    scan_probabilities,
)


@dataclass(frozen=True, eq=False)
class JudgedScans:
    """Results of a detector, and of the classifier behind it, on some scans.

    Attributes:
        searches: the scans.
        matches: their lesions and candidates.
        evaluation: of the detector.
        classified: the candidates' probability of malignancy; None without a classifier.
        second_stage: the classifier at found and true centres; None without one or without lesions to judge it on.
        scan_probability: applied to the scans; None where none was fitted.
        no_scan_probability: why it is None.
        by_scan: probability of each scan, by id.
        labelled: probabilities of the scans whose label is known; None without any.
        scans: judgement of these; None without any.
    """

    searches: Searches
    matches: Matches
    evaluation: DetectionEvaluation
    classified: ClassifiedScans | None = None
    second_stage: SecondStage | None = None
    scan_probability: ScanProbability | None = None
    no_scan_probability: str = "no classifier was given"
    by_scan: dict[str, float] | None = None
    labelled: LabelledProbabilities | None = None
    scans: ProbabilityJudgement | None = None

    @property
    def scan_probability_text(self) -> str:
        """How the probability of a scan is computed, or why there is none."""
        if self.scan_probability is None:
            return f"none is fitted: {self.no_scan_probability}"
        return self.scan_probability.describe()


def judge_searches(searches: Searches, *, resamples: int, seed: int = 0) -> JudgedScans:
    """Judge the detector alone.

    Args:
        searches: of scans that it was not fitted on.
        resamples: patient-level bootstrap samples.
        seed: of the bootstrap.

    Raises:
        UsageError: when no scan could be searched.
        UndefinedMetricError: when no lesion counts.
    """
    matches = match_scans(searches.scans)
    evaluation = evaluate_detection(matches, resamples=resamples, seed=seed, diameter_edges_mm=DIAMETER_EDGES_MM)
    return JudgedScans(searches, matches, evaluation)


def with_scan_probability(
    judged: JudgedScans, classified: ClassifiedScans, fitted: ScanProbability, *, seed: int = 0
) -> JudgedScans:
    """Apply a fitted probability of a scan, and judge it on the scans whose label is known.

    Args:
        judged: the scans.
        classified: the same scans.
        fitted: on other scans.
        seed: of the draws of the calibration curve.
    """
    by_scan = scan_probabilities(classified, fitted)
    labelled = labelled_scan_probabilities(classified, by_scan)
    rng = np.random.default_rng([seed, 4])
    scans = None if labelled is None else judge_probabilities(labelled, rng=rng)
    return replace(judged, scan_probability=fitted, by_scan=by_scan, labelled=labelled, scans=scans)
