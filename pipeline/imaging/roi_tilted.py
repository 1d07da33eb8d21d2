"""The grid that the network sees in an image whose axes are not at right angles, as after a gantry tilt.

On a grid along the axes of such an image, oblique distances are wrong: at a tilt of 15 degrees, a ball of 10 mm would
be stretched by 1.4 mm along one diagonal and compressed along the other. So the grid has right angles of its own: the
nearest to the image's axes, each turned by half of the tilt at most. It does not depend on the
order in which axes are stored, and without a tilt it is the grid along the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import nearest_axes, right_angles
from pipeline.imaging.image import Affine, Box, Float32Array


@dataclass(frozen=True, eq=False)
class TiltedGrid:
    """Where the nodes lie in the stored image.

    Attributes:
        to_stored: (4, 4), grid index → stored index.
        box: of the stored image; holds every voxel that the nodes inside the image touch.
        shape: of the stored image.
        inside: which nodes lie in the image, shape (R, A, S).
        affine: (4, 4), grid index → RAS+ world mm.
    """

    to_stored: Affine
    box: Box
    shape: tuple[int, int, int]
    inside: NDArray[np.bool_]
    affine: Affine

    @property
    def share_inside(self) -> float:
        """Share of the nodes that lie in the image, in [0, 1]."""
        return float(self.inside.mean())

    def resample(self, box_voxels: Float32Array) -> Float32Array:
        """Linear interpolation at the nodes inside the image, shape (count,), in the order of ``inside``."""
        from scipy.ndimage import map_coordinates  # not for the many scans that are not tilted

        first = np.array([part.start for part in self.box])
        last = np.array(self.shape) - 1
        planes = []
        for number in range(self.inside.shape[0]):  # a plane at a time: coordinates take six times a plane's memory
            stored = _stored(self.to_stored, number, self.inside.shape)[:, self.inside[number]]
            stored = np.clip(stored, 0, last[:, np.newaxis]) - first[:, np.newaxis]
            planes.append(map_coordinates(box_voxels, stored, output=np.float32, order=1, mode="nearest"))
        values: Float32Array = np.concatenate(planes)
        return values

    def pad(self, values: Float32Array, constant: float) -> Float32Array:
        """The whole grid, with a constant at the nodes outside the image; C-contiguous (R, A, S)."""
        padded: Float32Array = np.full(self.inside.shape, constant, np.float32)
        padded[self.inside] = values
        return padded

    def distances_mm(self, spacing: Sequence[float]) -> Float32Array:
        """Distances of the nodes inside the image from the lesion's node, in the order of ``resample``."""
        axes = [(np.arange(size) - size // 2) * mm for size, mm in zip(self.inside.shape, spacing, strict=True)]
        grid = np.meshgrid(*axes, indexing="ij")
        distances: Float32Array = np.sqrt(sum(np.square(axis) for axis in grid))[self.inside]
        return distances


def tilted_grid(
    path: Path,
    shape: tuple[int, int, int],
    affine: Affine,
    *,
    center: NDArray[np.float64],
    origin: Sequence[float],
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    reach: float,
) -> TiltedGrid:
    """The grid about a place.

    Args:
        path: named in errors.
        shape: of the stored image.
        affine: stored voxel index → RAS+ world mm.
        center: stored index that the node ``origin`` lies on.
        origin: index in the grid, for R, A and S.
        size: nodes along R, A and S.
        spacing: mm between nodes along R, A and S.
        reach: how far a voxel reaches beyond its centre, in voxels.

    Raises:
        CaseError: E_SHAPE when no node lies in the image.
    """
    directions = right_angles(affine)
    to_world = np.eye(4)
    for world, (stored, sign) in enumerate(nearest_axes(affine, path)):
        to_world[:3, world] = sign * directions[:, stored] * spacing[world]
    to_world[:3, 3] = affine[:3, :3] @ center + affine[:3, 3] - to_world[:3, :3] @ np.asarray(origin, dtype=np.float64)
    to_stored = np.linalg.inv(affine) @ to_world
    last = np.array(shape)[:, np.newaxis, np.newaxis] - 1
    inside = np.zeros(size, dtype=bool)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for number in range(size[0]):
        nodes = _stored(to_stored, number, size)
        inside[number] = ((nodes >= -reach) & (nodes <= last + reach)).all(axis=0)
        if inside[number].any():
            touched = nodes[:, inside[number]]
            low, high = np.minimum(low, touched.min(axis=1)), np.maximum(high, touched.max(axis=1))
    if not inside.any():
        raise CaseError(Code.E_SHAPE, path, "no node of the grid lies in the image; it is smaller than their distance")
    low, high = np.clip(low, 0, last.ravel()), np.clip(high, 0, last.ravel())
    parts = [slice(int(a), min(int(b) + 2, length)) for a, b, length in zip(low, high, shape, strict=True)]
    return TiltedGrid(to_stored, (parts[0], parts[1], parts[2]), shape, inside, to_world)


def _stored(to_stored: Affine, number: int, size: Sequence[int]) -> NDArray[np.float64]:
    """Stored indices of the nodes of one R plane, shape (3, A, S)."""
    along, up = np.arange(size[1])[:, np.newaxis], np.arange(size[2])[np.newaxis, :]
    rows = [row[0] * number + row[1] * along + row[2] * up + row[3] for row in to_stored[:3]]
    return np.stack(rows)
