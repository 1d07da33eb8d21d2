"""The lesion: its centre, its diameter, and the image that its annotation refers to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.case import Point
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Affine
from pipeline.imaging.roi import ABSURD_MM

LesionFormat = Literal[
    "mask",
    "dicom-seg",
    "rtstruct",
    "dicom-sr",
    "slicer-markups",
    "fcsv",
    "luna16",
    "lidc-xml",
    "table",
    "voxel-table",
]
System = Literal["RAS", "LPS"]
Labels = Literal["auto", "components", "values"]
Points = NDArray[np.float64]
FLIP: Final = np.array([-1.0, -1.0, 1.0])  # LPS <-> RAS


@dataclass(frozen=True)
class ImageReference:
    """What an annotation states about its image; None where it states nothing. UIDs are compared and never printed.

    Attributes:
        series: SeriesInstanceUID.
        frame_of_reference: FrameOfReferenceUID.
        image: path or name of the image, or of the file that is paired with it by name.
        case_id: as in the manifest.
        patient: patient id as in the manifest, or the name of the patient's folder.
    """

    series: str | None = None
    frame_of_reference: str | None = None
    image: str | None = None
    case_id: str | None = None
    patient: str | None = None


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Where the voxels of an image or mask lie.

    Attributes:
        shape: voxels along the stored axes.
        affine: stored index → RAS mm.
        has_millimetres: False for pictures, of which one pixel counts as 1 mm.
    """

    shape: tuple[int, int, int]
    affine: Affine
    has_millimetres: bool = True

    def world(self, index: Points) -> Points:
        """RAS mm of voxel indices, (N, 3) → (N, 3)."""
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def index(self, points_mm: Points) -> Points:
        """Voxel indices of RAS mm, (N, 3) → (N, 3)."""
        return np.asarray(np.linalg.solve(self.affine[:3, :3], (points_mm - self.affine[:3, 3]).T).T)

    def holds(self, center_mm: Point) -> bool:
        """Whether a point lies in some voxel."""
        index = self.index(np.array([center_mm]))[0]
        return bool((index >= -0.501).all() and (index <= np.array(self.shape) - 0.499).all())


@dataclass(frozen=True)
class SegmentLink:
    """A segment of a DICOM segmentation: the object's SOPInstanceUID and the segment's number."""

    object_uid: str
    number: str


@dataclass(frozen=True)
class Lesion:
    """One annotated lesion.

    Attributes:
        center_mm: RAS world mm, rounded to 0.001 mm, far below what any reader marks, so that formats agree exactly.
        diameter_mm: largest extent in a plane of the slices (RECIST's long axis), from voxels or outlines, or as
            written where the file states one; None when unknown.
        name: within its source: label value, segment or ROI number, control point, row. Never free text of people.
        source: the file.
        format: of the file.
        reference: the image that it says it belongs to.
        grid: of the mask that it was measured on, to be compared with its image's; None for everything else.
        segment: which DICOM segment it is; a structured report may state this one's diameter.
    """

    center_mm: Point
    diameter_mm: float | None
    name: str
    source: Path
    format: LesionFormat
    reference: ImageReference = ImageReference()
    grid: VoxelGrid | None = field(default=None, compare=False, repr=False)
    segment: SegmentLink | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RefusedAnnotation:
    """An annotation, or a whole file of them, that gives no lesion.

    Attributes:
        error: why; its path is the file.
        name: of the annotation within its file; blank for the whole file.
        format: of the file; None when it is none that is known.
        reference: the image that it says it belongs to, as far as could be read.
        segment: the DICOM segment that it points to instead of having a place of its own.
        diameter_mm: that it states all the same.
    """

    error: CaseError
    name: str = ""
    format: LesionFormat | None = None
    reference: ImageReference = ImageReference()
    segment: SegmentLink | None = field(default=None, repr=False)
    diameter_mm: float | None = None

    def __str__(self) -> str:
        where = f" ({self.name})" if self.name else ""
        return f"{self.error.path}{where}: {self.error.code}: {self.error.reason}"


@dataclass(frozen=True)
class Annotations:
    """Annotations of one file.

    Attributes:
        lesions: in the file's order.
        refused: what gives no lesion, and why.
        notes: what was left out or decided, a line each, without patients' data.
    """

    lesions: tuple[Lesion, ...] = ()
    refused: tuple[RefusedAnnotation, ...] = ()
    notes: tuple[str, ...] = ()

    def referring_to(self, reference: ImageReference) -> Annotations:
        """The same, each annotation with this reference."""
        return replace(
            self,
            lesions=tuple(replace(lesion, reference=reference) for lesion in self.lesions),
            refused=tuple(replace(refused, reference=reference) for refused in self.refused),
        )


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How to read what a file may leave unspecified.

    Attributes:
        labels: what one lesion of a mask or segmentation is: each connected component (``components``: voxels that
            touch by a face, an edge or a corner), each label value, segment or ROI (``values``), or ``auto``:
            components where there is one value, values where there are several.
        only: label values, segment numbers or ROI numbers that are lesions; None takes all.
        threshold: from which a probability map is the lesion; None refuses such maps.
        system: of tables and markups that do not say theirs.
        index_base: of voxel indices in tables that do not say theirs: 0 or 1 is the first voxel.
        limits: what a reader may allocate.
    """

    labels: Labels = "auto"
    only: frozenset[int] | None = None
    threshold: float | None = None
    system: System | None = None
    index_base: Literal[0, 1] | None = None
    limits: Limits = field(default_factory=Limits)

    def takes(self, number: int) -> bool:
        """Whether a label value, segment or ROI number is asked for."""
        return self.only is None or number in self.only


def world_point(point: Sequence[float] | Points, path: Path, *, system: System = "RAS") -> Point:
    """A centre in RAS mm, rounded to 0.001 mm.

    Args:
        point: mm along x, y, z.
        path: named in errors.
        system: of ``point``.

    Raises:
        CaseError: E_CENTER for a place outside of any scanner.
    """
    values = np.asarray(point, dtype=np.float64)
    if values.shape != (3,) or not np.isfinite(values).all() or np.abs(values).max() > ABSURD_MM:
        shown = ", ".join(f"{value:.6g}" for value in values.ravel()[:4])
        reason = f"a centre of ({shown}) mm, expected three finite numbers below {ABSURD_MM:g}; correct the annotation"
        raise CaseError(Code.E_CENTER, path, reason)
    # Rounded twice, so that values that formats write with 6 or more digits round alike at a half.
    x, y, z = np.round(np.round(values * (FLIP if system == "LPS" else 1.0), 6), 3) + 0.0
    return float(x), float(y), float(z)


def refuse_absurd(coordinates: Points, path: Path) -> None:
    """Refuse coordinates outside of any scanner; mm or pixels of any shape.

    Raises:
        CaseError: E_CENTER.
    """
    if not np.isfinite(coordinates).all() or np.abs(coordinates).max(initial=0.0) > ABSURD_MM:
        reason = f"a coordinate that is no number below {ABSURD_MM:g}; correct the annotation"
        raise CaseError(Code.E_CENTER, path, reason)


def stated_diameter(value: float | None, path: Path) -> float | None:
    """A diameter that a file states, mm; None stays None.

    Raises:
        CaseError: E_CENTER for a diameter that no lesion can have.
    """
    if value is None:
        return None
    if not math.isfinite(value) or not 0 < value <= ABSURD_MM:
        reason = f"a diameter of {value:.6g} mm, expected a number above 0; correct the annotation or leave it blank"
        raise CaseError(Code.E_CENTER, path, reason)
    return round(value, 3)


def parse_system(text: str) -> System | None:
    """``RAS`` or ``LPS`` in any letter case; None for anything else."""
    system = text.strip().upper()
    return "RAS" if system == "RAS" else "LPS" if system == "LPS" else None


def counted(number: int, noun: str) -> str:
    """``1 lesion``, ``2 lesions``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
