"""Test whether a challenger collapses in a subgroup, over all subgroups together; those too small are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.gate.decision import Condition
from pipeline.evaluation.gate.noninferiority import auroc_difference, sensitivity_difference
from pipeline.evaluation.gate.records import Contender
from pipeline.evaluation.intervals.paired_difference import PairedDifference
from pipeline.evaluation.subgroups import partition, too_few_patients
from pipeline.evaluation.usual_columns import usual_edges

_NAME = "no subgroup collapse"
_HALF = 0.5  # share of the stated fall that must be observed, beside significance, for a collapse


@dataclass(frozen=True, eq=False)
class SubgroupTest:
    """One statistic in one subgroup.

    Attributes:
        column: that the subgroup is of.
        value: of the column.
        what: ``AUROC`` or ``sensitivity``.
        members: which cases, shape (n,).
        drop: the fall that is a collapse.
        difference: challenger less champion; None where too few patients define it.
    """

    column: str
    value: str
    what: str
    members: BoolArray
    drop: float
    difference: PairedDifference | None

    @property
    def where(self) -> str:
        """Subgroup and statistic, in words."""
        return f"{self.column} {self.value} ({self.what})"

    def describe(self, alpha: float) -> str:
        """The fall, in words, with limits that each err with this probability."""
        interval = "is undefined" if self.difference is None else self.difference.interval(level=1.0 - 2.0 * alpha)
        return f"{self.column} {self.value}: {self.what} falls, challenger less champion {interval}"

    def power(self, alpha: float) -> float:
        """Probability of seeing a collapse where the truth is just the stated fall, at this one-sided level."""
        if self.difference is None:
            return 0.0
        error = self.difference.standard_error
        seen_from = max(float(stats.t.ppf(1.0 - alpha, self.difference.degrees)) * error, _HALF * self.drop)
        return 1.0 if error == 0.0 else float(stats.norm.cdf((self.drop - seen_from) / error))


def no_collapse(challenger: Contender, champion: Contender, columns: Sequence[str], *, policy: GatePolicy) -> Condition:
    """Whether the challenger falls significantly and far behind the champion in a subgroup.

    A collapse is a fall that is significant by Holm's procedure over all comparisons, and at least half the stated one.
    A subgroup too small to detect the stated fall is named; when such subgroups hold too many cases of a column, the
    condition is not shown.

    Source: Holm, 1979.
    """
    if not columns:
        finding = "cannot be judged: the manifest has no subgroup column; add one, as site, sex, age or diameter_mm"
        return Condition.of(_NAME, "not shown", finding)
    tests = list(_tests(challenger, champion, columns, policy))
    defined = [test for test in tests if test.difference is not None]
    fallen = collapsed(defined, alpha=policy.subgroup_alpha)
    alpha = policy.subgroup_alpha / max(len(defined), 1)
    unjudged = [test for test in tests if test not in fallen and test.power(alpha) < policy.subgroup_power]
    shares = _unjudged_shares(unjudged, columns, len(challenger.predictions))
    counted = (
        f"{len(defined)} comparisons, of AUROC and sensitivity in subgroups of {', '.join(columns)}; chance of any "
        f"false alarm at most {policy.subgroup_alpha:g} (Holm)"
    )
    if unjudged:
        listed = ", ".join(test.where for test in unjudged)
        counted += f"; not judged, too small to see a fall of {policy.subgroup_auroc_drop:g} in AUROC or "
        counted += f"{policy.subgroup_sensitivity_drop:g} in sensitivity: {listed}"
    if fallen:
        return Condition.of(_NAME, "refuted", "; ".join([*(test.describe(alpha) for test in fallen), counted]))
    over = [
        f"{100 * share:.0f} % of the cases by {column}"
        for column, share in shares.items()
        if share > policy.unjudged_share
    ]
    if over:
        finding = f"{counted}, {', '.join(over)} (limit {100 * policy.unjudged_share:g} %); give more cases of these"
        return Condition.of(_NAME, "not shown", finding)
    return Condition.of(_NAME, "shown", counted)


def collapsed(tests: Sequence[SubgroupTest], *, alpha: float) -> list[SubgroupTest]:
    """The comparisons that Holm's step-down procedure rejects, and whose fall is at least half the stated one."""
    rejected = []
    ranked = sorted(
        (test.difference.p_value_below_zero(), index) for index, test in enumerate(tests) if test.difference is not None
    )
    for step, (p_value, index) in enumerate(ranked):
        if p_value > alpha / (len(ranked) - step):
            break
        rejected.append(tests[index])
    return [test for test in rejected if test.difference and test.difference.estimate <= -_HALF * test.drop]


def _tests(
    challenger: Contender, champion: Contender, columns: Sequence[str], policy: GatePolicy
) -> Iterator[SubgroupTest]:
    statistics: dict[str, tuple[float, Callable[[Contender, Contender], PairedDifference]]] = {
        "AUROC": (policy.subgroup_auroc_drop, auroc_difference),
        "sensitivity": (policy.subgroup_sensitivity_drop, sensitivity_difference),
    }
    for column in columns:
        values = challenger.predictions.extra[column]
        for value, members in partition(values, edges=usual_edges(values)).items():
            of_challenger, of_champion = (contender.part(members) for contender in (challenger, champion))
            few = too_few_patients(of_challenger.predictions) is not None
            for statistic, (drop, difference) in statistics.items():
                fall = None if few else _defined(difference, of_challenger, of_champion)
                yield SubgroupTest(column, value, statistic, members, drop, fall)


def _defined(
    difference: Callable[[Contender, Contender], PairedDifference], challenger: Contender, champion: Contender
) -> PairedDifference | None:
    try:
        return difference(challenger, champion)
    except UndefinedMetricError:
        return None


def _unjudged_shares(tests: Sequence[SubgroupTest], columns: Sequence[str], cases: int) -> dict[str, float]:
    """For each column, the share of the cases whose subgroup is too small for one of the comparisons."""
    none = np.zeros(cases, dtype=np.bool_)
    return {
        column: float(np.any([test.members for test in tests if test.column == column] or [none], axis=0).sum()) / cases
        for column in columns
    }
