"""One table as text cells, from any of the supported file formats, and how it was read.

Everything stays text: ``007`` stays ``007`` and ``1E5`` is not ``100000``. Numbers with decimal commas are written with
points (`with_decimal_points`), a column at a time and only where the column is unambiguous.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cases.tables.delimited import read_delimited
from pipeline.cases.tables.excel import read_excel
from pipeline.cases.tables.parquet import read_parquet
from pipeline.errors import Code, TableError
from pipeline.files import sha256_bytes

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".xlsx", ".xlsm", ".parquet")
_OTHER_FORMATS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls)",
    b"{\\rtf": "a text document (RTF)",
    b"%PDF": "a PDF",
}
# How spreadsheets and programs write an empty cell.
MISSING_WORDS = frozenset({"nan", "none", "na", "n/a", "null", "<na>", "#n/a", "nat", "-", "?"})
_WITH_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),(\d+)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Table:
    """A table that could be read.

    Attributes:
        path: of the file.
        header: names of the columns.
        rows: cells as text, each as long as the header; blank cells are empty.
        row_numbers: of each row, as a person counts them in the file.
        digest: hex SHA-256 of the file's bytes.
        notes: how it was read, where that was not plain: delimiter, encoding, sheet, decimal commas.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    row_numbers: tuple[int, ...]
    digest: str
    notes: tuple[str, ...] = ()

    def records(self) -> Iterator[dict[str, str]]:
        """Each row as cells by column."""
        for row in self.rows:
            yield dict(zip(self.header, row, strict=True))

    def column(self, name: str) -> list[str]:
        """The cells of a column, without spaces around them."""
        place = self.header.index(name)
        return [row[place].strip() for row in self.rows]


def read_table(
    path: Path, *, sheet: str | None = None, guess_encoding: bool = False, find_header: bool = False
) -> Table:
    """Read a table by its content: Parquet, Excel, or text with commas, semicolons, tabs or bars.

    Args:
        path: the file.
        sheet: of a workbook; by default its only sheet that is not empty.
        guess_encoding: read text that is not UTF-8 as Windows-1252, and say so; else it is refused.
        find_header: skip title lines above the header, and name columns without a name; else the first row is the
            header.

    Raises:
        TableError: when it cannot be read: missing, empty, encoding, format, ragged rows.
    """
    data = _read_bytes(path)
    if data[:4] == b"PAR1":
        grid = read_parquet(path, data)
    elif data[:4] == b"PK\x03\x04":
        grid = read_excel(path, data, sheet=sheet)
    else:
        _refuse_other_formats(path, data)
        grid = read_delimited(path, data, guess_encoding=guess_encoding, ragged=find_header)
    if not any(cell.strip() for row in grid.rows for cell in row):
        raise TableError(Code.E_EMPTY_FILE, path, "holds nothing but blanks; expected a header and one row a case")
    start = grid.header_row() if find_header else 0
    header = grid.rows[start]
    numbered = [
        (number, row)
        for number, row in zip(grid.row_numbers[start + 1 :], grid.rows[start + 1 :], strict=True)
        if any(cell.strip() for cell in row)  # spreadsheets leave blank lines behind
    ]
    width = len(header)
    if find_header:
        header, places = _named_columns(header, [row for _, row in numbered])
        numbered = [(number, [row[place] if place < len(row) else "" for place in places]) for number, row in numbered]
    else:
        _check_header(path, header)
        for number, row in numbered:
            if len(row) != width:
                raise TableError(
                    Code.E_LABEL_COLUMNS,
                    path,
                    f"line {number} has {len(row)} cells, the header has {width}; quote commas or fill the row",
                )
    return Table(
        path=path,
        header=tuple(header),
        rows=tuple(tuple(row) for _, row in numbered),
        row_numbers=tuple(number for number, _ in numbered),
        digest=sha256_bytes(data),
        notes=grid.notes,
    )


def with_decimal_points(table: Table, *, except_columns: Collection[str] = ()) -> Table:
    """The table with ``8,5`` written as ``8.5`` in columns whose every filled cell is a number.

    ``1,234`` alone could be a thousand and more: a column is taken for decimals when some cell has another number of
    digits after its comma than three, or when commas do not separate the table's cells.

    Args:
        table: as it was read.
        except_columns: ids and other texts, which are left as they are.
    """
    commas_are_free = any("separated by" in note for note in table.notes)
    changed: dict[int, list[str]] = {}
    for place, name in enumerate(table.header):
        if name in except_columns:
            continue
        cells = [row[place].strip() for row in table.rows]
        with_comma = [match for cell in cells if (match := _WITH_COMMA.fullmatch(cell))]
        plain = sum(bool(_NUMBER.fullmatch(cell)) for cell in cells)
        if not with_comma or len(with_comma) + plain != sum(bool(cell) for cell in cells):
            continue
        if commas_are_free or any(len(match[3]) != 3 for match in with_comma):
            changed[place] = [_with_point(cell) for cell in cells]
    if not changed:
        return table
    rows = tuple(
        tuple(changed[place][number] if place in changed else cell for place, cell in enumerate(row))
        for number, row in enumerate(table.rows)
    )
    names = ", ".join(repr(table.header[place]) for place in changed)
    return replace(table, rows=rows, notes=(*table.notes, f"decimal commas in {names}"))


def _with_point(cell: str) -> str:
    return cell.replace(".", "").replace(",", ".") if _WITH_COMMA.fullmatch(cell) else cell


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            kinds = "CSV, TSV, Excel or Parquet"
            reason = "is a folder, expected a table" if path.is_dir() else f"no such table; give a {kinds} file"
            raise TableError(Code.E_NOT_FOUND, path, reason)
        data = path.read_bytes()
    except PermissionError:
        raise TableError(Code.E_PERMISSION, path, "may not be read; change its permissions") from None
    if not data.strip():
        raise TableError(Code.E_EMPTY_FILE, path, "is empty; expected a header and one row a case")
    return data


def _refuse_other_formats(path: Path, data: bytes) -> None:
    for signature, name in _OTHER_FORMATS.items():
        if data.startswith(signature):
            raise TableError(Code.E_FORMAT, path, f"is {name}, not a table that is read; save it as .xlsx or CSV UTF-8")


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise TableError(Code.E_LABEL_COLUMNS, path, f"column {twice[0]!r} stands twice; keep one")
    strange = [name for name in header if name != name.strip() or not name]
    if strange:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"column name {strange[0]!r} is blank or has spaces around it; rename it"
        )


def _named_columns(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[int]]:
    """Unique names for the columns that hold anything, and their places."""
    names: dict[str, int] = {}
    for place in range(max(len(header), *(len(row) for row in rows)) if rows else len(header)):
        name = header[place].strip() if place < len(header) else ""
        if not any(row[place].strip() for row in rows if place < len(row)):
            continue  # a column without a filled cell is dropped, whatever its name
        name = " ".join(name.split()) or f"column {place + 1}"
        while name in names:
            name = f"{name} (column {place + 1})"
        names[name] = place
    return list(names), list(names.values())


def describe_notes(table: Table) -> str:
    """How the table was read, in a few words; blank for plain CSV in UTF-8."""
    return ", ".join(table.notes)


def most_common(cells: Mapping[str, int]) -> str:
    """Values with their counts, as ``benign (34), 'not known' (26)``, the commonest first; in any case of letters."""
    spelling: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for value, count in cells.items():
        counts[spelling.setdefault(value.casefold(), value)] += count
    return ", ".join(f"{repr(value) if ' ' in value else value} ({count})" for value, count in counts.most_common())
