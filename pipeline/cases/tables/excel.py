"""Excel workbooks (.xlsx) as text cells: numbers and dates as a person would type them, formulas by their value."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from pipeline.cases.tables.grid import CellGrid
from pipeline.errors import Code, TableError

_MOST_BYTES = 500_000_000  # of a workbook, unpacked: far above any table of cases
_ERRORS = frozenset({"#N/A", "#NV", "#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!"})
_ZEROS = re.compile(r"0+")


def read_excel(path: Path, data: bytes, *, sheet: str | None) -> CellGrid:
    """Cells of one sheet.

    Args:
        path: named in errors.
        data: the file's bytes.
        sheet: its name; by default the only sheet that holds a table.

    Raises:
        TableError: E_FORMAT for what is no workbook, E_TOO_LARGE, E_NO_ROWS for an empty one, E_NOT_FOUND for a sheet
            that is not there, E_LABEL_COLUMNS when several sheets hold tables and none is named.
    """
    grids = _sheets(path, data)
    filled = {name: grid for name, grid in grids.items() if len(grid.rows) > 1}
    if sheet is not None:
        if sheet not in grids:
            raise TableError(Code.E_NOT_FOUND, path, f"has no sheet {sheet!r}; it has {', '.join(map(repr, grids))}")
        return grids[sheet]
    if not filled:
        raise TableError(Code.E_NO_ROWS, path, "holds no table: no sheet has a header and a row")
    widths = {name: max(sum(bool(cell) for cell in row) for row in grid.rows) for name, grid in filled.items()}
    tables = [name for name in filled if widths[name] > 2 or len(filled) == 1]
    if len(tables) != 1:
        names = ", ".join(map(repr, tables or filled))
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"has {len(tables or filled)} sheets with tables ({names}); name one: --sheet"
        )
    grid = filled[tables[0]]
    return CellGrid(grid.rows, grid.row_numbers, (*grid.notes, *([f"sheet {tables[0]!r}"] if len(grids) > 1 else [])))


def _sheets(path: Path, data: bytes) -> dict[str, CellGrid]:
    """Every worksheet's cells, without blank rows around them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise TableError(Code.E_TOO_LARGE, path, f"unpacks to over {_MOST_BYTES} bytes; save its table as CSV")
            if "xl/workbook.xml" not in archive.namelist():
                raise TableError(Code.E_FORMAT, path, "is a zip archive and no Excel workbook; name the table itself")
        from openpyxl import load_workbook

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions that no cell's value depends on
            book = load_workbook(io.BytesIO(data), read_only=False, data_only=True)
            return {sheet.title: _cells(sheet) for sheet in book.worksheets}
    except TableError:
        raise
    except Exception as error:  # noqa: BLE001  # a damaged archive makes the parsers raise many kinds of errors
        raise TableError(
            Code.E_FORMAT, path, f"is not a readable Excel workbook ({type(error).__name__}); save it again"
        ) from None


def _cells(sheet: Any) -> CellGrid:
    rows, numbers, errors = [], [], 0
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        texts = [_text(cell) for cell in cells]
        errors += sum(text in _ERRORS for text in texts)
        texts = ["" if text in _ERRORS else text for text in texts]
        if any(texts):
            rows.append(texts)
            numbers.append(number)
    width = max((len(row) - next((n for n, cell in enumerate(reversed(row)) if cell), 0) for row in rows), default=0)
    notes = (f"{errors} cells with an Excel error are taken as blank",) if errors else ()
    return CellGrid([row[:width] for row in rows], numbers, notes)


def _text(cell: Any) -> str:
    """A cell as a person sees it, but for rounding."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and float(value).is_integer() and abs(value) < 1e15:
        digits = str(int(value))
        # 7 shown as 007 is an id with leading zeros.
        return digits.zfill(len(cell.number_format)) if _ZEROS.fullmatch(cell.number_format or "") else digits
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value).strip() if isinstance(value, str) else repr(value)
