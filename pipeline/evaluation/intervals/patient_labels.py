"""Labels drawn from probabilities, with the observed correlation between the cases of a patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray, as_groups, as_labels, as_probabilities
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.logistic import fit_recalibration
from pipeline.evaluation.metrics import log_odds


@dataclass(frozen=True, eq=False)
class PatientLabels:
    """How to draw labels of a perfectly calibrated model on the patients of a study.

    Every case is malignant with exactly its own probability: when a uniform number lies below it. A case takes the
    number that its patient's cases share with probability ``sqrt(alike)``, and one of its own otherwise, so that two
    cases of a patient share theirs with probability ``alike``.

    Attributes:
        groups: number of the patient of each case, shape (n,).
        alike: 0 for independent cases, 1 where the most suspicious of a patient's cases are always the malignant ones.

    Source: Lunn & Davies, 1998 (correlated binary variables; theirs have one probability).
    """

    groups: IntArray
    alike: float

    @classmethod
    def of(cls, labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike) -> PatientLabels:
        """Estimate how alike a patient's labels are, given their probabilities.

        The products of the residuals of a patient's pairs of cases are summed, over what the sum would be if every
        pair shared its number. Residuals are those of the logistic recalibration, so that a miscalibrated model's
        common error is not taken for likeness; where it is undefined, those of the probabilities.

        Raises:
            UndefinedMetricError: with a probability outside [0, 1].
        """
        truth = as_labels(labels)
        values, groups = as_probabilities(probabilities, truth), as_groups(patients, truth)
        if int(groups.max()) + 1 == truth.size:
            return cls(groups, 0.0)
        values = _recalibrated(truth, values)
        observed = _pair_sum(truth - values, groups)
        order = np.lexsort((values, groups))
        sizes = np.bincount(groups)
        rank = np.arange(truth.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        later = np.repeat(sizes, sizes) - 1 - rank  # cases of the patient with a larger probability
        smaller = float(values[order] @ later)  # sum over pairs of the smaller probability
        most = smaller - _pair_sum(values, groups)
        return cls(groups, float(np.clip(observed / most, 0.0, 1.0)) if most > 0.0 else 0.0)

    def draw(self, probabilities: FloatArray, *, rows: int, rng: np.random.Generator) -> BoolArray:
        """Labels of the cases, shape (rows, n)."""
        numbers = rng.random((rows, probabilities.size))
        if self.alike > 0.0:
            common = rng.random((rows, int(self.groups.max()) + 1))[:, self.groups]
            numbers = np.where(rng.random(numbers.shape) < np.sqrt(self.alike), common, numbers)
        return np.asarray(numbers < probabilities)


def _recalibrated(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    odds = log_odds(probabilities)
    try:
        fit = fit_recalibration(odds, labels, fixed_slope=False)
    except UndefinedMetricError:
        return probabilities
    return sigmoid(fit.intercept + fit.slope * odds)


def _pair_sum(values: FloatArray, groups: IntArray) -> float:
    """Sum, over pairs of cases of a patient, of the product of their values."""
    sums = np.bincount(groups, weights=values)
    return float((sums @ sums - values @ values) / 2.0)
