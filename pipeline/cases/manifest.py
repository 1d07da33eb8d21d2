"""The manifest: a table of cases, read without guessing and checked before anything is computed.

Everything is text until it is checked: ``007`` stays ``007`` and ``1E5`` is not ``100000``. What stops
the table from being read raises at once; faults of the table as a whole are collected in
``Manifest.faults``, and a fault of one row stays with its case, so that the others go on.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import SPLITS
from pipeline.errors import CaseError, Code, TableError
from pipeline.files import sha256_bytes

CENTER_COLUMNS = ("center_x_mm", "center_y_mm", "center_z_mm")
RESERVED_COLUMNS = ("case_id", "image", "label", "patient_id", "split", *CENTER_COLUMNS, "coordinate_system")
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """One image, or one lesion in it: the scored unit.

    Attributes:
        case_id: unique text.
        image: as the manifest gives it.
        path: ``image`` made absolute.
        patient_id: text; None when the table gives none.
        label: 1 = malignant, 0 = benign, None = unlabelled.
        split: as the manifest gives it, None when blank.
        center_mm: lesion centre in RAS world mm.
        extra: the other columns, as text.
        files: the slices, when the case is one DICOM series of a searched folder.
        fault: why this row cannot be used, whatever its image holds.
    """

    case_id: str
    image: str
    path: Path
    patient_id: str | None = None
    label: int | None = None
    split: str | None = None
    center_mm: Point | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] | None = None
    fault: CaseError | None = None


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


def read_manifest(path: Path) -> Manifest:
    """Read a CSV or Parquet manifest.

    Raises:
        TableError: when the table cannot be read at all: encoding, columns, no rows, ids that are not unique.
    """
    data = _read_bytes(path)
    header, rows = _parse_parquet(path, data) if data[:4] == b"PAR1" else _parse_csv(path, data)
    _check_header(path, header)
    records, repeated = _distinct(dict(zip(header, row, strict=True)) for row in rows)
    if not records:
        raise TableError(Code.E_NO_ROWS, path, "has a header and no rows; add one row a case")
    root = path.resolve().parent
    cases = tuple(case_from_record(record, row=row, root=root) for row, record in records)
    _check_case_ids(path, cases, given="case_id" in header)
    return Manifest(
        path=path,
        root=root,
        cases=cases,
        columns=tuple(name for name in header if name not in RESERVED_COLUMNS),
        digest=sha256_bytes(data),
        faults=tuple(_table_faults(path, header, records, cases)),
        repeated_rows=repeated,
    )


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            reason = (
                "is a folder, expected a table" if path.is_dir() else "no such manifest; give a CSV or Parquet file"
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
    if "image" not in header:
        raise TableError(
            Code.E_LABEL_COLUMNS, path, f"has no column 'image' (found {', '.join(map(repr, header))}); add it"
        )
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


def case_from_record(record: Mapping[str, str], *, row: int, root: Path) -> Case:
    """One row of text cells as a case; what is wrong with it stays in ``Case.fault``."""
    image = record["image"]
    fault = None
    center = None
    if not image.strip():
        fault = CaseError(Code.E_NOT_FOUND, f"row {row}", "column 'image' is blank; name the scan")
    try:
        center = _center(record)
    except ValueError as error:
        fault = fault or CaseError(Code.E_CENTER, f"row {row}", str(error))
    label = record.get("label", "").strip()
    return Case(
        case_id=record.get("case_id") or image or f"row {row}",
        image=image,
        path=root / image,
        patient_id=record.get("patient_id") or None,
        label=int(float(label)) if label in LABEL_VALUES else None,
        split=record.get("split", "").strip() or None,
        center_mm=center,
        extra={name: text for name, text in record.items() if name not in RESERVED_COLUMNS},
        fault=fault,
    )


def _center(record: Mapping[str, str]) -> Point | None:
    """The lesion centre in RAS mm; None when all its cells are blank."""
    texts = [record.get(name, "").strip() for name in CENTER_COLUMNS]
    if not any(texts):
        return None
    try:
        x, y, z = (float(text) for text in texts)
    except ValueError:
        raise ValueError(
            f"lesion centre ({', '.join(texts)}) is not three numbers in mm; fill or clear all three"
        ) from None
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError(f"lesion centre ({x}, {y}, {z}) is not finite; give world mm")
    system = record.get("coordinate_system", "").strip()
    if system not in ("RAS", "LPS"):
        raise ValueError(
            f"coordinate_system is {system!r}, expected 'RAS' (NIfTI) or 'LPS' (DICOM); "
            "without it left and right are a guess"
        )
    return (x, y, z) if system == "RAS" else (-x, -y, z)


def _check_case_ids(path: Path, cases: Sequence[Case], *, given: bool) -> None:
    counts = Counter(case.case_id for case in cases)
    twice = [case_id for case_id, count in counts.items() if count > 1]
    if twice and not given:
        raise TableError(*_same_image_twice(path, [case for case in cases if case.case_id == twice[0]]))
    if twice:
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"case_id {twice[0]!r} stands {counts[twice[0]]} times in rows that differ; make it unique",
        )
    for case in cases:
        if not case.case_id.isprintable() or case.case_id != case.case_id.strip():
            raise TableError(
                Code.E_CASE_ID,
                path,
                f"case_id {case.case_id!r} has control characters or spaces around it; remove them",
            )


def _same_image_twice(path: Path, cases: Sequence[Case]) -> tuple[Code, Path, str]:
    """What to say of rows without case_id that name one image and differ elsewhere."""
    same_place = len({case.center_mm for case in cases}) == 1
    if same_place and len({case.label for case in cases}) > 1:
        return Code.E_LABEL_CONFLICT, path, f"{cases[0].image!r} is labelled both 0 and 1; keep the right row"
    return (
        Code.E_CASE_ID,
        path,
        f"{cases[0].image!r} stands {len(cases)} times in rows that differ; add a unique case_id column",
    )


LABEL_VALUES = frozenset({"0", "1", "0.0", "1.0"})


def _table_faults(
    path: Path, header: list[str], records: Sequence[tuple[int, dict[str, str]]], cases: Sequence[Case]
) -> Iterable[TableError]:
    """Faults that stop training and evaluation, in the order in which a person would mend them."""
    for name in ("label", "patient_id"):
        if name not in header:
            yield TableError(
                Code.E_LABEL_COLUMNS, path, f"has no column {name!r}, which training and evaluation need; add it"
            )
    for row, record in records:
        label = record.get("label", "").strip()
        if label and label not in LABEL_VALUES:
            yield TableError(
                Code.E_LABEL_VALUE, path, f"row {row}: label {label!r}, expected 1 (malignant), 0 (benign) or blank"
            )
    labelled = [case for case in cases if case.label is not None]
    if "patient_id" in header:
        yield from _patient_faults(path, labelled)
    yield from _label_conflicts(path, labelled)
    yield from _split_faults(path, labelled)
    classes = {case.label for case in labelled}
    if "label" in header and len(classes) < 2:
        found = f"only label {classes.pop()}" if classes else "no label"
        yield TableError(
            Code.E_ONE_CLASS, path, f"{found} in {len(cases)} rows; training and evaluation need both classes"
        )


def _patient_faults(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    blank = [case.case_id for case in cases if case.patient_id is None]
    if blank:
        yield TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"{len(blank)} labelled cases have no patient_id (first: {blank[0]!r}); "
            "fill it, or a patient could be in two splits",
        )
    for case in cases:
        if case.patient_id is not None and case.patient_id != case.patient_id.strip():
            yield TableError(
                Code.E_LABEL_COLUMNS, path, f"patient_id {case.patient_id!r} has spaces around it; remove them"
            )
            return


def _label_conflicts(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    for places in _grouped(cases, lambda case: (case.image, case.center_mm)):
        if len({case.label for case in places}) > 1:
            ids = ", ".join(repr(case.case_id) for case in places)
            yield TableError(
                Code.E_LABEL_CONFLICT,
                path,
                f"cases {ids} are the same place of {places[0].image!r} with different labels; keep the right one",
            )


def _split_faults(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    for case in cases:
        if case.split is not None and case.split not in SPLITS:
            yield TableError(
                Code.E_SPLIT_VALUE,
                path,
                f"case {case.case_id!r}: split {case.split!r}, expected one of {', '.join(SPLITS)} or blank",
            )
    for patient in _grouped((case for case in cases if case.patient_id and case.split), lambda case: case.patient_id):
        splits = sorted({str(case.split) for case in patient})
        if len(splits) > 1:
            yield TableError(
                Code.E_PATIENT_LEAK,
                path,
                f"patient {patient[0].patient_id!r} is in splits {' and '.join(splits)}; keep each patient in one",
            )


def _grouped(cases: Iterable[Case], key: Callable[[Case], object]) -> Iterable[list[Case]]:
    groups: dict[object, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups.values()
