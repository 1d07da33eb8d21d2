"""A smooth calibration curve with a band over patients, and how far it lies from the diagonal: ICI, E50 and E90."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import (
    FloatArray,
    IntArray,
    as_groups,
    as_labels,
    as_probabilities,
    require_both_classes,
)
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.intervals.bootstrap import PERCENTILES
from pipeline.evaluation.intervals.interval import Band, Interval
from pipeline.evaluation.metrics import log_odds

# Harrell (2015), table 2.3: quantiles of the log odds at which the cubics join.
_KNOTS = {3: (0.10, 0.50, 0.90), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.50, 0.725, 0.95)}
_FOUR_KNOTS_FROM, _FIVE_KNOTS_FROM = 50, 200  # cases of the rarer class
CURVE_STATISTICS = ("ici", "e50", "e90")
_RIDGE = 0.25  # a prior around perfect calibration, with a standard deviation of 2 in log odds at each knot
_POSITIONS = 1000  # with more cases, so many of them, evenly spaced in order of probability, are used
_METHOD = "patient bootstrap of the curve"


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Logistic regression of the label on a restricted cubic spline of the log odds of the probability.

    Attributes:
        knots: log odds at which the cubics join, shape (k,); beyond the outer ones the curve is a line.
        coefficients: the curve's log odds at the knots, shape (k,).
        resampled: the same on resamples of the patients, shape (r, k).
    """

    knots: FloatArray
    coefficients: FloatArray
    resampled: FloatArray

    def at(self, probabilities: FloatArray) -> FloatArray:
        """Observed share that the curve gives for predicted probabilities, shape (n,)."""
        return sigmoid(_basis(log_odds(probabilities), self.knots) @ self.coefficients)

    def resampled_at(self, probabilities: FloatArray) -> FloatArray:
        """Likewise on every resample, shape (r, n)."""
        return sigmoid(self.resampled @ _basis(log_odds(probabilities), self.knots).T)

    def band(self, probabilities: FloatArray) -> Band:
        """The curve with pointwise percentile limits at predicted probabilities."""
        middle = self.at(probabilities)
        lower, upper = np.quantile(self.resampled_at(probabilities), PERCENTILES, axis=0)
        return Band(x=probabilities, y=middle, lower=np.minimum(lower, middle), upper=np.maximum(upper, middle))


def fit_calibration_curve(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = 500,
) -> CalibrationCurve:
    """Fit the curve, and refit it on resamples of the patients.

    Three knots, four from 50 cases of the rarer class on and five from 200 on; equal quantiles are one knot. In the
    tails, where few cases say anything, a weak ridge holds the curve near the diagonal: with a few hundred cases one
    without it is arbitrary there. A resample's fit is one Newton step from the fit on all cases, with their
    information (a bootstrap of each patient's score); a full refit differs by terms of the order of one over the
    patients.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,).
        rng: source of the draws.
        resamples: bootstrap samples.

    Raises:
        UndefinedMetricError: with one class, equal probabilities, or fewer than three patients.

    Source: Harrell, 2015 (restricted cubic splines); Kline & Santos, 2012 (bootstrap of scores).
    """
    truth = as_labels(labels)
    odds, groups = log_odds(as_probabilities(probabilities, truth)), as_groups(patients, truth)
    require_both_classes(truth, what="calibration curve")
    count = int(groups.max()) + 1
    if count < 3:
        raise UndefinedMetricError(f"calibration curve: {count} patients; expected at least 3")
    knots = _choose_knots(odds, int(min(truth.sum(), truth.size - truth.sum())))
    design = _basis(odds, knots)  # (n, k)
    coefficients = _fit_near_diagonal(design, truth, knots)
    fitted = sigmoid(design @ coefficients)
    information = _information(design, fitted)
    parts = design * (truth - fitted)[:, None]
    scores = np.column_stack([np.bincount(groups, weights=column, minlength=count) for column in parts.T])  # (p, k)
    moves = np.linalg.solve(information, (scores - scores.mean(axis=0)).T).T  # (p, k)
    draws = (np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(resamples))
    return CalibrationCurve(knots, coefficients, coefficients + np.stack([drawn @ moves for drawn in draws]))


def calibration_distances(curve: CalibrationCurve, probabilities: npt.ArrayLike) -> dict[str, Interval]:
    """Mean (ICI), median (E50) and 90th percentile (E90) over cases of the distance between curve and diagonal.

    All three are above 0 for a perfect model too, and higher still on resamples. The upper limit is the resamples'
    percentile, which is conservative. The lower limit is the estimate less the distance due to noise alone, the
    percentile of the distance between a resample's curve and the fitted one: for the ICI this is a limit whatever the
    true curve, by the triangle inequality, and for all three it stays at 0 for a perfect model.

    Args:
        curve: fitted on these cases.
        probabilities: in [0, 1], shape (n,); the interval takes the set of cases as fixed.

    Source: Austin & Steyerberg, 2019.
    """
    values = np.sort(as_probabilities(probabilities))
    if values.size > _POSITIONS:
        values = values[((np.arange(_POSITIONS) + 0.5) * values.size / _POSITIONS).astype(np.int64)]
    middle, resampled = curve.at(values), curve.resampled_at(values)
    gaps = np.abs(np.vstack([middle, resampled]) - values)  # (1 + r, n)
    noise = np.abs(resampled - middle)  # (r, n)
    intervals, upper_tail = {}, PERCENTILES[1]
    for name, share in (("ici", None), ("e50", 0.5), ("e90", 0.9)):
        estimate, *of_resamples = (float(distance) for distance in _over_cases(gaps, share))
        lower = estimate - float(np.quantile(_over_cases(noise, share), upper_tail))
        upper = float(np.quantile(of_resamples, upper_tail))
        intervals[name] = Interval(estimate, max(lower, 0.0), max(upper, estimate), method=_METHOD)
    return intervals


def _fit_near_diagonal(design: FloatArray, labels: IntArray, knots: FloatArray) -> FloatArray:
    """Coefficients (k,) of a logistic regression on the splines, with a ridge that pulls them to the diagonal.

    On the diagonal the coefficients are the knots. scikit-learn's ridge pulls to zero and it takes no offset, so the
    penalised negative log likelihood, which is strictly convex, is minimised here.
    """
    signs = 2.0 * labels - 1.0

    def loss(beta: FloatArray) -> float:
        away = beta - knots
        return float(np.logaddexp(0.0, -signs * (design @ beta)).sum() + 0.5 * _RIDGE * (away @ away))

    def gradient(beta: FloatArray) -> FloatArray:
        return np.asarray(_RIDGE * (beta - knots) - design.T @ (labels - sigmoid(design @ beta)))

    def hessian(beta: FloatArray) -> FloatArray:
        return _information(design, sigmoid(design @ beta))

    solution = minimize(loss, knots, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-7})
    return np.asarray(solution.x)


def _information(design: FloatArray, fitted: FloatArray) -> FloatArray:
    """Second derivatives of the penalised negative log likelihood, shape (k, k)."""
    return (design * (fitted * (1.0 - fitted))[:, None]).T @ design + _RIDGE * np.eye(design.shape[1])


def _over_cases(distances: FloatArray, share: float | None) -> FloatArray:
    """Mean of each row, or its quantile ``share``."""
    return np.asarray(distances.mean(axis=1) if share is None else np.quantile(distances, share, axis=1))


def _choose_knots(odds: FloatArray, rarer: int) -> FloatArray:
    number = 3 if rarer < _FOUR_KNOTS_FROM else 4 if rarer < _FIVE_KNOTS_FROM else 5
    knots = np.unique(np.quantile(odds, _KNOTS[number], method="inverted_cdf"))
    if knots.size == 1:  # most cases share one probability: a line through the outermost ones
        knots = np.unique([odds.min(), odds.max()])
    if knots.size == 1:
        raise UndefinedMetricError(f"calibration curve: all {odds.size} probabilities are equal, so it is undefined")
    return knots


def _basis(odds: FloatArray, knots: FloatArray) -> FloatArray:
    """Natural cubic splines that are 1 at one knot and 0 at the others, shape (n, k); lines beyond the outer knots."""
    if knots.size == 2:
        share = (odds - knots[0]) / (knots[1] - knots[0])
        return np.column_stack([1.0 - share, share])
    spline = CubicSpline(knots, np.eye(knots.size), bc_type="natural")
    inside = np.clip(odds, knots[0], knots[-1])
    return np.asarray(spline(inside) + spline(inside, 1) * (odds - inside)[:, None])
