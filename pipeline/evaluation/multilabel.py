"""Several findings judged side by side: each by itself, then their macro and micro averages.

Macro: the mean over findings, each counting the same however rare. Micro: every known label of every finding as one
pool, so that common findings weigh more, and probabilities of different findings are ranked against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.inputs import MALIGNANT
from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray, as_groups
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals import resampling
from pipeline.evaluation.intervals.bootstrap import percentile_interval
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.intervals.resampling import WeightedStatistic
from pipeline.evaluation.metrics import case_log_losses
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation

AVERAGED = ("auroc", "average_precision", "brier_score", "log_loss", "sensitivity", "specificity")


@dataclass(frozen=True, eq=False)
class FindingsEvaluation:
    """Result of `evaluate_findings`.

    Attributes:
        predictions: the judged rows, of all findings.
        evaluations: by finding, the first finding first.
        macro: mean over findings, by statistic; empty for a single finding.
        micro: all findings as one pool, by statistic; empty for a single finding.
        undefined: averages that the cases do not define, with the reason.
    """

    predictions: Predictions
    evaluations: Mapping[str, Evaluation]
    macro: Mapping[str, Interval] = field(default_factory=dict)
    micro: Mapping[str, Interval] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Evaluation:
        """Of the first finding."""
        return next(iter(self.evaluations.values()))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; nothing for a single finding, whose evaluation stands elsewhere."""
        if len(self.evaluations) < 2:
            return {}
        return {
            "findings": {name: evaluation.to_json() for name, evaluation in self.evaluations.items()},
            "macro": {name: interval.to_json() for name, interval in self.macro.items()},
            "micro": {name: interval.to_json() for name, interval in self.micro.items()},
            "undefined_averages": dict(self.undefined),
        }

    def metrics(self, prefix: str = "test_") -> dict[str, float]:
        """Flat numbers for a tracking store, as ``test_calcified_auroc`` and ``test_macro_auroc``.

        None for a single finding, whose numbers carry no name of a finding.
        """
        flat: dict[str, float] = {}
        if len(self.evaluations) > 1:
            for name, evaluation in self.evaluations.items():
                flat |= evaluation.metrics(f"{prefix}{name}_")
        for kind, averages in (("macro", self.macro), ("micro", self.micro)):
            for name, interval in averages.items():
                flat[f"{prefix}{kind}_{name}"] = interval.estimate
                flat[f"{prefix}{kind}_{name}_lower"] = interval.lower
                flat[f"{prefix}{kind}_{name}_upper"] = interval.upper
        return flat


def in_order(findings: Sequence[str]) -> tuple[str, ...]:
    """Names without repetition, in order, the label's first where it is among them."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda name: name != MALIGNANT))


def evaluate_findings(
    predictions: Predictions,
    operating_points: Mapping[str, OperatingPoint],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> FindingsEvaluation:
    """Judge each finding on the cases where it is known, and average.

    Args:
        predictions: one row a case and finding, with probabilities.
        operating_points: by finding, chosen on the calibration split; the findings to judge, in order.
        resamples: patient-level bootstrap samples.
        seed: of the bootstrap.

    Raises:
        UsageError: when a finding has no labelled row, or a case several rows of one.
    """
    judged = {
        name: evaluate(predictions.where(finding=name), operating_point=point, resamples=resamples, seed=seed)
        for name, point in operating_points.items()
    }
    if len(judged) < 2:
        return FindingsEvaluation(predictions, judged)
    intervals, undefined = _averages(predictions.labelled(), operating_points, resamples=resamples, seed=seed)
    macro, micro = (
        {name: intervals[f"{kind} {name}"] for name in AVERAGED if f"{kind} {name}" in intervals}
        for kind in ("macro", "micro")
    )
    return FindingsEvaluation(predictions, judged, macro, micro, undefined)


def _averages(
    labelled: Predictions, operating_points: Mapping[str, OperatingPoint], *, resamples: int, seed: int
) -> tuple[dict[str, Interval], dict[str, str]]:
    """Every average with its interval, from the same resamples of patients; or the reason why it has none."""
    names = labelled.frame["finding"].to_numpy()
    labels, probabilities = labelled.labels, labelled.probabilities
    limits = np.array([operating_points[name].threshold for name in names])
    called = probabilities >= labelled.thresholds(limits)
    rows = {name: np.flatnonzero(names == name) for name in operating_points}
    statistics: dict[str, WeightedStatistic] = {}
    for statistic in AVERAGED:
        by_finding = [
            _on(members, _statistic(statistic, labels[members], probabilities[members], called[members]))
            for members in rows.values()
        ]
        statistics[f"macro {statistic}"] = _mean_of(by_finding)
        statistics[f"micro {statistic}"] = _statistic(statistic, labels, probabilities, called)
    groups = as_groups(labelled.patients, labels)
    rng = np.random.default_rng([seed, 3])
    replicates = resampling.replicates(groups, statistics, resamples=resamples, rng=rng)
    intervals, undefined = {}, {}
    for name, compute in statistics.items():
        try:
            intervals[name] = percentile_interval(name, float(compute(np.ones((1, labels.size)))[0]), replicates[name])
        except UndefinedMetricError as error:
            undefined[name] = str(error)
    return intervals, undefined


def _statistic(name: str, labels: IntArray, probabilities: FloatArray, called: BoolArray) -> WeightedStatistic:
    present = (labels == 1).astype(np.float64)
    right = (called == (labels == 1)).astype(np.float64)
    if name in ("auroc", "average_precision"):
        ranking = resampling.Ranking.of(labels, probabilities)
        of = resampling.auroc_statistic if name == "auroc" else resampling.average_precision_statistic
        return of(ranking)
    if name == "brier_score":
        return resampling.mean_statistic((probabilities - labels) ** 2)
    if name == "log_loss":
        return resampling.mean_statistic(case_log_losses(labels, probabilities))
    return resampling.mean_statistic(right, present if name == "sensitivity" else 1.0 - present)


def _on(rows: IntArray, statistic: WeightedStatistic) -> WeightedStatistic:
    """The statistic of some of the rows."""
    return lambda weights: statistic(weights[:, rows])


def _mean_of(statistics: Sequence[WeightedStatistic]) -> WeightedStatistic:
    """NaN where one of them is undefined: a mean over fewer findings would be another quantity."""
    return lambda weights: np.mean([statistic(weights) for statistic in statistics], axis=0)
