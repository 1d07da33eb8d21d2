"""Centre and long axis of a set of voxels, and the sets of voxels that are lesions in a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.lesions.lesion import Points, VoxelGrid
from pipeline.imaging.checks import nearest_axes
from pipeline.imaging.image import Affine, spacing_mm

Indices = NDArray[np.intp]
SPECK_VOXELS: Final = 3  # a lesion has at least so many; fewer are an accidental mark
SPECK_MM3: Final = 1.0  # and a lesion has at least this volume
_TOUCHING: Final = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours: by a face, an edge or a corner
_ALIKE: Final = 1.01  # spacings that differ by less are the same
_HALF_PIXELS: Final = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])


@dataclass(frozen=True, eq=False)
class VoxelSet:
    """The voxels of one lesion, or of one label.

    Attributes:
        name: label value or segment number; of one of its components, with ``.1``, ``.2``, ...
        indices: shape (N, 3), N at least 1.
    """

    name: str
    indices: Indices

    def center_mm(self, grid: VoxelGrid) -> Points:
        """Mean of the voxels' centres, RAS mm."""
        return np.asarray(grid.world(self.indices.mean(axis=0)[np.newaxis])[0])

    def is_speck(self, grid: VoxelGrid) -> bool:
        """Whether it is too small for a lesion."""
        count = len(self.indices)
        volume = count * abs(float(np.linalg.det(grid.affine[:3, :3])))
        return count < SPECK_VOXELS or (grid.has_millimetres and volume < SPECK_MM3)

    def components(self) -> list[VoxelSet]:
        """Its connected components, by rising index of their first voxels."""
        from scipy import ndimage  # here and below, because `malignancy check` needs only the slice axis

        near = tuple(_without_gaps(self.indices[:, axis]) for axis in range(3))
        part = np.zeros([axis.max() + 1 for axis in near], dtype=bool)
        part[near] = True
        pieces, count = ndimage.label(part, structure=_TOUCHING)
        if count == 1:
            return [self]
        numbers = pieces[near]
        order = np.argsort(numbers, kind="stable")
        parts = np.split(self.indices[order], np.flatnonzero(np.diff(numbers[order])) + 1)
        return [VoxelSet(f"{self.name}.{number}", indices) for number, indices in enumerate(parts, start=1)]


def _without_gaps(values: Indices) -> Indices:
    """Numbers from 0 that touch where the values touch; a gap of any width becomes one number."""
    every, places = np.unique(values, return_inverse=True)
    steps = np.minimum(np.diff(every, prepend=every[0]), 2)
    return np.asarray(np.cumsum(steps)[places])


def label_sets(labels: NDArray[np.int32], first: Sequence[int] = (0, 0, 0)) -> list[VoxelSet]:
    """The voxels of each value of a label map (X, Y, Z) but 0, by rising value; ``first`` is its corner's index."""
    from scipy import ndimage

    return [
        VoxelSet(f"{value}", np.argwhere(labels[box] == value) + [edge.start for edge in box] + np.array(first))
        for value, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None
    ]


def slice_axis(affine: Affine) -> int:
    """The stored axis across the slices: of the three spacings the one unlike the other two; else nearest to S.

    Only for formats other than DICOM, which states the axis.
    """
    order = np.argsort(spacing_mm(affine), kind="stable")
    a, b, c = (spacing_mm(affine)[axis] for axis in order)
    if c / a < _ALIKE:
        return nearest_axes(affine)[2][0]
    return int(order[2] if b / a <= c / b else order[0])


def long_axis_mm(indices: Points, affine: Affine, across: int) -> float:
    """Largest extent within one slice, from pixel edge to pixel edge, mm.

    Args:
        indices: voxels, shape (N, 3); along ``across`` they need not be whole numbers.
        affine: voxel index → mm.
        across: the axis across the slices.

    Returns:
        The distance of the two farthest edge midpoints of the pixels in any one slice; one pixel has its own width.
    """
    plane = [axis for axis in range(3) if axis != across]
    # A plane's two directions need not be perpendicular: R of a QR decomposition keeps lengths and angles.
    to_mm = np.asarray(np.linalg.qr(affine[:3, plane]).R)
    longest = 0.0
    for pixels in _by_slice(indices, across):
        edges = (pixels[:, np.newaxis, plane] + _HALF_PIXELS).reshape(-1, 2) @ to_mm.T
        longest = max(longest, largest_distance(edges))
    return longest


def _by_slice(indices: Points, across: int) -> Sequence[Points]:
    order = np.argsort(indices[:, across], kind="stable")
    ordered = indices[order]
    return np.split(ordered, np.flatnonzero(np.diff(ordered[:, across])) + 1)


def largest_distance(points: Points) -> float:
    """Distance of the two farthest of points in a plane (N, 2) that do not all lie on one line."""
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    try:
        corners = points[ConvexHull(points).vertices]
    except QhullError:  # nearly on one line; Qhull then moves the points by a negligible distance
        corners = points[ConvexHull(points, qhull_options="QJ").vertices]
    return float(pdist(corners).max())


def longest_extent(points: Points) -> float:
    """Distance of the two farthest of planar points in space (N, 3); 0 for one point."""
    moved = points - points.mean(axis=0)
    flat = moved @ np.linalg.svd(moved, full_matrices=False)[2][:2].T  # along the two largest extents
    if len(points) < 3 or np.ptp(flat[:, 1]) < 1e-6:
        return float(np.ptp(flat[:, 0]))
    return largest_distance(flat)
