"""Read a table of lesions as rows of text, and find the meaning of its columns by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.cases.lesions.files.text_file import read_small_file
from pipeline.cases.lesions.lesion import LesionFormat
from pipeline.cases.tables.delimited import read_delimited
from pipeline.cases.tables.excel import read_excel
from pipeline.cases.tables.grid import CellGrid
from pipeline.cases.tables.parquet import read_parquet
from pipeline.errors import Code, TableError

PARQUET: Final = b"PAR1"
EXCEL: Final = b"PK\x03\x04"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_PLACE: Final = "lesion|nodule|tumou?r|world|cent(?:er|re|roid)|coord(?:inate)?|pos(?:ition)?|point|loc(?:ation)?|mm"
_MILLIMETRES: Final = (re.compile(rf"((?:{_PLACE})*)([xyz])(?:mm)?"), re.compile(rf"([xyz])((?:{_PLACE})+)"))
_VOXELS: Final = re.compile(r"(voxel|vox|index|idx|ijk|)([ijk])|(voxel|vox|index|idx|pixel|px)([xyz])")
_AXES: Final = {"x": 0, "y": 1, "z": 2, "i": 0, "j": 1, "k": 2}
_OTHERS: Final = {
    "system": ("coordinatesystem", "coordsystem", "system"),
    "diameter": (
        "diametermm", "diameter", "longaxismm", "longaxis", "longestdiametermm", "longestdiameter", "maxdiametermm",
        "durchmessermm", "durchmesser",
    ),
    "index_base": ("indexbase",),
    "nodule_class": ("class",),
    "case_id": ("caseid", "case", "fall", "fallnr", "fallid"),
    "image": (
        "image", "imagepath", "imagefile", "file", "filename", "filepath", "path", "scan", "volume", "datei",
        "dateiname", "bild",
    ),
    "series": ("seriesuid", "seriesinstanceuid"),
    "patient": (
        "patientid", "patient", "subjectid", "subject", "participantid", "patid", "pid", "patientennr", "patientnr",
        "patnr", "patientenid",
    ),
}  # fmt: skip
REFERENCES: Final = ("case_id", "image", "series", "patient")
OWN_COLUMN: Final = "lesion_source"  # in the tables that the command writes


@dataclass(frozen=True)
class LesionColumns:
    """Which column holds what, by place.

    Attributes:
        center: x, y, z in mm; None without.
        voxel: i, j, k; None without.
        others: by what they hold (see ``_OTHERS``).
        is_luna16: whether they are named as LUNA16's, whose centres are LPS by definition.
        is_own: whether the table was written by ``malignancy lesions``.
    """

    center: tuple[int, int, int] | None
    voxel: tuple[int, int, int] | None
    others: dict[str, int]
    is_luna16: bool = False
    is_own: bool = False

    @property
    def names_images(self) -> bool:
        """Whether rows say which image they belong to."""
        return any(name in self.others for name in REFERENCES)

    @property
    def format(self) -> LesionFormat:
        """Format of the table; centres in mm are preferred to voxel indices."""
        return "luna16" if self.is_luna16 else "table" if self.center is not None else "voxel-table"

    def cell(self, row: Sequence[str], name: str) -> str:
        """The text of a cell; blank when there is no such column."""
        return row[self.others[name]].strip() if name in self.others else ""


@dataclass(frozen=True)
class LesionGrid(CellGrid):
    """The cells of a file, and whether it is a workbook or Parquet, whose cells no comma separates."""

    is_spreadsheet: bool = False


@dataclass(frozen=True)
class LesionTable:
    """A table of lesions.

    Attributes:
        rows: text of the cells.
        lines: number of each row in the file, as a person counts them.
        columns: what they hold.
        decimal_comma: whether a comma in a number can only be its decimal sign.
        notes: how the table was read, where that was not plain.
    """

    rows: list[list[str]]
    lines: list[int]
    columns: LesionColumns
    decimal_comma: bool
    notes: tuple[str, ...]


def read_lesion_table(path: Path) -> LesionTable:
    """Read a table: text (comma, semicolon, tab or bar between cells), Excel or Parquet; titles may stand above it.

    Raises:
        CaseError: when the file cannot be opened.
        TableError: when it is no table, or none of its columns hold lesions.
    """
    grid = _grid(path, read_small_file(path))
    start = grid.header_row()
    header = grid.rows[start]
    columns = find_columns(path, header)
    if columns.center is None and columns.voxel is None:
        reason = f"none of {len(header)} columns hold lesion centres; name them center_x_mm, center_y_mm, center_z_mm"
        raise TableError(Code.E_LABEL_COLUMNS, path, reason)
    rows, lines = [], []
    for row, line in zip(grid.rows[start + 1 :], grid.row_numbers[start + 1 :], strict=True):
        if any(cell.strip() for cell in row):  # spreadsheets leave blank lines at the end
            rows.append(_of_width(path, row, len(header), line, padded=grid.is_spreadsheet))
            lines.append(line)
    by_comma = not grid.is_spreadsheet and not any("separated by" in note for note in grid.notes)
    notes = tuple(note for note in grid.notes if not note.startswith("sheet "))  # a sheet's name may be a person's
    return LesionTable(rows, lines, columns, decimal_comma=not by_comma, notes=notes)


def table_columns(path: Path, head: bytes) -> LesionColumns | None:
    """What the columns of a table hold, by the first bytes of a text table; None when it is no table of lesions.

    Raises:
        CaseError: when a workbook or Parquet file cannot be opened.
    """
    is_binary = head.startswith((PARQUET, EXCEL))
    data = read_small_file(path) if is_binary else head[: head.rfind(b"\n") + 1] or head
    if head.startswith(_UTF_16):
        data = head[: len(head) // 2 * 2]
    try:
        grid = _grid(path, data)
        columns = find_columns(path, grid.rows[grid.header_row()])
    except TableError:
        return None
    return columns if columns.center is not None or columns.voxel is not None else None


def _grid(path: Path, data: bytes) -> LesionGrid:
    """The cells of a file by its content.

    Raises:
        TableError: E_EMPTY_FILE, E_ENCODING, E_FORMAT and what a workbook can have.
    """
    if data.startswith(PARQUET):
        grid, spreadsheet = read_parquet(path, data), True
    elif data.startswith(EXCEL):
        grid, spreadsheet = _only_sheet(path, data), True
    else:
        grid, spreadsheet = read_delimited(path, data, guess_encoding=True, ragged=True), False
    if not any(cell.strip() for row in grid.rows for cell in row):
        raise TableError(Code.E_EMPTY_FILE, path, "holds nothing but blanks; copy or export the file again")
    return LesionGrid(grid.rows, grid.row_numbers, grid.notes, spreadsheet)


def _only_sheet(path: Path, data: bytes) -> CellGrid:
    try:
        return read_excel(path, data, sheet=None)
    except TableError as error:
        if error.code is not Code.E_LABEL_COLUMNS:
            raise
        reason = "has several sheets with tables; save the one with the lesions as a workbook of its own, or as CSV"
        raise TableError(error.code, path, reason) from None


def _of_width(path: Path, row: list[str], width: int, line: int, *, padded: bool) -> list[str]:
    """A row as wide as the header; blank cells may be too many at its end and, in a workbook, missing there.

    Raises:
        TableError: E_LABEL_COLUMNS; one comma too many moves every number behind it.
    """
    if any(cell.strip() for cell in row[width:]) or (len(row) < width and not padded):
        reason = f"line {line} has {len(row)} cells, the header has {width}; quote commas or fill the row"
        raise TableError(Code.E_LABEL_COLUMNS, path, reason)
    return [*row[:width], *[""] * (width - len(row))]


def find_columns(path: Path, header: Sequence[str]) -> LesionColumns:
    """What the columns hold, by their names in any letter case and with any separators.

    Raises:
        TableError: E_LABEL_COLUMNS when two sets of columns could be the centre, or two columns the same thing.
    """
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in header]
    centers: dict[str, dict[int, int]] = defaultdict(dict)
    voxels: dict[str, dict[int, int]] = defaultdict(dict)
    for place, name in enumerate(names):
        if match := _MILLIMETRES[0].fullmatch(name):
            centers[match[1]][_AXES[match[2]]] = place
        elif match := _MILLIMETRES[1].fullmatch(name):
            centers[match[2]][_AXES[match[1]]] = place
        elif match := _VOXELS.fullmatch(name):
            voxels[match[1] or match[3] or ""][_AXES[match[2] or match[4]]] = place
    others = {}
    for role, known in _OTHERS.items():
        best = next((word for word in known if word in names), None)  # the first is the most certain
        if best is None:
            continue
        if names.count(best) > 1:
            raise TableError(Code.E_LABEL_COLUMNS, path, f"{names.count(best)} columns could be the {role}; keep one")
        others[role] = names.index(best)
    return LesionColumns(
        center=_triple(path, header, centers),
        voxel=_triple(path, header, voxels),
        others=others,
        is_luna16={"seriesuid", "coordx", "coordy", "coordz"} <= set(names) and "system" not in others,
        is_own=OWN_COLUMN in header,
    )


def _triple(path: Path, header: Sequence[str], groups: dict[str, dict[int, int]]) -> tuple[int, int, int] | None:
    triples = [(axes[0], axes[1], axes[2]) for axes in groups.values() if len(axes) == 3]
    if len(triples) > 1:
        two = " and ".join(repr(header[places[0]]) for places in triples[:2])
        reason = f"columns {two} both could begin the lesion's centre; remove one set of three"
        raise TableError(Code.E_LABEL_COLUMNS, path, reason)
    return triples[0] if triples else None
