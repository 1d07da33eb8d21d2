"""Choose the other columns of a user's table to copy to the manifest: those that cannot identify a person."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.cases.case import RESERVED_COLUMNS
from pipeline.cases.intake.columns import Columns
from pipeline.cases.intake.names import parts
from pipeline.cases.intake.words import PERSONAL
from pipeline.cases.tables.table import Table

_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # between the words of PatientName
_LONG_NUMBER = 6  # digits: an id, or a date as 19610203
_MOST_WORDS = 30  # distinct texts of a column that is worth keeping as a subgroup


def kept_columns(table: Table, columns: Columns, keep: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Columns that are copied and what they are called in the manifest; and those that are not."""
    used = {columns.case, columns.patient, columns.label, columns.system, columns.split, columns.side}
    used |= set(columns.center or ())
    new_names: dict[str, str] = {}
    dropped = []
    for name in table.header:
        if name in used or name == "case_id":
            continue
        cells = [cell for cell in table.column(name) if cell]
        if name not in keep and _may_name_a_person(name, cells):
            dropped.append(name)
        elif cells:
            own = f"{name} of the table" if name in RESERVED_COLUMNS else name
            new_names[name] = "diameter_mm" if name == columns.diameter else own
    return new_names, dropped


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
