"""Logistic recalibration: how labels depend on the log odds of the probabilities, by maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray, require_both_classes
from pipeline.evaluation.calibration import separated, sigmoid

_STEPS = 100
_CLOSE = 1e-10


@dataclass(frozen=True)
class Recalibration:
    """``P(malignant) = sigmoid(intercept + slope * log odds)``."""

    intercept: float
    slope: float


def fit_recalibration(odds: FloatArray, labels: IntArray, *, fixed_slope: bool) -> Recalibration:
    """Maximum likelihood fit of intercept and slope, or of the intercept alone with the slope fixed at 1.

    Args:
        odds: log odds of the probabilities, finite, shape (n,).
        labels: 0 or 1, shape (n,).
        fixed_slope: fit the intercept only (calibration in the large).

    Raises:
        UndefinedMetricError: with one class; for the slope also with equal log odds or separated classes.
    """
    require_both_classes(labels, what="calibration intercept" if fixed_slope else "calibration slope")
    if fixed_slope:
        return Recalibration(intercept=_intercept(odds, labels), slope=1.0)
    if np.ptp(odds) == 0.0:
        raise UndefinedMetricError(f"calibration slope: all {odds.size} probabilities are equal, so it is undefined")
    if separated(odds, labels):
        raise UndefinedMetricError(
            f"calibration slope: the probabilities separate all {odds.size} cases perfectly, so it is infinite"
        )
    # Log odds may span hundreds; Newton sees them centred and on a scale of one.
    center, scale = float(odds.mean()), float(odds.std())
    design = np.column_stack([np.ones(odds.size), (odds - center) / scale])  # (n, 2)
    beta = _newton(design, labels)
    slope = float(beta[1]) / scale
    return Recalibration(intercept=float(beta[0]) - slope * center, slope=slope)


def _newton(design: FloatArray, labels: IntArray) -> FloatArray:
    """Coefficients (k,) of a logistic regression of ``labels`` (n,) on ``design`` (n, k); steps halve where needed."""
    beta = np.zeros(design.shape[1])
    signs = 2.0 * labels - 1.0
    loss = float(np.logaddexp(0.0, -signs * (design @ beta)).sum())
    for _ in range(_STEPS):
        fitted = sigmoid(design @ beta)
        gradient = design.T @ (labels - fitted)
        information = (design * (fitted * (1.0 - fitted))[:, None]).T @ design
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0
        new = float(np.logaddexp(0.0, -signs * (design @ (beta + step))).sum())
        while new > loss + 1e-9 and size > 1e-6:
            size /= 2.0
            new = float(np.logaddexp(0.0, -signs * (design @ (beta + size * step))).sum())
        beta, loss = beta + size * step, new
        if float(np.abs(step).max()) * size < _CLOSE:
            return beta
    raise UndefinedMetricError(
        f"calibration slope: the fit on {labels.size} cases did not settle: the classes are almost separated; add cases"
    )


def _intercept(odds: FloatArray, labels: IntArray) -> float:
    """The shift of the log odds at which expected and observed counts agree: monotone, so it has one root."""
    from scipy.optimize import brentq

    bound = float(np.abs(odds).max()) + np.log(odds.size) + 1.0
    return float(brentq(lambda shift: float(sigmoid(odds + shift).sum() - labels.sum()), -bound, bound, xtol=1e-12))
