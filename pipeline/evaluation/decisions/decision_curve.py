"""Net benefit of decisions at a threshold, in true positives a case, against treating all or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import (
    FloatArray,
    IntArray,
    as_groups,
    as_labels,
    as_probabilities,
    as_scores,
    require_both_classes,
)
from pipeline.evaluation.intervals.clustered import mean_difference_interval
from pipeline.evaluation.intervals.interval import Interval, t_quantile


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit at each threshold; treating none is worth 0 everywhere.

    Attributes:
        thresholds: in (0, 1), rising, shape (t,).
        model: net benefit of calling cases at or above the threshold positive, shape (t,).
        treat_all: net benefit of calling every case positive, shape (t,).
        lower: limit of the model's at each threshold by itself, by patient, shape (t,); None where not asked for.
        upper: likewise.
        prevalence: share of malignant cases that the curve is for; None for that of the cases.
    """

    thresholds: FloatArray
    model: FloatArray
    treat_all: FloatArray
    lower: FloatArray | None = None
    upper: FloatArray | None = None
    prevalence: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        arrays = {name: getattr(self, name) for name in ("thresholds", "model", "lower", "upper", "treat_all")}
        plain = {name: None if values is None else values.tolist() for name, values in arrays.items()}
        return {"prevalence": self.prevalence, **plain}


def net_benefit(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    thresholds: npt.ArrayLike,
    prevalence: float | None = None,
) -> FloatArray:
    """True positives a case, less false positives weighted by the odds of the threshold, shape (t,).

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        thresholds: probabilities at which one would act, in (0, 1), shape (t,).
        prevalence: share of malignant cases to restate it for, in (0, 1), with sensitivity and false alarms as they
            are here; None for that of the cases.

    Raises:
        UndefinedMetricError: with one class, or a threshold or prevalence outside (0, 1).

    Source: Vickers & Elkin, 2006; at another prevalence, for case-control studies, Pfeiffer & Gail, 2020.
    """
    truth = as_labels(labels)
    values, edges = as_probabilities(probabilities, truth), as_scores(thresholds, name="thresholds")
    require_both_classes(truth, what="net benefit")
    if edges.size and (edges.min() <= 0.0 or edges.max() >= 1.0):
        raise UndefinedMetricError(f"net benefit: thresholds span {edges.min():g} to {edges.max():g}; expected (0, 1)")
    malignant, benign = np.sort(values[truth == 1]), np.sort(values[truth == 0])
    detected = malignant.size - np.searchsorted(malignant, edges, side="left")
    alarms = benign.size - np.searchsorted(benign, edges, side="left")
    share = _share(truth, prevalence)
    return np.asarray(share * detected / malignant.size - (1.0 - share) * alarms / benign.size * edges / (1.0 - edges))


def net_benefit_interval(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    threshold: npt.ArrayLike,
) -> Interval:
    """Net benefit at the threshold of each case: a mean over cases, with a patient-clustered variance and Student's t.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,).
        threshold: a case is acted on at or above it, in (0, 1); one, or one a case.

    Raises:
        UndefinedMetricError: with one class, fewer than two patients, or a threshold outside (0, 1).

    Source: Vickers & Elkin, 2006.
    """
    truth = as_labels(labels)
    values = as_probabilities(probabilities, truth)
    limits = np.asarray(threshold, dtype=np.float64)
    net_benefit(truth, values, thresholds=np.unique(limits))  # its checks
    worth = np.where(truth == 1, 1.0, -limits / (1.0 - limits)) * (values >= limits)
    return mean_difference_interval(worth, patients, what="net benefit")


def decision_curve(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    patients: npt.ArrayLike | None = None,
    thresholds: npt.ArrayLike | None = None,
    prevalence: float | None = None,
) -> DecisionCurve:
    """Net benefit of the model and of treating all, over thresholds (default 0.01 to 0.99 by 0.01).

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,), for limits at each threshold by itself: normal, with the
            variance between patients and Student's t. None gives none.
        thresholds: in (0, 1), shape (t,).
        prevalence: as ``net_benefit``; limits take a given prevalence as known, that of the cases as estimated.

    Raises:
        UndefinedMetricError: as ``net_benefit``; with patients also where there are fewer than two.
    """
    edges = np.linspace(0.01, 0.99, 99) if thresholds is None else as_scores(thresholds, name="thresholds")
    truth = as_labels(labels)
    model = net_benefit(truth, probabilities, thresholds=edges, prevalence=prevalence)
    lower, upper = None, None
    if patients is not None:
        groups = as_groups(patients, truth)
        count = int(groups.max()) + 1
        if count < 2:
            raise UndefinedMetricError("limits of a decision curve: 1 patient; expected at least 2")
        variance = _variances(truth, as_probabilities(probabilities, truth), groups, edges, prevalence)
        reach = t_quantile(count - 1) * np.sqrt(variance)
        lower, upper = model - reach, model + reach
    return DecisionCurve(
        thresholds=edges,
        model=model,
        treat_all=net_benefit(truth, np.ones(truth.size), thresholds=edges, prevalence=prevalence),
        lower=lower,
        upper=upper,
        prevalence=prevalence,
    )


def _share(truth: IntArray, prevalence: float | None) -> float:
    if prevalence is None:
        return float(truth.mean())
    if not 0.0 < prevalence < 1.0:
        raise UndefinedMetricError(f"net benefit: prevalence {prevalence:g} is not in (0, 1)")
    return prevalence


def _variances(
    truth: IntArray, values: FloatArray, groups: IntArray, edges: FloatArray, prevalence: float | None
) -> FloatArray:
    """Variance of the net benefit at each threshold, shape (t,), from each patient's contribution."""
    count, sizes = int(groups.max()) + 1, np.bincount(truth, minlength=2)
    variances = np.empty(edges.size)
    for place, edge in enumerate(edges):
        called, odds = (values >= edge).astype(np.float64), edge / (1.0 - edge)
        if prevalence is None:
            worth = np.where(truth == 1, called, -odds * called)
            moves = (worth - worth.mean()) / truth.size
        else:
            rates = np.bincount(truth, weights=called, minlength=2) / sizes  # of benign, of malignant
            weights = np.array([-(1.0 - prevalence) * odds, prevalence]) / sizes
            moves = weights[truth] * (called - rates[truth])
        sums = np.bincount(groups, weights=moves, minlength=count)
        variances[place] = count / (count - 1) * float(sums @ sums)
    return variances
