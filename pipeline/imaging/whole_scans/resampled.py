"""A whole scan as a detector sees it: resampled to one spacing, windowed, a byte a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.checks import nearest_axes
from pipeline.imaging.image import Affine, Float32Array, Scan, spacing_mm
from pipeline.imaging.ranges import check_range
from pipeline.imaging.roi import image_grid

ByteArray = NDArray[np.uint8]
_LEAST_DEVIATION = 0.1  # voxels; below it a neighbour counts for nothing
_RADIUS = 3  # voxels
LEVELS = 255  # a window of 1400 HU in steps of 5.5, well below a CT's noise


def resample_whole(
    scan: Scan, path: Path, *, spacing: float, window: tuple[float, float], modality: str
) -> tuple[ByteArray, Affine]:
    """A whole scan on a detector's grid, by linear interpolation between stored voxels.

    Where voxels lie closer than the grid's, they are averaged first (``average_fine_axes``): of every second voxel
    alone, a thin slice's noise would hide small lesions.

    Args:
        scan: opened.
        path: for errors.
        spacing: mm between voxels along R, A and S.
        window: values that become 0 and 255.
        modality: the declared one; its range rules are applied.

    Returns:
        (R, A, S) uint8, and the affine (4, 4) of its index to RAS+ world mm.

    Raises:
        CaseError: when the file or a voxel is damaged.
    """
    lengths = spacing_mm(scan.affine)
    size = [
        max(1, round(scan.shape[stored] * lengths[stored] / spacing)) for stored, _ in nearest_axes(scan.affine, path)
    ]
    grid = image_grid(path, scan.shape, scan.affine, size=tuple(size), spacing=(spacing,) * 3)
    box = scan.read(grid.box)
    check_range(path, box, modality)
    box = average_fine_axes(box, lengths, spacing)
    values = grid.resample(box)
    lower, upper = window
    values -= lower
    values *= LEVELS / (upper - lower)
    np.clip(values, 0, LEVELS, out=values)
    outside = 0.0 if modality == "CT" else float(values.min())  # air lies at or below the window's lower end
    return grid.pad(np.rint(values, out=values), outside).astype(np.uint8), grid.affine


def average_fine_axes(voxels: Float32Array, lengths_mm: Sequence[float], spacing: float) -> Float32Array:
    """Voxels, smoothed along each axis whose voxels are shorter than a grid's spacing.

    By a Gaussian with a standard deviation of (spacing / length - 1) / 2 voxels, cut off at ``_RADIUS`` voxels.

    Args:
        voxels: (i, j, k), as stored.
        lengths_mm: of a voxel along i, j and k.
        spacing: mm between the grid's nodes.

    Returns:
        float32; ``voxels`` itself where no axis is fine.

    Source: the anti-aliasing of scikit-image's ``resize``.
    """
    from scipy.ndimage import gaussian_filter1d

    smoothed = voxels
    for axis, length in enumerate(lengths_mm):
        deviation = (spacing / length - 1) / 2
        if deviation > _LEAST_DEVIATION and voxels.shape[axis] > 1:
            # ``voxels`` may be a view of a scan that others read too; a copy of it is smoothed in place.
            into = np.empty(voxels.shape, np.float32) if smoothed is voxels else smoothed
            gaussian_filter1d(smoothed, deviation, axis=axis, output=into, mode="nearest", radius=_RADIUS)
            smoothed = into
    return smoothed


def as_input(voxels: ByteArray) -> NDArray[np.float32]:
    """Bytes as the network's values in [0, 1], float32."""
    return voxels.astype(np.float32) / np.float32(LEVELS)
