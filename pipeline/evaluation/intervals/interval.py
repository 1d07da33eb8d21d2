"""An estimate with its confidence limits, a curve with its band, and the quantiles that limits are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: on all cases.
        lower: lower confidence limit.
        upper: upper confidence limit.
        level: confidence level, in (0, 1).
        method: how the limits were found, in a few words.
    """

    estimate: float
    lower: float
    upper: float
    level: float = 0.95
    method: str = ""

    def __post_init__(self) -> None:
        if not np.isfinite([self.estimate, self.lower, self.upper]).all() or self.lower > self.upper:
            raise UndefinedMetricError(f"interval: {self.estimate} ({self.lower} to {self.upper}) is not an interval")

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.lower:.3f} to {self.upper:.3f})"

    def contains(self, value: float) -> bool:
        """Whether the value lies between the limits."""
        return self.lower <= value <= self.upper

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Band:
    """Pointwise limits along a curve, each shape (k,)."""

    x: FloatArray
    y: FloatArray
    lower: FloatArray
    upper: FloatArray


def normal_quantile(level: float = 0.95) -> float:
    """Standard errors from the estimate to either limit of a two-sided normal interval."""
    return float(stats.norm.ppf((1.0 + level) / 2.0))


def t_quantile(degrees: float, level: float = 0.95) -> float:
    """Likewise with Student's t, where the variance is estimated with so many degrees of freedom; at least 1."""
    return float(stats.t.ppf((1.0 + level) / 2.0, max(degrees, 1)))
