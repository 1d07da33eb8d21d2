"""Net benefit: what decisions at a threshold are worth, in true positives a case, against treating all or none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, as_labels, as_probabilities, as_scores, require_both_classes
from pipeline.evaluation.clustered import mean_difference_interval
from pipeline.evaluation.intervals import Interval


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit at each threshold; treating none is worth 0 everywhere.

    Attributes:
        thresholds: in (0, 1), rising, shape (t,).
        model: net benefit of calling cases at or above the threshold positive, shape (t,).
        treat_all: net benefit of calling every case positive, shape (t,).
    """

    thresholds: FloatArray
    model: FloatArray
    treat_all: FloatArray


def net_benefit(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, thresholds: npt.ArrayLike) -> FloatArray:
    """True positives a case, less false positives weighted by the odds of the threshold, shape (t,).

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        thresholds: probabilities at which one would act, in (0, 1), shape (t,).

    Raises:
        UndefinedMetricError: with one class, or a threshold outside (0, 1).

    Source: Vickers & Elkin, 2006.
    """
    truth = as_labels(labels)
    values, edges = as_probabilities(probabilities, truth), as_scores(thresholds, name="thresholds")
    require_both_classes(truth, what="net benefit")
    if edges.size and (edges.min() <= 0.0 or edges.max() >= 1.0):
        raise UndefinedMetricError(f"net benefit: thresholds span {edges.min():g} to {edges.max():g}; expected (0, 1)")
    malignant, benign = np.sort(values[truth == 1]), np.sort(values[truth == 0])
    found = malignant.size - np.searchsorted(malignant, edges, side="left")
    alarms = benign.size - np.searchsorted(benign, edges, side="left")
    return np.asarray((found - alarms * edges / (1.0 - edges)) / truth.size)


def net_benefit_interval(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    threshold: npt.ArrayLike,
    level: float = 0.95,
) -> Interval:
    """Net benefit at what decides each case: a mean over cases, with a patient-clustered variance and Student's t.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,).
        threshold: a case is acted on at or above it, in (0, 1); one, or one a case.
        level: confidence level.

    Raises:
        UndefinedMetricError: with one class, fewer than two patients, or a threshold outside (0, 1).

    Source: Vickers & Elkin, 2006.
    """
    truth = as_labels(labels)
    values = as_probabilities(probabilities, truth)
    limits = np.asarray(threshold, dtype=np.float64)
    net_benefit(truth, values, thresholds=np.unique(limits))  # its checks
    worth = np.where(truth == 1, 1.0, -limits / (1.0 - limits)) * (values >= limits)
    return mean_difference_interval(worth, patients, level=level, what="net benefit")


def decision_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, thresholds: npt.ArrayLike | None = None
) -> DecisionCurve:
    """Net benefit of the model and of treating all, over thresholds (default 0.01 to 0.99 by 0.01).

    Raises:
        UndefinedMetricError: as ``net_benefit``.
    """
    edges = np.linspace(0.01, 0.99, 99) if thresholds is None else as_scores(thresholds, name="thresholds")
    every = np.ones(np.shape(np.asarray(labels)))
    return DecisionCurve(
        thresholds=edges,
        model=net_benefit(labels, probabilities, thresholds=edges),
        treat_all=net_benefit(labels, every, thresholds=edges),
    )
