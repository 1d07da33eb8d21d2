"""Predictive values and probabilities at another prevalence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, as_probabilities
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.intervals.interval import Interval


@dataclass(frozen=True)
class Restated:
    """Predictive values where another share of the cases is malignant.

    Attributes:
        prevalence: share of malignant cases, in (0, 1).
        ppv: share of the positive that would be malignant.
        npv: share of the negative that would be benign.
    """

    prevalence: float
    ppv: Interval
    npv: Interval


def restate_prevalence(sensitivity: Interval, specificity: Interval, *, prevalence: float) -> Restated:
    """PPV and NPV at another prevalence, if sensitivity and specificity stay as they are.

    The intervals combine those of sensitivity and specificity as if these were independent (MOVER on the log
    scale of the likelihood ratios).

    Raises:
        UndefinedMetricError: for a prevalence outside (0, 1), or where no case would be called positive or negative.

    Source: Zou & Donner, 2008 (MOVER); Bayes' theorem in odds.
    """
    if not 0.0 < prevalence < 1.0:
        raise UndefinedMetricError(f"prevalence: {prevalence} is not in (0, 1), so predictive values are undefined")
    odds = float(np.log(prevalence / (1.0 - prevalence)))
    return Restated(
        prevalence=prevalence,
        ppv=_predictive_value(sensitivity, specificity, odds, "PPV"),
        npv=_predictive_value(specificity, sensitivity, -odds, "NPV"),
    )


def prevalence_shift(*, calibrated_at: float, wanted: float) -> float:
    """Shift of the log odds from one prevalence to another, with the classes themselves unchanged.

    Raises:
        UndefinedMetricError: for a prevalence outside (0, 1).

    Source: Elkan, 2001; Saerens et al., 2002.
    """
    for prevalence in (calibrated_at, wanted):
        if not 0.0 < prevalence < 1.0:
            raise UndefinedMetricError(f"prevalence: {prevalence} is not in (0, 1), so there are no odds to move")
    return float(np.log(wanted / (1.0 - wanted)) - np.log(calibrated_at / (1.0 - calibrated_at)))


def adjust_prevalence(probabilities: npt.ArrayLike, *, calibrated_at: float, wanted: float) -> FloatArray:
    """Probabilities restated for another prevalence, shape (n,); 0 and 1 stay what they are.

    Args:
        probabilities: calibrated at the prevalence ``calibrated_at``, shape (n,).
        calibrated_at: share of malignant cases where they were calibrated, in (0, 1).
        wanted: share of malignant cases where they are to be used, in (0, 1).

    Raises:
        UndefinedMetricError: for a prevalence outside (0, 1), or a probability outside [0, 1].
    """
    values = as_probabilities(probabilities)
    ratio = np.exp(prevalence_shift(calibrated_at=calibrated_at, wanted=wanted))
    return np.asarray(values * ratio / (values * ratio + (1.0 - values)))


def _predictive_value(hit: Interval, false_call: Interval, odds: float, name: str) -> Interval:
    """Probability that a call is right: log odds plus log(hit rate) less log(false call rate)."""
    if hit.estimate == 0.0 and false_call.estimate == 1.0:
        raise UndefinedMetricError(f"{name}: no case would be called so, so it is undefined")
    with np.errstate(divide="ignore", invalid="ignore"):
        right, right_low, right_high = np.log([hit.estimate, hit.lower, hit.upper])
        wrong, wrong_low, wrong_high = np.log(
            [1.0 - false_call.estimate, 1.0 - false_call.upper, 1.0 - false_call.lower]
        )
        middle = right - wrong
        below = np.hypot(np.nan_to_num(right - right_low, nan=0.0), np.nan_to_num(wrong_high - wrong, nan=0.0))
        above = np.hypot(np.nan_to_num(right_high - right, nan=0.0), np.nan_to_num(wrong - wrong_low, nan=0.0))
        # A rate of 0 or 1 has no finite logarithm: then the reachable limits take the estimate's place.
        low = middle - below if np.isfinite(middle) else right_low - wrong_high
        high = middle + above if np.isfinite(middle) else right_high - wrong_low
    estimate, lower, upper = (float(value) for value in sigmoid(odds + np.array([middle, low, high])))
    return Interval(estimate, min(lower, estimate), max(upper, estimate), hit.level, "MOVER")
