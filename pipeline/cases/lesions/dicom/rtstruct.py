"""RT structure sets: closed outlines filled on the grid of the image that they were drawn on; points; lines.

Filling counts every outline of a slice, so that one within another, or one that runs into itself, cuts a hole, and the
centre is that of the mask which the outlines enclose. Types of the standard say which regions are lesions: GTV and
those without a type are; organs, margins around the tumour (CTV, PTV), support and the like are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from pipeline.cases.lesions.dicom.dicom_object import (
    FRAME_OF_REFERENCE,
    SERIES,
    SOP_INSTANCE,
    DicomObject,
    damage_named,
    decimals,
    each_item,
    read_object,
    word,
)
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.indexed_image import IndexedImage
from pipeline.cases.lesions.lesion import (
    FLIP,
    Annotations,
    ImageReference,
    Lesion,
    Points,
    ReadingOptions,
    RefusedAnnotation,
    counted,
    refuse_absurd,
    world_point,
)
from pipeline.cases.lesions.outlines import area_and_centroid, fill
from pipeline.cases.lesions.shape import VoxelSet, long_axis_mm, longest_extent
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.values import items, number, uid

_FRAMES, _STUDIES, _SERIES = 0x30060010, 0x30060012, 0x30060014
_ROIS, _ROI_NUMBER, _ROI_FRAME = 0x30060020, 0x30060022, 0x30060024
_CONTOURS, _REFERENCED_NUMBER, _CONTOUR_SEQUENCE = 0x30060039, 0x30060084, 0x30060040
_GEOMETRY, _COUNT, _DATA = 0x30060042, 0x30060046, 0x30060050
_OBSERVATIONS, _TYPE = 0x30060080, 0x300600A4
_TAGS: Final = (SOP_INSTANCE, FRAME_OF_REFERENCE, _FRAMES, _ROIS, _CONTOURS, _OBSERVATIONS)
_CLOSED: Final = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_OPEN: Final = frozenset({"OPEN_PLANAR", "OPEN_NONPLANAR"})
_NO_LESIONS: Final = frozenset({
    "EXTERNAL", "PTV", "CTV", "TREATED_VOLUME", "IRRAD_VOLUME", "BOLUS", "AVOIDANCE", "ORGAN", "REGISTRATION",
    "ISOCENTER", "CONTRAST_AGENT", "CAVITY", "BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP", "BRACHY_CHNL_SHLD",
    "SUPPORT", "FIXATION", "DOSE_REGION", "CONTROL", "DOSE_MEASUREMENT", "DEVICE",
})  # fmt: skip
_TYPES: Final = _NO_LESIONS | {"GTV", "MARKER"}
_MOST_POINTS = 1_000_000  # of a region; a lesion's outlines have some hundred a slice
_OUT_OF_PLANE = 0.1  # slices by which an outline may lean


@dataclass(frozen=True)
class _Region:
    """One ROI.

    Attributes:
        number: its number.
        frame_of_reference: of its outlines.
        kind: its interpreted type; blank without one, ``other`` for a word that is none of the standard's.
        contours: geometric type and points (N, 3), RAS mm.
    """

    number: int
    frame_of_reference: str | None
    kind: str
    contours: list[tuple[str, Points]] = field(default_factory=list)


def read_structure_set(path: Path, images: ImageIndex, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of an RT structure set, one a region (``components``: one a connected piece).

    Args:
        path: of the object.
        images: of the input; outlines are filled on the grid of the one that it refers to.
        options: which regions are lesions, by number.

    Raises:
        CaseError: when the object cannot be read at all; what is wrong with a region is refused in the result.
    """
    options = options or ReadingOptions()
    structure_set = read_object(path, _TAGS, options.limits)
    with damage_named(path):
        series_of = _series_by_frame(structure_set)
        regions, empty = _regions(structure_set)
    notes = [f"{path}: left out {counted(empty, 'region')} without an outline"] if empty else []
    taken, others = _taken(regions, options)
    if others:
        kinds = ", ".join(sorted({region.kind for region in others}))
        left = f"left out {counted(len(others), 'region')} of types that are no lesions ({kinds})"
        notes.append(f"{path}: {left}; --only takes them")
    lesions: list[Lesion] = []
    refused: list[RefusedAnnotation] = []
    for region in taken:
        reference = _reference(region.frame_of_reference, series_of)
        try:
            lesions += _lesions(path, region, reference, images, options)
        except CaseError as error:
            refused.append(RefusedAnnotation(error, f"ROI {region.number}", "rtstruct", reference))
    if not taken:
        reason = f"holds no region that is a lesion ({len(others)} of other types, {empty} without an outline)"
        nothing = CaseError(Code.E_CENTER_MISSING, path, f"{reason}; --only takes regions by number")
        refused.append(RefusedAnnotation(nothing, format="rtstruct", reference=_reference(None, series_of)))
    return Annotations(tuple(lesions), tuple(refused), tuple(notes))


def _taken(regions: Sequence[_Region], options: ReadingOptions) -> tuple[list[_Region], list[_Region]]:
    """Split regions into lesions and others by their type; a region asked for by number is a lesion."""
    if options.only is not None:
        return [region for region in regions if region.number in options.only], []
    return (
        [region for region in regions if region.kind not in _NO_LESIONS],
        [region for region in regions if region.kind in _NO_LESIONS],
    )


def _reference(frame: str | None, series_of: dict[str, set[str]]) -> ImageReference:
    """The frame of reference and the series of the regions; None where there are several."""
    frames = set(series_of) if frame is None else {frame}
    series = set().union(*(series_of.get(frame_uid, set()) for frame_uid in frames))
    return ImageReference(
        series=series.pop() if len(series) == 1 else None, frame_of_reference=frames.pop() if len(frames) == 1 else None
    )


def _series_by_frame(structure_set: DicomObject) -> dict[str, set[str]]:
    """The series that the object refers to, by frame of reference."""
    series_of: dict[str, set[str]] = defaultdict(set)
    for frame in items(structure_set.header, _FRAMES):
        name = uid(frame, FRAME_OF_REFERENCE)
        if name:
            series_of[name] |= {uid(item, SERIES) for item in each_item(frame, _STUDIES, _SERIES)} - {""}
    return dict(series_of)


def _regions(structure_set: DicomObject) -> tuple[list[_Region], int]:
    """Regions with an outline, in the order of their definition, and how many have none."""
    kinds = {
        _integer(item, _REFERENCED_NUMBER): word(item, _TYPE, _TYPES)
        for item in items(structure_set.header, _OBSERVATIONS)
    }
    regions: dict[int, _Region] = {}
    for item in items(structure_set.header, _ROIS):
        key = _integer(item, _ROI_NUMBER)
        if key in regions:
            raise CaseError(Code.E_FORMAT, structure_set.path, f"defines region {key} twice; export it again")
        regions[key] = _Region(key, uid(item, _ROI_FRAME) or None, kinds.get(key, ""))
    points = 0
    for item in items(structure_set.header, _CONTOURS):
        key = _integer(item, _REFERENCED_NUMBER)
        if key not in regions:
            raise CaseError(Code.E_FORMAT, structure_set.path, f"outlines region {key}, which it does not define")
        for contour in items(item, _CONTOUR_SEQUENCE):
            regions[key].contours.append(_contour(structure_set.path, contour))
            points += len(regions[key].contours[-1][1])
        if points > _MOST_POINTS:
            raise CaseError(
                Code.E_TOO_LARGE, structure_set.path, f"over {_MOST_POINTS} points in outlines; export fewer regions"
            )
    outlined = [region for region in regions.values() if region.contours]
    return outlined, len(regions) - len(outlined)


def _integer(item: Dataset, tag: int) -> int:
    value = number(item, tag)
    return int(value) if value is not None and np.isfinite(value) and abs(value) < 2**31 else -1


def _contour(path: Path, item: Dataset) -> tuple[str, Points]:
    kind = word(item, _GEOMETRY, _CLOSED | _OPEN | {"POINT"})
    values, count = decimals(item, _DATA), _integer(item, _COUNT)
    if len(values) % 3 or not len(values) or (count != -1 and 3 * count != len(values)):
        declared = f"{count} points" if count != -1 else "points"
        raise CaseError(
            Code.E_FORMAT, path, f"an outline of {declared} with {len(values)} coordinates; export it again"
        )
    return kind, values.reshape(-1, 3) * FLIP


def _lesions(
    path: Path, region: _Region, reference: ImageReference, images: ImageIndex, options: ReadingOptions
) -> list[Lesion]:
    """The lesions of one region.

    Raises:
        CaseError: why it has none.
    """
    refuse_absurd(np.concatenate([points for _, points in region.contours]), path)
    name = str(region.number)
    if not any(kind in _CLOSED for kind, _ in region.contours):
        center, diameter = _point_or_line(path, region)
        places = [(name, center, diameter)]
    elif all(kind in _CLOSED for kind, _ in region.contours):
        resolution = images.resolve(reference, dedicated=True)
        if resolution.image is None or resolution.error is not None:
            code, reason = resolution.error or (Code.E_NOT_FOUND, "its image is missing")
            raise CaseError(code, path, reason)
        places = _enclosed(path, region, resolution.image, options)
    else:
        raise CaseError(Code.E_FORMAT, path, "closed outlines and others in one region; separate them")
    return [
        Lesion(
            world_point(center, path),
            None if diameter is None else round(diameter, 3),
            name,
            path,
            "rtstruct",
            reference,
        )
        for name, center, diameter in places
    ]


def _point_or_line(path: Path, region: _Region) -> tuple[Points, float | None]:
    """A single point is a centre, a line of two points a long axis."""
    points = np.concatenate([points for _, points in region.contours])
    kinds = {kind for kind, _ in region.contours}
    if kinds == {"POINT"} and len(points) == 1:
        return points[0], None
    if kinds <= _OPEN and len(points) == 2:
        return points.mean(axis=0), float(np.linalg.norm(points[0] - points[1]))
    marks = "points" if kinds == {"POINT"} else "open lines" if kinds <= _OPEN else "outlines of no known kind"
    reason = (
        f"a region of {marks} with {len(points)} points in all; one point, a line of two, or closed outlines are read"
    )
    raise CaseError(Code.E_FORMAT, path, reason)


def _enclosed(
    path: Path, region: _Region, image: IndexedImage, options: ReadingOptions
) -> list[tuple[str, Points, float | None]]:
    """Name, centre (RAS mm) and diameter of what closed outlines enclose, on the image's grid."""
    if min(len(points) for _, points in region.contours) < 3:
        raise CaseError(Code.E_FORMAT, path, "a closed outline of fewer than 3 points; correct the region")
    grid, across = image.grid, image.across
    voxels = _filled(path, [grid.index(points) for _, points in region.contours], grid.shape, across)
    name = str(region.number)
    if not len(voxels):  # smaller than a pixel, or beside the image
        parts = [area_and_centroid(points) for _, points in region.contours]
        weights = np.array([area for area, _ in parts]) + 1e-9
        center = np.average([middle for _, middle in parts], axis=0, weights=weights)
        return [(name, center, max(longest_extent(points) for _, points in region.contours))]
    pieces = [voxels]
    if options.labels == "components":
        indices = np.rint(voxels).astype(np.intp)
        pieces = [part.indices.astype(np.float64) for part in VoxelSet(name, indices).components()]
    return [
        (
            name if len(pieces) == 1 else f"{name}.{place}",
            grid.world(piece.mean(axis=0)[np.newaxis])[0],
            long_axis_mm(piece, grid.affine, across),
        )
        for place, piece in enumerate(pieces, start=1)
    ]


def _filled(path: Path, outlines: Sequence[Points], shape: tuple[int, int, int], across: int) -> Points:
    """Voxel indices (N, 3) inside outlines that are given in voxel indices; planes need not be the image's own."""
    plane = [axis for axis in range(3) if axis != across]
    by_plane: dict[float, list[Points]] = defaultdict(list)  # by the depth to a hundredth of a slice
    for points in outlines:
        depths = points[:, across]
        if np.ptp(depths) > 2 * _OUT_OF_PLANE:
            reason = f"an outline crosses {np.ptp(depths):.2g} slices of its image, so it was drawn in other planes"
            raise CaseError(Code.E_ORIENTATION, path, f"{reason}; give the image that it was drawn on")
        by_plane[round(float(depths.mean()), 2)].append(points)
    parts = []
    for _, rings in sorted(by_plane.items()):
        inside, first = fill([points[:, plane] for points in rings], (shape[plane[0]], shape[plane[1]]))
        pixels = np.argwhere(inside) + first
        voxels = np.full((len(pixels), 3), np.concatenate(rings)[:, across].mean())
        voxels[:, plane] = pixels
        parts.append(voxels)
    return np.concatenate(parts)
