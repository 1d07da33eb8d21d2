"""The case: one image, or one lesion in it, as a row of a table describes it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import CaseError, Code

CENTER_COLUMNS = ("center_x_mm", "center_y_mm", "center_z_mm")
BYTES_COLUMN = "image_base64"  # of tables that a program hands over: the scan's file itself
RESERVED_COLUMNS = ("case_id", "image", "label", "patient_id", "split", *CENTER_COLUMNS, "coordinate_system")
TEXT_COLUMNS = ("case_id", "image", "label", "patient_id", "split", "coordinate_system")  # text even if all digits
Point = tuple[float, float, float]
ZERO_AND_ONE: Mapping[str, int] = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True)
class Case:
    """One image, or one lesion in it: the scored unit.

    Attributes:
        case_id: unique text.
        image: as the manifest gives it.
        path: ``image`` made absolute, without its part.
        patient_id: text; None when the table gives none.
        label: 1 = malignant, 0 = benign, None = unlabelled.
        split: as the manifest gives it, None when blank.
        center_mm: lesion centre in RAS world mm.
        extra: the other columns, as text.
        files: the slices, when the case is one DICOM series of a searched folder.
        fault: why this row cannot be used, whatever its image holds.
        url: where the image lies when it is not on this machine; it is fetched when it is read.
        part: which of several that the path holds: the code or UID of a series, the number of a page or frame.
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
    url: str | None = None
    part: str | None = None

    @property
    def place(self) -> tuple[str, str | None]:
        """Resolved path of the image, equal for every spelling of its path, and its part."""
        return self.url or os.path.normpath(self.path), self.part


def split_part(image: str, exists: Callable[[str], bool]) -> tuple[str, str | None]:
    """The path, and the part of it that is meant: ``folder#1a2b3c4d``, ``scan.tif#3``.

    Args:
        image: as a table or the command line gives it.
        exists: whether there is something at a path; a path that exists with its ``#`` has no part.
    """
    path, mark, part = image.rpartition("#")
    if not (path and mark and part) or "/" in part or exists(image) or not exists(path):
        return image, None
    return path, part


def case_from_record(
    record: Mapping[str, str], *, row: int, root: Path, labels: Mapping[str, int | None] | None = None
) -> Case:
    """One row of text cells as a case; a fault of the row is kept in ``Case.fault``.

    Args:
        record: cells by column.
        row: its number, for errors.
        root: folder of the table.
        labels: what label cells mean; by default 1 and 0.
    """
    image = record["image"]
    fault = None
    center = None
    if not image.strip():
        fault = CaseError(Code.E_NOT_FOUND, f"row {row}", "column 'image' is blank; name the scan")
    elif "://" in image:
        reason = "is a URL, expected a path relative to the manifest; put the manifest beside the scans"
        fault = CaseError(Code.E_OUTSIDE_ROOT, f"row {row}", reason)
    try:
        center = _center(record)
    except ValueError as error:
        fault = fault or CaseError(Code.E_CENTER, f"row {row}", str(error))
    label = record.get("label", "").strip()
    if "\\" in image and not os.path.lexists(root / image):  # written on Windows
        image = image.replace("\\", "/")
    name, part = split_part(image, lambda name: os.path.lexists(root / name))
    return Case(
        case_id=record.get("case_id") or image or f"row {row}",
        image=image,
        path=root / name,
        part=part,
        patient_id=record.get("patient_id") or None,
        label=(ZERO_AND_ONE if labels is None else labels).get(label),
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
    if system.upper() not in ("RAS", "LPS"):
        raise ValueError(
            f"coordinate_system is {system!r}, expected 'RAS' (NIfTI) or 'LPS' (DICOM); "
            "without it left and right are a guess"
        )
    return (x, y, z) if system.upper() == "RAS" else (-x, -y, z)
