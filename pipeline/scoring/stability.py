"""Compare the distributions of two samples of cases over bins: their distance, and whether it exceeds chance.

The *distance* is the population stability index, less what chance alone adds to it. The *test* is Pearson's, of which
the index is an approximation: both have the same limit without a shift (the index over 1/N + 1/M is chi-square with
bins - 1 degrees of freedom), but the index's logarithm gives twice the false alarms that it states where a bin
expects few cases, and Pearson's statistic does not. Cases of one patient are alike, so the statistic is divided by
the design effect that both samples show between their patients (Rao and Scott's second-order correction, as an F).

Source: Yurdakul & Naranjo, Statistical properties of the population stability index, J. Risk Model Validation, 2020;
Rao & Scott, J. Am. Stat. Assoc., 1981; Thomas & Rao, J. Am. Stat. Assoc., 1987; Holm, Scand. J. Stat., 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray

LEAST_PATIENTS = 10
_STAND_IN = 0.5  # of a case, for a bin without one, so that the index stays finite


@dataclass(frozen=True, eq=False)
class BinShares:
    """Distribution of a sample of cases over bins.

    Attributes:
        shares: of the cases in each bin, adding up to 1, shape (bins,).
        cases: in the sample.
        patients: from whom they are.
        covariance: of the shares between samples of so many patients, shape (bins, bins).
    """

    shares: FloatArray
    cases: int
    patients: int
    covariance: FloatArray

    @classmethod
    def of(cls, bins: npt.ArrayLike, patients: npt.ArrayLike, *, count: int) -> BinShares:
        """Count cases into bins, and measure how the shares vary from patient to patient.

        Args:
            bins: number of each case's bin, from 0, shape (n,).
            patients: anything that is the same for cases of one patient, shape (n,).
            count: bins that there are.

        Raises:
            UndefinedMetricError: with fewer than two patients.
        """
        from scipy import sparse  # not where a model is only opened: its reference has its shares

        places, (_, of_patient) = np.asarray(bins), np.unique(np.asarray(patients), return_inverse=True)
        known = int(of_patient.max(initial=-1)) + 1
        if known < 2:
            raise UndefinedMetricError(f"shares of bins: {known} patients; expected at least 2")
        one_each = (np.ones(places.size), (of_patient, places))
        table = sparse.coo_array(one_each, shape=(known, count)).tocsr()  # (patients, bins), few of them filled
        cases = np.asarray(table.sum(axis=1), dtype=np.float64)
        shares = np.asarray(table.sum(axis=0), dtype=np.float64) / places.size
        # Sum over patients of (counts - cases x shares)(the same)', without making a full table of it.
        crossed = np.outer(table.T @ cases, shares)
        squares = (table.T @ table).toarray() - crossed - crossed.T + float(cases @ cases) * np.outer(shares, shares)
        return cls(shares, int(places.size), known, known / (known - 1) * squares / places.size**2)

    @classmethod
    def of_independent(cls, shares: npt.ArrayLike, *, count: int) -> BinShares:
        """Shares of which only the number of patients is known, treated as one case each."""
        known = np.asarray(shares, dtype=np.float64)
        return cls(known, count, count, (np.diag(known) - np.outer(known, known)) / count)


@dataclass(frozen=True)
class DistributionShift:
    """Distance of a sample from its reference.

    Attributes:
        index: population stability index as it stands, at least 0.
        effect: the index less what is expected of it without a shift, at least 0.
        statistic: Pearson's over the design effect, to be compared with F.
        degrees: of freedom of its numerator and denominator.
        p_value: of the statistic without a shift.
        cases: of the sample.
        patients: of the sample.
    """

    index: float
    effect: float
    statistic: float
    degrees: tuple[float, float]
    p_value: float
    cases: int
    patients: int


def stability_index(reference: BinShares, sample: BinShares) -> float:
    """Sum over bins of (observed - expected) x ln(observed / expected) of the shares.

    Half a case of its own sample stands in for none. Bins that neither sample fills add nothing.

    Source: Siddiqi, Credit Risk Scorecards, 2006.
    """
    filled = (reference.shares > 0) | (sample.shares > 0)
    expected = np.maximum(reference.shares[filled], _STAND_IN / reference.cases)
    observed = np.maximum(sample.shares[filled], _STAND_IN / sample.cases)
    return float(np.sum((observed - expected) * np.log(observed / expected)))


def measure_shift(reference: BinShares, sample: BinShares) -> DistributionShift:
    """Distance and test of a sample against its reference; the same bins for both.

    Raises:
        UndefinedMetricError: where either has fewer than 10 patients.
    """
    from scipy import stats

    fewest = min(reference.patients, sample.patients)
    if fewest < LEAST_PATIENTS:
        whose = "the reference" if reference.patients == fewest else "these cases"
        raise UndefinedMetricError(f"{fewest} patients in {whose}; expected at least {LEAST_PATIENTS}")
    index = stability_index(reference, sample)
    parts = (1.0 / reference.cases, 1.0 / sample.cases)
    pooled = (reference.shares * reference.cases + sample.shares * sample.cases) / (reference.cases + sample.cases)
    filled = pooled > 0
    free = int(filled.sum()) - 1
    if free == 0:  # every case of both lies in one bin
        return DistributionShift(index, index, 0.0, (1.0, float(fewest - 1)), 1.0, sample.cases, sample.patients)
    weight = 1.0 / np.sqrt(pooled[filled])
    scaled = [part.covariance[np.ix_(filled, filled)] * np.outer(weight, weight) for part in (reference, sample)]
    traces = [float(np.trace(matrix)) for matrix in scaled]
    together, square = sum(traces), float(np.sum((scaled[0] + scaled[1]) ** 2))
    if together < free * sum(parts):
        # Without variance between patients, as where all cases of each sample are alike, cases count as independent.
        traces = [free * part for part in parts]
        together, square = sum(traces), free * sum(parts) ** 2
    distance = float(np.sum((sample.shares - reference.shares)[filled] ** 2 / pooled[filled]))
    above = together**2 / square
    sizes = (reference.patients, sample.patients)
    below = together**2 / sum(trace**2 / (size - 1) for trace, size in zip(traces, sizes, strict=True))
    statistic = distance / together
    return DistributionShift(
        index=index,
        effect=max(index - together, 0.0),
        statistic=statistic,
        degrees=(above, above * below),
        p_value=float(stats.f.sf(statistic, above, above * below)),
        cases=sample.cases,
        patients=sample.patients,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: with a limit on them, the chance of even one false alarm among all is at most that limit.

    Source: Holm, 1979; valid for any dependence between the measures.
    """
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda measure: p_values[measure])):
        largest = max(largest, min((len(p_values) - place) * p_values[name], 1.0))
        adjusted[name] = largest
    return adjusted
