"""Masks: label maps in any image format that scans come in, NIfTI and pictures among them.

The centre is the centroid of a lesion's voxels, through the mask's own affine. Whether that grid is also the image's is
judged where masks are matched with images (`pipeline.cases.lesions.match`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.cases.lesions.lesion import Annotations, ReadingOptions, VoxelGrid
from pipeline.cases.lesions.segments import Segmented, segment_lesions
from pipeline.cases.lesions.shape import label_sets, slice_axis
from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Float32Array
from pipeline.imaging.read import open_scan

_LARGEST_LABEL: Final = 65_535
_MOST_LABELS: Final = 255  # distinct ones; more are grey values
_BRIGHT: Final = 128


def read_mask(path: Path, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of a mask, or of a probability map with ``options.threshold``.

    Raises:
        CaseError: as the scan readers do, and E_RANGE for an image that is no label map.
    """
    options = options or ReadingOptions()
    scan = open_scan(path, limits=options.limits)
    voxels = scan.read((slice(None), slice(None), slice(None)))
    if options.threshold is not None:
        voxels = _thresholded(path, voxels, options.threshold)
    _refuse_scan(path, voxels)
    part, first = _marked_part(voxels)
    sets = label_sets(_whole_numbers(path, part), first)
    numbers = [int(voxel_set.name) for voxel_set in sets]
    _refuse_grey(path, numbers, options)
    source = Segmented(
        path=path,
        format="mask",
        grid=VoxelGrid(scan.shape, scan.affine, has_millimetres=scan.has_millimetres),
        across=slice_axis(scan.affine),
    )
    return segment_lesions(sets, source, options)


def _thresholded(path: Path, voxels: Float32Array, threshold: float) -> Float32Array:
    if voxels.min() >= threshold:
        reason = f"every voxel is at or above --threshold {threshold:g} (lowest: {voxels.min():g}); give a higher one"
        raise CaseError(Code.E_RANGE, path, reason)
    return (voxels >= threshold).astype(np.float32)


def _refuse_scan(path: Path, voxels: Float32Array) -> None:
    lowest, highest = float(voxels.min()), float(voxels.max())
    if lowest < 0 or highest > _LARGEST_LABEL:
        reason = f"holds values from {lowest:g} to {highest:g}, as a scan does; a mask holds labels from 0"
        raise CaseError(Code.E_RANGE, path, f"{reason} to {_LARGEST_LABEL}: name the mask, not the scan")
    if lowest > 0:
        reason = f"has no background: the lowest value is {lowest:g}, expected 0 outside of lesions; correct the mask"
        raise CaseError(Code.E_RANGE, path, reason)


def _marked_part(voxels: Float32Array) -> tuple[Float32Array, tuple[int, ...]]:
    """The box around everything that is not 0, and its first voxel: lesions are small, and masks as large as scans."""
    box = next(iter(ndimage.find_objects((voxels != 0).view(np.uint8))), None)
    if box is None:
        return voxels[:1, :1, :1], (0, 0, 0)
    return voxels[box], tuple(edge.start for edge in box)


def _whole_numbers(path: Path, voxels: Float32Array) -> NDArray[np.int32]:
    labels = np.rint(voxels).astype(np.int32)
    if not np.array_equal(labels, voxels):
        fraction = float(voxels[labels != voxels].flat[0])
        reason = f"holds fractions ({fraction:.3g}), so it is a probability map; say from where with --threshold 0.5"
        raise CaseError(Code.E_RANGE, path, reason)
    return labels


def _refuse_grey(path: Path, numbers: list[int], options: ReadingOptions) -> None:
    """Refuse a scan of grey levels, each of which would be taken for a label."""
    if len(numbers) > _MOST_LABELS:
        reason = f"holds {len(numbers)} different values, as a scan does, not labels; name the mask, not the scan"
        raise CaseError(Code.E_RANGE, path, reason)
    # Labels are counted from 1 without large gaps; what is left of black and white after JPEG or resizing is not.
    soft = len(numbers) > 1 and numbers[-1] >= _BRIGHT and 2 * len(numbers) < numbers[-1]
    if soft and options.labels == "auto" and options.only is None:
        reason = (
            f"holds {len(numbers)} grey levels up to {numbers[-1]}: edges softened by resizing or JPEG, or labels? "
            "--threshold 128 takes the bright part, --labels values each level"
        )
        raise CaseError(Code.E_RANGE, path, reason)
