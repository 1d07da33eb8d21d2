"""Intervals in closed form for shares, means, ratios and calibration, robust to a patient's cases being alike.

Ratios that are not means over cases are linearised.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import (
    FloatArray,
    IntArray,
    as_groups,
    as_labels,
    as_labels_and_probabilities,
    as_scores,
    require_both_classes,
)
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.logistic import fit_recalibration
from pipeline.evaluation.intervals.interval import Interval, normal_quantile, t_quantile
from pipeline.evaluation.metrics import log_odds

SHOWN_FROM_PATIENTS = 8  # the smallest study in which the coverage of a proportion's interval was simulated
SHOWN_FROM_RARER = 5.0  # patients times the share of the rarer outcome; below, coverage was seen to fall to 0.88


def proportion_interval(right: npt.ArrayLike, patients: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """Share of cases that are 1, by Wilson's interval with the effective number of cases.

    The effective number is the number of independent cases that would show the variance seen between patients,
    multiplied by the squared ratio of Student's t with cases - 1 to that with patients - 1 degrees of freedom, because
    the variance is estimated from so many patients. Where all cases agree it is the number of patients.

    Args:
        right: 0 or 1, shape (n,).
        patients: patient id of each case, shape (n,).
        level: confidence level.

    Raises:
        UndefinedMetricError: without cases.

    Source: Wilson, 1927; effective sample size and its correction for degrees of freedom, Korn & Graubard, 1998.
    """
    values = as_labels(right)
    groups = as_groups(patients, values)
    share, count = float(values.mean()), int(groups.max()) + 1
    variance = _mean_variance(values.astype(np.float64), groups)
    effective = float(count)
    if 0.0 < share < 1.0 and variance > 0.0:
        effective = min(share * (1.0 - share) / variance, float(values.size))
        effective *= (t_quantile(values.size - 1, level) / t_quantile(count - 1, level)) ** 2
    lower, upper = wilson_limits(share, effective, level)
    return Interval(share, min(lower, share), max(upper, share), level, "Wilson, effective sample size")


def wilson_limits(share: float, cases: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's limits of a share among so many independent cases, in [0, 1]; the number need not be whole."""
    far = normal_quantile(level)
    center = (share + far**2 / (2.0 * cases)) / (1.0 + far**2 / cases)
    reach = far * math.sqrt(share * (1.0 - share) / cases + far**2 / (4.0 * cases**2)) / (1.0 + far**2 / cases)
    return max(center - reach, 0.0), min(center + reach, 1.0)


def proportion_caution(right: npt.ArrayLike, patients: npt.ArrayLike) -> str | None:
    """Why the interval of a share may be too narrow: the study lies below the range in which it has been shown to hold.

    Args:
        right: 0 or 1, shape (n,).
        patients: patient id of each case, shape (n,).

    Returns:
        A few words, or None within that range, and where every patient has one case (Wilson's interval as it stands).

    Raises:
        UndefinedMetricError: without cases.
    """
    values = as_labels(right)
    count = int(as_groups(patients, values).max()) + 1
    share = float(values.mean())
    rarer = count * min(share, 1.0 - share)
    if count == values.size or (count >= SHOWN_FROM_PATIENTS and rarer >= SHOWN_FROM_RARER):
        return None
    if count < SHOWN_FROM_PATIENTS:
        return f"{count} patients; shown to hold from {SHOWN_FROM_PATIENTS} on"
    return (
        f"{count} patients times {min(share, 1.0 - share):.3f}, the share of the rarer outcome, is {rarer:.1f}; "
        f"shown to hold from {SHOWN_FROM_RARER:g} on"
    )


def mean_interval(values: npt.ArrayLike, patients: npt.ArrayLike, *, largest: float = np.inf) -> Interval:
    """Mean of a non-negative loss a case (Brier, log loss), on the log scale, where it is more nearly normal.

    Args:
        values: losses, shape (n,).
        patients: patient id of each case, shape (n,).
        largest: no mean can be above it.

    Raises:
        UndefinedMetricError: with fewer than two patients, no loss at all, or a value that is not finite.
    """
    losses = as_scores(values)
    groups = as_groups(patients, losses)
    count = int(groups.max()) + 1
    if count < 2:
        raise UndefinedMetricError("interval of a mean: 1 patient; expected at least 2")
    mean = float(losses.mean())
    if mean <= 0.0:
        raise UndefinedMetricError("interval of a mean: every case has a loss of 0, so there is no spread to measure")
    reach = t_quantile(count - 1) * float(np.sqrt(_mean_variance(losses, groups))) / mean
    lower, upper = mean * float(np.exp(-reach)), min(mean * float(np.exp(reach)), largest)
    return Interval(mean, lower, upper, method="patient-clustered, log scale")


def mean_difference_interval(
    differences: npt.ArrayLike, patients: npt.ArrayLike, *, what: str = "difference"
) -> Interval:
    """Mean of a value a case, of either sign (as a paired difference), with a clustered variance and Student's t.

    Args:
        differences: one a case, shape (n,).
        patients: patient id of each case, shape (n,).
        what: name of the value in messages.

    Raises:
        UndefinedMetricError: with fewer than two patients, or a value that is not finite.
    """
    values = as_scores(differences)
    groups = as_groups(patients, values)
    count = int(groups.max()) + 1
    if count < 2:
        raise UndefinedMetricError(f"interval of a {what}: 1 patient; expected at least 2")
    mean = float(values.mean())
    reach = t_quantile(count - 1) * float(np.sqrt(_mean_variance(values, groups)))
    return Interval(mean, mean - reach, mean + reach, method="patient-clustered mean")


def _sum_variance(parts: FloatArray, groups: IntArray) -> float:
    """Variance of the sum of parts, one a case and 0 in all, from each patient's sum; two patients or more."""
    count = int(groups.max()) + 1
    sums = np.bincount(groups, weights=parts, minlength=count)
    return float(count / (count - 1) * (sums @ sums))


def _mean_variance(values: FloatArray, groups: IntArray) -> float:
    """Variance of a mean over cases; 0 where there is a single patient."""
    if int(groups.max()) < 1:
        return 0.0
    return _sum_variance(values - values.mean(), groups) / values.size**2


def _error_of_sum(parts: FloatArray, groups: IntArray, what: str) -> float:
    """Standard error of a sum of linearised parts, one a case and 0 in all."""
    if int(groups.max()) < 1:
        raise UndefinedMetricError(f"{what}: 1 patient; expected at least 2")
    return math.sqrt(_sum_variance(parts, groups))


def observed_expected_interval(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike
) -> Interval:
    """Malignant cases observed over those expected (the sum of the probabilities), on the log scale.

    1 is right; above 1 the probabilities are too low on average.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,).

    Raises:
        UndefinedMetricError: without a malignant case or with fewer than two patients.

    Source: Riley et al., 2021 (the same variance where each patient has one case and the ratio is 1).
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    groups = as_groups(patients, truth)
    observed, expected = float(truth.sum()), float(values.sum())
    if observed == 0.0 or expected == 0.0:
        raise UndefinedMetricError(f"O:E: {observed:g} malignant cases observed, {expected:.3g} expected; undefined")
    ratio = observed / expected
    error = _error_of_sum((truth - ratio * values) / observed, groups, "O:E")  # of the logarithm of the ratio
    reach = t_quantile(int(groups.max())) * error
    lower, upper = ratio * float(np.exp(-reach)), ratio * float(np.exp(reach))
    return Interval(ratio, lower, upper, method="patient-clustered ratio, log scale")


def scaled_brier_interval(labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike) -> Interval:
    """1 less the Brier score over that of the prevalence: 1 is perfect, 0 no better than the prevalence alone.

    Below 0 it is worse. The interval is found for the logarithm of the ratio.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,).

    Raises:
        UndefinedMetricError: with one class, no loss at all, or fewer than two patients.

    Source: Steyerberg et al., 2010; Kattan & Gerds, 2018 (index of prediction accuracy).
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    groups = as_groups(patients, truth)
    require_both_classes(truth, what="scaled Brier score")
    losses, prevalence = (values - truth) ** 2, float(truth.mean())
    loss, spread = float(losses.mean()), prevalence * (1.0 - prevalence)
    if loss == 0.0:
        raise UndefinedMetricError("scaled Brier score: every case has a loss of 0, so there is no spread to measure")
    # Both parts of log(loss / spread): the loss, and the prevalence, by which the spread moves.
    parts = (losses - loss) / loss - (1.0 - 2.0 * prevalence) * (truth - prevalence) / spread
    reach = t_quantile(int(groups.max())) * _error_of_sum(parts / truth.size, groups, "scaled Brier score")
    ratio = loss / spread
    return Interval(
        1.0 - ratio,
        1.0 - ratio * float(np.exp(reach)),
        1.0 - ratio * float(np.exp(-reach)),
        method="patient-clustered ratio, log scale",
    )


def calibration_slope_interval(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike
) -> Interval:
    """Calibration slope with a patient-clustered sandwich variance.

    Raises:
        UndefinedMetricError: with one class, equal probabilities, separated classes, or fewer than three patients.
    """
    truth, odds, groups = _checked(labels, probabilities, patients)
    fit = fit_recalibration(odds, truth, fixed_slope=False)
    design = np.column_stack([np.ones(odds.size), odds])
    variance = _sandwich(design, truth, sigmoid(fit.intercept + fit.slope * odds), groups)[1, 1]
    return _wald(fit.slope, variance, groups)


def calibration_intercept_interval(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike
) -> Interval:
    """Calibration in the large (slope fixed at 1) with a patient-clustered sandwich variance.

    Raises:
        UndefinedMetricError: with one class or fewer than three patients.
    """
    truth, odds, groups = _checked(labels, probabilities, patients)
    fit = fit_recalibration(odds, truth, fixed_slope=True)
    variance = _sandwich(np.ones((odds.size, 1)), truth, sigmoid(fit.intercept + odds), groups)[0, 0]
    return _wald(fit.intercept, variance, groups)


def _checked(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike
) -> tuple[IntArray, FloatArray, IntArray]:
    truth, values = as_labels_and_probabilities(labels, probabilities)
    groups = as_groups(patients, truth)
    if int(groups.max()) < 2:
        raise UndefinedMetricError(f"calibration interval: {int(groups.max()) + 1} patients; expected at least 3")
    return truth, log_odds(values), groups


def _sandwich(design: FloatArray, labels: IntArray, fitted: FloatArray, groups: IntArray) -> FloatArray:
    """Covariance (k, k) of logistic coefficients: inverse information around the patients' summed scores."""
    count, parameters = int(groups.max()) + 1, design.shape[1]
    information = (design * (fitted * (1.0 - fitted))[:, None]).T @ design
    residual = labels - fitted
    scores = np.column_stack(
        [np.bincount(groups, weights=residual * design[:, column], minlength=count) for column in range(parameters)]
    )
    try:
        bread = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        raise UndefinedMetricError("calibration interval: the fit is too steep to measure; add cases") from None
    return np.asarray(bread @ (scores.T @ scores) @ bread * count / (count - 1))


def _wald(estimate: float, variance: float, groups: IntArray) -> Interval:
    reach = t_quantile(int(groups.max())) * float(np.sqrt(variance))
    return Interval(estimate, estimate - reach, estimate + reach, method="patient-clustered sandwich")
