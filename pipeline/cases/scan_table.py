"""The table of whole scans and the table of their lesions, on which a detector is trained and evaluated.

``scans.csv`` has one row a scan: ``case_id`` (the scan's id), ``image``, ``patient_id``, ``label`` (1 = it holds a
malignant lesion, 0 = none, blank = unknown) and optionally ``split``. ``lesions.csv`` is a manifest with one row a
lesion: its centre, ``diameter_mm`` (blank = unknown), ``ignore`` (1 = neither to be found nor a mistake) and the
same ``image``. A scan without rows there holds no lesion.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.table_faults import patient_faults, split_faults
from pipeline.errors import Code, TableError, UsageError

LESIONS_NAME = "lesions.csv"
DIAMETER_COLUMN, IGNORE_COLUMN = "diameter_mm", "ignore"
_YES, _NO = ("1", "1.0", "yes", "true"), ("", "0", "0.0", "no", "false")


@dataclass(frozen=True, eq=False)
class ScanTable:
    """Whole scans with the lesions that are marked in them.

    Attributes:
        scans: their table.
        lesions: their lesions' table.
        lesions_of: the lesions of each scan, by the scan's id; none for a scan without.
    """

    scans: Manifest
    lesions: Manifest
    lesions_of: Mapping[str, tuple[Case, ...]]

    @property
    def root(self) -> Path:
        """The folder that every scan lies under."""
        return self.scans.root


def read_scan_table(scans: Path, lesions: Path | None = None) -> ScanTable:
    """Read both tables and join them.

    Args:
        scans: the table of the scans.
        lesions: that of the lesions; by default ``lesions.csv`` beside it.

    Raises:
        UsageError: when there is no table of lesions.
        TableError: when a table cannot be read, or the tables are inconsistent: a lesion without a centre or with an
            impossible diameter, a lesion of no scan or of another patient, a patient in two splits, no patient.
    """
    beside = scans.parent / LESIONS_NAME if lesions is None else lesions
    if not beside.exists():
        raise UsageError(f"{scans}: has no {LESIONS_NAME} beside it, the table of the lesions in the scans; name it")
    scan_table, lesion_table = read_manifest(scans), read_manifest(beside)
    _require_scans(scan_table)
    scan_at = {case.place: case for case in scan_table.cases}
    lesions_of: dict[str, list[Case]] = {case.case_id: [] for case in scan_table.cases}
    for lesion in lesion_table.cases:
        _require_lesion(lesion_table, lesion)
        scan = scan_at.get(lesion.place)
        if scan is None:
            reason = f"lesion {lesion.case_id!r} is in {lesion.image!r}, which {scans.name} does not name; add the scan"
            raise TableError(Code.E_NOT_FOUND, beside, reason)
        if lesion.patient_id is not None and lesion.patient_id != scan.patient_id:
            reason = f"lesion {lesion.case_id!r} has another patient_id than its scan in {scans.name}; write one id"
            raise TableError(Code.E_PATIENT_LEAK, beside, reason)
        lesions_of[scan.case_id].append(lesion)
    return ScanTable(scan_table, lesion_table, {name: tuple(cases) for name, cases in lesions_of.items()})


def lesion_diameter_mm(lesion: Case) -> float | None:
    """The lesion's diameter in mm, above 0; None where its cell is blank or missing.

    Raises:
        ValueError: when it is no such number.
    """
    text = lesion.extra.get(DIAMETER_COLUMN, "").strip()
    if not text:
        return None
    value = float(text)
    if not 0.0 < value < math.inf:
        raise ValueError(f"{value} is not above 0")
    return value


def is_ignored(lesion: Case) -> bool:
    """Whether the lesion is neither to be found nor a mistake to find.

    Raises:
        ValueError: when its cell is neither yes nor no.
    """
    return bool(lesion_flag(lesion, IGNORE_COLUMN))


def lesion_flag(lesion: Case, column: str) -> bool | None:
    """A yes/no column of the lesion (1 or 0); None where it is blank or missing.

    Raises:
        ValueError: when its cell is neither.
    """
    text = lesion.extra.get(column, "").strip().casefold()
    if text not in (*_YES, *_NO):
        raise ValueError(f"{text!r} is neither 1 nor 0")
    return None if not text else text in _YES


def _require_scans(table: Manifest) -> None:
    """Refuse faults that matter whether or not the scans are labelled."""
    faults = [*patient_faults(table.path, table.cases), *split_faults(table.path, table.cases)]
    if faults:
        first, *others = faults
        raise TableError(first.code, table.path, "\n".join([first.reason, *map(str, others)]))
    places = Counter(case.place for case in table.cases)
    for case in table.cases:
        if case.fault is not None:
            raise TableError(case.fault.code, table.path, f"scan {case.case_id!r}: {case.fault.reason}")
        if places[case.place] > 1:
            raise TableError(
                Code.E_CASE_ID, table.path, f"{case.image!r} stands {places[case.place]} times; expected a row a scan"
            )


def _require_lesion(table: Manifest, lesion: Case) -> None:
    if lesion.fault is not None:
        raise TableError(lesion.fault.code, table.path, f"lesion {lesion.case_id!r}: {lesion.fault.reason}")
    if lesion.center_mm is None:
        raise TableError(
            Code.E_CENTER_MISSING, table.path, f"lesion {lesion.case_id!r} has no centre; fill center_x_mm to z_mm"
        )
    try:
        lesion_diameter_mm(lesion)
    except ValueError:
        text = lesion.extra[DIAMETER_COLUMN]
        reason = f"lesion {lesion.case_id!r}: {DIAMETER_COLUMN} is {text!r}; expected mm above 0, or blank"
        raise TableError(Code.E_RANGE, table.path, reason) from None
    try:
        is_ignored(lesion)
    except ValueError:
        text = lesion.extra[IGNORE_COLUMN]
        reason = f"lesion {lesion.case_id!r}: {IGNORE_COLUMN} is {text!r}; expected 1, 0 or blank"
        raise TableError(Code.E_LABEL_VALUE, table.path, reason) from None
