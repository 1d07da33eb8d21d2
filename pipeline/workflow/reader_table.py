"""A table of readers' scores, long or wide, for comparing a model with the readers' average."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cases.tables.table import Table, read_table, with_decimal_points
from pipeline.errors import Code, TableError

_LONG = ("case_id", "reader", "score")


def read_reader_scores(path: Path) -> pd.DataFrame:
    """Scores by case and reader.

    Args:
        path: a table with ``case_id``, ``reader`` and ``score``, one row a reading; or with ``case_id`` and a column of
            scores for each reader, one row a case. Blank scores are missing.

    Returns:
        Index ``case_id``, a column for each reader in the table's order, NaN where a reader did not score.

    Raises:
        TableError: when the columns are others, a reading stands twice, or a score is no number.
    """
    table = with_decimal_points(read_table(path), except_columns=("case_id", "reader"))
    if "case_id" not in table.header or len(table.header) < 3 or "modality" in table.header:
        raise TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"has the columns {', '.join(map(repr, table.header))}; needs 'case_id', 'reader' and 'score', or "
            "'case_id' and a column for each of at least two readers; give a table for each modality",
        )
    long = set(_LONG) <= set(table.header)
    readings = _long_readings(table) if long else _wide_readings(table)
    twice = readings[readings.duplicated(["case_id", "reader"])]
    if len(twice):
        case_id, reader = twice["case_id"].iloc[0], twice["reader"].iloc[0]
        raise TableError(
            Code.E_CASE_ID, path, f"reader {reader!r} scored case {case_id!r} more than once; keep one score"
        )
    readings["score"] = [_number(text, path) for text in readings["score"]]
    wide = readings.pivot(index="case_id", columns="reader", values="score")
    return wide[list(dict.fromkeys(readings["reader"]))].astype(np.float64)


def _long_readings(table: Table) -> pd.DataFrame:
    return pd.DataFrame({name: table.column(name) for name in _LONG})


def _wide_readings(table: Table) -> pd.DataFrame:
    readers = [name for name in table.header if name != "case_id"]
    parts = [
        pd.DataFrame({"case_id": table.column("case_id"), "reader": name, "score": table.column(name)})
        for name in readers
    ]
    return pd.concat(parts, ignore_index=True)


def _number(text: str, path: Path) -> float:
    if not text.strip():
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise TableError(Code.E_LABEL_VALUE, path, f"holds the score {text[:20]!r}; expected numbers, or blank cells")
    return value
