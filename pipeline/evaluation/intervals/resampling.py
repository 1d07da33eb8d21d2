"""The patient bootstrap as case weights: drawing a patient k times is giving each of its cases weight k.

Every statistic is computed for a block of resamples at once, so that 2,000 resamples cost no Python loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.arrays import FloatArray, IntArray

_BLOCK = 200_000  # case weights held at once, so that a block stays in the processor's cache
WeightedStatistic = Callable[[FloatArray], FloatArray]  # weights (r, n) -> values (r,), NaN where undefined


def patient_weights(groups: IntArray, *, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Blocks of case weights, each (r, n): patients drawn with replacement, as many as there are.

    Args:
        groups: number of the patient of each case, 0 … patients-1, shape (n,).
        resamples: rows over all blocks.
        rng: source of the draws.
    """
    patients = int(groups.max()) + 1
    step = max(1, _BLOCK // groups.size)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = rng.integers(0, patients, size=(rows, patients))
        drawn += np.arange(rows)[:, None] * patients
        counts = np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients)
        yield counts.astype(np.float64)[:, groups]


def replicates(
    groups: IntArray, statistics: Mapping[str, WeightedStatistic], *, resamples: int, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Value of each statistic on each resample, shape (resamples,); NaN where a resample does not define it."""
    values: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    for weights in patient_weights(groups, resamples=resamples, rng=rng):
        for name, statistic in statistics.items():
            values[name].append(statistic(weights))
    return {name: np.concatenate(blocks) for name, blocks in values.items()}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Cases in order of rising score, grouped by equal score; only groups with a malignant case matter later on.

    Attributes:
        order: positions of the cases, shape (n,).
        in_order: the cases came sorted, so that no resample needs to be.
        starts: first position of each group of equal scores, shape (distinct scores,).
        cases: positions, in that order, of the malignant cases, shape (malignant,).
        case_starts: first of ``cases`` in each group that has one, shape (m,).
        groups: those groups, shape (m,).
    """

    order: IntArray
    in_order: bool
    starts: IntArray
    cases: IntArray
    case_starts: IntArray
    groups: IntArray

    @classmethod
    def of(cls, labels: IntArray, scores: FloatArray) -> Ranking:
        """Sort once; every resample keeps the order."""
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0.0])
        cases = np.flatnonzero(labels[order] == 1)
        group_of_case = np.searchsorted(starts, cases, side="right") - 1
        groups, case_starts = np.unique(group_of_case, return_index=True)
        in_order = bool((order == np.arange(order.size)).all())
        return cls(order=order, in_order=in_order, starts=starts, cases=cases, case_starts=case_starts, groups=groups)

    def weigh(self, weights: FloatArray) -> WeightedGroups:
        """Sum the weights of each resample by group."""
        ordered = weights if self.in_order else weights[:, self.order]
        malignant = ordered[:, self.cases]
        if self.groups.size < self.cases.size:
            malignant = np.add.reduceat(malignant, self.case_starts, axis=1)
        by_score = ordered
        if self.starts.size < self.order.size:
            by_score = np.add.reduceat(ordered, self.starts, axis=1)
        upto = np.cumsum(by_score, axis=1)
        return WeightedGroups(
            malignant=malignant,
            every=by_score[:, self.groups],
            malignant_upto=np.cumsum(malignant, axis=1),
            every_upto=upto[:, self.groups],
            total=upto[:, -1],
        )


@dataclass(frozen=True, eq=False)
class WeightedGroups:
    """Weights of r resamples by group of equal score, groups without a malignant case left out.

    Attributes:
        malignant: weight of a group's malignant cases, shape (r, m).
        every: weight of all its cases, shape (r, m).
        malignant_upto: weight of malignant cases up to and with the group, shape (r, m).
        every_upto: weight of all cases up to and with the group, shape (r, m).
        total: weight of all cases, shape (r,).
    """

    malignant: FloatArray
    every: FloatArray
    malignant_upto: FloatArray
    every_upto: FloatArray
    total: FloatArray


def auroc_statistic(ranking: Ranking) -> WeightedStatistic:
    """AUROC of weighted cases; ties count half."""

    def statistic(weights: FloatArray) -> FloatArray:
        if not ranking.cases.size:
            return np.full(len(weights), np.nan)
        by = ranking.weigh(weights)
        outranked = by.every_upto - by.malignant_upto - (by.every - by.malignant) / 2.0
        positives = by.malignant_upto[:, -1]
        return _ratio(np.einsum("rm,rm->r", by.malignant, outranked), positives * (by.total - positives))

    return statistic


def average_precision_statistic(ranking: Ranking) -> WeightedStatistic:
    """Average precision of weighted cases, scikit-learn's step-wise definition."""

    def statistic(weights: FloatArray) -> FloatArray:
        if not ranking.cases.size:
            return np.full(len(weights), np.nan)
        by = ranking.weigh(weights)
        positives = by.malignant_upto[:, -1]
        # Called positive at a group's score: that group and everything above it.
        detected = positives[:, None] - by.malignant_upto + by.malignant
        called = by.total[:, None] - by.every_upto + by.every
        precision = np.divide(detected, called, out=np.zeros_like(detected), where=called > 0.0)
        value = _ratio(np.einsum("rm,rm->r", by.malignant, precision), positives)
        # With no benign case the value would be 1 whatever the scores say.
        return np.where(by.total > positives, value, np.nan)

    return statistic


def mean_statistic(values: FloatArray, among: FloatArray | None = None) -> WeightedStatistic:
    """Weighted mean of a value a case, over the cases where ``among`` is 1 (default: all)."""
    counted = np.ones_like(values) if among is None else among

    def statistic(weights: FloatArray) -> FloatArray:
        return _ratio(weights @ (values * counted), weights @ counted)

    return statistic


def _ratio(part: FloatArray, total: FloatArray) -> FloatArray:
    return np.divide(part, total, out=np.full_like(part, np.nan), where=total > 0.0)
