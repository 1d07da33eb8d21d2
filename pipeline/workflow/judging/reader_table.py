"""A table of readers' scores, long or wide, for comparing a model with the readers' average.

Errors name rows and columns, never the content of a cell, which may be a patient's name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cases.tables.table import Table, read_table, with_decimal_points
from pipeline.errors import Code, TableError, UndefinedMetricError
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.reader_study import ReaderStudy, compare_with_readers

_LONG = ("case_id", "reader", "score")
_FEWEST_READERS = 2


def read_reader_scores(path: Path) -> pd.DataFrame:
    """Scores by case and reader.

    Args:
        path: a table with ``case_id``, ``reader`` and ``score``, one row a reading; or with ``case_id`` and a column of
            scores for each reader, one row a case. Blank scores are missing.

    Returns:
        Index ``case_id``, a column for each reader in the table's order, NaN where a reader did not score.

    Raises:
        TableError: when the columns are others, a case or reader is not named, a reading stands twice, a score is no
            number, a reader scored nothing, or there is one reader.
    """
    table = with_decimal_points(read_table(path), except_columns=("case_id", "reader"))
    long = set(_LONG) <= set(table.header)
    strange = [name for name in table.header if name not in _LONG] if long else []
    if "case_id" not in table.header or len(table.header) < len(_LONG) or "modality" in table.header or strange:
        raise TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"has the columns {', '.join(map(repr, table.header))}; needs 'case_id', 'reader' and 'score' alone, or "
            "'case_id' and a column for each of at least two readers; give a table for each modality",
        )
    readings = _long_readings(table) if long else _wide_readings(table)
    _require_names(readings, path)
    readings["score"] = [
        _number(text, row, column, path)
        for text, row, column in zip(readings["score"], readings["row"], readings["column"], strict=True)
    ]
    wide = readings.pivot(index="case_id", columns="reader", values="score")
    wide = wide[list(dict.fromkeys(readings["reader"]))].astype(np.float64)
    if len(wide.columns) < _FEWEST_READERS:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, "holds the scores of one reader; an average takes at least two readers"
        )
    silent = int(wide.isna().all().sum())
    if silent:
        raise TableError(
            Code.E_LABEL_VALUE, path, f"{silent} of {len(wide.columns)} readers scored no case; leave those readers out"
        )
    return wide


def require_known_cases(scores: pd.DataFrame, known: Collection[str], path: Path, *, where: str) -> None:
    """Refuse scores of unknown cases, as with case ids in another spelling.

    Args:
        scores: as ``read_reader_scores`` returns them.
        known: every case id that there is, judged or not.
        path: of the readers' table.
        where: the known ids come from.

    Raises:
        TableError: when a case id of the readers is not known.
    """
    unknown = ~scores.index.isin(list(known))
    if unknown.any():
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"{int(unknown.sum())} of {len(scores)} case ids are not in {where}; write them as they are there",
        )


def reader_scores(path: Path | None, case_ids: Sequence[str], where: str) -> pd.DataFrame | None:
    """Readers' scores, every case of which is one of ``case_ids``; None without a table."""
    if path is None:
        return None
    scores = read_reader_scores(path)
    require_known_cases(scores, case_ids, path, where=where)
    return scores


def study_or_reason(predictions: Predictions, scores: pd.DataFrame | None) -> ReaderStudy | str | None:
    """The model beside the readers, why that is undefined, or None without scores.

    The reason is recorded instead of raised, because scoring the cases was costly and the other results hold.
    """
    if scores is None:
        return None
    try:
        return compare_with_readers(predictions, scores)
    except UndefinedMetricError as error:
        return str(error)


def _long_readings(table: Table) -> pd.DataFrame:
    return pd.DataFrame({**{name: table.column(name) for name in _LONG}, "row": table.row_numbers, "column": "score"})


def _wide_readings(table: Table) -> pd.DataFrame:
    readers = [name for name in table.header if name != "case_id"]
    cases = {"case_id": table.column("case_id"), "row": table.row_numbers}
    parts = [pd.DataFrame({**cases, "reader": name, "column": name, "score": table.column(name)}) for name in readers]
    return pd.concat(parts, ignore_index=True)


def _require_names(readings: pd.DataFrame, path: Path) -> None:
    """Refuse blank names and readings that stand twice."""
    if not len(readings):
        raise TableError(Code.E_NO_ROWS, path, "holds no scores; expected a row for each reading or case")
    for column in ("case_id", "reader"):
        blank = readings[readings[column] == ""]
        if len(blank):
            raise TableError(Code.E_CASE_ID, path, f"row {blank['row'].iloc[0]} has no {column}; fill it in")
    again = readings.duplicated(["case_id", "reader"])
    if again.any():
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"row {readings['row'][again].iloc[0]} scores a case that its reader scored before; keep one score",
        )


def _number(text: str, row: int, column: str, path: Path) -> float:
    if not text:
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise TableError(
            Code.E_LABEL_VALUE, path, f"row {row}: {column!r} is not a finite number; expected one, or a blank cell"
        )
    return value
