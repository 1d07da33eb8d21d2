"""Intervals of ratios that are not means over cases, by linearisation with a patient-clustered variance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import (
    FloatArray,
    IntArray,
    as_groups,
    as_labels_and_probabilities,
    require_both_classes,
)
from pipeline.evaluation.intervals.interval import Interval, t_quantile


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
    error = _clustered_error((truth - ratio * values) / observed, groups, "O:E")  # of the logarithm of the ratio
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
    reach = t_quantile(int(groups.max())) * _clustered_error(parts / truth.size, groups, "scaled Brier score")
    ratio = loss / spread
    return Interval(
        1.0 - ratio,
        1.0 - ratio * float(np.exp(reach)),
        1.0 - ratio * float(np.exp(-reach)),
        method="patient-clustered ratio, log scale",
    )


def _clustered_error(parts: FloatArray, groups: IntArray, what: str) -> float:
    """Standard error of a sum of linearised parts, one a case and 0 in all, from each patient's sum."""
    count = int(groups.max()) + 1
    if count < 2:
        raise UndefinedMetricError(f"{what}: 1 patient; expected at least 2")
    sums = np.bincount(groups, weights=parts, minlength=count)
    return float(np.sqrt(count / (count - 1) * (sums @ sums)))
