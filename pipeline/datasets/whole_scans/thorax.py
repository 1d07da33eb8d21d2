"""The simulated half of a chest: how deep every point lies in lung, heart, mediastinum, diaphragm and body.

Coordinates are millimetres from the middle of the volume: x to the patient's left, y to the back, z upwards. Shapes are
made from ``u``, the distance from the body's midline to the side, so that one description serves both sides. Depths are
positive inside, in millimetres near the surface (a shape's implicit function over the length of its gradient), and are
kept on a grid of ``STEP_MM``, from which slabs of the fine grid are interpolated: surfaces are smooth, so no detail is
lost, and memory does not grow with the scan's resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datasets.chest_anatomy import FineGrid, Vector
from pipeline.datasets.rendering import interpolation, resample
from pipeline.imaging.image import Float32Array

THORAX_SIZE_MM = (166.0, 186.0, 206.0)  # left-right, front-back, up-down
MIDLINE_MM = 50.0  # from the volume's middle to the body's midline
STEP_MM = 3.0


@dataclass(frozen=True, eq=False)
class CoarseField:
    """Values on a coarse grid that covers the volume, to be interpolated slab by slab.

    Attributes:
        values: shape (len(axes[0]), len(axes[1]), len(axes[2])).
        axes: mm along x, y, z, evenly spaced.
    """

    values: Float32Array
    axes: tuple[Vector, Vector, Vector]

    def on(self, grid: FineGrid) -> Float32Array:
        """Linear interpolation at the fine voxels of a grid, shape (x, y, z)."""
        x, y, z = (
            interpolation(source, target) for source, target in zip(self.axes, (grid.x, grid.y, grid.z), strict=True)
        )
        return resample(self.values, (x, y, z))

    def at(self, points: Vector) -> npt.NDArray[np.float64]:
        """The values at the grid's nearest points; ``points`` has shape (n, 3)."""
        index = tuple(
            np.clip(np.rint((points[:, n] - axis[0]) / (axis[1] - axis[0])).astype(int), 0, len(axis) - 1)
            for n, axis in enumerate(self.axes)
        )
        return np.asarray(self.values[index], np.float64)


def random_field(step_mm: float, rng: np.random.Generator) -> CoarseField:
    """A smooth random field over the volume, of mean 0 and standard deviation about 1, with a grain of ``step_mm``."""
    axes = tuple(
        np.arange(-size / 2 - step_mm * rng.uniform(1, 2), size / 2 + 2 * step_mm, step_mm) for size in THORAX_SIZE_MM
    )
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    # Linear interpolation in 3D shrinks the variance to (2/3)^3 on average.
    values = rng.standard_normal(shape, dtype=np.float32) * np.float32(1.5**1.5)
    return CoarseField(values, (axes[0], axes[1], axes[2]))


@dataclass(frozen=True, eq=False)
class Thorax:
    """One simulated half of a chest.

    Attributes:
        side: 1 for the patient's left half, -1 for the right.
        cavity: depth inside the ribs' cage.
        heart: depth inside the heart.
        mediastinum: depth inside the rest of the mediastinum: column of soft tissue, aorta and spine.
        abdomen: depth below the diaphragm.
        body: depth below the skin.
        lung: depth below the pleura, from the others.
        hilum: where vessels and bronchi enter the lung.
        spine_mm: y of the middle of the vertebrae.
        sternum_mm: y of the middle of the breastbone.
        fissures: of each fissure a point of it, and the normal of its plane.
    """

    side: int
    cavity: CoarseField
    heart: CoarseField
    mediastinum: CoarseField
    abdomen: CoarseField
    body: CoarseField
    lung: CoarseField
    hilum: Vector
    spine_mm: float
    sternum_mm: float
    fissures: tuple[tuple[Vector, Vector], ...]

    def lung_points(self, depth_mm: float, *, own: bool = True) -> tuple[Vector, Vector]:
        """Points of the lung deeper than so many mm, and their depth; ``own`` says on which side of the midline."""
        index = np.argwhere(self.lung.values > depth_mm)
        points = np.stack([axis[index[:, n]] for n, axis in enumerate(self.lung.axes)], axis=1)
        chosen = (self.side * points[:, 0] > -MIDLINE_MM) == own
        return points[chosen], self.lung.values[tuple(index[chosen].T)].astype(float)

    def lateral(self, x: Float32Array) -> Float32Array:
        """Distance from the midline towards the side, for x in mm."""
        return np.asarray(np.float32(MIDLINE_MM) + np.float32(self.side) * x, np.float32)


def place(side: int, u: float, y: float, z: float) -> Vector:
    """A point given by its distance from the midline."""
    return np.array([side * (u - MIDLINE_MM), y, z])


def draw_thorax(rng: np.random.Generator) -> Thorax:
    """Draw one half of a chest: side, widths, heart, dome of the diaphragm and fissures."""
    side = int(rng.choice([-1, 1]))
    axes = tuple(np.arange(-size / 2 - STEP_MM, size / 2 + 2 * STEP_MM, STEP_MM) for size in THORAX_SIZE_MM)
    x, y, z = (axis.reshape([-1 if n == k else 1 for k in range(3)]) for n, axis in enumerate(axes))
    u = MIDLINE_MM + side * x
    half_width, half_depth = rng.uniform(106, 116), rng.uniform(66, 74)
    cavity = _cavity(u, y, z, half_width, half_depth, rng)
    body = _oval(u, y, half_width + rng.uniform(17, 26), half_depth + rng.uniform(15, 22), 2.5) + 0 * z
    dome = rng.uniform(-62, -42)
    high = dome - (u - rng.uniform(45, 60)) ** 2 / rng.uniform(100, 150) - (y + 5) ** 2 / rng.uniform(90, 140)

    def field(values: npt.NDArray[np.float64]) -> CoarseField:
        values = np.broadcast_to(values, tuple(len(axis) for axis in axes))
        gradient = np.sqrt(sum(g**2 for g in np.gradient(values, STEP_MM)))
        depth = np.clip(values / np.maximum(gradient, 0.25), -60, 60)
        return CoarseField(depth.astype(np.float32), (axes[0], axes[1], axes[2]))

    cage, heart = field(cavity), field(_heart(u, y, z, side, rng))
    mediastinum, abdomen = field(_mediastinum(u, y, z, side, half_depth, rng)), field(high - z)
    lung = np.minimum.reduce([cage.values, -heart.values, -mediastinum.values, -abdomen.values])
    return Thorax(
        side=side,
        cavity=cage,
        heart=heart,
        mediastinum=mediastinum,
        abdomen=abdomen,
        body=field(body),
        lung=CoarseField(lung, cage.axes),
        hilum=place(side, rng.uniform(30, 38), rng.uniform(0, 14), rng.uniform(2, 16)),
        spine_mm=half_depth + 2,
        sternum_mm=-half_depth - 4,
        fissures=_fissures(side, rng),
    )


def _oval(u: Vector, y: Vector, half_width: Vector | float, half_depth: Vector | float, power: float) -> Vector:
    """1 minus the scaled radius of a superellipse, in mm of its mean radius."""
    radius = ((np.abs(u) / half_width) ** power + (np.abs(y) / half_depth) ** power) ** (1 / power)
    return np.asarray((1 - radius) * np.sqrt(half_width * half_depth))


def _cavity(u: Vector, y: Vector, z: Vector, half_width: float, half_depth: float, rng: np.random.Generator) -> Vector:
    apex, shoulder = rng.uniform(78, 94), rng.uniform(-10, 15)
    rise = np.clip((z - shoulder) / (apex - shoulder), 0, 0.999)
    scale = (1 - rise**2.4) ** (1 / 2.4)
    beyond = np.clip(z - apex, 0, None)  # no cavity above the apex
    return np.asarray(_oval(u, y, half_width * scale, half_depth * scale, 2.4) * scale - beyond)


def _heart(u: Vector, y: Vector, z: Vector, side: int, rng: np.random.Generator) -> Vector:
    """An ellipsoid behind the sternum, most of it in the left half."""
    centre = 22.0 if side > 0 else -14.0
    wide, deep, high = rng.uniform(46, 56), rng.uniform(36, 42), rng.uniform(44, 54)
    low = rng.uniform(-52, -40)
    radius = np.sqrt(((u - centre) / wide) ** 2 + ((y + 22) / deep) ** 2 + ((z - low) / high) ** 2)
    return np.asarray((1 - radius) * (wide * deep * high) ** (1 / 3))


def _mediastinum(u: Vector, y: Vector, z: Vector, side: int, half_depth: float, rng: np.random.Generator) -> Vector:
    column = rng.uniform(17, 24) - np.abs(u) - 0.25 * np.clip(-y - 20, 0, None) + 0 * y
    spine = 27 - np.sqrt(u**2 + (y - half_depth - 4) ** 2)
    parts = [column, spine]
    if side > 0:  # the aorta comes down on the left
        parts.append(rng.uniform(11, 14) - np.sqrt((u - 17) ** 2 + (y - half_depth + 28) ** 2))
    hilum = 14 - np.sqrt((u - 26) ** 2 + (y - 6) ** 2 + ((z - 8) / 1.5) ** 2)
    return np.asarray(np.maximum.reduce(np.broadcast_arrays(*parts, hilum)), float)


def _fissures(side: int, rng: np.random.Generator) -> tuple[tuple[Vector, Vector], ...]:
    oblique = np.array([side * rng.normal(0, 0.12), rng.uniform(0.6, 0.85), -rng.uniform(0.5, 0.7)])
    middle = place(side, 60, rng.uniform(-2, 12), rng.uniform(-20, -5))
    planes = [(middle, oblique / np.linalg.norm(oblique))]
    if side < 0:  # the right lung has a third lobe
        level = np.array([rng.normal(0, 0.1), rng.normal(0, 0.1), 1.0])
        planes.append((place(side, 60, -30, rng.uniform(-5, 15)), level / np.linalg.norm(level)))
    return tuple(planes)
