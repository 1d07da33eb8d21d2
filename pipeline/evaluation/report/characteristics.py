"""Table of the cases' characteristics by split.

No patient can be recognised in it: a cell of one or two patients is hidden, with a second cell where subtraction would
reveal the first; values of fewer than three patients are put together; quartiles need ten patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.evaluation.arrays import BoolArray

HIDDEN_COUNT = "hidden"  # shown in place of a number that could identify a patient
_FEWEST = 3  # patients of a cell that is shown
_FOR_QUARTILES = 10  # patients
_MOST_VALUES = 20  # a column with more values holds names and is not tabulated
MISSING, OTHERS = "missing", "other values"


@dataclass(frozen=True)
class CharacteristicsRow:
    """One line of the table.

    Attributes:
        name: of the column, or what is counted.
        value: which value of it, or what is said of it.
        cells: one a group.
    """

    name: str
    value: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Characteristics:
    """The table.

    Attributes:
        groups: splits, in order.
        rows: in order.
    """

    groups: tuple[str, ...]
    rows: tuple[CharacteristicsRow, ...]


def characteristics(table: pd.DataFrame, columns: Sequence[str]) -> Characteristics:
    """Describe the cases of each split.

    A column whose value is the same in all cases of each patient, as sex, is counted by patient; any other by case.

    Args:
        table: ``patient_id``, ``label`` (0, 1 or missing), ``split`` and the columns, one row a case.
        columns: to describe; those that the table lacks are passed over.
    """
    splits = list(dict.fromkeys(table["split"]))
    parts = [table[table["split"] == split] for split in splits]
    rows = [
        CharacteristicsRow("patients", "", tuple(str(part["patient_id"].nunique()) for part in parts)),
        CharacteristicsRow("cases", "", tuple(str(len(part)) for part in parts)),
        CharacteristicsRow(
            "malignant", "cases", tuple(_share(int((part["label"] == 1).sum()), len(part)) for part in parts)
        ),
    ]
    for name in dict.fromkeys(columns):
        if name in table.columns and name not in ("patient_id", "label", "split"):
            rows += _of_column(str(name), table, splits)
    return Characteristics(tuple(splits), tuple(rows))


def _of_column(name: str, table: pd.DataFrame, splits: Sequence[str]) -> list[CharacteristicsRow]:
    values = table[["patient_id", "split", name]]
    unit = "cases"
    if values.groupby("patient_id")[name].nunique(dropna=False).max() == 1:
        values, unit = values.drop_duplicates(["patient_id", "split"]), "patients"
    missing = values[name].isna()
    numbers = pd.to_numeric(values[name], errors="coerce")
    numeric = bool((numbers.notna() == ~missing).all()) and not set(numbers.dropna()) <= {0.0, 1.0}
    parts = [(values["split"] == split).to_numpy() for split in splits]
    if numeric:
        described = [_quartiles(numbers[part], values["patient_id"][part]) for part in parts]
        rows = [CharacteristicsRow(name, "median (quartiles)", tuple(described))]
        return rows + _missing_row(name, unit, values, parts, missing.to_numpy())
    words = values[name].astype(str).where(~missing, MISSING)
    kinds = _kinds(words, values["patient_id"])
    if len(set(kinds)) > _MOST_VALUES:
        return [CharacteristicsRow(name, "different values", tuple(str(words[part].nunique()) for part in parts))]
    levels = sorted(set(kinds), key=lambda level: (level == MISSING, level == OTHERS, level))
    columns = [_cells(kinds[part], values["patient_id"][part], levels) for part in parts]
    return [
        CharacteristicsRow(name, f"{level} ({unit})", tuple(column[number] for column in columns))
        for number, level in enumerate(levels)
    ]


def _kinds(words: pd.Series, patients: pd.Series) -> pd.Series:
    """The values, those of fewer than three patients put together."""
    counts = patients.groupby(words).nunique()
    rare = set(counts.index[counts < _FEWEST]) - {MISSING}
    return words.where(~words.isin(rare), OTHERS)


def _cells(kinds: pd.Series, patients: pd.Series, levels: Sequence[str]) -> list[str]:
    """Counts of one split; cells of one or two patients are hidden, and never a single cell alone."""
    counts = [int((kinds == level).sum()) for level in levels]
    people = [int(patients[kinds == level].nunique()) for level in levels]
    hidden = {number for number, count in enumerate(people) if 0 < count < _FEWEST}
    if len(hidden) == 1:
        hidden |= set(
            sorted((number for number, count in enumerate(people) if count >= _FEWEST), key=people.__getitem__)[:1]
        )
    return [HIDDEN_COUNT if number in hidden else _share(count, sum(counts)) for number, count in enumerate(counts)]


def _missing_row(
    name: str, unit: str, values: pd.DataFrame, parts: Sequence[BoolArray], missing: BoolArray
) -> list[CharacteristicsRow]:
    """How many have no number; none where all have."""
    if not missing.any():
        return []
    cells = []
    for part in parts:
        people = values["patient_id"][part & missing].nunique()
        count = int((part & missing).sum())
        cells.append(HIDDEN_COUNT if 0 < people < _FEWEST else _share(count, int(part.sum())))
    return [CharacteristicsRow(name, f"{MISSING} ({unit})", tuple(cells))]


def _quartiles(numbers: pd.Series, patients: pd.Series) -> str:
    if patients[numbers.notna()].nunique() < _FOR_QUARTILES:
        return HIDDEN_COUNT
    low, median, high = np.nanquantile(numbers.to_numpy(dtype=np.float64), [0.25, 0.5, 0.75])
    return f"{median:.3g} ({low:.3g} to {high:.3g})"


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.0f} %)" if total else "0"
