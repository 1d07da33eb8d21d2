"""Parquet tables as text cells."""

from __future__ import annotations

from pathlib import Path

from pipeline.cases.tables.grid import CellGrid
from pipeline.errors import Code, TableError


def read_parquet(path: Path, data: bytes) -> CellGrid:
    """Header and rows.

    Raises:
        TableError: E_FORMAT.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two of texts and dates
        raise TableError(
            Code.E_FORMAT, path, f"is not a readable Parquet file ({type(error).__name__}); write it again"
        ) from None
    rows = [list(table.column_names), *(list(row) for row in zip(*columns, strict=True))]
    return CellGrid(rows, list(range(1, len(rows) + 1)))
