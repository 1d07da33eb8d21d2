"""Single numbers about a set of judged cases. An undefined metric is an error, never NaN, -1 or 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import (
    FloatArray,
    IntArray,
    as_labels,
    as_labels_and_probabilities,
    as_scores,
    require_both_classes,
)
from pipeline.evaluation.calibration.calibrator import logit
from pipeline.evaluation.calibration.logistic import fit_recalibration

# The distance from 0 and 1 that scikit-learn's log loss keeps in float64.
EDGE = float(np.finfo(np.float64).eps)


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a malignant case scores above a benign one (ties count half).

    Args:
        labels: 0 or 1, shape (n,).
        scores: any finite numbers that rise with malignancy, shape (n,).

    Raises:
        UndefinedMetricError: with one class only or a score that is not finite.
    """
    from sklearn.metrics import roc_auc_score

    truth, values = _both_classes(labels, scores, what="AUROC")
    return float(roc_auc_score(truth, values))


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean precision over the malignant cases, in [0, 1]; a useless score gets the prevalence.

    Raises:
        UndefinedMetricError: with one class only or a score that is not finite.
    """
    from sklearn.metrics import average_precision_score

    truth, values = _both_classes(labels, scores, what="average precision")
    return float(average_precision_score(truth, values))


def brier_score(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean squared gap between probability and label, in [0, 1]; smaller is better.

    Raises:
        UndefinedMetricError: without cases, or with a probability outside [0, 1].
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    return float(np.mean((values - truth) ** 2))


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean negative log likelihood in nats; smaller is better.

    Probabilities are kept 2.2e-16 away from 0 and 1, as scikit-learn does, so that one sure mistake costs 36
    nats rather than infinity.

    Raises:
        UndefinedMetricError: without cases, or with a probability outside [0, 1].
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    return float(case_log_losses(truth, values).mean())


def case_log_losses(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Negative log likelihood of each case in nats, shape (n,)."""
    clipped = np.clip(probabilities, EDGE, 1.0 - EDGE)
    return np.asarray(-np.where(labels == 1, np.log(clipped), np.log1p(-clipped)))


def calibration_slope(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Slope of a logistic regression of the label on the log odds; 1 is right, below 1 is overconfident.

    Raises:
        UndefinedMetricError: with one class, equal probabilities, or perfectly separated classes.

    Source: Cox, 1958; Van Calster et al., 2016.
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    return fit_recalibration(log_odds(values), truth, fixed_slope=False).slope


def calibration_intercept(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Calibration in the large: intercept of that regression **with the slope fixed at 1**; 0 is right.

    Above 0 the probabilities are too low on average, below 0 too high. (It is not the intercept of the
    two-parameter fit, which means little alone.)

    Raises:
        UndefinedMetricError: with one class only.

    Source: Cox, 1958; Van Calster et al., 2016.
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    return fit_recalibration(log_odds(values), truth, fixed_slope=True).intercept


def log_odds(probabilities: FloatArray) -> FloatArray:
    """Finite log odds, shape (n,): probabilities are kept 2.2e-16 away from 0 and 1."""
    return logit(np.clip(probabilities, EDGE, 1.0 - EDGE))


@dataclass(frozen=True)
class Confusion:
    """Counts of decisions against labels at one threshold.

    Attributes:
        true_positive: malignant, called positive.
        false_negative: malignant, called negative.
        true_negative: benign, called negative.
        false_positive: benign, called positive.
    """

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def sensitivity(self) -> float:
        """Share of the malignant that are called positive. Raises UndefinedMetricError without malignant cases."""
        return _share(self.true_positive, self.false_negative, "sensitivity: there is no malignant case")

    @property
    def specificity(self) -> float:
        """Share of the benign that are called negative. Raises UndefinedMetricError without benign cases."""
        return _share(self.true_negative, self.false_positive, "specificity: there is no benign case")


def _share(part: int, rest: int, otherwise: str) -> float:
    if part + rest == 0:
        raise UndefinedMetricError(f"{otherwise}, so it is undefined")
    return part / (part + rest)


def confusion(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: npt.ArrayLike) -> Confusion:
    """Count decisions; a case is positive when its probability is at or above ``threshold`` (one, or one a case).

    Raises:
        UndefinedMetricError: without cases, or with a probability outside [0, 1].
    """
    truth, values = as_labels_and_probabilities(labels, probabilities)
    positive = values >= np.asarray(threshold, dtype=np.float64)
    return Confusion(
        true_positive=int((positive & (truth == 1)).sum()),
        false_negative=int((~positive & (truth == 1)).sum()),
        true_negative=int((~positive & (truth == 0)).sum()),
        false_positive=int((positive & (truth == 0)).sum()),
    )


def _both_classes(labels: npt.ArrayLike, scores: npt.ArrayLike, *, what: str) -> tuple[IntArray, FloatArray]:
    truth = as_labels(labels)
    values = as_scores(scores, truth)
    require_both_classes(truth, what=what)
    return truth, values
