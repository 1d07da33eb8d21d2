"""Calibration errors with and without bins, and their distribution under perfect calibration.

An undefined error raises; it is never NaN, -1 or 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray, as_labels_and_probabilities, as_probabilities
from pipeline.evaluation.intervals.patient_labels import PatientLabels


def expected_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, bins: int = 15) -> float:
    """Mean gap between predicted and observed malignancy, over equal-mass bins.

    Cases with equal probabilities share a bin, so the order of the cases does not matter.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: in [0, 1], shape (n,).
        bins: number of bins.

    Raises:
        UndefinedMetricError: with fewer cases than bins, or a probability outside [0, 1].

    Source: Nguyen & O'Connor, 2015; equal-mass bins as in Roelofs et al., 2022.
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    members = equal_mass_bins(values, bins=bins)
    gaps = np.bincount(members, weights=values - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def equal_mass_bins(probabilities: FloatArray, *, bins: int) -> IntArray:
    """Number of the equal-mass bin of each case, 0 … bins-1, shape (n,); equal values share a bin.

    Raises:
        UndefinedMetricError: with fewer cases than bins.
    """
    if bins < 1 or probabilities.size < bins:
        raise UndefinedMetricError(
            f"ECE: {probabilities.size} cases for {bins} bins; "
            "expected at least one case a bin; use fewer bins or more cases"
        )
    middle = stats.rankdata(probabilities, method="average") - 0.5
    return np.minimum((middle * bins / probabilities.size).astype(np.int64), bins - 1)


@dataclass(frozen=True)
class EceNull:
    """How large the ECE of perfectly calibrated probabilities would be on as many cases.

    Attributes:
        bins: equal-mass bins.
        draws: label sets drawn from the probabilities.
        alike: how alike a patient's labels were drawn, 0 to 1 (``PatientLabels``).
        mean: of the drawn ECEs.
        median: of the drawn ECEs.
        p95: 95th percentile of the drawn ECEs.
    """

    bins: int
    draws: int
    alike: float
    mean: float
    median: float
    p95: float


def ece_null(
    probabilities: npt.ArrayLike, labels: PatientLabels, *, rng: np.random.Generator, bins: int = 15, draws: int = 1000
) -> EceNull:
    """Distribution of the ECE when labels are drawn from the probabilities themselves, a patient's cases together.

    Args:
        probabilities: in [0, 1], shape (n,).
        labels: how alike those of a patient are drawn.
        rng: source of the draws.
        bins: equal-mass bins, as for the ECE beside it.
        draws: label sets.

    Raises:
        UndefinedMetricError: with fewer cases than bins, or a probability outside [0, 1].
    """
    values = as_probabilities(probabilities)
    members = equal_mass_bins(values, bins=bins)
    order = np.argsort(members, kind="stable")
    members, ordered = members[order], values[order]
    starts = np.flatnonzero(np.r_[True, np.diff(members) > 0])
    expected = np.add.reduceat(ordered, starts)
    errors = np.empty(draws)
    step = max(1, 4_000_000 // values.size)
    for first in range(0, draws, step):
        drawn = labels.draw(values, rows=min(step, draws - first), rng=rng)  # (draws in step, n)
        observed = np.add.reduceat(drawn[:, order], starts, axis=1, dtype=np.float64)
        errors[first : first + len(drawn)] = np.abs(observed - expected).sum(axis=1) / values.size
    return EceNull(
        bins=bins,
        draws=draws,
        alike=labels.alike,
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        p95=float(np.quantile(errors, 0.95)),
    )


def cumulative_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Calibration error without bins: how far observed and expected counts drift apart, in [0, 1]; 0 is right.

    Cases are put in order of probability and the gap between label and probability is added up; the error is the range
    of that sum, over the number of cases. Equal probabilities are one step, so the order of the cases does not matter.

    Raises:
        UndefinedMetricError: without cases, or with a probability outside [0, 1].

    Source: Arrieta-Ibarra et al., 2022 (ECCE-R).
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    order = np.argsort(values, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(values[order]) > 0.0), values.size - 1]
    drift = np.r_[0.0, np.cumsum((truth - values)[order])[ends]]
    return float(np.ptp(drift) / truth.size)


def cumulative_null_p95(
    probabilities: npt.ArrayLike, labels: PatientLabels, *, rng: np.random.Generator, draws: int = 500
) -> float:
    """95th percentile of ``cumulative_calibration_error`` when labels are drawn from the probabilities themselves.

    Args:
        probabilities: in [0, 1], shape (n,).
        labels: how alike those of a patient are drawn.
        rng: source of the draws.
        draws: label sets.

    Raises:
        UndefinedMetricError: with a probability outside [0, 1].
    """
    values = as_probabilities(probabilities)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.r_[np.flatnonzero(np.diff(ordered) > 0.0), values.size - 1]
    ranges = np.empty(draws)
    step = max(1, 2_000_000 // values.size)
    for first in range(0, draws, step):
        drawn = labels.draw(values, rows=min(step, draws - first), rng=rng)  # (draws in step, n)
        drift = np.cumsum(drawn[:, order] - ordered, axis=1)[:, ends]
        ranges[first : first + len(drawn)] = np.maximum(drift.max(axis=1), 0.0) - np.minimum(drift.min(axis=1), 0.0)
    return float(np.quantile(ranges / values.size, 0.95))


def miscalibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Part of the Brier score that recalibration could win back: a calibration error without bins; 0 is right.

    It is the Brier score less that of the isotonic recalibration (CORP).

    Raises:
        UndefinedMetricError: without cases, or with a probability outside [0, 1].

    Source: Dimitriadis, Gneiting & Jordan, 2021.
    """
    from sklearn.isotonic import isotonic_regression

    truth, values = as_labels_and_probabilities(labels, probabilities)
    # Of the steps themselves: `IsotonicRegression` interpolates between them, which gives NaN where probabilities
    # differ by the last bit of a number, as sigmoids near 1 do.
    _, step, cases = np.unique(values, return_inverse=True, return_counts=True)
    recalibrated = isotonic_regression(np.bincount(step, truth) / cases, sample_weight=cases)[step]
    return float(np.mean((values - truth) ** 2)) - float(np.mean((recalibrated - truth) ** 2))
