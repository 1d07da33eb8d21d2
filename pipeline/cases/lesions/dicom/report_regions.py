"""Coordinates in structured reports: points, lines, outlines, circles and ellipses, in space or on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from pipeline.cases.lesions.dicom.dicom_object import REFERENCED_SERIES, SERIES, each_item, floats, word
from pipeline.cases.lesions.indexed_image import IndexedImage
from pipeline.cases.lesions.lesion import FLIP, Points, refuse_absurd
from pipeline.cases.lesions.outlines import area_and_centroid
from pipeline.cases.lesions.shape import longest_extent
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.frames import Frame
from pipeline.imaging.dicom.values import number, text, uid

_VALUE_TYPE, _CONTENT, _REFERENCED = 0x0040A040, 0x0040A730, 0x00081199
_INSTANCE, _CLASS, _FRAME_NUMBER = 0x00081155, 0x00081150, 0x00081160
_DATA, _TYPE, _FRAME_OF_REFERENCE, _ORIGIN = 0x00700022, 0x00700023, 0x30060024, 0x00480301
_TYPES: Final = frozenset({"POINT", "MULTIPOINT", "POLYLINE", "POLYGON", "CIRCLE", "ELLIPSE", "ELLIPSOID"})
_POINTS: Final = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4, "ELLIPSOID": 6}
# Standard, signed: TLHC of the TLHC pixel is (0, 0), so a pixel's centre has the fraction a half.
_PIXEL_CENTER: Final = 0.5
_NO_IMAGES: Final = ("1.2.840.10008.5.1.4.1.1.66.", "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.481.3")
_SAME_MM: Final = 1e-3


@dataclass(frozen=True)
class Measured:
    """A region in space.

    Attributes:
        center: RAS mm.
        extent_mm: its longest; 0 for a point.
        weight: of its centre among several: its area.
    """

    center: Points
    extent_mm: float
    weight: float


@dataclass(frozen=True, eq=False)
class Region:
    """Coordinates as the report gives them.

    Attributes:
        kind: graphic type.
        values: (N, 3) LPS mm, or (N, 2) columns and rows of the image.
        frame_of_reference: of coordinates in space.
        image: SOPInstanceUID of the image that coordinates in pixels lie on.
        frame: its number, from 1; None when it is not said, as for images of a single frame.
    """

    kind: str
    values: Points
    frame_of_reference: str | None = None
    image: str | None = None
    frame: int | None = None

    def measured(self, path: Path, image: IndexedImage | None) -> Measured:
        """The region in space.

        Args:
            path: named in errors.
            image: that coordinates in pixels lie on.

        Raises:
            CaseError: E_CENTER, E_FORMAT, E_GEOMETRY_MISSING or E_MIXED_SERIES.
        """
        refuse_absurd(self.values, path)
        if self.image is None:
            return self._measured(path, self.values * FLIP)
        slices = image.slices if image is not None else {}
        frames = [
            place for (name, frame), place in slices.items() if name == self.image and self.frame in (frame, None)
        ]
        if len(frames) > 1:
            reason = f"its coordinates lie on one of {len(frames)} frames, and it does not say which; export it again"
            raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
        if not frames:
            reason = "its coordinates lie on a slice that the image does not hold; give its own image, whole"
            raise CaseError(Code.E_MIXED_SERIES, path, reason)
        return self._measured(path, _in_space(path, self.values - _PIXEL_CENTER, frames[0].frame))

    def _measured(self, path: Path, points: Points) -> Measured:
        if len(points) != _POINTS.get(self.kind, len(points)):
            reason = f"a region of type {self.kind} with {len(points)} points; export the report again"
            raise CaseError(Code.E_FORMAT, path, reason)
        if self.kind == "CIRCLE":
            radius = float(np.linalg.norm(points[1] - points[0]))
            return Measured(points[0], 2 * radius, radius**2 * np.pi)
        if self.kind in ("ELLIPSE", "ELLIPSOID"):  # ends of the axes, the longest first
            axes = np.linalg.norm(points[::2] - points[1::2], axis=1)
            return Measured(points.mean(axis=0), float(axes.max()), float(axes[0] * axes[1]) * np.pi / 4)
        closed = self.kind == "POLYGON" or np.linalg.norm(points[0] - points[-1]) < _SAME_MM
        if len(points) <= 2 and self.kind in ("POINT", "POLYLINE"):
            return Measured(points.mean(axis=0), longest_extent(points), 0.0)
        if closed and self.kind in ("POLYGON", "POLYLINE"):
            area, center = area_and_centroid(points)
            return Measured(center, longest_extent(points), area)
        kind = "an open line" if self.kind == "POLYLINE" else f"type {self.kind}"
        reason = f"a region of {kind} with {len(points)} points has no one centre; mark the lesion by an outline"
        raise CaseError(Code.E_FORMAT, path, reason)


@dataclass(frozen=True)
class Sources:
    """Objects and series that a report was made from.

    Attributes:
        series_of: the series of each referenced object.
        image_series: the series of images, without segmentations, reports and structure sets.
    """

    series_of: Mapping[str, str]
    image_series: frozenset[str]


def sources_of(evidence: Sequence[Dataset]) -> Sources:
    """Objects and series of a report's evidence sequences."""
    series_of: dict[str, str] = {}
    images: set[str] = set()
    for study in evidence:
        for series in each_item(study, REFERENCED_SERIES):
            for item in each_item(series, _REFERENCED):
                series_of[uid(item, _INSTANCE)] = uid(series, SERIES)
                if not uid(item, _CLASS).startswith(_NO_IMAGES):
                    images.add(uid(series, SERIES))
    return Sources(series_of, frozenset(images - {""}))


def region_of(path: Path, item: Dataset) -> Region:
    """The coordinates of a content item.

    Raises:
        CaseError: E_FORMAT when they are none.
    """
    kind, values = word(item, _TYPE, _TYPES), floats(item, _DATA)
    in_space = text(item, _VALUE_TYPE) == "SCOORD3D"
    width = 3 if in_space else 2
    if not len(values) or len(values) % width or kind not in _TYPES:
        reason = f"a region with {len(values)} numbers for points of {width}; export the report again"
        raise CaseError(Code.E_FORMAT, path, reason)
    points = values.reshape(-1, width)
    if in_space:
        return Region(kind, points, frame_of_reference=uid(item, _FRAME_OF_REFERENCE) or None)
    if text(item, _ORIGIN) == "VOLUME":
        reason = "coordinates in the whole of a microscope's slide; those on slices of a patient are read"
        raise CaseError(Code.E_FORMAT, path, reason)
    for image in each_item(item, _CONTENT, _REFERENCED):
        frame = number(image, _FRAME_NUMBER)
        return Region(kind, points, image=uid(image, _INSTANCE), frame=None if frame is None else _whole(frame))
    raise CaseError(Code.E_FORMAT, path, "coordinates in pixels of no image; export the report again")


def _whole(value: float) -> int:
    return int(value) if np.isfinite(value) and abs(value) < 2**31 else 0


def _in_space(path: Path, pixels: Points, frame: Frame) -> Points:
    """RAS mm of (column, row), pixel centres at whole numbers."""
    if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
        raise CaseError(
            Code.E_GEOMETRY_MISSING, path, "its image does not say where its pixels lie; convert the points"
        )
    row, column = np.array(frame.orientation).reshape(2, 3)
    between_rows, between_columns = frame.pixel_spacing
    places = pixels[:, :1] * row * between_columns + pixels[:, 1:] * column * between_rows
    return np.asarray((places + np.array(frame.position)) * FLIP)


def united(regions: Sequence[Measured]) -> tuple[Points, float]:
    """Centre of several regions of one lesion, as its outlines on several slices, and the longest extent of any."""
    weights = np.array([region.weight for region in regions])
    if not weights.any():
        weights = np.ones(len(regions))
    center = np.average([region.center for region in regions], axis=0, weights=weights)
    return np.asarray(center), max(region.extent_mm for region in regions)
