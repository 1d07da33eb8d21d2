"""Logistic recalibration: how labels depend on the log odds of the probabilities, by maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray, require_both_classes
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.fit import separated

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
    beta = fit_logistic(design, labels, what="calibration slope")
    slope = float(beta[1]) / scale
    return Recalibration(intercept=float(beta[0]) - slope * center, slope=slope)


def fit_logistic(
    design: FloatArray, labels: IntArray, *, what: str, start: FloatArray | None = None, ridge: float = 0.0
) -> FloatArray:
    """Coefficients of a logistic regression, by Newton's method with steps halved where needed.

    Args:
        design: columns of about one scale, with an intercept among what they span, shape (n, k).
        labels: 0 or 1, shape (n,).
        what: is being fitted, for messages.
        start: coefficients to start from, shape (k,); default 0.
        ridge: half of this times the squared distance from ``start`` is added to the negative log likelihood.

    Returns:
        Shape (k,).

    Raises:
        UndefinedMetricError: when the fit does not settle, as the classes are almost separated.
    """
    origin = np.zeros(design.shape[1]) if start is None else start.astype(np.float64)
    signs = 2.0 * labels - 1.0

    def loss_at(beta: FloatArray) -> float:
        away = beta - origin
        return float(np.logaddexp(0.0, -signs * (design @ beta)).sum() + 0.5 * ridge * (away @ away))

    beta, loss = origin, loss_at(origin)
    for _ in range(_STEPS):
        fitted = sigmoid(design @ beta)
        gradient = design.T @ (labels - fitted) - ridge * (beta - origin)
        information = (design * (fitted * (1.0 - fitted))[:, None]).T @ design + ridge * np.eye(beta.size)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        size = 1.0
        new = loss_at(beta + step)
        while new > loss + 1e-9 and size > 1e-6:
            size /= 2.0
            new = loss_at(beta + size * step)
        beta, loss = beta + size * step, new
        if float(np.abs(step).max()) * size < _CLOSE:
            return beta
    raise UndefinedMetricError(
        f"{what}: the fit on {labels.size} cases did not settle: the classes are almost separated; add cases"
    )


def _intercept(odds: FloatArray, labels: IntArray) -> float:
    """The shift of the log odds at which expected and observed counts agree: monotone, so it has one root."""
    from scipy.optimize import brentq

    bound = float(np.abs(odds).max()) + np.log(odds.size) + 1.0
    return float(brentq(lambda shift: float(sigmoid(odds + shift).sum() - labels.sum()), -bound, bound, xtol=1e-12))
