"""From the voxels of labels and segments to lesions: one rule for masks and for DICOM segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.cases.lesions.lesion import (
    Annotations,
    ImageReference,
    Lesion,
    LesionFormat,
    ReadingOptions,
    RefusedAnnotation,
    SegmentLink,
    VoxelGrid,
    counted,
    world_point,
)
from pipeline.cases.lesions.shape import SPECK_MM3, SPECK_VOXELS, VoxelSet, long_axis_mm
from pipeline.errors import CaseError, Code


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """Where labelled voxels come from.

    Attributes:
        path: of the file.
        format: of the file.
        grid: of its voxels.
        across: the axis of the grid across the slices.
        reference: the image that it says it belongs to.
        object_uid: SOPInstanceUID of a DICOM segmentation.
    """

    path: Path
    format: LesionFormat
    grid: VoxelGrid
    across: int
    reference: ImageReference = field(default_factory=ImageReference)
    object_uid: str | None = None


def segment_lesions(sets: Sequence[VoxelSet], source: Segmented, options: ReadingOptions) -> Annotations:
    """The lesions among the voxels of labels or segments, specks left out and counted.

    Args:
        sets: the voxels of each label value or segment, named by its number.
        source: where they come from.
        options: which numbers are lesions, and whether a lesion is a value or a component.

    Returns:
        The lesions; refused as a whole (E_CENTER_MISSING) when there is none.
    """
    taken = [voxels for voxels in sets if options.takes(int(voxels.name))]
    split = options.labels == "components" or (options.labels == "auto" and len(taken) == 1)
    pieces = [voxels.components() for voxels in taken]
    notes = []
    scattered = sum(len(parts) > 1 for parts in pieces)
    if scattered and not split:
        scattered_labels = f"{scattered} of {len(taken)} labels lie in several pieces and count as one lesion each"
        notes.append(f"{source.path}: {scattered_labels}; --labels components takes each piece for one")
    candidates = [part for parts in pieces for part in parts] if split else taken
    lesions = [part for part in candidates if not part.is_speck(source.grid)]
    specks = len(candidates) - len(lesions)
    size = f"fewer than {SPECK_VOXELS} voxels or {SPECK_MM3:g} mm3"
    if specks:
        notes.append(f"{source.path}: left out {counted(specks, 'speck')} of {size}")
    if not lesions:
        reason = _nothing(sets, taken, specks, size)
        error = CaseError(Code.E_CENTER_MISSING, source.path, reason)
        refused = RefusedAnnotation(error, format=source.format, reference=source.reference)
        return Annotations(refused=(refused,), notes=tuple(notes))
    return Annotations(tuple(_lesion(part, source) for part in lesions), notes=tuple(notes))


def _nothing(sets: Sequence[VoxelSet], taken: Sequence[VoxelSet], specks: int, size: str) -> str:
    if specks:
        return f"marks nothing but {counted(specks, 'speck')} of {size}; correct the mask"
    if sets and not taken:
        numbers = ", ".join(voxels.name for voxels in sets[:10])
        return f"holds labels {numbers}, and none that --only asks for; name one of these"
    return "marks no voxel, so there is no lesion in it"


def _lesion(voxels: VoxelSet, source: Segmented) -> Lesion:
    number = voxels.name.partition(".")[0]
    diameter = long_axis_mm(voxels.indices.astype(np.float64), source.grid.affine, source.across)
    return Lesion(
        center_mm=world_point(voxels.center_mm(source.grid), source.path),
        diameter_mm=round(diameter, 3) if source.grid.has_millimetres else None,
        name=voxels.name,
        source=source.path,
        format=source.format,
        reference=source.reference,
        grid=source.grid if source.format == "mask" else None,
        segment=SegmentLink(source.object_uid, number) if source.object_uid else None,
    )
