"""DICOM segmentations: binary, fractional (inside from half of the maximum) and label maps.

Every frame gives its own position and segment, so frames may come in any order, and empty ones may be missing. The
centre comes from the object's own geometry, in its image's frame of reference.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipeline.cases.lesions.dicom.dicom_object import (
    FRAME_OF_REFERENCE,
    REFERENCED_SERIES,
    SERIES,
    SOP_INSTANCE,
    DicomObject,
    damage_named,
    each_item,
    only_value,
    read_object,
    word,
)
from pipeline.cases.lesions.dicom.segmentation_frames import FrameReader, PixelLayout
from pipeline.cases.lesions.lesion import (
    FLIP,
    Annotations,
    ImageReference,
    Points,
    ReadingOptions,
    RefusedAnnotation,
    VoxelGrid,
    counted,
)
from pipeline.cases.lesions.segments import Segmented, segment_lesions
from pipeline.cases.lesions.shape import VoxelSet
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import check_affine, check_size
from pipeline.imaging.dicom.tags import Tag
from pipeline.imaging.dicom.values import Numbers, items, number, numbers, text, uid, unsigned

_TYPE, _SEGMENTS, _MOST = 0x00620001, 0x00620002, 0x0062000E
_CATEGORY, _SEGMENT_NUMBER = 0x00620003, 0x00620004
_IDENTIFICATION, _REFERENCED_NUMBER = 0x0062000A, 0x0062000B
_CODE, _ORGANIZATION, _MATRIX_COLUMNS = 0x00080100, 0x00209311, 0x00480006
_TAGS: Final = (
    SOP_INSTANCE, FRAME_OF_REFERENCE, REFERENCED_SERIES, _TYPE, _SEGMENTS, _MOST, _ORGANIZATION, _MATRIX_COLUMNS,
    Tag.FRAMES, Tag.ROWS, Tag.COLUMNS, Tag.BITS_ALLOCATED, Tag.SHARED_GROUPS, Tag.FRAME_GROUPS,
)  # fmt: skip
_TYPES: Final = frozenset({"BINARY", "FRACTIONAL", "LABELMAP"})
# "Anatomical Structure", an organ: in SNOMED CT, as 3D Slicer writes it, and in SRT.
_ANATOMY: Final = frozenset({"91723000", "123037004", "T-D000A"})
_OFF_PLANE_MM, _OFF_PLANE_STEPS = 0.1, 0.06
_DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Frame:
    """One frame: its segment (None in a label map) and its place, LPS mm."""

    segment: int | None
    position: Numbers
    orientation: Numbers
    spacing: Numbers
    thickness: float


def read_segmentation(path: Path, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of a DICOM segmentation, one a segment or a component (see `ReadingOptions.labels`).

    Segments of the category "Anatomical Structure" are organs: left out and counted, unless ``options.only`` names
    them.

    Raises:
        CaseError: when the object cannot be read at all; what is wrong with its content is refused in the result.
    """
    options = options or ReadingOptions()
    segmentation = read_object(path, _TAGS, options.limits)
    with damage_named(path):
        series = only_value(segmentation.header, lambda item: uid(item, SERIES), REFERENCED_SERIES)
        reference = ImageReference(series, uid(segmentation.header, FRAME_OF_REFERENCE) or None)
    try:
        return _lesions(segmentation, reference, options)
    except CaseError as error:
        return Annotations(refused=(RefusedAnnotation(error, format="dicom-seg", reference=reference),))


def _lesions(segmentation: DicomObject, reference: ImageReference, options: ReadingOptions) -> Annotations:
    path = segmentation.path
    with damage_named(path):
        layout = _layout(segmentation, options)
        segments = _segments(segmentation)
        frames = _frames(segmentation, layout.frames, layout.kind)
    strange = {frame.segment for frame in frames if frame.segment is not None} - segments.keys()
    if strange:
        reason = f"a frame shows segment {min(strange)}, which the object does not describe; export it again"
        raise CaseError(Code.E_FORMAT, path, reason)
    organs = {name for name, is_organ in segments.items() if is_organ and options.only is None}
    places, affine = _lattice(path, frames)
    sets = _voxels(FrameReader(segmentation, layout, options.limits), frames, places, leave_out=organs)
    grid = VoxelGrid((layout.columns, layout.rows, int(places.max()) + 1), affine)
    source = Segmented(
        path=path, format="dicom-seg", grid=grid, across=2, reference=reference, object_uid=segmentation.object_uid
    )
    lesions = segment_lesions(sets, source, options)
    if not organs:
        return lesions
    found_organs = f"left out {counted(len(organs), 'segment')} of anatomical structures, which are organs"
    note = f"{path}: {found_organs}; --only takes them"
    return Annotations(lesions.lesions, lesions.refused, (*lesions.notes, note))


def _layout(segmentation: DicomObject, options: ReadingOptions) -> PixelLayout:
    header, path = segmentation.header, segmentation.path
    kind = word(header, _TYPE, _TYPES) or "none"
    organization = text(header, _ORGANIZATION)
    if organization.startswith("TILED") or _MATRIX_COLUMNS in header:
        reason = "a tiled segmentation, as of a microscope's slide; one on slices of a patient is read"
        raise CaseError(Code.E_FORMAT, path, reason)
    claimed = number(header, Tag.FRAMES)
    rows, columns = unsigned(header, Tag.ROWS), unsigned(header, Tag.COLUMNS)
    if kind not in _TYPES or claimed is None or not 1 <= claimed < 2**31 or not rows or not columns:
        reason = f"segmentation type {kind}, {claimed or 0:g} frames of {columns} x {rows}; export it again"
        raise CaseError(Code.E_FORMAT, path, reason)
    bits = unsigned(header, Tag.BITS_ALLOCATED)
    check_size(path, (columns, rows, max(int(claimed) * bits // 8, 1)), 1, options.limits)
    return PixelLayout(
        kind=kind,
        rows=rows,
        columns=columns,
        frames=int(claimed),
        bits=bits,
        maximum=unsigned(header, _MOST),
    )


def _segments(segmentation: DicomObject) -> dict[int, bool]:
    """Numbers of the described segments, and whether each is an organ."""
    segments = {
        unsigned(item, _SEGMENT_NUMBER): any(text(code, _CODE) in _ANATOMY for code in each_item(item, _CATEGORY))
        for item in items(segmentation.header, _SEGMENTS)
    }
    if not segments:
        raise CaseError(Code.E_FORMAT, segmentation.path, "describes no segment; export the segmentation again")
    return segments


def _frames(segmentation: DicomObject, count: int, kind: str) -> list[_Frame]:
    shared = items(segmentation.header, Tag.SHARED_GROUPS)[:1]
    groups = items(segmentation.header, Tag.FRAME_GROUPS)
    if len(groups) != count:
        reason = f"{count} frames but {len(groups)} frame descriptions; export the segmentation again"
        raise CaseError(Code.E_FORMAT, segmentation.path, reason)
    return [_frame(segmentation.path, [group, *shared], numbered=kind != "LABELMAP") for group in groups]


def _frame(path: Path, groups: Sequence[Dataset], *, numbered: bool) -> _Frame:
    """Value of a frame's own functional groups, else of the shared ones."""

    def first(name: int, tag: int, size: int) -> Numbers | None:
        sources = (item for group in groups for item in items(group, name)[:1])
        return next((values for item in sources if (values := numbers(item, tag, size)) is not None), None)

    numbers_of = (unsigned(item, _REFERENCED_NUMBER) for group in groups for item in items(group, _IDENTIFICATION)[:1])
    segment = next(numbers_of, None) if numbered else None
    position = first(Tag.PLANE_POSITION, Tag.POSITION, 3)
    orientation = first(Tag.PLANE_ORIENTATION, Tag.ORIENTATION, 6)
    spacing = first(Tag.PIXEL_MEASURES, Tag.PIXEL_SPACING, 2)
    if position is None or orientation is None or spacing is None:
        reason = "a frame does not say where it lies (position, orientation and spacing); export it again"
        raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
    if numbered and segment is None:
        raise CaseError(Code.E_FORMAT, path, "a frame does not say which segment it shows; export it again")
    if not np.isfinite([*position, *orientation, *spacing]).all() or min(spacing) <= 0:
        raise CaseError(Code.E_AFFINE, path, "a frame's position, orientation or spacing is no number; export it again")
    between = first(Tag.PIXEL_MEASURES, Tag.SPACING_BETWEEN, 1) or first(Tag.PIXEL_MEASURES, Tag.THICKNESS, 1)
    thickness = abs(between[0]) if between and np.isfinite(between[0]) and between[0] != 0 else 1.0
    return _Frame(segment, position, orientation, spacing, thickness)


def _lattice(path: Path, frames: Sequence[_Frame]) -> tuple[NDArray[np.intp], Points]:
    """The plane on which each frame lies, numbered from 0 with gaps where frames are missing, and the affine."""
    orientations = np.array([frame.orientation for frame in frames])
    spacings = np.array([frame.spacing for frame in frames])
    if np.abs(orientations - orientations[0]).max() > _DIRECTION_TOLERANCE:
        raise CaseError(Code.E_MIXED_ORIENTATION, path, "frames of several orientations; export each on its own")
    if (np.abs(spacings - spacings[0]) > 1e-4 * spacings[0]).any():
        raise CaseError(Code.E_MIXED_SPACING, path, "frames of several pixel spacings; export each on its own")
    row, column = orientations[0].reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    depths = positions @ normal
    planes = _plane_numbers(depths, frames[0].thickness)
    low, high = int(planes.argmin()), int(planes.argmax())
    count = int(planes[high] - planes[low])
    step = (positions[high] - positions[low]) / count if count else normal * frames[0].thickness
    off = np.linalg.norm(positions - positions[low] - planes[:, np.newaxis] * step, axis=1).max()
    if off > max(_OFF_PLANE_MM, _OFF_PLANE_STEPS * float(np.linalg.norm(step))):
        reason = f"frames lie up to {off:.3g} mm from evenly spaced planes on a line; export the segmentation again"
        raise CaseError(Code.E_SLICE_GAP, path, reason)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * spacings[0, 1], column * spacings[0, 0]
    affine[:3, 2], affine[:3, 3] = step, positions[low]
    affine[:3] *= FLIP[:, np.newaxis]
    check_affine(path, affine)
    return planes, affine


def _plane_numbers(depths: Points, declared_mm: float) -> NDArray[np.intp]:
    """Which plane each depth is on: the smallest distance is one step, larger ones are several."""
    order = np.argsort(depths, kind="stable")
    gaps = np.diff(depths[order])
    apart = gaps[gaps > 1e-3]
    if not apart.size:
        return np.zeros(len(depths), dtype=np.intp)
    smallest = float(apart.min())
    # Positions are often rounded: the declared distance is the better measure where the two agree.
    step = declared_mm if abs(declared_mm - smallest) < 0.2 * smallest else smallest
    jumps = np.where(gaps > 1e-3, np.maximum(np.round(gaps / step), 1), 0)
    planes = np.zeros(len(depths), dtype=np.intp)
    planes[order[1:]] = np.cumsum(np.minimum(jumps, 2**31)).astype(np.intp)
    return planes


def _voxels(
    reader: FrameReader, frames: Sequence[_Frame], planes: NDArray[np.intp], *, leave_out: Collection[int]
) -> list[VoxelSet]:
    """The voxels (column, row, plane) of each segment, by rising number, but of those that are left out."""
    parts: dict[int, list[NDArray[np.intp]]] = {}
    placed: set[tuple[int | None, int]] = set()
    for place, (frame, plane) in enumerate(zip(frames, planes.tolist(), strict=True)):
        if (frame.segment, plane) in placed:
            reason = "two frames of one segment lie at one place; export the segmentation again"
            raise CaseError(Code.E_SLICE_DUPLICATE, reader.path, reason)
        placed.add((frame.segment, plane))
        if frame.segment in leave_out:
            continue
        values = reader.read(place)  # (rows, columns); of a label map the segments' numbers, else 0 and 1
        for value in np.unique(values[values != 0]).tolist():
            name = value if frame.segment is None else frame.segment
            if name not in leave_out:
                pixels = np.argwhere(values.transpose() == value)
                parts.setdefault(name, []).append(np.column_stack([pixels, np.full(len(pixels), plane)]))
    return [VoxelSet(f"{name}", np.concatenate(parts[name])) for name in sorted(parts)]
