"""Evaluate probabilities without a threshold: those of candidates and of scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.arrays import FloatArray, IntArray, as_labels_and_probabilities
from pipeline.evaluation.calibration.curve import CURVE_STATISTICS, calibration_distances, fit_calibration_curve
from pipeline.evaluation.calibration.outcome import CalibrationOutcome, SampleSize, calibration_outcome
from pipeline.evaluation.detection.matching import Matches
from pipeline.evaluation.evaluate import attempt, settle
from pipeline.evaluation.intervals.bootstrap import auroc_interval
from pipeline.evaluation.intervals.clustered import (
    calibration_intercept_interval,
    calibration_slope_interval,
    mean_interval,
    observed_expected_interval,
)
from pipeline.evaluation.intervals.interval import Interval


@dataclass(frozen=True, eq=False)
class LabelledProbabilities:
    """Probabilities with their labels.

    Attributes:
        labels: 0 or 1, shape (n,).
        probabilities: in [0, 1], shape (n,).
        patients: patient id of each, shape (n,).
    """

    labels: IntArray
    probabilities: FloatArray
    patients: npt.NDArray[np.str_]


def candidate_labels(matches: Matches) -> LabelledProbabilities:
    """Whether a lesion lies at each candidate.

    Hits are 1 and false positives 0. Duplicates and candidates in ignored lesions are left out, as in FROC.
    """
    rows = [
        (outcome == "hit", point.probability, scan.scan.patient_id)
        for scan in matches.scans
        for point, outcome in zip(scan.scan.candidates, scan.outcomes, strict=True)
        if outcome in ("hit", "false positive")
    ]
    return LabelledProbabilities(
        labels=np.array([label for label, _, _ in rows], dtype=np.int64),
        probabilities=np.array([probability for _, probability, _ in rows], dtype=np.float64),
        patients=np.array([patient for _, _, patient in rows], dtype=np.str_),
    )


@dataclass(frozen=True)
class ProbabilityJudgement:
    """How well probabilities separate and how well they are calibrated.

    Attributes:
        n: probabilities judged.
        n_patients: patients they come from.
        n_positive: those whose label is 1.
        intervals: ``auroc``, ``brier_score``, ``calibration_slope``, ``calibration_intercept``, ``observed_expected``,
            ``ici``, ``e50``, ``e90``: those that the data define.
        undefined: the others, with the reason.
        event: what a label of 1 means, in a word or two.
    """

    n: int
    n_patients: int
    n_positive: int
    intervals: Mapping[str, Interval]
    undefined: Mapping[str, str]
    event: str = "malignant"

    @property
    def calibration(self) -> CalibrationOutcome:
        """Whether calibration is shown, not shown or refuted, and why."""
        return calibration_outcome(
            self.intervals, self.undefined, SampleSize(self.n_patients, self.n, self.n_positive, self.event)
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "n": self.n,
            "n_patients": self.n_patients,
            "n_positive": self.n_positive,
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "undefined": dict(self.undefined),
            "calibration_outcome": self.calibration.to_json(),
        }


def judge_probabilities(
    given: LabelledProbabilities, *, rng: np.random.Generator, event: str = "malignant"
) -> ProbabilityJudgement:
    """Judge probabilities against their labels; nothing is fitted to be applied.

    Args:
        given: labels, probabilities and patients.
        rng: source of the draws of the calibration curve.
        event: what a label of 1 means, in a word or two.

    Raises:
        UndefinedMetricError: without any row, or with a probability outside [0, 1].
    """
    labels, values = as_labels_and_probabilities(given.labels, given.probabilities)
    patients = given.patients
    intervals, undefined = settle(
        {
            "auroc": lambda: auroc_interval(labels, values, patients),
            "brier_score": lambda: mean_interval((values - labels) ** 2, patients, largest=1.0),
            "calibration_slope": lambda: calibration_slope_interval(labels, values, patients),
            "calibration_intercept": lambda: calibration_intercept_interval(labels, values, patients),
            "observed_expected": lambda: observed_expected_interval(labels, values, patients),
        }
    )
    curve, reason = attempt(lambda: fit_calibration_curve(labels, values, patients, rng=rng))
    if curve is None:
        undefined |= dict.fromkeys(CURVE_STATISTICS, reason or "")
    else:
        intervals |= calibration_distances(curve, values)
    return ProbabilityJudgement(
        n=labels.size,
        n_patients=int(np.unique(patients).size),
        n_positive=int(labels.sum()),
        intervals=intervals,
        undefined=undefined,
        event=event,
    )
