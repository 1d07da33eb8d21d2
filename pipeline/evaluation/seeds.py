"""Spread of statistics over training seeds on the same cases, without sampling error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation import metrics
from pipeline.evaluation.arrays import FloatArray, IntArray
from pipeline.evaluation.predictions import Predictions

_STATISTICS: dict[str, Callable[[IntArray, FloatArray], float]] = {
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "brier_score": metrics.brier_score,
    "calibration_slope": metrics.calibration_slope,
    "calibration_intercept": metrics.calibration_intercept,
}


@dataclass(frozen=True)
class SeedSpread:
    """A statistic over seeds on the same cases.

    Attributes:
        statistic: its name.
        seeds: how many.
        mean: over seeds.
        standard_deviation: over seeds (n - 1), the variation between trainings that differ in their seed alone.
        lowest: of the seeds.
        highest: of the seeds.
    """

    statistic: str
    seeds: int
    mean: float
    standard_deviation: float
    lowest: float
    highest: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def seeds_of(predictions: Predictions) -> list[int]:
    """The seeds that the rows name, in rising order."""
    return sorted(int(seed) for seed in predictions.frame["seed"].dropna().unique())


def spread_over_seeds(predictions: Predictions) -> tuple[SeedSpread, ...]:
    """Spread of each statistic that every seed defines; none with fewer than two seeds.

    Args:
        predictions: labelled rows, with probabilities, of several seeds on the same cases.

    Raises:
        UsageError: when the seeds did not judge the same cases, whose spread would be sampling error too.
    """
    seeds = seeds_of(predictions)
    if len(seeds) < 2:
        return ()
    parts = [predictions.where(seed=seed).labelled() for seed in seeds]
    cases = [set(part.case_ids) for part in parts]
    if any(ids != cases[0] for ids in cases):
        raise UsageError(
            f"predictions: the {len(seeds)} seeds did not judge the same cases, so their spread would be sampling "
            "error too; keep one split_seed for all"
        )
    spreads = []
    for name, statistic in _STATISTICS.items():
        try:
            values = np.array([statistic(part.labels, part.probabilities) for part in parts])
        except UndefinedMetricError:
            continue
        spreads.append(
            SeedSpread(
                statistic=name,
                seeds=len(seeds),
                mean=float(values.mean()),
                standard_deviation=float(values.std(ddof=1)),
                lowest=float(values.min()),
                highest=float(values.max()),
            )
        )
    return tuple(spreads)
