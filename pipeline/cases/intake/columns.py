"""Guess which columns of a user's table are the id, the patient, the label and the lesion's centre.

Names are compared with words of several languages, and cells with what such a column holds. `Columns.describe` shows
the guess, every choice can be corrected by an option, and where two columns fit equally well an error asks the user.
The *meaning* of a label word is never guessed here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.cases.ids import plain_id
from pipeline.cases.intake.joining import Join, ScanNames, join_ids
from pipeline.cases.intake.names import parts, plain
from pipeline.cases.intake.words import (
    ANSWER_CELLS,
    DIAGNOSIS_CELLS,
    DIAMETER_WORDS,
    LABEL,
    LEFT_CELLS,
    PATIENT,
    RIGHT_CELLS,
    SEX_CELLS,
    SIDE,
    SIZE_WORDS,
    SPLIT,
    SYSTEM,
)
from pipeline.cases.tables.table import MISSING_WORDS, Table, most_common
from pipeline.errors import UsageError

CenterColumns = tuple[str, str, str]

_LARGEST_LESION_MM = 120.0
_MOST_WORDS = 8  # distinct words of a label column
_CENTER_NAMES = (
    ("center_x_mm", "center_y_mm", "center_z_mm"),
    ("coordx", "coordy", "coordz"),
    ("x_mm", "y_mm", "z_mm"),
    ("x", "y", "z"),
    ("r", "a", "s"),
    ("l", "p", "s"),
    ("center_x", "center_y", "center_z"),
    ("pos_x", "pos_y", "pos_z"),
)


@dataclass(frozen=True)
class Columns:
    """What each column of a table is taken for; None where there is none.

    Attributes:
        case: whose cells name the scans.
        patient: whose cells say which patient a row is of.
        label: the words of the diagnosis.
        center: the lesion's centre in world mm.
        system: its coordinate system; a column, or ``RAS`` or ``LPS`` where the centre's column names say it.
        diameter: of the lesion, mm.
        split: train, validation or test.
        side: left or right, where a row speaks of one side of a patient.
        join: rows and their scans, by the case column.
    """

    case: str
    join: Join
    patient: str | None = None
    label: str | None = None
    center: CenterColumns | None = None
    system: str | None = None
    diameter: str | None = None
    split: str | None = None
    side: str | None = None

    def describe(self, table: Table) -> list[str]:
        """Lines that show the guess, with the options that correct it."""
        rows = len(table.rows)
        lines = [
            f"id: column {self.case!r}, {self.join.matched_rows} of {rows} rows have a scan ({self.join.way}) [--id]"
        ]
        if self.patient:
            patients = len({plain_id(cell) for cell in table.column(self.patient) if cell})
            lines.append(f"patient: column {self.patient!r}, {patients} patients [--patient]")
        if self.label:
            words = most_common(Counter(filter(None, table.column(self.label))))
            lines.append(f"label: column {self.label!r}, {words} [--label]")
        if self.center:
            lines.append(f"lesion centre: columns {', '.join(map(repr, self.center))}, system {self.system!r}")
        if self.diameter:
            unit = "cm" if diameter_unit_mm(self.diameter) > 1 else "mm"
            lines.append(f"diameter: column {self.diameter!r}, in {unit}")
        if self.side:
            lines.append(f"side: column {self.side!r}")
        if self.split:
            lines.append(f"split: column {self.split!r}")
        return lines


def guess_columns(table: Table, scans: Sequence[ScanNames], *, given: Mapping[str, str] | None = None) -> Columns:
    """Settle what each column is.

    Args:
        table: read with ``find_header``.
        scans: of the folder.
        given: column by role (``id``, ``image``, ``patient``, ``label``), as options name them; they are not guessed.

    Raises:
        UsageError: for a column that is not there, ids that match no scan, or labels in two columns alike.
    """
    given = {role: _existing(table, role, name) for role, name in (given or {}).items()}
    case, join = _case_column(table, scans, given.get("image") or given.get("id"))
    label = given.get("label") or _label_column(table, taken={case})
    patient = given.get("patient") or _named(table, PATIENT, taken={label} if label else set())
    if patient is None and _names_patients(case, join):
        patient = case
    center = _center_columns(table)
    return Columns(
        case=case,
        join=join,
        patient=patient,
        label=label,
        center=center,
        system=_system(table, center) if center else None,
        diameter=_diameter_column(table, taken={case, *(center or ())}),
        split=_named(table, SPLIT, taken={case, label or ""}),
        side=_side_column(table),
    )


def _existing(table: Table, role: str, name: str) -> str:
    if name not in table.header:
        raise UsageError(f"--{role}: {table.path} has no column {name!r}; it has {', '.join(map(repr, table.header))}")
    return name


def _case_column(table: Table, scans: Sequence[ScanNames], given: str | None) -> tuple[str, Join]:
    """The column whose cells name the most scans; of equals the first."""
    best: tuple[str, Join] | None = None
    for name in [given] if given else table.header:
        join = join_ids(table.column(name), scans, name=name, named=given is not None)
        if join and (best is None or join_worth(join) > join_worth(best[1])):
            best = (name, join)
    if best is None:
        named = f"column {given!r}" if given else "no column"
        does = "names no" if given else "names the"
        raise UsageError(
            f"{table.path}: {named} {does} scans: expected cells like {_examples(scans)}, their folders, or ids of "
            "DICOM headers; correct the cells, or name the column: --id COLUMN"
        )
    if best[1].doubt:
        number, first, second = best[1].doubt
        raise UsageError(
            f"{table.path}: column {best[0]!r} holds numbers that stand at several places of the names: {number} could "
            f"be {scans[first].image!r} or {scans[second].image!r}; add a column with the files' names, and name it: "
            "--image COLUMN"
        )
    return best


def join_worth(join: Join) -> tuple[int, int, int, bool]:
    """Sort key of joins: more rows with a scan, then more scans with a row, then fewer scans a row, then no doubt."""
    return join.matched_rows, len(join.matched_scans), -sum(map(len, join.scans_of)), join.doubt is None


def _examples(scans: Sequence[ScanNames]) -> str:
    return " or ".join(repr(scan.image) for scan in scans[:2]) or "file names"


def _names_patients(case: str, join: Join) -> bool:
    """Whether an id is a patient's: it says so, several scans have it, or DICOM headers' patients matched it."""
    named = bool(set(parts(case)) & PATIENT)
    return named or "patient id" in join.way or any(len(scans) > 1 for scans in join.scans_of)


def _named(table: Table, words: Collection[str], *, taken: set[str]) -> str | None:
    """The first column whose name is, or holds, one of the words; whole names first."""
    free = [name for name in table.header if name not in taken]
    candidates = [name for name in free if "".join(parts(name)) in words]
    holding = [name for name in free if set(parts(name)) & set(words)]
    return next(iter([*candidates, *holding]), None)


def _diameter_column(table: Table, *, taken: set[str]) -> str | None:
    """A column called diameter; else one called size whose numbers fit a lesion and not a person's height."""
    for words in (DIAMETER_WORDS, SIZE_WORDS):
        name = _named(table, words, taken=taken)
        numbers = [value for cell in table.column(name) if (value := _number(cell)) is not None] if name else []
        if name and numbers and (words is DIAMETER_WORDS or max(numbers) < _LARGEST_LESION_MM):
            return name
    return None


def _side_column(table: Table) -> str | None:
    """A column of nothing but left and right."""
    for name in table.header:
        cells = {plain(cell) for cell in table.column(name) if cell}
        if set(parts(name)) & SIDE and cells and cells <= LEFT_CELLS | RIGHT_CELLS:
            return name
    return None


def diameter_unit_mm(column: str) -> float:
    """Millimetres of a diameter column's unit, by its name: 10 for cm, else 1."""
    return 10.0 if "cm" in parts(column) else 1.0


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _label_column(table: Table, *, taken: set[str]) -> str | None:
    """The column whose name and words are most like a label's; None where none is.

    Raises:
        UsageError: when two are alike.
    """
    worth = {name: label_worth(name, table.column(name)) for name in table.header if name not in taken}
    best = max(worth.values(), default=0)
    alike = [name for name, value in worth.items() if value == best]
    if best <= 0:
        return None
    if len(alike) > 1:
        raise UsageError(
            f"{table.path}: columns {', '.join(map(repr, alike))} could all be the label; name it: --label COLUMN"
        )
    return alike[0]


def label_worth(name: str, cells: Sequence[str]) -> int:
    """Score of a column as the label: 10 and more by its name, less by its words alone."""
    filled = [plain(cell) for cell in cells if cell and cell.casefold() not in MISSING_WORDS]
    words = set(filled)
    if not 2 <= len(words) <= _MOST_WORDS or len(filled) < len(cells) / 2 or words <= SEX_CELLS:
        return 0
    by_name = 12 * ("".join(parts(name)) in LABEL) or 10 * bool(set(parts(name)) & LABEL)
    diagnoses = len(words & DIAGNOSIS_CELLS)
    known = diagnoses + (len(words & ANSWER_CELLS) if by_name else 0)
    return by_name + (3 if known == len(words) else 2 if known else 0)


def _center_columns(table: Table) -> CenterColumns | None:
    by_name = {plain(name).replace(" ", "_"): name for name in table.header}
    for names in _CENTER_NAMES:
        if all(name in by_name for name in names):
            x, y, z = (by_name[name] for name in names)
            if all(_number(cell) is not None for name in (x, y, z) for cell in table.column(name) if cell):
                return x, y, z
    return None


def _system(table: Table, center: CenterColumns) -> str | None:
    named = _named(table, SYSTEM, taken=set(center))
    if named:
        return named
    letters = "".join(plain(name) for name in center).upper()
    if letters in ("RAS", "LPS"):
        return letters
    # LUNA16's annotations.csv: world coordinates as SimpleITK gives them.
    return "LPS" if letters == "COORDXCOORDYCOORDZ" else None
