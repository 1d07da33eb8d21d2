"""Judging subgroups: the same threshold and statistics, on the cases that share a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UsageError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.calibration import Calibrator
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.operating_points import OperatingPoint
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation

_FEW = 10  # patients of a class below which a subgroup is too small to say
_MANY = 10  # distinct numbers above which a column is parted into bands
MISSING = "(missing)"
# Columns that are subgroups wherever a manifest has them, and the edges of those that are numbers: 6-15 mm is where a
# nodule's malignancy is in doubt, and where the diameter alone says least.
SUBGROUP_COLUMNS = ("site", "scanner", "manufacturer", "sex", "age", "diameter_mm")
SUBGROUP_BANDS: Mapping[str, tuple[float, ...]] = {"diameter_mm": (6.0, 15.0), "age": (50.0, 65.0, 75.0)}


@dataclass(frozen=True)
class Subgroup:
    """One value, or band of values, of a column.

    Attributes:
        column: name of the column.
        value: the value, ``(missing)``, or the band, as ``6 to 15``.
        n_cases: labelled cases in it.
        n_patients: patients they come from.
        n_positive: malignant cases.
        evaluation: None where the subgroup is too small to say.
        too_few: why it is too small, in words; None where it is not.
    """

    column: str
    value: str
    n_cases: int
    n_patients: int
    n_positive: int
    evaluation: Evaluation | None
    too_few: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {name: getattr(self, name) for name in ("column", "value", "n_cases", "n_patients", "n_positive")}
        judged = None if self.evaluation is None else self.evaluation.to_json()
        return plain | {"too_few": self.too_few, "evaluation": judged}


def evaluate_subgroups(
    predictions: Predictions,
    columns: Sequence[str],
    *,
    operating_point: OperatingPoint,
    calibrator: Calibrator | None = None,
    bands: Mapping[str, Sequence[float]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Judge each subgroup alone, with the same threshold.

    Args:
        predictions: as for ``evaluate``.
        columns: subgroup columns of the predictions.
        operating_point: as for ``evaluate``.
        calibrator: as for ``evaluate``.
        bands: edges that part a numeric column, as ``{"diameter_mm": (6, 15)}``: below 6, 6 to below 15, 15 and
            above. A numeric column of over 10 values without edges is parted at its thirds.
        resamples: as for ``evaluate``.
        seed: as for ``evaluate``.

    Raises:
        UsageError: for a column that the predictions do not have; as ``evaluate`` otherwise.
    """
    labelled = predictions.labelled()
    missing = [name for name in columns if name not in labelled.extra.columns]
    if missing:
        have = ", ".join(map(str, labelled.extra.columns)) or "none"
        raise UsageError(f"subgroups: predictions have no column {missing[0]!r}; there are: {have}; correct the names")
    found = []
    for column in columns:
        for value, members in partition(labelled.extra[column], edges=(bands or {}).get(column)).items():
            part = Predictions(labelled.frame[members].reset_index(drop=True))
            too_few = too_few_patients(part)
            judged = None
            if too_few is None:
                judged = evaluate(
                    part, operating_point=operating_point, calibrator=calibrator, resamples=resamples, seed=seed
                )
            found.append(
                Subgroup(
                    column=column,
                    value=value,
                    n_cases=len(part),
                    n_patients=int(np.unique(part.patients).size),
                    n_positive=int(part.labels.sum()),
                    evaluation=judged,
                    too_few=too_few,
                )
            )
    return tuple(found)


def too_few_patients(part: Predictions) -> str | None:
    """Why labelled cases are too few to judge a subgroup on, in words; None when they are enough."""
    malignant = part.labels == 1
    counts = {
        name: np.unique(part.patients[mask]).size for name, mask in (("malignant", malignant), ("benign", ~malignant))
    }
    scarce = [f"{count} with {name} cases" for name, count in counts.items() if count < _FEW]
    return f"too few patients to say: {' and '.join(scarce)}, at least {_FEW} needed" if scarce else None


def usual_edges(values: pd.Series) -> tuple[float, ...] | None:
    """Edges of ``SUBGROUP_BANDS`` for a column that has some and holds numbers; None otherwise."""
    edges = SUBGROUP_BANDS.get(str(values.name))
    numeric = pd.to_numeric(values.dropna(), errors="coerce").notna().all()
    return edges if bool(numeric) else None


def partition(values: pd.Series, *, edges: Sequence[float] | None = None) -> dict[str, BoolArray]:
    """Which cases belong to each value or band of a column, in order; empty ones are left out.

    Args:
        values: one a case, shape (n,).
        edges: rising edges of bands; a band holds its lower edge.

    Raises:
        UsageError: when edges are given for a column that is not numeric.
    """
    missing = values.isna().to_numpy()
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    numeric = not np.isnan(numbers[~missing]).any()
    if edges is not None and not numeric:
        raise UsageError(f"subgroups: column {values.name!r} is not numeric, so it has no bands; name it without edges")
    if edges is None and numeric and np.unique(numbers[~missing]).size > _MANY:
        edges = np.unique(np.round(np.quantile(numbers[~missing], [1 / 3, 2 / 3]), 3)).tolist()
    parts: dict[str, BoolArray] = {}
    if edges is not None:
        limits = [-np.inf, *edges, np.inf]
        for low, high in pairwise(limits):
            name = (
                f"below {high:g}"
                if low == -np.inf
                else f"{low:g} and above"
                if high == np.inf
                else f"{low:g} to {high:g}"
            )
            parts[name] = ~missing & (numbers >= low) & (numbers < high)
    elif numeric:
        parts = {f"{number:g}": numbers == number for number in np.unique(numbers[~missing])}
    else:
        words = values.astype(str).to_numpy(dtype=str)
        parts = {str(word): ~missing & (words == word) for word in np.unique(words[~missing])}
    parts[MISSING] = missing
    return {name: members for name, members in parts.items() if members.any()}
