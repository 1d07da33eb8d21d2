"""Differences between a subgroup and the other cases, with intervals and the smallest detectable gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray, as_groups
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.intervals import delong
from pipeline.evaluation.intervals.bootstrap import auroc_interval
from pipeline.evaluation.intervals.clustered import proportion_interval
from pipeline.evaluation.intervals.interval import Interval, normal_quantile
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.subgroups import CLASSES, FEWEST_PATIENTS, partition

STATISTICS = ("auroc", "sensitivity", "specificity")
_CLASSES_NEEDED = {"auroc": ("malignant", "benign"), "sensitivity": ("malignant",), "specificity": ("benign",)}
_LEVEL, _POWER = 0.95, 0.80


@dataclass(frozen=True)
class Gap:
    """One statistic of a subgroup less that of the others.

    Attributes:
        column: name of the column.
        value: of the subgroup.
        against: ``the others``, or the only other value.
        statistic: ``auroc``, ``sensitivity`` or ``specificity``.
        difference: subgroup less the others, with its 95 % interval.
        detectable: smallest true gap that so many cases would show in 80 % of studies, at 5 %; 1 or more: none.
        beyond_chance: whether the interval at the level that allows for every comparison excludes 0 too.
    """

    column: str
    value: str
    against: str
    statistic: str
    difference: Interval
    detectable: float
    beyond_chance: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Part:
    """What is compared: the labelled cases, which of them are in the subgroup, and names."""

    column: str
    value: str
    against: str
    members: BoolArray
    others: BoolArray


def subgroup_gaps(
    predictions: Predictions,
    columns: Sequence[str],
    *,
    operating_point: OperatingPoint,
    bands: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Gap, ...]:
    """Compare each subgroup with all other cases of its column; of two values, the first with the second, once.

    Comparisons with fewer than 10 patients of a class on a side are left out. With m comparisons left, the level
    1 - 0.05 / m (Bonferroni) says which differences are beyond what m looks would show by chance.

    Args:
        predictions: as for ``evaluate``; unlabelled rows are left out.
        columns: subgroup columns of the predictions.
        operating_point: as for ``evaluate``.
        bands: as for ``evaluate_subgroups``.
    """
    labelled = predictions.labelled()
    parts = [
        part
        for column in columns
        for part in _parts(column, partition(labelled.extra[column], edges=(bands or {}).get(column)))
    ]
    able = [(part, name) for part in parts for name in STATISTICS if _enough(labelled, part, name)]
    level = 1.0 - (1.0 - _LEVEL) / max(len(able), 1)
    gaps = []
    for part, name in able:
        difference, strict = (
            _difference(labelled, part, name, operating_point, level=confidence) for confidence in (_LEVEL, level)
        )
        gaps.append(
            Gap(
                column=part.column,
                value=part.value,
                against=part.against,
                statistic=name,
                difference=difference,
                detectable=detectable_gap(difference),
                beyond_chance=not strict.contains(0.0),
            )
        )
    return tuple(gaps)


def detectable_gap(difference: Interval) -> float:
    """Smallest true difference that a study with an interval so wide finds in 80 % of repetitions, at its level."""
    far = normal_quantile(difference.level)
    half_width = (difference.upper - difference.lower) / 2.0
    return half_width * (far + float(stats.norm.ppf(_POWER))) / far


def _parts(column: str, values: Mapping[str, BoolArray]) -> list[_Part]:
    if len(values) < 2:
        return []
    if len(values) == 2:
        (first, members), (second, others) = values.items()
        return [_Part(column, first, second, members, others)]
    return [_Part(column, value, "the others", members, ~members) for value, members in values.items()]


def _enough(labelled: Predictions, part: _Part, statistic: str) -> bool:
    sides = (part.members, part.others)
    counts = [dict(zip(CLASSES, labelled.rows(side).patients_by_class(), strict=True)) for side in sides]
    return all(count[name] >= FEWEST_PATIENTS for count in counts for name in _CLASSES_NEEDED[statistic])


def _difference(labelled: Predictions, part: _Part, statistic: str, point: OperatingPoint, *, level: float) -> Interval:
    labels, scores = labelled.labels, labelled.probabilities
    sides = (part.members, part.others)
    if statistic == "auroc":
        return auroc_gap(labels, scores, labelled.patients, sides, level=level)
    positive = scores >= labelled.thresholds(point.threshold)
    wanted = labels == int(statistic == "sensitivity")
    right = positive if statistic == "sensitivity" else ~positive
    return proportion_gap(right, labelled.patients, (sides[0] & wanted, sides[1] & wanted), level=level)


def auroc_gap(
    labels: IntArray,
    scores: FloatArray,
    patients: np.ndarray[Any, Any],
    sides: tuple[BoolArray, BoolArray],
    *,
    level: float = 0.95,
) -> Interval:
    """AUROC of some cases less that of others, which may be of the same patients.

    Args:
        labels: 0 or 1, shape (n,).
        scores: shape (n,).
        patients: patient id of each case, shape (n,).
        sides: which cases are on either side, no case on both, each shape (n,).
        level: confidence level.

    Raises:
        UndefinedMetricError: when a side lacks a class, or has fewer than two patients with cases of one.

    Source: Obuchowski, 1997, for each side; limits put together as by Newcombe, 1998 (method 10), with the correlation
    of the two through patients on both sides (Zou & Donner, 2008).
    """
    groups = as_groups(patients, labels)
    intervals = [auroc_interval(labels[side], scores[side], patients[side], level=level) for side in sides]
    shares = []
    for side in sides:
        own, local = np.unique(groups[side], return_inverse=True)
        components = delong.components(labels[side], scores[side], local.astype(np.int64))
        positives = int(labels[side].sum())
        share = np.zeros(int(groups.max()) + 1)
        share[own] = components.malignant / positives + components.benign / (int(side.sum()) - positives)
        shares.append(share)
    return _combined(intervals, _correlation(*shares), level)


def proportion_gap(
    right: BoolArray, patients: np.ndarray[Any, Any], sides: tuple[BoolArray, BoolArray], *, level: float = 0.95
) -> Interval:
    """Share of some cases less that of others, which may be of the same patients.

    Args:
        right: which cases count, shape (n,).
        patients: patient id of each case, shape (n,).
        sides: which cases are on either side, no case on both, each shape (n,).
        level: confidence level.

    Raises:
        UndefinedMetricError: when a side has no case.

    Source: Wilson's limits with the effective sample size, put together as by Newcombe, 1998 (method 10).
    """
    groups = as_groups(patients, right)
    intervals = [proportion_interval(right[side], patients[side], level=level) for side in sides]
    count = int(groups.max()) + 1
    sums = [np.bincount(groups[side], weights=right[side] - right[side].mean(), minlength=count) for side in sides]
    first, second = (patient_sums.astype(np.float64) for patient_sums in sums)
    return _combined(intervals, _correlation(first, second), level)


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Correlation of two estimates, from what each patient adds to either; 0 where one shows no spread."""
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / spread if spread > 0.0 else 0.0


def _combined(intervals: Sequence[Interval], correlation: float, level: float) -> Interval:
    """Interval of a difference from those of its two parts (MOVER)."""
    first, second = intervals

    def reach(own: float, other: float) -> float:
        return float(np.sqrt(max(own**2 + other**2 - 2.0 * correlation * own * other, 0.0)))

    estimate = first.estimate - second.estimate
    lower = estimate - reach(first.estimate - first.lower, second.upper - second.estimate)
    upper = estimate + reach(first.upper - first.estimate, second.estimate - second.lower)
    if not np.isfinite([lower, upper]).all():
        raise UndefinedMetricError("difference between subgroups: a limit is not finite")
    return Interval(estimate, max(lower, -1.0), min(upper, 1.0), level, "limits of both sides combined, by patient")
