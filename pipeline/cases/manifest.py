"""The manifest: a table of cases in one of several formats, checked before anything is computed.

CSV with commas, semicolons or tabs, Excel and Parquet are read (`pipeline.cases.tables`). A table that cannot be read
raises at once; faults of the table as a whole are collected in ``Manifest.faults``, and a fault of one row is kept in
its case, so that the other cases can be used.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from pipeline.cases.case import RESERVED_COLUMNS, TEXT_COLUMNS, ZERO_AND_ONE, Case, case_from_record
from pipeline.cases.ids import plain_id
from pipeline.cases.label_words import LabelWords
from pipeline.cases.table_facts import TableFacts, collect_facts, facts_path, images_root, read_facts_file
from pipeline.cases.table_faults import check_case_ids, table_faults
from pipeline.cases.tables.table import Table, read_table, with_decimal_points
from pipeline.errors import Code, TableError
from pipeline.files import sha256_bytes

_IMAGE_NAMES = ("image", "images", "img", "path", "file", "filename", "file_name", "filepath", "scan", "scans")


@dataclass(frozen=True)
class Manifest:
    """A table of cases that could be read.

    Attributes:
        path: the file.
        root: every image lies under it: the table's folder, or the one that the file about it names.
        cases: in the order of the rows, repeated rows once.
        columns: names of the extra columns.
        digest: hex SHA-256 of the file's bytes, and of the file about it where there is one.
        faults: what stops training and evaluation.
        repeated_rows: rows that repeat an earlier one and were dropped.
        facts: what is stated about its labels and scans.
        notes: how the file was read, where that was not plain.
    """

    path: Path
    root: Path
    cases: tuple[Case, ...]
    columns: tuple[str, ...]
    digest: str
    faults: tuple[TableError, ...]
    repeated_rows: int
    facts: TableFacts = field(default_factory=TableFacts)
    notes: tuple[str, ...] = ()

    def require_usable(self) -> None:
        """Raise the table's faults, if there are any, as one error with a line for each."""
        if self.faults:
            first, *others = self.faults
            raise TableError(first.code, self.path, "\n".join([first.reason, *map(str, others)]))


def read_manifest(path: Path, extra_columns: Path | None = None, *, words: LabelWords | None = None) -> Manifest:
    """Read a manifest, and the file about it where there is one.

    Args:
        path: the table.
        extra_columns: another table with a ``case_id`` column, whose other columns are added to the cases that it
            names; cells of the others stay blank. It cannot hold paths, labels, patients or splits.
        words: what label cells mean; by default what the file about the table says, else 1 and 0.

    Raises:
        TableError: when the table cannot be read at all: encoding, columns, no rows, ids that are not unique.
    """
    table = with_decimal_points(read_table(path), except_columns=TEXT_COLUMNS)
    if "image" not in table.header:
        raise TableError(Code.E_LABEL_COLUMNS, path, f"has no column 'image' ({_near_image(table)}); add it")
    records, repeated = _distinct(table)
    if not records:
        raise TableError(Code.E_NO_ROWS, path, "has a header and no rows; add one row a case")
    facts = read_facts_file(path)
    values, word_fault = _label_values(table, words or LabelWords(facts.positive_label, facts.negative_label))
    root = images_root(path, facts)
    cases = tuple(case_from_record(record, row=row, root=root, labels=values) for row, record in records)
    check_case_ids(path, cases, given="case_id" in table.header)
    manifest = Manifest(
        path=path,
        root=root,
        cases=cases,
        columns=tuple(name for name in table.header if name not in RESERVED_COLUMNS),
        digest=_digest(table),
        faults=tuple(table_faults(path, table.header, cases, word_fault=word_fault)),
        repeated_rows=repeated,
        facts=collect_facts(path, facts, cases),
        notes=table.notes,
    )
    return manifest if extra_columns is None else _with_columns(manifest, extra_columns)


def _near_image(table: Table) -> str:
    names = {name.casefold(): name for name in table.header}
    near = [name for key, name in names.items() if key in _IMAGE_NAMES] or [
        names[key] for key in get_close_matches("image", names, n=1)
    ]
    columns = f"found {', '.join(map(repr, table.header))}"
    return f"{columns}; did you mean {near[0]!r}?" if near else columns


def _label_values(table: Table, words: LabelWords) -> tuple[dict[str, int | None], str | None]:
    """The meaning of each label cell, and the fault of the label words."""
    if "label" not in table.header:
        return {}, None
    try:
        return words.values(table.column("label")), None
    except ValueError as error:
        return dict(ZERO_AND_ONE), str(error)


def _digest(table: Table) -> str:
    """Of the table, and of the file about it, which says what its words mean."""
    about = facts_path(table.path)
    if not about.is_file():
        return table.digest
    return sha256_bytes(f"{table.digest}{sha256_bytes(about.read_bytes())}".encode())


def _with_columns(manifest: Manifest, path: Path) -> Manifest:
    """The manifest with a second table's columns, joined by case id; its digest covers both tables."""
    table = with_decimal_points(read_table(path), except_columns=TEXT_COLUMNS)
    added = tuple(name for name in table.header if name != "case_id")
    if "case_id" not in table.header or not added:
        names = ", ".join(map(repr, table.header))
        raise TableError(Code.E_LABEL_COLUMNS, path, f"has the columns {names}; needs 'case_id' and another")
    taken = [name for name in added if name in manifest.columns or name in RESERVED_COLUMNS]
    if taken:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"column {taken[0]!r} is the manifest's ({manifest.path}); rename or remove it"
        )
    records = list(table.records())
    cells = {record.pop("case_id"): record for record in records}
    if len(cells) < len(records):
        raise TableError(Code.E_CASE_ID, path, f"{len(records) - len(cells)} case ids stand twice; keep one row each")
    _require_one_spelling(manifest, path, set(cells))
    blank = dict.fromkeys(added, "")
    return replace(
        manifest,
        cases=tuple(replace(case, extra={**case.extra, **cells.get(case.case_id, blank)}) for case in manifest.cases),
        columns=manifest.columns + added,
        digest=sha256_bytes(f"{manifest.digest}{table.digest}".encode()),
    )


def _require_one_spelling(manifest: Manifest, path: Path, ids: set[str]) -> None:
    """Refuse ids that differ from those of cases in spelling only, whose cells would silently stay blank."""
    known = {case.case_id for case in manifest.cases}
    if not known & ids:
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"names none of the {len(known)} cases of {manifest.path}; it belongs to another table",
        )
    by_key = {plain_id(case_id): case_id for case_id in known - ids}
    misspelt = [case_id for case_id in ids - known if plain_id(case_id) in by_key]
    if misspelt:
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"{len(misspelt)} case ids are spelt otherwise than in {manifest.path} "
            f"({misspelt[0]!r} and {by_key[plain_id(misspelt[0])]!r}); write them alike",
        )


def _distinct(table: Table) -> tuple[list[tuple[int, dict[str, str]]], int]:
    """Records with their row numbers (the header is row 1), and how many repeated an earlier one exactly."""
    distinct: dict[tuple[str, ...], int] = {}
    for row, number in zip(table.rows, table.row_numbers, strict=True):
        distinct.setdefault(row, number)
    records = [(number, dict(zip(table.header, row, strict=True))) for row, number in distinct.items()]
    return records, len(table.rows) - len(records)
