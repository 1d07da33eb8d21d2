"""Probability expected from a case's measures, to tell a change of case mix from a change of scores.

It is a ridge regression of the probability's log odds on the measures, over the cases that calibrated the model. Its
residual changes when the same kind of case is scored differently. A change of mix that the measures do not show is
taken for a change of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.metrics import log_odds

_PENALTIES = tuple(10.0 ** np.arange(-1, 5))
_PARTS = 10
_FARTHEST = 4.0  # standard deviations at which measures are clipped, so that no outlier dominates


@dataclass(frozen=True)
class Term:
    """One measure in the regression.

    Attributes:
        center: mean of the measure over the cases that it was fitted to.
        scale: their standard deviation, above 0.
        weight: log odds a standard deviation.
    """

    center: float
    scale: float
    weight: float


@dataclass(frozen=True)
class Expected:
    """Log odds of the probability expected from measures.

    Attributes:
        intercept: log odds of an average case.
        terms: by measure.
    """

    intercept: float
    terms: Mapping[str, Term]

    def residuals(self, probabilities: npt.ArrayLike, measures: Mapping[str, npt.ArrayLike]) -> FloatArray:
        """Log odds less the expected ones, shape (n,); NaN where a probability or a measure is missing.

        Args:
            probabilities: of the finding, shape (n,); NaN where there is none.
            measures: by name, shape (n,) each.
        """
        values = np.asarray(probabilities, dtype=np.float64)
        left = np.full(values.shape, np.nan)  # a case that was refused has no probability
        left[~np.isnan(values)] = log_odds(values[~np.isnan(values)]) - self.intercept
        for name, term in self.terms.items():
            values = np.asarray(measures[name], dtype=np.float64) if name in measures else np.full(left.shape, np.nan)
            left = left - term.weight * _standardised(values, term.center, term.scale)
        return left

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Expected:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, TypeError, KeyError: for anything else.
        """
        terms = {
            str(name): Term(**{key: float(part) for key, part in term.items()}) for name, term in value["terms"].items()
        }
        if not all(np.isfinite(list(asdict(term).values())).all() and term.scale > 0 for term in terms.values()):
            raise ValueError("a term of the regression on the measures is not finite")
        return cls(float(value["intercept"]), terms)


def fit_expected(
    probabilities: Sequence[float], measures: Sequence[Mapping[str, float]], patients: Sequence[str]
) -> tuple[Expected, FloatArray] | None:
    """Fit the regression, and compute residuals of cases of patients that it was not fitted to.

    Args:
        probabilities: in [0, 1], one a case.
        measures: of each case; only those that all have and that vary are used.
        patients: of each case.

    Returns:
        The regression, fitted to all cases, and residuals (n,) of regressions fitted without the case's tenth of the
        patients: those of the cases fitted would be smaller than a new case's. None without a measure that varies,
        or with fewer than ten patients.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict

    names = sorted(set.intersection(*(set(case) for case in measures))) if measures else []
    columns = np.array([[case[name] for name in names] for case in measures]).reshape(len(measures), len(names))
    centers, scales = columns.mean(axis=0) if len(columns) else np.zeros(0), columns.std(axis=0)
    varies = np.isfinite(columns).all(axis=0) & (scales > 1e-9 * (1.0 + np.abs(centers)))
    if not varies.any() or len(set(patients)) < _PARTS:
        return None
    names = [name for name, has in zip(names, varies, strict=True) if has]
    centers, scales = centers[varies], scales[varies]
    design = _standardised(columns[:, varies], centers, scales)
    odds = log_odds(np.asarray(probabilities, dtype=np.float64))
    ridge = RidgeCV(alphas=_PENALTIES)
    without = cross_val_predict(ridge, design, odds, groups=np.asarray(patients), cv=GroupKFold(_PARTS))
    ridge.fit(design, odds)
    terms = zip(centers.tolist(), scales.tolist(), ridge.coef_.tolist(), strict=True)
    expected = Expected(float(ridge.intercept_), {name: Term(*term) for name, term in zip(names, terms, strict=True)})
    return expected, np.asarray(odds - without)


def _standardised(values: FloatArray, center: Any, scale: Any) -> FloatArray:
    return np.asarray(np.clip((values - center) / scale, -_FARTHEST, _FARTHEST))
