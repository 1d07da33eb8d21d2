"""Surroundings of a simulated lesion: the pixel grid, vessels, chest wall, heart and diaphragm.

They do not depend on the lesion, but on random numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.imaging.image import Box, Float32Array

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FineGrid:
    """Where a case's voxels lie, in mm from the lesion's centroid.

    Attributes:
        x: pixel centres along the columns.
        y: pixel centres along the rows.
        z: centres of the fine planes that objects are painted on.
        slices: centres of the image's slices.
        slice_weights: how much of each plane each slice sees, shape (len(slices), len(z)), rows summing to 1.
    """

    x: Float32Array
    y: Float32Array
    z: Float32Array
    slices: Float32Array
    slice_weights: Float32Array

    @property
    def pixel_mm(self) -> float:
        """In-plane pixel spacing."""
        return float(self.x[1] - self.x[0])

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """The index box whose voxel centres lie between two corners."""
        crossed = [
            slice(int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b, side="right")))
            for axis, a, b in zip((self.x, self.y, self.z), low, high, strict=True)
        ]
        return crossed[0], crossed[1], crossed[2]

    def cut(self, box: Box) -> FineGrid:
        """The grid of a box of the fine planes."""
        return FineGrid(self.x[box[0]], self.y[box[1]], self.z[box[2]], self.slices, self.slice_weights)

    def around(self, centre_mm: Vector) -> FineGrid:
        """The same voxels, counted from another point."""
        x, y, z = (np.float32(value) for value in centre_mm)
        return FineGrid(self.x - x, self.y - y, self.z - z, self.slices - z, self.slice_weights)


def make_grid(
    pixel_mm: float, slice_spacing_mm: float, slice_thickness_mm: float, low_mm: Vector, high_mm: Vector
) -> FineGrid:
    """Lay pixels and slices from one corner to at least the other, and planes of at most 1 mm through the slices."""
    low, high = low_mm.tolist(), high_mm.tolist()
    x, y, slices = (
        (low[axis] + step * np.arange(math.ceil((high[axis] - low[axis]) / step) + 1)).astype(np.float32)
        for axis, step in enumerate((pixel_mm, pixel_mm, slice_spacing_mm))
    )
    # Objects have soft edges, so planes of 1 mm are fine enough.
    step = slice_spacing_mm / math.ceil(slice_spacing_mm / 1.0)
    bottom_mm, top_mm = low[2] - slice_thickness_mm / 2, float(slices[-1]) + slice_thickness_mm / 2
    z = np.arange(bottom_mm, top_mm + step, step).astype(np.float32)
    # Overlap of each plane's own height with the slice's thickness: an exact box.
    top = np.minimum(z + step / 2, slices[:, None] + slice_thickness_mm / 2)
    bottom = np.maximum(z - step / 2, slices[:, None] - slice_thickness_mm / 2)
    weights = np.maximum(top - bottom, 0)
    return FineGrid(x, y, z, slices, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def vessels(hu: Float32Array, vessel_hu: float, grid: FineGrid, rng: np.random.Generator) -> None:
    """Paint branching, tapering vessels of 1-5 mm into ``hu``, in place; in some cases one runs to the lesion."""
    low = np.array([grid.x[0], grid.y[0], grid.z[0]], float)
    high = np.array([grid.x[-1], grid.y[-1], grid.z[-1]], float)
    hilum = rng.standard_normal(3)
    hilum *= 70 / np.linalg.norm(hilum)
    count = int(rng.gamma(2.5, 60.0)) + 30
    starts = rng.uniform(low - 5, high + 5, (count, 3))
    headings = starts - hilum + rng.normal(0, 38, (count, 3))
    radii = np.minimum(rng.lognormal(np.log(0.75), 0.42, count), 2.5)
    if rng.random() < 0.4:
        # Grown away from the lesion; what lies within it is hidden by it, unless it is ground glass.
        starts[0], headings[0], radii[0] = 0.0, rng.standard_normal(3), rng.uniform(0.5, 1.3)
    points, sizes = _grow(starts, headings, radii, rng)
    fill = np.zeros_like(hu)
    # Balls of like size share one cube of voxels around their centres.
    for smallest, largest in pairwise((0.0, 0.5, 0.65, 0.85, 1.1, 1.5, 2.0, 2.6)):
        group = (sizes > smallest) & (sizes <= largest)
        balls(fill, points[group], sizes[group], largest, grid)
    hu += fill * np.maximum(np.float32(vessel_hu) - hu, 0)


def _grow(
    points: Vector, headings: Vector, radii: Vector, rng: np.random.Generator
) -> tuple[Float32Array, Float32Array]:
    """Grow all vessels at once, segment by segment, tapering and branching until they are too thin.

    Returns:
        Balls that make up the vessels: centres, shape (n, 3), and radii, shape (n,), in mm.
    """
    centres, sizes = [], []
    along = np.arange(0, 1, 1 / 9)
    while len(points):
        headings = headings / np.linalg.norm(headings, axis=1, keepdims=True)
        steps = headings * rng.uniform(5, 8, (len(points), 1))
        centres.append((points[:, None] + along[:, None] * steps[:, None]).reshape(-1, 3))
        sizes.append((radii[:, None] * (1 - 0.08 * along)).reshape(-1))
        points, radii = points + steps, radii * 0.92
        branches = rng.random(len(points)) < 0.3
        turned = headings + rng.normal(0, 0.22, headings.shape)
        aside = headings[branches] + rng.normal(0, 0.6, (int(branches.sum()), 3))
        points = np.vstack([points, points[branches]])
        headings = np.vstack([turned, aside])
        radii = np.concatenate([radii, radii[branches] * rng.uniform(0.55, 0.85, int(branches.sum()))])
        alive = (radii > 0.4) & (rng.random(len(radii)) < 0.85)
        points, headings, radii = points[alive], headings[alive], radii[alive]
    return np.concatenate(centres).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def balls(fill: Float32Array, centres: Float32Array, radii: Float32Array, largest: float, grid: FineGrid) -> None:
    """Raise ``fill`` to 1 inside balls no larger than ``largest`` mm, with an edge of about a pixel."""
    axes = (grid.x, grid.y, grid.z)
    squares, indices = [], []
    for axis, values in enumerate(axes):
        step = values[1] - values[0]
        width = math.ceil((largest + 0.4) / step + 0.5) - 1
        reach = np.arange(-width, width + 1)
        index = np.rint((centres[:, axis, None] - values[0]) / step).astype(np.int32) + reach  # (n, width)
        indices.append(index)
        squares.append((values[0] + index * step - centres[:, axis, None]) ** 2)
    inside = [np.all((i >= 0) & (i < len(values)), axis=1) for i, values in zip(indices, axes, strict=True)]
    is_inside = inside[0] & inside[1] & inside[2]
    (x, y, z), (i, j, k) = ([a[is_inside] for a in arrays] for arrays in (squares, indices))
    distance = np.sqrt(x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :])
    level = np.clip((radii[is_inside][:, None, None, None] - distance) / np.float32(0.8) + np.float32(0.5), 0, 1)
    place = (i[:, :, None, None] * len(grid.y) + j[:, None, :, None]) * len(grid.z) + k[:, None, None, :]
    touched = level > 0
    np.maximum.at(fill.reshape(-1), place[touched], level[touched])


def chest_wall(hu: Float32Array, soft_hu: float, grid: FineGrid, rng: np.random.Generator) -> None:
    """Paint chest wall with ribs, or heart and diaphragm, into ``hu``, in place; one case in ten has none."""
    kind = rng.random()
    if kind < 0.72:
        _tissue(hu, soft_hu, grid, rng, concave=True)
    if 0.45 < kind < 0.93:
        _tissue(hu, soft_hu, grid, rng, concave=False)


def _tissue(hu: Float32Array, soft_hu: float, grid: FineGrid, rng: np.random.Generator, *, concave: bool) -> None:
    direction = rng.standard_normal(3) * (1.0, 1.0, 0.25 if concave else 0.6)
    normal = (direction / np.linalg.norm(direction)).astype(np.float32)
    distance = rng.uniform(3, 19)
    curvature = rng.uniform(60, 130) if concave else rng.uniform(25, 70)
    # Centre of the sphere that the pleura is part of: on the lung's side for the wall, within the heart otherwise.
    centre = normal * np.float32(distance - curvature if concave else distance + curvature)
    wave_x = np.float32(rng.uniform(0.3, 1.2)) * np.sin(grid.x / 9 + np.float32(rng.uniform(0, 6)))
    wave_y = np.float32(rng.uniform(0.3, 1.2)) * np.sin(grid.y / 8 + np.float32(rng.uniform(0, 6)))
    squared = ((grid.x - centre[0]) ** 2)[:, None] + (grid.y - centre[1]) ** 2
    # Ribs and spine make the wall stretch along z, so it is flatter that way.
    flat = np.float32(0.3 if concave else 0.8)
    depth: Float32Array = np.asarray(np.sqrt(squared[:, :, None] + flat * (grid.z - centre[2]) ** 2), np.float32)
    depth -= np.float32(curvature)
    if not concave:
        np.negative(depth, out=depth)
    depth += (wave_x[:, None] + wave_y)[:, :, None]
    inside = np.flatnonzero(depth > -0.5)
    d = depth.reshape(-1)[inside]
    tissue = np.full(d.shape, soft_hu, np.float32)
    if concave:
        position = (grid.y * normal[0] - (grid.x * normal[1])[:, None]).reshape(-1)
        wall = draw_chest_wall(rng)
        wall_tissue(tissue, d, position[inside // len(grid.z)], grid.z[inside % len(grid.z)], wall)
    edge = np.clip(d / np.float32(0.8) + np.float32(0.5), 0, 1)
    flat_hu = hu.reshape(-1)
    old = flat_hu[inside]
    flat_hu[inside] = old + edge * np.maximum(tissue - old, 0)


@dataclass(frozen=True)
class ChestWall:
    """Fat, muscles and ribs of a chest wall, in mm and HU.

    Attributes:
        fat_depth_mm: depth below the pleura from which there is nothing but fat.
        layer_mm: thickness of the muscles' layers across the wall and along it.
        fat_threshold: how rare the layers of fat between the muscles are.
        fat_hu: fat.
        slant: how far a rib rises, mm a mm along the wall.
        period_mm: distance of neighbouring ribs, up and down.
        phase_mm: where the first one lies.
        rib_mm: half a rib's height and half its thickness.
        cortex_hu: a rib's surface.
        marrow_hu: a rib's inside.
    """

    fat_depth_mm: float
    layer_mm: tuple[float, float]
    fat_threshold: float
    fat_hu: float
    slant: float
    period_mm: float
    phase_mm: float
    rib_mm: tuple[float, float]
    cortex_hu: float
    marrow_hu: float


def draw_chest_wall(rng: np.random.Generator) -> ChestWall:
    """Draw the ribs and layers of one chest wall."""
    return ChestWall(
        fat_depth_mm=rng.uniform(14, 30),
        layer_mm=(rng.uniform(1.2, 2.2), rng.uniform(4, 9)),
        fat_threshold=rng.uniform(0.9, 1.9),
        fat_hu=rng.normal(-105, 8),
        slant=rng.uniform(-0.7, 0.7),
        period_mm=rng.uniform(21, 27),
        phase_mm=rng.uniform(0, 30),
        rib_mm=(rng.uniform(4.5, 6.5), rng.uniform(2.8, 4.0)),
        cortex_hu=rng.uniform(450, 900),
        marrow_hu=rng.uniform(80, 220),
    )


def wall_tissue(
    tissue: Float32Array, depth: Float32Array, along: Float32Array, z: Float32Array, wall: ChestWall
) -> None:
    """Paint fat, and ribs with a bright cortex that cross the slices at a slant, into ``tissue``, in place.

    Args:
        tissue: HU of muscle, shape (n,).
        depth: mm below the pleura, shape (n,).
        along: mm along the wall, in the slice, shape (n,).
        z: mm upwards, shape (n,).
        wall: what to paint.
    """
    # Under the skin, and in layers between the muscles.
    fat = np.clip((depth - np.float32(wall.fat_depth_mm)) / 2, 0, 1)
    across_mm, along_mm = wall.layer_mm
    layers = depth / np.float32(across_mm) + along / np.float32(along_mm) + z / 7
    np.maximum(fat, np.clip(2 * np.sin(layers) - np.float32(wall.fat_threshold), 0, 1), out=fat)
    tissue += fat * (np.float32(wall.fat_hu) - tissue)
    period = np.float32(wall.period_mm)
    across = (z + np.float32(wall.slant) * along + np.float32(wall.phase_mm)) % period - period / 2
    high, deep = wall.rib_mm
    ellipse = np.sqrt((across / np.float32(high)) ** 2 + ((depth - np.float32(deep + 2.0)) / np.float32(deep)) ** 2)
    surface = (1 - ellipse) * np.float32(deep)  # depth below the rib's surface, mm
    bone = np.clip(surface / np.float32(0.7) + np.float32(0.5), 0, 1)
    marrow = np.clip((surface - np.float32(1.3)) / np.float32(0.8) + np.float32(0.5), 0, 1)
    cortex = np.float32(wall.cortex_hu)
    tissue += bone * (cortex + marrow * (np.float32(wall.marrow_hu) - cortex) - tissue)
