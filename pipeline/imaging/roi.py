"""The grid that the network sees, and linear resampling of the stored box that it touches.

The grid's axes run along the image's own axes (those nearest to R, A and S), so that linear interpolation is
separable: three small 1-D interpolations on a box, instead of a transform of the whole volume. Where the image's axes
are more than half a degree from right angles, the grid has right angles of its own (see ``roi_tilted``); up to there,
distances are wrong by 1 % at most. The reference is MONAI's `SpatialResample` of the whole volume onto the same grid.

Lesion grids have N nodes an axis; node ``N // 2`` lies exactly on the lesion's centre (for 64: index 32, that is 32
nodes before it and 31 after). Image grids are symmetric about the image's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import is_tilted, nearest_axes
from pipeline.imaging.image import Affine, Box, Float32Array, spacing_mm
from pipeline.imaging.roi_tilted import TiltedGrid, tilted_grid

ABSURD_MM = 10_000.0  # no scanner's table is this long
# A voxel reaches half its width to either side of its centre; the thousandth absorbs an affine's rounding.
_REACH = 0.501


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the nodes lie in the stored image.

    Attributes:
        coordinates: for R, A and S in turn, the nodes' positions along the stored axis, in voxels, shape (N,).
        stored_axes: for R, A and S in turn, which stored axis that is.
        box: of the stored image; holds every voxel that the nodes inside the image touch.
        inside: for R, A and S in turn, which nodes lie in the image, shape (N,).
        affine: (4, 4), grid index → RAS+ world mm.
    """

    coordinates: tuple[NDArray[np.float64], ...]
    stored_axes: tuple[int, ...]
    box: Box
    inside: tuple[NDArray[np.bool_], ...]
    affine: Affine

    @property
    def share_inside(self) -> float:
        """Share of the nodes that lie in the image, in [0, 1]."""
        return float(np.prod([axis.mean() for axis in self.inside]))

    def resample(self, box_voxels: Float32Array) -> Float32Array:
        """Linear interpolation of the box at the nodes inside the image.

        Args:
            box_voxels: the stored voxels of ``box``.

        Returns:
            Shape (r, a, s): the nodes inside the image only, in RAS order. ``pad`` puts them in their place.
        """
        values = box_voxels.transpose(self.stored_axes)
        # The longest box axis for each node goes first: it shrinks what the next ones work on.
        for world in sorted(range(3), key=lambda axis: self.inside[axis].sum() / values.shape[axis]):
            first = self.box[self.stored_axes[world]].start
            last = values.shape[world] - 1
            nodes = np.clip(self.coordinates[world][self.inside[world]] - first, 0, last)
            low = np.minimum(np.floor(nodes).astype(np.intp), max(last - 1, 0))
            weight = (nodes - low).astype(np.float32).reshape([-1 if axis == world else 1 for axis in range(3)])
            below = values.take(low, axis=world)
            below *= 1 - weight  # in place: a whole scan has no memory to spare
            above = values.take(np.minimum(low + 1, last), axis=world)
            above *= weight
            below += above
            values = below
        return values

    def pad(self, values: Float32Array, constant: float) -> Float32Array:
        """The whole grid, with a constant at the nodes outside the image; C-contiguous (R, A, S)."""
        padded: Float32Array = np.full([axis.size for axis in self.inside], constant, np.float32)
        padded[np.ix_(*self.inside)] = values
        return padded

    def distances_mm(self, spacing: Sequence[float]) -> Float32Array:
        """Distances of the nodes inside the image from the lesion's node, shape as ``resample`` gives them."""
        steps = zip(self.inside, spacing, strict=True)
        axes = [(np.flatnonzero(nodes) - nodes.size // 2) * mm for nodes, mm in steps]
        distances: Float32Array = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
        return distances


def lesion_grid(
    path: Path,
    shape: tuple[int, int, int],
    affine: Affine,
    *,
    center_mm: tuple[float, float, float],
    size: tuple[int, ...],
    spacing: tuple[float, ...],
) -> Grid | TiltedGrid:
    """The grid around a lesion.

    Args:
        path: named in errors.
        shape: of the stored image.
        affine: stored voxel index → RAS+ world mm.
        center_mm: the lesion's centre, RAS mm.
        size: nodes along R, A and S.
        spacing: mm between nodes along R, A and S.

    Raises:
        CaseError: E_CENTER for a centre that is no place, E_ROI_OUTSIDE for one outside the image.
    """
    if not np.isfinite(center_mm).all() or np.abs(center_mm).max() > ABSURD_MM:
        raise CaseError(
            Code.E_CENTER,
            path,
            f"lesion centre {_text(center_mm)} mm, expected finite numbers below {ABSURD_MM:g} mm; check its columns",
        )
    center = np.linalg.solve(affine, np.array([*center_mm, 1.0]))[:3]
    if (center < -_REACH).any() or (center > np.array(shape) - 1 + _REACH).any():
        raise CaseError(
            Code.E_ROI_OUTSIDE,
            path,
            f"the lesion centre lies at voxel {_text(center)} of an image of {_text(shape)}; "
            "check coordinate_system (RAS or LPS) and that the centre belongs to this scan",
        )
    return _grid(path, shape, affine, center, [length // 2 for length in size], size, spacing)


def image_grid(
    path: Path, shape: tuple[int, int, int], affine: Affine, *, size: tuple[int, ...], spacing: tuple[float, ...]
) -> Grid | TiltedGrid:
    """The grid about the image's centre; it reaches beyond a smaller image and leaves out the rim of a larger one."""
    center = (np.array(shape) - 1) / 2
    return _grid(path, shape, affine, center, [(length - 1) / 2 for length in size], size, spacing)


def _grid(
    path: Path,
    shape: tuple[int, int, int],
    affine: Affine,
    center: NDArray[np.float64],
    origin: list[float] | list[int],
    size: tuple[int, ...],
    spacing: tuple[float, ...],
) -> Grid | TiltedGrid:
    plane = _without_thickness(shape, affine)
    if is_tilted(plane):
        return tilted_grid(path, shape, plane, center=center, origin=origin, size=size, spacing=spacing, reach=_REACH)
    axes = nearest_axes(affine, path)
    zooms = spacing_mm(affine)
    coordinates, inside, parts = [], [], [slice(0)] * 3
    to_stored = np.eye(4)  # grid index -> stored index
    to_stored[:3, :3] = 0
    for world, (stored, sign) in enumerate(axes):
        step = sign * spacing[world] / zooms[stored]
        nodes = center[stored] + (np.arange(size[world]) - origin[world]) * step
        last = shape[stored] - 1
        within = (nodes >= -_REACH) & (nodes <= last + _REACH)
        if not within.any():
            raise CaseError(
                Code.E_SHAPE,
                path,
                f"{shape[stored]} voxels of {zooms[stored]:.3g} mm, less than the {spacing[world]:g} mm between nodes",
            )
        touched = np.clip(nodes[within], 0, last)
        parts[stored] = slice(int(np.floor(touched.min())), min(int(np.floor(touched.max())) + 2, last + 1))
        to_stored[stored, world], to_stored[stored, 3] = step, nodes[0]
        coordinates.append(nodes)
        inside.append(within)
    box = parts[0], parts[1], parts[2]
    return Grid(tuple(coordinates), tuple(stored for stored, _ in axes), box, tuple(inside), affine @ to_stored)


def _without_thickness(shape: tuple[int, int, int], affine: Affine) -> Affine:
    """The affine, with the direction across a single slice along its normal: nothing lies in that direction."""
    flat = [axis for axis, length in enumerate(shape) if length == 1]
    if len(flat) != 1:
        return affine
    straight = affine.copy()
    normal = np.cross(affine[:3, (flat[0] + 1) % 3], affine[:3, (flat[0] + 2) % 3])
    normal *= np.sign(normal @ affine[:3, flat[0]]) / np.linalg.norm(normal)
    straight[:3, flat[0]] = normal * np.linalg.norm(affine[:3, flat[0]])
    return straight


def _text(values: object) -> str:
    return " x ".join(f"{value:.4g}" for value in np.asarray(values, dtype=float))
