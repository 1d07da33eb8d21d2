"""Label, patient, split and lesion of each scan, from a table's rows and from folder names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.cases.case import Point
from pipeline.cases.intake.columns import Columns, diameter_unit_mm
from pipeline.cases.intake.folder_words import folder_labels, folder_splits, folders_that_could_mean_classes
from pipeline.cases.intake.joining import near_misses
from pipeline.cases.intake.kept_columns import kept_columns
from pipeline.cases.intake.names import plain
from pipeline.cases.intake.scans import SurveyedScan
from pipeline.cases.intake.words import LEFT_CELLS, SPLIT_FOLDERS
from pipeline.cases.label_words import LabelWords
from pipeline.cases.tables.table import MISSING_WORDS, Table, most_common
from pipeline.errors import UsageError

_LITERAL = LabelWords(("malignant",), ("benign",))
_GIVE_A_MEANING = "[--positive WORD counts it as malignant, --negative WORD as benign]"


@dataclass(frozen=True, eq=False)
class IntakeRow:
    """A future case: a scan, or one lesion in it that a row of the table gives.

    Attributes:
        scan: the image.
        case_id: as the table gives it; None where it gives none, or the same one to several.
        patient: id as the table gives it; None where it gives none.
        label: 1, 0 or None.
        split: train, validation, calibration, test or None.
        center_mm: RAS world mm, as the table gives it.
        extra: other columns that are kept.
    """

    scan: SurveyedScan
    case_id: str | None = None
    patient: str | None = None
    label: int | None = None
    split: str | None = None
    center_mm: Point | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Rows of all scans.

    Attributes:
        rows: in the order of the scans.
        lines: what was found, to be shown.
    """

    rows: tuple[IntakeRow, ...]
    lines: tuple[str, ...]


def rows_from_folders(scans: Sequence[SurveyedScan], words: LabelWords) -> Rows:
    """Labels and splits by folder names alone."""
    splits = folder_splits([scan.image for scan in scans])
    images = [(scan_number, image) for scan_number, scan in enumerate(scans) for image in (scan.image, *scan.copies)]
    by_folder = folder_labels([image for _, image in images], words)
    labels: dict[int, set[int]] = defaultdict(set)  # of all copies of a scan
    for (scan_number, _), label in zip(images, by_folder.labels if by_folder else [None] * len(images), strict=True):
        if label is not None:
            labels[scan_number].add(label)
    lines = []
    if by_folder:
        lines.append(f"label: from folder names, {most_common(by_folder.words)}")
        if by_folder.unlabelled:
            lines.append(f"unlabelled: {most_common(by_folder.unlabelled)} {_GIVE_A_MEANING}")
    elif classes := folders_that_could_mean_classes([scan.image for scan in scans]):
        lines.append(
            f"label: no folder is called malignant or benign; there are {most_common(classes)} [--positive WORD]"
        )
    if splits:
        lines.append(f"split: from folder names, {most_common(Counter(splits))}")
    if contradictory := [scans[scan_number].image for scan_number, values in labels.items() if len(values) > 1]:
        lines.append(
            f"{len(contradictory)} scans lie in folders of both labels, byte for byte, and stay unlabelled: "
            f"{first_three(contradictory)}"
        )
    rows = [
        IntakeRow(scan, label=_agreed(labels[scan_number]), split=splits[scan_number] if splits else None)
        for scan_number, scan in enumerate(scans)
    ]
    return Rows(tuple(rows), tuple(lines))


def rows_from_table(
    scans: Sequence[SurveyedScan], table: Table, columns: Columns, words: LabelWords, *, keep: Sequence[str] = ()
) -> Rows:
    """One row per scan, or per lesion, from the table's rows that name it; scans without a row stay unlabelled.

    Args:
        scans: of the folder.
        table: whose columns were settled.
        columns: what each is.
        words: what label words mean.
        keep: columns that are kept whatever they hold.

    Raises:
        UsageError: when the words of the label column have no meaning yet, or a centre has no coordinate system.
    """
    meaning = _meaning(table, columns, words)
    new_names, dropped = kept_columns(table, columns, keep)
    records_of_scan: dict[int, list[Mapping[str, str]]] = defaultdict(list)
    for record, scan_numbers in zip(table.records(), columns.join.scans_of, strict=True):
        for scan_number in scan_numbers:
            records_of_scan[scan_number].append(record)
    splits = folder_splits([scan.image for scan in scans]) if columns.split is None else None
    rows: list[IntakeRow] = []
    contradictory: list[str] = []
    unplaced = 0
    for scan_number, scan in enumerate(scans):
        scan_rows = [
            _row(scan, record, columns, meaning, new_names)
            for record in records_of_scan[scan_number]
            if _is_of_side(scan, record, columns)
        ]
        for lesion_rows in _by_place(scan_rows):
            merged = _merge(scan, lesion_rows)
            if merged.label is None and any(row.label is not None for row in lesion_rows):
                contradictory.append(scan.image)
            rows.append(replace(merged, split=splits[scan_number]) if splits else merged)
        unplaced += sum(row.center_mm is None for row in scan_rows) * any(row.center_mm for row in scan_rows)
    lines = [*columns.describe(table), *_neither(table, columns, meaning), *_unmatched(scans, table, columns)]
    if dropped:
        lines.append(f"columns left out, which may name a person: {', '.join(map(repr, dropped))} [--keep COLUMN]")
    if contradictory:
        lines.append(
            f"{len(contradictory)} scans have rows with different labels and stay unlabelled: "
            f"{first_three(contradictory)}"
        )
    if unplaced:
        lines.append(f"{unplaced} rows without a lesion centre are left out, of scans whose other rows have one")
    return Rows(tuple(rows), tuple(lines))


def _neither(table: Table, columns: Columns, meaning: Mapping[str, int | None]) -> Iterator[str]:
    """Words that mean neither class."""
    cells = Counter(filter(None, _label_cells(table, columns)))
    neither = {word: cells[word] for word, value in meaning.items() if value is None and cells[word]}
    if neither:
        yield f"unlabelled: {most_common(neither)} {_GIVE_A_MEANING}"


def _unmatched(scans: Sequence[SurveyedScan], table: Table, columns: Columns) -> Iterator[str]:
    """Rows without a scan and scans without a row; by row number, since ids may be a person's."""
    names, ids = [scan.names for scan in scans], table.column(columns.case)
    without = [row for row, places in enumerate(columns.join.scans_of) if not places]
    if without:
        near = dict(near_misses(ids, columns.join, names))
        numbers = [str(table.row_numbers[row]) for row in without]
        hints = [f"row {table.row_numbers[row]} is nearly {image}" for row, image in near.items()]
        yield f"{len(without)} rows without a scan: {first_three(numbers)}{f' ({first_three(hints)})' if hints else ''}"
    alone = [scan.image for place, scan in enumerate(scans) if place not in columns.join.matched_scans]
    if alone:
        yield f"{len(alone)} scans without a row, which stay unlabelled: {first_three(alone)}"


def _meaning(table: Table, columns: Columns, words: LabelWords) -> dict[str, int | None]:
    """What each word of the label column means."""
    if columns.label is None:
        return {}
    cells = _label_cells(table, columns)
    known = {plain(cell) for cell in cells if cell}
    if not words.positive:
        if known >= {"malignant", "benign"}:  # the manifest's own words
            return _LITERAL.values(cells)
        counts = most_common(Counter(filter(None, cells)))
        raise UsageError(
            f"{table.path}: column {columns.label!r} holds {counts}; say which word means malignant: --positive WORD"
        )
    try:
        return words.values(cells)
    except ValueError as error:
        raise UsageError(f"{table.path}: column {columns.label!r}: {error} [--positive, --negative]") from None


def _label_cells(table: Table, columns: Columns) -> list[str]:
    """Cells of the label column; ``n/a`` and its like are blank."""
    cells = table.column(columns.label) if columns.label else []
    return ["" if cell.casefold() in MISSING_WORDS else cell for cell in cells]


def _row(
    scan: SurveyedScan,
    record: Mapping[str, str],
    columns: Columns,
    meaning: Mapping[str, int | None],
    new_names: Mapping[str, str],
) -> IntakeRow:
    def cell(name: str | None) -> str:
        return record[name].strip() if name else ""

    split = SPLIT_FOLDERS.get(plain(cell(columns.split)))
    extra = {new: record[old].strip() for old, new in new_names.items()}
    if columns.diameter and extra.get("diameter_mm") and diameter_unit_mm(columns.diameter) != 1:
        extra["diameter_mm"] = f"{float(extra['diameter_mm']) * diameter_unit_mm(columns.diameter):g}"
    return IntakeRow(
        scan=scan,
        case_id=cell("case_id" if "case_id" in record else columns.case) or None,
        patient=cell(columns.patient) or None,
        label=meaning.get(cell(columns.label)),
        split=split,
        center_mm=_center(record, columns),
        extra=extra,
    )


def _is_of_side(scan: SurveyedScan, record: Mapping[str, str], columns: Columns) -> bool:
    """Whether a row about one side can be about a scan of a known side."""
    side = plain(record[columns.side].strip()) if columns.side else ""
    return not side or not scan.side or (side in LEFT_CELLS) == (scan.side == "L")


def _center(record: Mapping[str, str], columns: Columns) -> Point | None:
    if columns.center is None:
        return None
    texts = [record[name].strip() for name in columns.center]
    if not all(texts):
        return None
    x, y, z = map(float, texts)
    system = (
        columns.system if columns.system in ("RAS", "LPS") else record.get(columns.system or "", "").strip().upper()
    )
    if system not in ("RAS", "LPS"):
        raise UsageError(
            f"the lesion centres in columns {', '.join(map(repr, columns.center))} have no coordinate system: add a "
            "column 'coordinate_system' with RAS (NIfTI, 3D Slicer) or LPS (DICOM, ITK), or say --system; left and "
            "right are a guess without it"
        )
    return (x, y, z) if system == "RAS" else (-x, -y, z)


def _by_place(rows: Sequence[IntakeRow]) -> list[list[IntakeRow]]:
    """Group rows of one scan by place: the same centre, or the whole scan where none has a centre."""
    by_center: dict[Point | None, list[IntakeRow]] = defaultdict(list)
    for row in rows:
        by_center[row.center_mm].append(row)
    return [group for center, group in by_center.items() if center is not None] or [list(rows)]


def _merge(scan: SurveyedScan, rows: Sequence[IntakeRow]) -> IntakeRow:
    """Merge several rows about one scan into one: what they agree on."""
    if not rows:
        return IntakeRow(scan)
    first = rows[0]
    if len(rows) == 1:
        return first
    labels = {row.label for row in rows if row.label is not None}
    patients = {row.patient for row in rows if row.patient}
    return replace(first, patient=first.patient if len(patients) <= 1 else None, label=_agreed(labels))


def _agreed(labels: Collection[int]) -> int | None:
    """The label that all rows share; None without a label or with two."""
    return next(iter(labels)) if len(labels) == 1 else None


def first_three(values: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")
