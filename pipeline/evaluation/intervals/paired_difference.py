"""A difference between two models on the same cases, with its standard error: for intervals at any level, and tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import as_groups, as_labels, as_scores, patients_of_each_class, require_both_classes
from pipeline.evaluation.intervals import delong
from pipeline.evaluation.intervals.interval import Interval, t_quantile


@dataclass(frozen=True)
class PairedDifference:
    """First model less second model, paired by case and clustered by patient.

    Attributes:
        estimate: the plain difference, in [-1, 1].
        center: middle of the interval; differs from the estimate where patients are added (Agresti and Min).
        standard_error: of the center; 0 where every case is answered alike and none is added.
        degrees: of freedom of Student's t.
        method: how the standard error was found, in a few words.
    """

    estimate: float
    center: float
    standard_error: float
    degrees: int
    method: str

    def interval(self, *, level: float = 0.95) -> Interval:
        """Two-sided interval, within [-1, 1]."""
        reach = t_quantile(self.degrees, level) * self.standard_error
        lower = min(max(self.center - reach, -1.0), self.estimate)
        upper = max(min(self.center + reach, 1.0), self.estimate)
        return Interval(self.estimate, lower, upper, level, self.method)

    def p_value_below_zero(self) -> float:
        """One-sided p-value of "the first model is no worse"; small where it is worse."""
        if self.standard_error == 0.0:
            return 0.0 if self.center < 0.0 else 1.0
        return float(stats.t.cdf(self.center / self.standard_error, self.degrees))


def paired_auroc(
    labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, patients: npt.ArrayLike
) -> PairedDifference:
    """AUROC of ``first`` less that of ``second``, with Obuchowski's clustered covariance.

    Args:
        labels: 0 or 1, shape (n,).
        first: scores of one model, shape (n,).
        second: scores of the other on the same cases, shape (n,).
        patients: patient id of each case, shape (n,).

    Raises:
        UndefinedMetricError: with one class, or fewer than two patients with malignant or with benign cases.

    Source: Obuchowski, 1997; DeLong et al., 1988, with one case a patient.
    """
    truth = as_labels(labels)
    groups = as_groups(patients, truth)
    require_both_classes(truth, what="AUROC")
    parts = [delong.components(truth, as_scores(scores, truth), groups) for scores in (first, second)]
    both = sum(delong.covariance(truth, groups, part, part) for part in parts)
    variance = max(both - 2.0 * delong.covariance(truth, groups, *parts), 0.0)
    fewer = min(patients_of_each_class(truth, groups))
    estimate = parts[0].auroc - parts[1].auroc
    return PairedDifference(estimate, estimate, float(np.sqrt(variance)), max(fewer - 1, 1), "Obuchowski, paired")


def paired_proportion(first: npt.ArrayLike, second: npt.ArrayLike, patients: npt.ArrayLike) -> PairedDifference:
    """Share of cases that are 1 in ``first`` less that in ``second``.

    Two patients of average size are added, half of one in each cell of the two-by-two table of pairs, as Agresti and
    Min add two pairs: otherwise the interval of a few cases on which the two models happen to agree would have no
    width. The estimate is the plain difference.

    Args:
        first: 0 or 1, shape (n,).
        second: 0 or 1 of the same cases, shape (n,).
        patients: patient id of each case, shape (n,).

    Raises:
        UndefinedMetricError: with no case, fewer than two patients, or a value other than 0 and 1.

    Source: Agresti & Min, 2005 (independent pairs); the sums over patients as for any mean of clusters.
    """
    differences = (as_labels(first) - as_labels(second)).astype(np.float64)
    groups = as_groups(patients, differences)
    count = int(groups.max()) + 1
    if count < 2:
        raise UndefinedMetricError("interval of a paired difference: 1 patient; expected at least 2")
    size = differences.size / count
    cases = differences.size + 2.0 * size
    center = float(differences.sum()) / cases
    sums = np.bincount(groups, weights=differences - center, minlength=count)
    added = 0.5 * size**2 * ((1.0 - center) ** 2 + (1.0 + center) ** 2 + 2.0 * center**2)
    variance = count / (count - 1) * (float(sums @ sums) + added) / cases**2
    method = "Agresti-Min, patient-clustered, paired"
    return PairedDifference(float(differences.mean()), center, float(np.sqrt(variance)), count - 1, method)


def weighted(first: PairedDifference, second: PairedDifference, *, share: float) -> PairedDifference:
    """``share`` of the first and the rest of the second, as of two classes at another prevalence.

    The two are taken for independent: a patient with cases of both classes is counted as two.
    """
    rest = 1.0 - share
    return PairedDifference(
        estimate=share * first.estimate + rest * second.estimate,
        center=share * first.center + rest * second.center,
        standard_error=float(np.hypot(share * first.standard_error, rest * second.standard_error)),
        degrees=min(first.degrees, second.degrees),
        method=f"{first.method}, weighted by class",
    )
