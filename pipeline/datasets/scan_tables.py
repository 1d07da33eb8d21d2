"""The two tables of a detection data set: ``scans.csv``, one row a scan, and ``lesions.csv``, one row a lesion.

``lesions.csv`` is a manifest. A lesion with ``ignore`` 1 counts neither as a lesion nor as background: a detector is
neither trained nor evaluated on it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.cases.lesions.lesion import counted
from pipeline.datasets.lidc import LidcNodule
from pipeline.datasets.rendering import CALCIFICATION_ABSENT, PART_SOLID
from pipeline.errors import CaseError, UsageError
from pipeline.files import write_csv
from pipeline.imaging.checks import file_kind

SCANS, LESIONS = "scans.csv", "lesions.csv"
NEUTRAL: Final = 3.0  # "indeterminate likelihood" of malignancy
OPINIONS: Final = (
    "label", "mean_malignancy", "readings", "ratings", "solid", "part_solid_or_ground_glass", "calcified",
)  # fmt: skip
_EXACT: Final = ("case_id", "image", "patient_id", "scan_id")


@dataclass(frozen=True)
class ImportedScans:
    """Tables that an importer wrote.

    Attributes:
        scans: path of ``scans.csv``.
        scan_count: its rows.
        lesion_count: rows of ``lesions.csv`` that a detector is to find.
        ignored: rows with ``ignore`` 1.
        left_out: annotated lesions of scans or slices that are missing.
    """

    scans: Path
    scan_count: int
    lesion_count: int
    ignored: int
    left_out: int

    @property
    def summary(self) -> str:
        """One line for the user."""
        text = f"{self.scans} and {LESIONS}: {counted(self.scan_count, 'scan')}, {counted(self.lesion_count, 'lesion')}"
        text += f", {self.ignored} more to ignore" if self.ignored else ""
        return text + (f"; left out {self.left_out} of scans or slices that are not here" if self.left_out else "")


def tables_folder(root: Path, out: Path) -> Path:
    """The folder for the two tables, which must hold the scans, because no path in a table may lead out of its folder.

    Args:
        root: folder of the scans.
        out: that folder or one above it.

    Raises:
        UsageError: when ``root`` is no folder, does not lie in ``out``, or one of the tables exists.
    """
    require_folder(root)
    if not root.resolve().is_relative_to(out.resolve()):
        reason = f"images lie under their table's folder; use {root.resolve().parent} or another folder above"
        raise UsageError(f"{out}: does not contain {root}: {reason}")
    for name in (SCANS, LESIONS):
        if os.path.lexists(out / name):
            raise UsageError(f"{out / name}: exists; move it away")
    return out.resolve()


def require_folder(root: Path) -> None:
    """Raise a UsageError when a path is not a folder."""
    try:
        if file_kind(root) != "folder":
            raise UsageError(f"{root}: is a file; name the folder of the download")
    except CaseError as error:
        raise UsageError(f"{root}: {error.reason}") from None


def write_scan_tables(
    folder: Path, scans: Sequence[dict[str, object]], lesions: Sequence[dict[str, object]], columns: Sequence[str]
) -> None:
    """Write both tables, whole or not at all.

    Args:
        folder: where they go.
        scans: one row a scan; at least one.
        lesions: one row a lesion.
        columns: of ``lesions``, which may be empty.
    """
    for name, header, rows in ((LESIONS, columns, lesions), (SCANS, list(scans[0]), scans)):
        exact = [column for column in _EXACT if column in header]
        write_csv(folder / name, header, ([row[column] for column in header] for row in rows), exact=exact, new=True)


def opinion_columns(nodule: LidcNodule) -> dict[str, object]:
    """Ratings of a nodule by the readers of LIDC-IDRI, a column each; the names are `OPINIONS`."""
    ratings = nodule.ratings["malignancy"]
    mean = float(np.mean(ratings))
    texture = nodule.ratings["texture"]
    return {
        "label": "" if mean == NEUTRAL else int(mean > NEUTRAL),
        "mean_malignancy": f"{mean:.3f}",
        "readings": len(ratings),
        "ratings": "|".join(map(str, ratings)),
        "solid": majority([rating > PART_SOLID for rating in texture]),
        "part_solid_or_ground_glass": majority([rating <= PART_SOLID for rating in texture]),
        "calcified": majority([code != CALCIFICATION_ABSENT for code in nodule.ratings["calcification"]]),
    }


def majority(votes: Sequence[bool]) -> str:
    """``1`` or ``0`` by majority, blank for a tie."""
    balance = 2 * sum(votes) - len(votes)
    return "" if balance == 0 else str(int(balance > 0))


def scan_label(labels: Collection[object], ignored: Collection[object] = ()) -> str:
    """Whether a scan holds a malignant lesion, from its lesions' labels (1, 0, or "" where unknown).

    ``1`` when a lesion is malignant. Otherwise blank when one is unknown, or an ignored one is not benign; else ``0``.
    """
    if any(str(label) == "1" for label in labels):
        return "1"
    unknown = any(str(label) != "0" for label in (*labels, *ignored))
    return "" if unknown else "0"
