"""Judging subgroups: the same threshold and statistics, on the cases that share a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UsageError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation

_NULL_DRAWS = 200  # of a subgroup: twenty of them in a large study would take longer than everything else
CLASSES = ("malignant", "benign")
FEWEST_PATIENTS = 10  # of a class; a smaller subgroup is not evaluated
# What needs patients of one class alone, or of either; everything else needs both.
_OF_ONE_CLASS = {"sensitivity": "malignant", "specificity": "benign"}
_OF_ANY_CLASS = ("observed_expected",)
_MANY = 10  # distinct numbers above which a column is parted into bands
MISSING = "(missing)"


@dataclass(frozen=True)
class Subgroup:
    """One value, or band of values, of a column.

    Attributes:
        column: name of the column.
        value: the value, ``(missing)``, or the band, as ``6 to 15``.
        n_cases: labelled cases in it.
        n_patients: patients they come from.
        n_positive: malignant cases.
        evaluation: of what so many patients can say, the rest being undefined with a reason; None where it is nothing.
        too_few: why something cannot be said, in words; None where all can.
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
    bands: Mapping[str, Sequence[float]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Subgroup, ...]:
    """Judge each subgroup alone, with the same threshold.

    Args:
        predictions: as for ``evaluate``.
        columns: subgroup columns of the predictions.
        operating_point: as for ``evaluate``.
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
    subgroups = []
    for column in columns:
        for value, members in partition(labelled.extra[column], edges=(bands or {}).get(column)).items():
            part = labelled.rows(members)
            subgroup = judge_subgroup(
                (column, value), part, operating_point=operating_point, resamples=resamples, seed=seed
            )
            subgroups.append(subgroup)
    return tuple(subgroups)


def judge_subgroup(
    name: tuple[str, str],
    part: Predictions,
    *,
    operating_point: OperatingPoint,
    resamples: int = 1000,
    seed: int = 0,
) -> Subgroup:
    """Judge labelled cases as one subgroup, as far as there are enough patients.

    Sensitivity needs 10 patients with malignant cases, specificity 10 with benign ones, O:E 10 of any; whatever
    compares the classes needs 10 of each. So a subgroup of malignant cases alone still has its sensitivity.

    Args:
        name: column and value.
        part: its labelled cases, at least one.
        operating_point: as for ``evaluate``.
        resamples: as for ``evaluate``.
        seed: as for ``evaluate``.
    """
    too_few, patients = too_few_patients(part), dict(zip(CLASSES, part.patients_by_class(), strict=True))
    everyone = int(np.unique(part.patients).size)
    judged: Evaluation | None = None
    if everyone >= FEWEST_PATIENTS:
        judged = evaluate(part, operating_point=operating_point, resamples=resamples, seed=seed, null_draws=_NULL_DRAWS)
        if too_few is not None:
            judged = _sayable(judged, patients, too_few)
    return Subgroup(
        column=name[0],
        value=name[1],
        n_cases=len(part),
        n_patients=everyone,
        n_positive=int(part.labels.sum()),
        evaluation=judged if judged is not None and judged.intervals else None,
        too_few=too_few,
    )


def _sayable(judged: Evaluation, patients: Mapping[str, int], too_few: str) -> Evaluation:
    """The evaluation without the statistics for which a class has too few patients."""
    shown = {
        name: interval
        for name, interval in judged.intervals.items()
        if name in _OF_ANY_CLASS or patients.get(_OF_ONE_CLASS.get(name, ""), 0) >= FEWEST_PATIENTS
    }
    left_out = {name: f"{name}: {too_few}" for name in judged.intervals if name not in shown}
    return replace(judged, intervals=shown, undefined={**judged.undefined, **left_out})


def too_few_patients(part: Predictions) -> str | None:
    """Why labelled cases are too few to judge a subgroup on, in words; None when they are enough."""
    counts = zip(CLASSES, part.patients_by_class(), strict=True)
    scarce = [f"{count} with {name} cases" for name, count in counts if count < FEWEST_PATIENTS]
    return f"too few patients to say: {' and '.join(scarce)}, at least {FEWEST_PATIENTS} needed" if scarce else None


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
