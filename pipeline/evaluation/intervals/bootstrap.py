"""Intervals of AUROC and average precision, where patients, not cases, are what was sampled.

The closed forms for shares, means, calibration slope and intercept are in ``clustered``. ``evaluate`` uses the forms
that cover the truth most reliably in the simulation of the tests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import (
    FloatArray,
    IntArray,
    as_groups,
    as_labels,
    as_scores,
    patients_of_each_class,
    require_both_classes,
)
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.intervals import delong, resampling
from pipeline.evaluation.intervals.clustered import wilson_limits
from pipeline.evaluation.intervals.interval import Interval, normal_quantile, t_quantile

PERCENTILES = ((1.0 - 0.95) / 2.0, (1.0 + 0.95) / 2.0)  # of the 95 % interval
# What an interval of an out-of-fold figure covers, for every report. Bengio and Grandvalet (2004): the variance that
# training adds has no unbiased estimate; Bayle et al. (2020): the part left out vanishes where learning is stable.
OUT_OF_FOLD = (
    "intervals of out-of-fold figures are about these networks on other cases like these; how far other training cases "
    "would have moved the networks, and the figures with them, is outside the intervals"
)


def percentile_interval(name: str, estimate: float, replicates: FloatArray) -> Interval:
    """Percentile interval of a statistic from its value on each resample; NaN where a resample does not define it.

    Raises:
        UndefinedMetricError: when over 5 % of the resamples do not.
    """
    lower, upper = np.quantile(_defined(name, estimate, replicates), PERCENTILES)
    return Interval(estimate, float(lower), float(upper), method="patient bootstrap, percentile")


def _defined(name: str, estimate: float, replicates: FloatArray) -> FloatArray:
    defined = replicates[np.isfinite(replicates)]
    if not np.isfinite(estimate) or defined.size < 0.95 * replicates.size:
        raise UndefinedMetricError(
            f"{name}: undefined on {replicates.size - defined.size} of {replicates.size} resamples; "
            "expected at most 5 %; too few patients of a class to say"
        )
    return defined


def bootstrap_share_interval(
    name: str, estimate: float, replicates: FloatArray, *, cases: int, patients: int
) -> Interval:
    """A share with Wilson's interval, whose effective number of cases has the variance of the patient bootstrap.

    For shares that are no plain mean over cases, as sensitivity at a rate of false positives. The percentile interval
    reaches 1 too early, and shrinks to a point where every case was right.

    Args:
        name: of the share, in messages.
        estimate: on all cases.
        replicates: on each resample of the patients; NaN where undefined.
        cases: that the share is of; the effective number is no larger.
        patients: that they come from; the effective number where the resamples show no spread.

    Raises:
        UndefinedMetricError: when over 5 % of the resamples do not define it.

    Source: Wilson, 1927; effective sample size and its correction for degrees of freedom, Korn & Graubard, 1998.
    """
    defined = _defined(name, estimate, replicates)
    variance, effective = float(defined.var(ddof=1)), float(patients)
    if 0.0 < estimate < 1.0 and variance > 0.0:
        effective = min(estimate * (1.0 - estimate) / variance, float(cases))
        effective *= (t_quantile(cases - 1) / t_quantile(patients - 1)) ** 2
    lower, upper = wilson_limits(estimate, effective)
    return Interval(estimate, min(lower, estimate), max(upper, estimate), method="patient bootstrap, Wilson")


def average_precision_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Interval:
    """Average precision with the patient bootstrap's standard error, on the logit scale.

    The percentile interval covers too little with a few dozen malignant patients, as resampling with ties raises
    average precision; the standard error does not suffer from that.

    Raises:
        UndefinedMetricError: with one class, perfectly separated classes, or too few patients of a class.
    """
    truth = as_labels(labels)
    values, groups = as_scores(scores, truth), as_groups(patients, truth)
    require_both_classes(truth, what="average precision")
    order = np.argsort(values, kind="stable")
    statistic = resampling.average_precision_statistic(resampling.Ranking.of(truth[order], values[order]))
    estimate = float(statistic(np.ones((1, truth.size)))[0])
    if estimate >= 1.0:
        raise UndefinedMetricError(
            f"average precision: is 1 on these {truth.size} cases, which shows no spread to measure; add cases"
        )
    replicates = resampling.replicates(groups[order], {"": statistic}, resamples=resamples, rng=rng)[""]
    defined = _defined("average precision", estimate, replicates)
    reach = _reach(truth, groups) * float(defined.std(ddof=1)) / (estimate * (1.0 - estimate))
    lower, upper = sigmoid(np.log(estimate / (1.0 - estimate)) + np.array([-reach, reach]))
    return Interval(estimate, float(lower), float(upper), method="patient bootstrap, logit scale")


def auroc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, patients: npt.ArrayLike, *, level: float = 0.95
) -> Interval:
    """AUROC with Obuchowski's clustered variance, on the logit scale, where it is more nearly normal.

    Perfect separation shows no spread; there the limit is Newcombe's, which counts patients instead.

    Raises:
        UndefinedMetricError: with one class, or fewer than two patients with malignant or with benign cases.

    Source: Obuchowski, 1997 (DeLong et al., 1988, with one case a patient); Newcombe, 2006, method 5.
    """
    truth = as_labels(labels)
    values, groups = as_scores(scores, truth), as_groups(patients, truth)
    require_both_classes(truth, what="AUROC")
    parts = delong.components(truth, values, groups)
    variance = delong.covariance(truth, groups, parts, parts)
    area = parts.auroc
    if not 0.0 < area < 1.0 or variance <= 0.0:
        return _separated_auroc(truth, groups, area, level)
    reach = _reach(truth, groups, level) * np.sqrt(variance) / (area * (1.0 - area))
    lower, upper = sigmoid(np.log(area / (1.0 - area)) + np.array([-reach, reach]))
    return Interval(area, float(lower), float(upper), level, "Obuchowski, logit scale")


def _separated_auroc(truth: IntArray, groups: IntArray, area: float, level: float) -> Interval:
    counts = patients_of_each_class(truth, groups)
    far = normal_quantile(level)

    def gap(value: float) -> float:
        return abs(area - value) - far * float(np.sqrt(delong.exponential_variance(value, *counts)))

    inside = min(max(area, 1e-12), 1.0 - 1e-12)
    lower = 0.0 if area <= 0.0 else float(optimize.brentq(gap, 1e-12, inside))
    upper = 1.0 if area >= 1.0 else float(optimize.brentq(gap, inside, 1.0 - 1e-12))
    return Interval(area, lower, upper, level, "Newcombe, over patients")


def _reach(truth: IntArray, groups: IntArray, level: float = 0.95) -> float:
    """Student's t rather than the normal, because the variance is estimated from the patients of the smaller class."""
    return t_quantile(min(patients_of_each_class(truth, groups)) - 1, level)


def paired_auroc_difference(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Interval:
    """AUROC of ``scores_a`` less that of ``scores_b`` on the same cases, by patient bootstrap.

    Raises:
        UndefinedMetricError: with one class, or too few patients of a class to resample.
    """
    truth = as_labels(labels)
    groups = as_groups(patients, truth)
    require_both_classes(truth, what="AUROC")
    first, second = (
        resampling.auroc_statistic(resampling.Ranking.of(truth, as_scores(scores, truth)))
        for scores in (scores_a, scores_b)
    )

    def difference(weights: FloatArray) -> FloatArray:
        return first(weights) - second(weights)

    replicates = resampling.replicates(groups, {"": difference}, resamples=resamples, rng=rng)[""]
    return percentile_interval("AUROC difference", float(difference(np.ones((1, truth.size)))[0]), replicates)
