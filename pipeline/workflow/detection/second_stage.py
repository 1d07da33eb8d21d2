"""The classifier behind a detector, in an evaluation: at found and at true centres, and for whole scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cases.case import Case
from pipeline.cases.scan_table import ScanTable
from pipeline.errors import CalibrationError, CaseError, Code
from pipeline.evaluation.detection.matching import Matches
from pipeline.evaluation.detection.probabilities import LabelledProbabilities
from pipeline.evaluation.detection.scan_probability import (
    ScanProbability,
    fit_scan_probability,
    nearly_known_products,
)
from pipeline.evaluation.detection.second_stage import SecondStage, judge_second_stage
from pipeline.progress import ProgressReport
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.scan_worker import ScanWorker
from pipeline.workflow.detection.search_scans import Searches, search_scans

Classify = Callable[[Sequence[Case]], Sequence[float | None]]  # probability of malignancy; None where it has none


@dataclass(frozen=True, eq=False)
class ClassifiedScans:
    """Searched scans whose candidates have a probability of malignancy.

    Attributes:
        searches: the scans.
        malignant: of each candidate of each scan; None where the classifier refused it.
    """

    searches: Searches
    malignant: tuple[tuple[float | None, ...], ...]

    @property
    def nodule(self) -> tuple[tuple[float, ...], ...]:
        """Probability that it is a lesion, of each candidate of each scan."""
        return tuple(tuple(point.probability for point in scan.candidates) for scan in self.searches.scans)

    def products(self) -> dict[str, np.ndarray]:
        """By scan id, of each candidate the probability that it is a malignant lesion, for fitting.

        Scans are absent where the candidates that the classifier refused are more than half, or could change the scan's
        probability by more than 0.05 (`pipeline.evaluation.detection.scan_probability.nearly_known_products`).
        """
        products = {}
        for scan, nodule, malignant in zip(self.searches.scans, self.nodule, self.malignant, strict=True):
            known = nearly_known_products(nodule, malignant)
            if known is not None:
                products[scan.scan_id] = known
        return products


def search_and_classify(
    worker: ScanWorker, table: ScanTable, scans: Sequence[Case], *, what: str = "scans searched"
) -> ClassifiedScans:
    """Search scans and score the candidates, as ``malignancy score --find`` does, each scan decoded once.

    Args:
        worker: of the detector, with or without a classifier.
        table: that holds the lesions.
        scans: of the table.
        what: is done, for the progress bar.
    """
    malignant: dict[str, tuple[float | None, ...]] = {}

    def search(case: Case) -> tuple[Candidate, ...]:
        row = worker.score([worker.prepare(case)])[0]
        report.advance()
        if row.status not in ("scored", "flagged"):
            raise CaseError(Code[row.code], case.path, row.reason)
        malignant[case.case_id] = tuple(score.probability for score in row.scores)
        return row.candidates

    with ProgressReport(what, total=len(scans)) as report:
        searches = search_scans(search, table, scans)
    return ClassifiedScans(searches, tuple(malignant[case.case_id] for case in searches.cases))


def fit_on_scans(classified: ClassifiedScans, *, classifier_digest: str) -> ScanProbability:
    """Fit the probability of a scan on its labelled scans.

    Raises:
        CalibrationError: when there is none, or there are too few of a class.
    """
    if not classified.searches.cases and not classified.searches.rejected:
        raise CalibrationError(
            "scan probability: no calibration scan is left of patients that neither model was trained on; train both "
            "on the same splits, the classifier with training.members: 1"
        )
    products = classified.products()
    labels = {case.case_id: case.label for case in classified.searches.cases if case.label is not None}
    usable = [scan_id for scan_id in products if scan_id in labels]
    if not usable:
        raise CalibrationError("scan probability: no labelled calibration scan could be searched and classified")
    return fit_scan_probability(
        [products[scan_id] for scan_id in usable],
        [labels[scan_id] for scan_id in usable],
        classifier_digest=classifier_digest,
    )


def scan_probabilities(classified: ClassifiedScans, fitted: ScanProbability) -> dict[str, float]:
    """Probability of each scan that it holds a malignant lesion, by id, as ``score --find`` gives it.

    Scans are absent where refused candidates are most, or leave its bounds too far apart.
    """
    probabilities = {}
    for scan, nodule, malignant in zip(classified.searches.scans, classified.nodule, classified.malignant, strict=True):
        probability = fitted.bounds(nodule, malignant).probability
        if probability is not None:
            probabilities[scan.scan_id] = probability
    return probabilities


def labelled_scan_probabilities(
    classified: ClassifiedScans, probabilities: Mapping[str, float]
) -> LabelledProbabilities | None:
    """Those of the scans whose label is known; None when there is none."""
    cases = [case for case in classified.searches.cases if case.label is not None and case.case_id in probabilities]
    if not cases:
        return None
    return LabelledProbabilities(
        labels=np.array([case.label for case in cases], dtype=np.int64),
        probabilities=np.array([probabilities[case.case_id] for case in cases]),
        patients=np.array([str(case.patient_id) for case in cases], dtype=np.str_),
    )


def judge_at_both_centres(
    classify: Classify,
    table: ScanTable,
    classified: ClassifiedScans,
    matches: Matches,
    *,
    resamples: int,
    seed: int = 0,
) -> SecondStage | None:
    """Score the lesions that were found at their own centre too, and judge the classifier at both; None without any.

    Args:
        classify: the classifier.
        table: that holds the lesions and their labels.
        classified: the searched scans.
        matches: of the same scans.
        resamples: patient-level bootstrap samples.
        seed: of the bootstrap.
    """
    rows: list[tuple[Case, float, str]] = []
    for scan, answers in zip(matches.scans, classified.malignant, strict=True):
        by_id = {lesion.case_id: lesion for lesion in table.lesions_of[scan.scan.scan_id]}
        for match in scan.lesions:
            lesion = by_id[match.lesion.lesion_id]
            hit = None if match.candidate is None else answers[match.candidate]
            if hit is not None and lesion.label is not None:
                rows.append((lesion, hit, scan.scan.patient_id))
    at_true = classify([lesion for lesion, _, _ in rows])
    both = [(row, true) for row, true in zip(rows, at_true, strict=True) if true is not None]
    if not both:
        return None
    return judge_second_stage(
        [int(lesion.label or 0) for (lesion, _, _), _ in both],
        [hit for (_, hit, _), _ in both],
        [true for _, true in both],
        [patient for (_, _, patient), _ in both],
        resamples=resamples,
        seed=seed,
    )
