"""Sampling variance of the AUROC with cases clustered by patient.

Source: Obuchowski, 1997 (Biometrics 53:567); with one case a patient it is DeLong, DeLong & Clarke-Pearson, 1988.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Components:
    """Contribution of each patient to the AUROC's deviation from its mean.

    Attributes:
        auroc: the estimate.
        malignant: sums over a patient's malignant cases, shape (patients,).
        benign: sums over a patient's benign cases, shape (patients,).
    """

    auroc: float
    malignant: FloatArray
    benign: FloatArray


def components(labels: IntArray, scores: FloatArray, groups: IntArray) -> Components:
    """Structural components of each case, from ranks, summed by patient.

    Args:
        labels: 0 or 1, both present, shape (n,).
        scores: shape (n,).
        groups: number of the patient of each case, shape (n,).
    """
    positive = labels == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    overall = stats.rankdata(scores)
    placed = np.empty(labels.size)
    # The share of the other class that a case outranks: its rank among all less its rank among its own.
    placed[positive] = (overall[positive] - stats.rankdata(scores[positive])) / n_negative
    placed[~positive] = 1.0 - (overall[~positive] - stats.rankdata(scores[~positive])) / n_positive
    auroc = float(placed[positive].mean())
    deviation = placed - auroc
    return Components(
        auroc=auroc,
        malignant=_sums(deviation * positive, groups),
        benign=_sums(deviation * ~positive, groups),
    )


def _sums(values: FloatArray, groups: IntArray) -> FloatArray:
    return np.bincount(groups, weights=values).astype(np.float64)


def covariance(labels: IntArray, groups: IntArray, first: Components, second: Components) -> float:
    """Covariance of two AUROCs on the same cases; the variance when both are the same.

    Raises:
        UndefinedMetricError: with fewer than two patients that have malignant, or that have benign, cases.
    """
    patients = int(groups.max()) + 1
    counts = np.bincount(groups[labels == 1], minlength=patients), np.bincount(groups[labels == 0], minlength=patients)
    n_positive, n_negative = (int(count.sum()) for count in counts)
    with_positive, with_negative = (int((count > 0).sum()) for count in counts)
    if min(with_positive, with_negative) < 2:
        raise UndefinedMetricError(
            f"AUROC interval: {with_positive} patients have malignant and {with_negative} have benign cases; "
            "expected at least 2 of each"
        )
    own = with_positive / (with_positive - 1) / n_positive**2 * float(first.malignant @ second.malignant)
    of_benign = with_negative / (with_negative - 1) / n_negative**2 * float(first.benign @ second.benign)
    crossed = float(first.malignant @ second.benign + first.benign @ second.malignant)
    return own + of_benign + patients / (patients - 1) / (n_positive * n_negative) * crossed


def exponential_variance(auroc: float, n_positive: float, n_negative: float) -> float:
    """Variance of an AUROC under exponential scores, from its value alone; used where the cases show no spread.

    Source: Hanley & McNeil, 1982, as in method 5 of Newcombe, 2006 (Statistics in Medicine 25:559).
    """
    half = (n_positive + n_negative) / 2.0 - 1.0
    spread = 1.0 + half * (1.0 - auroc) / (2.0 - auroc) + half * auroc / (1.0 + auroc)
    return auroc * (1.0 - auroc) * spread / (n_positive * n_negative)
