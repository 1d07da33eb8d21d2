"""What is known of each scan, from a table's rows and from folder names: label, patient, split, lesion, and more."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.cases.case import RESERVED_COLUMNS, Point
from pipeline.cases.intake.columns import Columns, diameter_unit_mm
from pipeline.cases.intake.folder_words import folder_labels, folder_splits, folders_that_could_mean_classes
from pipeline.cases.intake.joining import near_misses
from pipeline.cases.intake.names import parts, plain
from pipeline.cases.intake.scans import SurveyedScan
from pipeline.cases.intake.words import LEFT_CELLS, PERSONAL, SPLIT_FOLDERS
from pipeline.cases.label_words import LabelWords
from pipeline.cases.tables.table import MISSING_WORDS, Table, most_common
from pipeline.errors import UsageError

_LITERAL = LabelWords(("malignant",), ("benign",))
_GIVE_A_MEANING = "[--positive WORD counts it as malignant, --negative WORD as benign]"
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # between the words of PatientName
_LONG_NUMBER = 6  # digits: an id, or a date as 19610203
_MOST_WORDS = 30  # distinct texts of a column that is worth keeping as a subgroup


@dataclass(frozen=True, eq=False)
class IntakeRow:
    """One case to be: a scan, or one lesion in it that a table's row gives.

    Attributes:
        scan: the image.
        case_id: as the table calls it; None where it says nothing, or says the same of several.
        patient: id as the table gives it; None where it gives none.
        label: 1, 0 or None.
        split: or None.
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
    images = [(place, image) for place, scan in enumerate(scans) for image in (scan.image, *scan.copies)]
    found = folder_labels([image for _, image in images], words)
    labels: dict[int, set[int]] = defaultdict(set)  # of all copies of a scan
    for (place, _), label in zip(images, found.labels if found else [None] * len(images), strict=True):
        if label is not None:
            labels[place].add(label)
    lines = []
    if found:
        lines.append(f"label: from folder names, {most_common(found.words)}")
        if found.unlabelled:
            lines.append(f"unlabelled: {most_common(found.unlabelled)} {_GIVE_A_MEANING}")
    elif classes := folders_that_could_mean_classes([scan.image for scan in scans]):
        lines.append(
            f"label: no folder is called malignant or benign; there are {most_common(classes)} [--positive WORD]"
        )
    if splits:
        lines.append(f"split: from folder names, {most_common(Counter(splits))}")
    if contradictory := [scans[place].image for place, known in labels.items() if len(known) > 1]:
        lines.append(
            f"{len(contradictory)} scans lie in folders of both labels, byte for byte, and stay unlabelled: "
            f"{some(contradictory)}"
        )
    rows = [
        IntakeRow(scan, label=_agreed(labels[place]), split=splits[place] if splits else None)
        for place, scan in enumerate(scans)
    ]
    return Rows(tuple(rows), tuple(lines))


def rows_from_table(
    scans: Sequence[SurveyedScan], table: Table, columns: Columns, words: LabelWords, *, keep: Sequence[str] = ()
) -> Rows:
    """What a table's rows say of the scans that they name; scans without a row stay unlabelled.

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
    kept, dropped = _kept_columns(table, columns, keep)
    records = list(table.records())
    of_scan: dict[int, list[int]] = defaultdict(list)
    for row, places in enumerate(columns.join.scans_of):
        for place in places:
            of_scan[place].append(row)
    splits = folder_splits([scan.image for scan in scans]) if columns.split is None else None
    rows: list[IntakeRow] = []
    contradictory: list[str] = []
    unplaced = 0
    for place, scan in enumerate(scans):
        said = [
            _row(scan, records[row], columns, meaning, kept)
            for row in of_scan[place]
            if _is_of_side(scan, records[row], columns)
        ]
        for same in _by_place(said):
            merged = _merge(scan, same)
            contradictory += [scan.image] if merged.label is None and any(row.label is not None for row in same) else []
            rows.append(_with_split(merged, splits[place]) if splits else merged)
        unplaced += sum(row.center_mm is None for row in said) * any(row.center_mm for row in said)
    lines = [*columns.describe(table), *_neither(table, columns, meaning), *_unmatched(scans, table, columns)]
    if dropped:
        lines.append(f"columns left out, which may name a person: {', '.join(map(repr, dropped))} [--keep COLUMN]")
    if contradictory:
        lines.append(
            f"{len(contradictory)} scans have rows with different labels and stay unlabelled: {some(contradictory)}"
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
        yield f"{len(without)} rows without a scan: {some(numbers)}{f' ({some(hints)})' if hints else ''}"
    alone = [scan.image for place, scan in enumerate(scans) if place not in columns.join.matched_scans]
    if alone:
        yield f"{len(alone)} scans without a row, which stay unlabelled: {some(alone)}"


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
    kept: Mapping[str, str],
) -> IntakeRow:
    def cell(name: str | None) -> str:
        return record[name].strip() if name else ""

    split = SPLIT_FOLDERS.get(plain(cell(columns.split)))
    extra = {new: record[old].strip() for old, new in kept.items()}
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
    """Whether a row that speaks of one side can be about a scan of a known side."""
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


def _by_place(said: Sequence[IntakeRow]) -> list[list[IntakeRow]]:
    """Rows of one scan that speak of one place: the same centre, or the whole scan where none has a centre."""
    places: dict[Point | None, list[IntakeRow]] = defaultdict(list)
    for row in said:
        places[row.center_mm].append(row)
    return [rows for center, rows in places.items() if center is not None] or [list(said)]


def _merge(scan: SurveyedScan, said: Sequence[IntakeRow]) -> IntakeRow:
    """One row of several about one scan: what they agree on."""
    if not said:
        return IntakeRow(scan)
    first = said[0]
    if len(said) == 1:
        return first
    labels = {row.label for row in said if row.label is not None}
    patients = {row.patient for row in said if row.patient}
    return IntakeRow(
        scan=scan,
        case_id=first.case_id,
        patient=first.patient if len(patients) <= 1 else None,
        label=_agreed(labels),
        split=first.split,
        center_mm=first.center_mm,
        extra=first.extra,
    )


def _agreed(labels: Collection[int]) -> int | None:
    """The one label of all; None where there are none, or two."""
    return next(iter(labels)) if len(labels) == 1 else None


def _with_split(row: IntakeRow, split: str) -> IntakeRow:
    return IntakeRow(row.scan, row.case_id, row.patient, row.label, split, row.center_mm, row.extra)


def _kept_columns(table: Table, columns: Columns, keep: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Columns that are copied and what they are called in the manifest; and those that are not."""
    used = {columns.case, columns.patient, columns.label, columns.system, columns.split, columns.side}
    used |= set(columns.center or ())
    kept: dict[str, str] = {}
    dropped = []
    for name in table.header:
        if name in used or name == "case_id":
            continue
        cells = [cell for cell in table.column(name) if cell]
        if name not in keep and _may_name_a_person(name, cells):
            dropped.append(name)
        elif cells:
            own = f"{name} of the table" if name in RESERVED_COLUMNS else name
            kept[name] = "diameter_mm" if name == columns.diameter else own
    return kept, dropped


def _may_name_a_person(name: str, cells: Sequence[str]) -> bool:
    """Whether a column holds names, dates, ids or free text: by its name, or by what its cells look like."""
    words = set(parts(_CAPITAL.sub(" ", name)))
    numeric = all(_is_number(cell) for cell in cells)
    wordy = len(set(cells)) > _MOST_WORDS or any(len(cell) > 40 for cell in cells)
    long = bool(cells) and sum(cell.isdecimal() and len(cell) >= _LONG_NUMBER for cell in cells) > len(cells) / 2
    return bool(words & PERSONAL) or _looks_like_dates(cells) or long or (wordy and not numeric)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _looks_like_dates(cells: Sequence[str]) -> bool:
    def is_date(cell: str) -> bool:
        day = cell.replace("-", ".").replace("/", ".").split(" ")[0]
        digits = [part for part in day.split(".") if part.isdigit()]
        return len(digits) == 3 and any(len(part) == 4 for part in digits)

    return bool(cells) and sum(map(is_date, cells)) > len(cells) / 2


def some(values: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")
