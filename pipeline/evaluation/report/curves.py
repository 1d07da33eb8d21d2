"""Points of curves, with bands over patients; drawn by ``figures``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation import metrics
from pipeline.evaluation.arrays import FloatArray, IntArray, as_groups, as_labels, as_probabilities
from pipeline.evaluation.calibration import error as calibration_error
from pipeline.evaluation.intervals import resampling
from pipeline.evaluation.intervals.bootstrap import PERCENTILES
from pipeline.evaluation.intervals.clustered import proportion_interval
from pipeline.evaluation.intervals.interval import Band

_BAND_POINTS = 101


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve and the area that sums it up.

    Attributes:
        x: shape (k,).
        y: shape (k,).
        area: AUROC, or average precision.
    """

    x: FloatArray
    y: FloatArray
    area: float


def roc(labels: IntArray, scores: FloatArray) -> Curve:
    """1 - specificity and sensitivity over all thresholds.

    Raises:
        UndefinedMetricError: with one class only.
    """
    from sklearn.metrics import roc_curve

    area = metrics.auroc(labels, scores)
    false_rate, true_rate, _ = roc_curve(labels, scores)
    return Curve(x=np.asarray(false_rate), y=np.asarray(true_rate), area=area)


def precision_recall(labels: IntArray, scores: FloatArray) -> Curve:
    """Recall and precision over all thresholds, from high recall to low.

    Raises:
        UndefinedMetricError: with one class only.
    """
    from sklearn.metrics import precision_recall_curve

    area = metrics.average_precision(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return Curve(x=np.asarray(recall), y=np.asarray(precision), area=area)


def roc_band(
    labels: IntArray, scores: FloatArray, patients: npt.ArrayLike, *, rng: np.random.Generator, resamples: int = 400
) -> Band:
    """Pointwise percentile band of the sensitivity at each false positive rate, by patient bootstrap.

    Raises:
        UndefinedMetricError: when no resample has both classes.
    """
    order = np.argsort(-scores, kind="stable")
    malignant = labels[order].astype(np.float64)
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) < 0.0, True])  # last case of each run of equal scores
    grid = np.linspace(0.0, 1.0, _BAND_POINTS)
    sensitivities = []
    for weights in resampling.patient_weights(as_groups(patients, labels)[order], resamples=resamples, rng=rng):
        hits = np.cumsum(weights * malignant, axis=1)[:, ends]
        alarms = np.cumsum(weights, axis=1)[:, ends] - hits
        for hit, alarm in zip(hits, alarms, strict=True):
            if hit[-1] > 0.0 and alarm[-1] > 0.0:
                sensitivities.append(np.interp(grid, np.r_[0.0, alarm / alarm[-1]], np.r_[0.0, hit / hit[-1]]))
    if not sensitivities:
        raise UndefinedMetricError("ROC band: no resample has both classes; too few patients")
    lower, middle, upper = np.quantile(np.stack(sensitivities), [PERCENTILES[0], 0.5, PERCENTILES[1]], axis=0)
    return Band(x=grid, y=middle, lower=lower, upper=upper)


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike, *, bins: int) -> Band:
    """Mean probability and observed share of malignant cases in equal-mass bins, with patient-clustered intervals.

    Raises:
        UndefinedMetricError: with fewer cases than bins.
    """
    truth = as_labels(labels)
    values = as_probabilities(probabilities, truth)
    ids = np.asarray(patients)
    members = calibration_error.equal_mass_bins(values, bins=bins)
    filled = np.unique(members)
    shares = [proportion_interval(truth[members == number], ids[members == number]) for number in filled]
    return Band(
        x=np.array([values[members == number].mean() for number in filled]),
        y=np.array([share.estimate for share in shares]),
        lower=np.array([share.lower for share in shares]),
        upper=np.array([share.upper for share in shares]),
    )
