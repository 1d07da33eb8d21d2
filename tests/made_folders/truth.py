"""What a made folder truly holds, for tests to assert against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal

Point = tuple[float, float, float]


class Why(StrEnum):
    """Why a file or folder must not become a case."""

    MASK = "mask of a lesion or an organ"
    ANNOTATION = "points or outlines, no image"
    DUPLICATE = "the same bytes as another scan"
    OTHER_RECONSTRUCTION = "the same acquisition with another kernel"
    DERIVED = "computed from another scan of the folder"
    LOCALIZER = "localizer"
    SCREENSHOT = "a picture of a screen"
    NO_LESION = "no lesion in it, so neither benign nor malignant"
    INDEX = "media directory"
    EMPTY = "no bytes"
    TRUNCATED = "cut off"
    SYSTEM_FILE = "written by an operating system"
    DOCUMENT = "no image"


class Unlabelled(StrEnum):
    """Why a scan has no label."""

    BLANK = "the cell is blank or says n/a"
    UNCLEAR = "the word is neither of the two"
    CONTRADICTORY = "two rows say different things"
    NO_ROW = "no row of the table means it"


@dataclass(frozen=True)
class MadeLesion:
    """One painted lesion.

    Attributes:
        center_voxel: where it lies along the stored axes of the file: (i, j, k) as nibabel indexes it, (column, row,
            slice by rising position along the normal) of a DICOM series, (column, row) of a picture.
        center_mm: the same in RAS world mm, as precise as the folder's files state it; None where the image has no
            millimetres.
        diameter_mm: as a file of the folder states it; None where none does.
        malignant: None where no file says it.
        stated_in: the file that states the centre, relative to the folder; None when only the image shows the lesion.
    """

    center_voxel: tuple[float, ...]
    center_mm: Point | None
    malignant: bool | None
    diameter_mm: float | None = None
    stated_in: str | None = None


@dataclass(frozen=True)
class MadeScan:
    """One scan that should become a case, or a case for each of its lesions.

    Attributes:
        path: relative to the folder, with ``/``: a file, or the folder of a DICOM series.
        patient: the patient's id as the folder's table or headers write it; None where nothing names a patient.
        malignant: what the folder says of the scan, or of any lesion in it; None when it says nothing.
        why_unlabelled: set exactly when ``malignant`` is None.
        split: ``train``, ``validation`` or ``test`` where the folder's tree says so.
    """

    path: str
    patient: str | None
    malignant: bool | None
    lesions: tuple[MadeLesion, ...] = ()
    why_unlabelled: Unlabelled | None = None
    split: Literal["train", "validation", "test"] | None = None

    def __post_init__(self) -> None:
        assert (self.malignant is None) == (self.why_unlabelled is not None), self


@dataclass(frozen=True)
class LeftOut:
    """A file, or a folder of files, that must not become a case.

    Attributes:
        path: relative to the folder, with ``/``.
        of: the scan that it is a copy, a mask or another reconstruction of. Of two copies either may be kept.
    """

    path: str
    why: Why
    of: str | None = None


@dataclass(frozen=True)
class Expected:
    """All that is true of a made folder.

    Attributes:
        modality: as DICOM writes it.
        region: ``lesion`` when the folder states where the lesions of its scans are, in mm; ``image`` otherwise.
        scans: sorted by path.
        left_out: sorted by path.
        rows_without_scan: ids, as written in the table, of rows that no scan of the folder matches.
    """

    modality: Literal["CT", "MR", "US", "MG"]
    region: Literal["lesion", "image"]
    scans: tuple[MadeScan, ...]
    left_out: tuple[LeftOut, ...] = ()
    rows_without_scan: tuple[str, ...] = ()

    @cached_property
    def labels(self) -> dict[str, bool | None]:
        """Label by the scan's path; None for an unlabelled scan."""
        return {scan.path: scan.malignant for scan in self.scans}

    @cached_property
    def labelled(self) -> tuple[MadeScan, ...]:
        """The scans with a label."""
        return tuple(scan for scan in self.scans if scan.malignant is not None)

    @property
    def patients(self) -> int | None:
        """How many patients the scans belong to; None when nothing names them."""
        names = {scan.patient for scan in self.scans}
        return None if None in names else len(names)

    @cached_property
    def stated_lesions(self) -> tuple[MadeLesion, ...]:
        """The lesions whose centre a file of the folder states."""
        return tuple(lesion for scan in self.scans for lesion in scan.lesions if lesion.stated_in is not None)

    def left_out_because(self, why: Why) -> tuple[str, ...]:
        """Paths of what is left out for one reason."""
        return tuple(item.path for item in self.left_out if item.why == why)


@dataclass(frozen=True)
class MadeFolder:
    """A user's folder, and the truth about it.

    Attributes:
        table: the table that holds the labels; None where folder names do.
        positive: the word that means malignant, as written in the table or as a folder's name.
        label_column_hint: the column of ``table`` that holds the labels; None without a table.
    """

    folder: Path
    table: Path | None
    positive: str
    label_column_hint: str | None
    expected: Expected

    def path(self, scan: MadeScan) -> Path:
        """Where a scan lies."""
        return self.folder / scan.path


def expect(
    modality: Literal["CT", "MR", "US", "MG"],
    scans: Iterable[MadeScan],
    *,
    region: Literal["lesion", "image"],
    left_out: Iterable[LeftOut] = (),
    rows_without_scan: Iterable[str] = (),
) -> Expected:
    """Sort what a maker collected, and check that no path is told twice."""
    scans = tuple(sorted(scans, key=lambda scan: scan.path))
    left_out = tuple(sorted(left_out, key=lambda item: item.path))
    paths = Counter([scan.path for scan in scans] + [item.path for item in left_out])
    assert max(paths.values()) == 1, [path for path, count in paths.items() if count > 1]
    return Expected(modality, region, scans, left_out, tuple(rows_without_scan))
