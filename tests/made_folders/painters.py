"""Paint what a scanner would see: tissue, lesions and noise, in the value ranges of each modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from made_folders.geometry import FloatArray, Grid
from made_folders.shapes import Shape

Mask = npt.NDArray[np.bool_]

AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, RIB_HU = -1000.0, -850.0, -100.0, 45.0, 500.0


@dataclass(frozen=True, eq=False)
class Painted:
    """An image without a scanner's noise, and where its lesions are.

    Attributes:
        values: HU, relative signal or brightness.
        masks: of each lesion in the order of the shapes, at least half filled voxels.
    """

    values: FloatArray
    masks: tuple[Mask, ...]


# --- CT ---------------------------------------------------------------------------------------------------------------


def paint_lung(grid: Grid, shapes: Sequence[Shape], rng: np.random.Generator) -> Painted:
    """One half of a chest in HU: lung with vessels, chest wall with ribs, mediastinum, air outside.

    The shapes' centres are in mm from the middle of the grid.
    """
    points = grid.points()
    half = grid.half_width_mm
    x, y, z = np.moveaxis(points, -1, 0)
    rim = np.hypot(x / (0.8 * half[0]), y / (0.85 * half[1]))  # 1 on the pleura
    hu = np.full(grid.shape, AIR_HU)
    hu[rim < 1.25] = FAT_HU
    hu[rim < 1.18] = MUSCLE_HU
    slanted = z + rng.uniform(-0.3, 0.3) * y + rng.uniform(0, 20)
    hu[(rim > 1.03) & (rim < 1.12) & (np.sin(slanted * 2 * np.pi / 22) > 0.35)] = RIB_HU
    hu[rim < 1.0] = LUNG_HU
    hu = np.maximum(hu, _vessels(points, half, rng))
    medial = rng.choice([-1, 1]) * x + rng.uniform(0, 3)
    hu[(medial > 0.72 * half[0]) & (rim < 1.25)] = MUSCLE_HU + 5
    hu = ndimage.gaussian_filter(hu, 0.5)
    covers = [shape.cover(points, edge=2.5) for shape in shapes]
    for shape, cover in zip(shapes, covers, strict=True):
        hu += cover * (-260 + 350 * shape.brightness - hu)
    return Painted(hu, tuple(cover >= 0.5 for cover in covers))


def _vessels(points: FloatArray, half: FloatArray, rng: np.random.Generator) -> FloatArray:
    hilum = half * (0.7, 0.0, 0.0) * rng.choice([-1, 1])
    hu = np.full(points.shape[:-1], AIR_HU)
    offset = points - hilum
    for end in rng.uniform(-0.9, 0.9, (9, 3)) * half - hilum:
        along = np.clip(offset @ end / (end @ end), 0, 1)
        distance = np.linalg.norm(offset - along[..., None] * end, axis=-1)
        radius = 2.2 * (1 - 0.75 * along)
        hu = np.maximum(hu, AIR_HU + 1030 * np.clip((radius - distance) / 1.5 + 0.5, 0, 1))
    return hu


def reconstruct_ct(
    hu: FloatArray, rng: np.random.Generator, *, noise_hu: float = 22.0, sharp: bool = False
) -> npt.NDArray[np.int16]:
    """Add a kernel's noise, and its overshoot at edges where it is sharp; whole HU from -1024 on."""
    noise = rng.normal(0, 1, hu.shape)
    if sharp:
        hu = hu + 0.6 * (hu - ndimage.gaussian_filter(hu, 0.8))
        noise *= 2.5
    else:
        noise = ndimage.gaussian_filter(noise, 0.6) * 2.2
    return np.clip(np.rint(hu + noise_hu * noise), -1024, 3071).astype(np.int16)


# --- MR ---------------------------------------------------------------------------------------------------------------


def paint_head(grid: Grid, shapes: Sequence[Shape], rng: np.random.Generator) -> Painted:
    """A head in T1 weighting after contrast, relative to white matter at 1: scalp, skull, brain, ventricles."""
    points = grid.points()
    half = grid.half_width_mm
    size = half * rng.uniform(0.94, 1.0, 3) * (0.8, 0.92, 0.92)
    depth = np.linalg.norm(points / size, axis=-1)  # 1 on the skin
    signal = np.zeros(grid.shape)
    signal[depth < 1.0] = 0.75  # scalp
    signal[depth < 0.93] = 0.12  # skull
    signal[depth < 0.86] = 0.25  # cerebrospinal fluid
    folds = ndimage.gaussian_filter(rng.standard_normal(grid.shape), 1.2)
    gray = depth + 0.35 * folds > 0.66
    brain = depth < 0.82
    signal[brain] = np.where(gray, 0.68, 1.0)[brain]
    ventricles = np.minimum(
        *(np.linalg.norm((points - side) / (4.5, 15, 9), axis=-1) for side in ((6, 0, 4), (-6, 0, 4)))
    )
    signal[ventricles < 1] = 0.25
    signal = ndimage.gaussian_filter(signal, 0.5)
    covers = [shape.cover(points, edge=3.5) for shape in shapes]
    for shape, cover in zip(shapes, covers, strict=True):
        signal += cover * (1.0 + 0.8 * shape.brightness - signal)
    return Painted(signal, tuple(cover >= 0.5 for cover in covers))


def acquire_mr(signal: FloatArray, rng: np.random.Generator, *, gain: float) -> FloatArray:
    """A coil's sensitivity, magnitude (Rician) noise and a scanner's gain, in arbitrary units from 0."""
    ramps = [np.linspace(-1, 1, size).reshape([-1 if axis == n else 1 for n in range(3)])
             for axis, size in enumerate(signal.shape)]  # fmt: skip
    bias = 1 + sum(float(rng.uniform(-0.08, 0.08)) * ramp for ramp in ramps)
    real, imaginary = rng.normal(0, 0.035, (2, *signal.shape))
    return gain * np.hypot(signal * bias + real, imaginary)


# --- ultrasound -------------------------------------------------------------------------------------------------------


def paint_ultrasound(size: tuple[int, int], shapes: Sequence[Shape], rng: np.random.Generator) -> Painted:
    """A breast under the probe, brightness 0 to 255, shape (rows, columns); lesions are darker than the gland.

    Malignant ones are larger, darker (the shapes' ``brightness`` counts down here) and cast a shadow. The shapes'
    centres are (row, column).
    """
    rows, columns = size
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    points = np.stack([row, column], -1).astype(float)
    echo = 105 + 12 * np.sin(row / 4 + 0.6 * np.sin(column / 11 + rng.uniform(0, 6)))
    echo[row < 0.07 * rows] = 190  # skin
    echo = np.where(row > 0.86 * rows, 80 + 25 * np.sin(row * 1.3), echo)  # muscle
    echo = echo * np.exp(-row / (4 * rows))
    covers = [shape.cover(points, edge=2.0) for shape in shapes]
    for shape, cover in zip(shapes, covers, strict=True):
        below = (row > shape.center[0]) & (np.abs(column - shape.center[1]) < 0.7 * shape.radius)
        echo = np.where(below, echo * (1.15 - 0.6 * shape.looks), echo)
        echo += cover * (70 - 62 * shape.brightness - echo)
    speckle = ndimage.gaussian_filter(rng.rayleigh(0.8, size), 0.6)
    return Painted(np.clip(echo * speckle / speckle.mean(), 0, 255), tuple(cover >= 0.5 for cover in covers))


# --- mammography ------------------------------------------------------------------------------------------------------


def paint_mammogram(
    size: tuple[int, int], shapes: Sequence[Shape], rng: np.random.Generator, *, chest_wall: str, oblique: bool
) -> Painted:
    """A breast from its chest wall (``left`` or ``right`` of the picture), 0 (air) to 1, shape (rows, columns).

    The shapes' centres are (row, column).
    """
    rows, columns = size
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    points = np.stack([row, column], -1).astype(float)
    from_wall = column if chest_wall == "left" else columns - 1 - column
    edge = np.hypot((row - rows / 2) / (0.47 * rows), from_wall / (0.85 * columns))
    breast = np.clip((1 - edge) / 0.12, 0, 1)
    gland = ndimage.gaussian_filter(rng.standard_normal(size), 3.0)
    gland = 0.05 * gland / gland.std()
    tissue = (0.27 + gland + 0.05 * np.exp(-(((edge - 0.4) / 0.3) ** 2))) * breast
    if oblique:  # the pectoral muscle
        tissue[(row / rows + 1.6 * from_wall / columns < 0.45) & (breast > 0)] += 0.18
    covers = [shape.cover(points, edge=2.5) for shape in shapes]
    for shape, cover in zip(shapes, covers, strict=True):
        tissue += cover * (0.22 + 0.38 * shape.brightness) * breast
        for spot in np.rint(shape.center + rng.normal(0, 0.5 * shape.radius, (round(6 * shape.looks), 2))).astype(int):
            tissue[tuple(np.clip(spot, 0, np.array(size) - 1))] += 0.12  # a microcalcification
    noisy = tissue + rng.normal(0, 0.012, size)
    return Painted(np.clip(noisy, 0, 1), tuple(cover >= 0.5 for cover in covers))
