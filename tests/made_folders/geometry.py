"""Voxel grids in the patient: affines as scanners and programs write them, and where points lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from made_folders.truth import Point

FloatArray = npt.NDArray[np.float64]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DIRECTIONS = {
    "R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid.

    Attributes:
        shape: voxels along the stored axes.
        affine: index -> RAS mm, shape (4, 4).
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    @property
    def spacing_mm(self) -> FloatArray:
        """Between voxels along the stored axes, shape (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def lps(self) -> FloatArray:
        """Index -> LPS mm, as DICOM, ITK and NRRD count."""
        return LPS_TO_RAS @ self.affine

    @property
    def center_mm(self) -> FloatArray:
        """The middle of the grid in RAS mm, shape (3,)."""
        return self.to_mm((np.array(self.shape) - 1) / 2)

    @property
    def half_width_mm(self) -> FloatArray:
        """Half the grid's extent along R, A and S, shape (3,)."""
        return np.abs(self.affine[:3, :3]) @ (np.array(self.shape) / 2)

    def to_mm(self, voxel: Sequence[float] | FloatArray) -> FloatArray:
        """World RAS mm of a (fractional) voxel index."""
        return self.affine[:3, :3] @ np.asarray(voxel, float) + self.affine[:3, 3]

    def to_voxel(self, point_mm: Sequence[float] | FloatArray) -> FloatArray:
        """Fractional voxel index of a point in RAS mm."""
        return np.linalg.solve(self.affine[:3, :3], np.asarray(point_mm, float) - self.affine[:3, 3])

    def points(self) -> FloatArray:
        """RAS mm of all voxels from the middle of the grid, shape (*shape, 3)."""
        index = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1)
        return index @ self.affine[:3, :3].T + (self.affine[:3, 3] - self.center_mm)


def make_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    center_mm: Sequence[float] | FloatArray,
    axes: str = "LAS",
    tilt_degrees: float = 0.0,
) -> Grid:
    """A grid around a point.

    Args:
        axes: where the stored axes run to, as nibabel's ``aff2axcodes`` says it; ``LAS`` is what dcm2niix writes of
            an axial series.
        tilt_degrees: a turn about the left-right axis, as of an oblique acquisition.
    """
    cosine, sine = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([_DIRECTIONS[axis] for axis in axes], float).T * np.asarray(spacing_mm)
    affine[:3, 3] = np.asarray(center_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    # Written files keep float32 or decimal text: a grid that survives both is the same grid in every file.
    return Grid(shape, np.round(affine, 6))


def mask_center(mask: npt.NDArray[np.bool_], grid: Grid) -> tuple[tuple[float, ...], Point]:
    """Centroid of a mask: voxel index, and RAS mm rounded to 0.001."""
    voxel = np.argwhere(mask).mean(0)
    return tuple(np.round(voxel, 4).tolist()), as_point(grid.to_mm(voxel))


def as_point(values: FloatArray, *, decimals: int = 3) -> Point:
    """Three plain floats."""
    x, y, z = (round(float(value), decimals) + 0.0 for value in values)  # + 0.0: no -0.0
    return x, y, z
