"""A table of lesions as rows of text, and what its columns are by their names."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.cases.lesions.text_file import decode, read_bytes
from pipeline.errors import Code, TableError

PARQUET: Final = b"PAR1"
_DELIMITERS: Final = (",", ";", "\t")
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
    "case_id": ("caseid", "case"),
    "image": ("image", "imagepath", "imagefile", "file", "filename", "filepath", "path", "scan", "volume"),
    "series": ("seriesuid", "seriesinstanceuid"),
    "patient": ("patientid", "patient", "subjectid", "subject", "participantid", "patid", "pid"),
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
    """

    center: tuple[int, int, int] | None
    voxel: tuple[int, int, int] | None
    others: dict[str, int]
    is_luna16: bool = False

    @property
    def names_images(self) -> bool:
        """Whether rows say which image they belong to."""
        return any(name in self.others for name in REFERENCES)

    def cell(self, row: Sequence[str], name: str) -> str:
        """The text of a cell; blank when there is no such column."""
        return row[self.others[name]].strip() if name in self.others else ""


@dataclass(frozen=True)
class LesionTable:
    """A table of lesions.

    Attributes:
        rows: text of the cells.
        lines: number of each row in the file, the header being 1.
        columns: what they hold.
        decimal_comma: whether a comma in a number can only be its decimal sign.
    """

    rows: list[list[str]]
    lines: list[int]
    columns: LesionColumns
    decimal_comma: bool


def read_lesion_table(path: Path) -> LesionTable:
    """Read a CSV (comma, semicolon or tab between cells) or Parquet table.

    Raises:
        CaseError: when the file cannot be opened or decoded.
        TableError: when it is no table, or none of its columns hold lesions.
    """
    data = read_bytes(path)
    delimiter = ""
    if data.startswith(PARQUET):
        header, rows = _parse_parquet(path, data)
        lines = list(range(2, len(rows) + 2))
    else:
        text = decode(path, data)
        delimiter = _delimiter(text)
        header, rows, lines = _parse_text(path, text, delimiter)
    columns = find_columns(path, header)
    if columns.center is None and columns.voxel is None:
        reason = f"none of {len(header)} columns hold lesion centres; name them center_x_mm, center_y_mm, center_z_mm"
        raise TableError(Code.E_LABEL_COLUMNS, path, reason)
    return LesionTable(rows, lines, columns, decimal_comma=delimiter not in ("", ","))


def header_of(head: bytes) -> list[str]:
    """The column names in the first bytes of a text file; empty when it has no line of them."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    line, *rest = head.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines() or [""]
    try:
        return next(csv.reader([line], delimiter=_delimiter(line))) if rest else []
    except (csv.Error, StopIteration):
        return []


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
    for what, known in _OTHERS.items():
        matching = [place for place, name in enumerate(names) if name in known]
        if len(matching) > 1 and what != "image":
            two = " and ".join(repr(header[place]) for place in matching[:2])
            raise TableError(Code.E_LABEL_COLUMNS, path, f"columns {two} both could be the {what}; remove one")
        if matching:
            others[what] = matching[0]
    return LesionColumns(
        center=_triple(path, header, centers),
        voxel=_triple(path, header, voxels),
        others=others,
        is_luna16={"seriesuid", "coordx", "coordy", "coordz"} <= set(names) and "system" not in others,
    )


def _triple(path: Path, header: Sequence[str], groups: dict[str, dict[int, int]]) -> tuple[int, int, int] | None:
    whole = [(axes[0], axes[1], axes[2]) for axes in groups.values() if len(axes) == 3]
    if len(whole) > 1:
        two = " and ".join(repr(header[places[0]]) for places in whole[:2])
        reason = f"columns {two} both could begin the lesion's centre; remove one set of three"
        raise TableError(Code.E_LABEL_COLUMNS, path, reason)
    return whole[0] if whole else None


def _delimiter(text: str) -> str:
    line = text.partition("\n")[0]
    return max(_DELIMITERS, key=line.count)


def _parse_text(path: Path, text: str, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = next(reader)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue  # spreadsheets leave blank lines behind
            if len(row) != len(header):
                reason = (
                    f"line {reader.line_num} has {len(row)} cells, the header has {len(header)}; fill or quote them"
                )
                raise TableError(Code.E_LABEL_COLUMNS, path, reason)
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error:
        reason = f"line {reader.line_num} is not CSV; close its quotes and shorten its cells"
        raise TableError(Code.E_FORMAT, path, reason) from None
    return header, rows, lines


def _parse_parquet(path: Path, data: bytes) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two for texts and dates
        reason = f"is not a readable Parquet file ({type(error).__name__}); write it again"
        raise TableError(Code.E_FORMAT, path, reason) from None
    return list(table.column_names), [list(row) for row in zip(*columns, strict=True)]
