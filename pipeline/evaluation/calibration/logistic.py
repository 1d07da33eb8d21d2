"""Logistic regression of labels on one column by maximum likelihood: for Platt's calibrator and for recalibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray, require_both_classes
from pipeline.evaluation.calibration.calibrator import sigmoid


@dataclass(frozen=True)
class Recalibration:
    """``P(malignant) = sigmoid(intercept + slope * log odds)``."""

    intercept: float
    slope: float


def fit_line(scores: FloatArray, labels: IntArray) -> Recalibration:
    """Unpenalised logistic regression of the labels on the scores.

    Args:
        scores: logits or log odds, finite and not all equal, shape (n,).
        labels: 0 or 1, of both classes and not `separated` by the scores, shape (n,).

    Source: scikit-learn's ``LogisticRegression``.
    """
    from sklearn.linear_model import LogisticRegression

    # Scores may be in the thousands; the solver sees them centred and on a scale of one.
    center, scale = float(scores.mean()), float(scores.std())
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-14, max_iter=1000)
    model.fit(((scores - center) / scale)[:, None], labels)
    slope = float(model.coef_[0, 0]) / scale
    return Recalibration(intercept=float(model.intercept_[0]) - slope * center, slope=slope)


def separated(scores: FloatArray, labels: IntArray) -> bool:
    """Whether one threshold parts the classes, in either direction; then no finite logistic slope exists."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    return bool(negative.max() <= positive.min() or positive.max() <= negative.min())


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
    return fit_line(odds, labels)


def _intercept(odds: FloatArray, labels: IntArray) -> float:
    """The shift of the log odds at which expected and observed counts agree: monotone, so it has one root."""
    from scipy.optimize import brentq

    bound = float(np.abs(odds).max()) + np.log(odds.size) + 1.0
    return float(brentq(lambda shift: float(sigmoid(odds + shift).sum() - labels.sum()), -bound, bound, xtol=1e-12))
