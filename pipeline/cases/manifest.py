"""The manifest: a table of cases, read without guessing and checked before anything is computed.

Everything is text until it is checked: ``007`` stays ``007`` and ``1E5`` is not ``100000``. What stops
the table from being read raises at once; faults of the table as a whole are collected in
``Manifest.faults``, and a fault of one row stays with its case, so that the others go on.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cases.case import RESERVED_COLUMNS, Case, case_from_record
from pipeline.cases.table_faults import check_case_ids, table_faults
from pipeline.errors import Code, TableError
from pipeline.files import sha256_bytes


@dataclass(frozen=True)
class Manifest:
    """A table of cases that could be read.

    Attributes:
        path: the file.
        root: its folder; every image lies under it.
        cases: in the order of the rows, repeated rows once.
        columns: names of the extra columns.
        digest: hex SHA-256 of the file's bytes.
        faults: what stops training and evaluation.
        repeated_rows: rows that repeat an earlier one and were dropped.
    """

    path: Path
    root: Path
    cases: tuple[Case, ...]
    columns: tuple[str, ...]
    digest: str
    faults: tuple[TableError, ...]
    repeated_rows: int

    def require_usable(self) -> None:
        """Raise the table's faults, if there are any, as one error with a line for each."""
        if self.faults:
            first, *others = self.faults
            raise TableError(first.code, self.path, "\n".join([first.reason, *map(str, others)]))


def read_manifest(path: Path, extra_columns: Path | None = None) -> Manifest:
    """Read a CSV or Parquet manifest.

    Args:
        path: the table.
        extra_columns: another table with a ``case_id`` column, whose other columns are added to the cases that it
            names; cells of the others stay blank. It cannot hold paths, labels, patients or splits.

    Raises:
        TableError: when the table cannot be read at all: encoding, columns, no rows, ids that are not unique.
    """
    data, header, rows = _read_table(path)
    if "image" not in header:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"has no column 'image' (found {', '.join(map(repr, header))}); add it"
        )
    records, repeated = _distinct(dict(zip(header, row, strict=True)) for row in rows)
    if not records:
        raise TableError(Code.E_NO_ROWS, path, "has a header and no rows; add one row a case")
    root = path.resolve().parent
    cases = tuple(case_from_record(record, row=row, root=root) for row, record in records)
    check_case_ids(path, cases, given="case_id" in header)
    manifest = Manifest(
        path=path,
        root=root,
        cases=cases,
        columns=tuple(name for name in header if name not in RESERVED_COLUMNS),
        digest=sha256_bytes(data),
        faults=tuple(table_faults(path, header, records, cases)),
        repeated_rows=repeated,
    )
    return manifest if extra_columns is None else _with_columns(manifest, extra_columns)


def _with_columns(manifest: Manifest, path: Path) -> Manifest:
    """The manifest with a second table's columns, joined by case id; its digest covers both tables."""
    data, header, rows = _read_table(path)
    added = tuple(name for name in header if name != "case_id")
    if "case_id" not in header or not added:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"has the columns {', '.join(map(repr, header))}; needs 'case_id' and another"
        )
    taken = [name for name in added if name in manifest.columns or name in RESERVED_COLUMNS]
    if taken:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"column {taken[0]!r} is the manifest's ({manifest.path}); rename or remove it"
        )
    known = {case.case_id for case in manifest.cases}
    records = [dict(zip(header, row, strict=True)) for row in rows]
    cells = {record.pop("case_id"): record for record in records}
    if len(cells) < len(records):
        raise TableError(Code.E_CASE_ID, path, f"{len(records) - len(cells)} case ids stand twice; keep one row each")
    if not known & cells.keys():
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"names none of the {len(known)} cases of {manifest.path}; it belongs to another table",
        )
    blank = dict.fromkeys(added, "")
    return replace(
        manifest,
        cases=tuple(replace(case, extra={**case.extra, **cells.get(case.case_id, blank)}) for case in manifest.cases),
        columns=manifest.columns + added,
        digest=sha256_bytes(f"{manifest.digest}{sha256_bytes(data)}".encode()),
    )


def _read_table(path: Path) -> tuple[bytes, list[str], list[list[str]]]:
    """The bytes, header and rows of a CSV or Parquet table."""
    data = _read_bytes(path)
    header, rows = _parse_parquet(path, data) if data[:4] == b"PAR1" else _parse_csv(path, data)
    _check_header(path, header)
    return data, header, rows


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            reason = (
                "is a folder, expected a table"
                if path.is_dir()
                else "no such manifest or table; give a CSV or Parquet file"
            )
            raise TableError(Code.E_NOT_FOUND, path, reason)
        data = path.read_bytes()
    except PermissionError:
        raise TableError(Code.E_PERMISSION, path, "may not be read; change its permissions") from None
    if not data.strip():
        raise TableError(Code.E_EMPTY_FILE, path, "is empty; expected a header and one row a case")
    return data


def _parse_csv(path: Path, data: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(
            Code.E_ENCODING, path, f"byte {error.start} is not UTF-8; save the table as 'CSV UTF-8' and try again"
        ) from None
    if "\0" in text:
        raise TableError(
            Code.E_ENCODING,
            path,
            f"holds a NUL character in line {text[: text.index(chr(0))].count(chr(10)) + 1}; save it as plain CSV",
        )
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader)
        rows = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue  # spreadsheets leave blank lines behind
            if len(row) != len(header):
                raise TableError(
                    Code.E_LABEL_COLUMNS,
                    path,
                    f"line {reader.line_num} has {len(row)} cells, the header has {len(header)}; "
                    "quote commas or fill the row",
                )
            rows.append(row)
    except csv.Error as error:
        raise TableError(
            Code.E_FORMAT, path, f"line {reader.line_num} is not CSV ({error}); close its quotes"
        ) from None
    return header, rows


def _parse_parquet(path: Path, data: bytes) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            Code.E_FORMAT, path, f"is not a readable Parquet file ({type(error).__name__}); write it again"
        ) from None
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    return list(table.column_names), [list(row) for row in zip(*columns, strict=True)]


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise TableError(Code.E_LABEL_COLUMNS, path, f"column {twice[0]!r} stands twice; keep one")
    strange = [name for name in header if name != name.strip() or not name]
    if strange:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"column name {strange[0]!r} is blank or has spaces around it; rename it"
        )


def _distinct(records: Iterable[dict[str, str]]) -> tuple[list[tuple[int, dict[str, str]]], int]:
    """Records with their row numbers (the header is row 1), and how many repeated an earlier one exactly."""
    seen: dict[tuple[str, ...], int] = {}
    kept: list[tuple[int, dict[str, str]]] = []
    repeated = 0
    for row, record in enumerate(records, start=2):
        if seen.setdefault(tuple(record.values()), row) == row:
            kept.append((row, record))
        else:
            repeated += 1
    return kept, repeated
