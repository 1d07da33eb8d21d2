"""What fills a simulated half of a chest, slab by slab: lung, chest wall, heart, mediastinum and abdomen.

Everything here is background that holds no nodule. Randomness is drawn once a scan (``draw_tissues``), so a slab looks
the same wherever slabs begin and end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.datasets.chest_anatomy import ChestWall, FineGrid, draw_chest_wall, wall_tissue
from pipeline.datasets.rendering import Scanner, ramp
from pipeline.datasets.whole_scans.thorax import CoarseField, Thorax, random_field
from pipeline.imaging.image import FloatArray

AIR_HU = -1000.0
EDGE_MM = 0.9  # over which one tissue goes over into the next
RIB_PERIMETER_MM = 90.0  # converts the angle around the body's middle to mm along the wall


@dataclass(frozen=True, eq=False)
class Tissues:
    """Random parts of the background of one scan.

    Attributes:
        wall: fat, muscles and ribs.
        mottling: of the parenchyma, in standard deviations; its grain is finer than what a nodule is.
        density: the same, coarser: lobules that hold more or less air.
        fat: where the mediastinum is fat, and how the liver's density varies.
        ripple: mm by which surfaces depart from smooth ones.
        gravity_hu: HU a mm towards the back.
        heart_shifts: mm that the heart's border moves between two moments, as functions of z: amplitude, period, phase.
        fissure_hu: of each fissure how much brighter than lung it is, 0 where it is not seen.
        fat_hu: fat.
        organ_hu: liver or spleen.
    """

    wall: ChestWall
    mottling: CoarseField
    density: CoarseField
    fat: CoarseField
    ripple: CoarseField
    gravity_hu: float
    heart_shifts: tuple[tuple[float, float, float], ...]
    fissure_hu: tuple[float, ...]
    fat_hu: float
    organ_hu: float


def draw_tissues(thorax: Thorax, *, contrast: bool, slice_mm: float, rng: np.random.Generator) -> Tissues:
    """Draw the background of one scan.

    Args:
        thorax: the shapes.
        contrast: whether a contrast agent was given.
        slice_mm: distance of the slices; the heart moves from one to the next.
        rng: the scan's own randomness.
    """
    # Ribs fall from the back to the front.
    wall = replace(draw_chest_wall(rng), slant=rng.uniform(0.3, 0.6))
    moves = rng.uniform(0.5, 4.0)
    return Tissues(
        wall=wall,
        mottling=random_field(2.2, rng),
        density=random_field(11.0, rng),
        fat=random_field(9.0, rng),
        ripple=random_field(7.0, rng),
        gravity_hu=rng.uniform(0.1, 0.9),
        heart_shifts=tuple(
            (moves * rng.uniform(0.6, 1.0), slice_mm * rng.uniform(2.5, 8), rng.uniform(0, 2 * np.pi)) for _ in range(2)
        ),
        fissure_hu=tuple(rng.uniform(120, 420) * (rng.random() < 0.9) for _ in thorax.fissures),
        fat_hu=rng.normal(-105, 8),
        organ_hu=rng.normal(115 if contrast else 55, 12),
    )


def paint_background(thorax: Thorax, tissues: Tissues, scanner: Scanner, grid: FineGrid) -> FloatArray:
    """HU of a slab without vessels, bronchi and nodules."""
    ripple = np.float32(0.7) * tissues.ripple.on(grid)
    cavity = thorax.cavity.on(grid)
    # The wall is smooth where the lung slides along it; the mediastinum and diaphragm are less so.
    depth = cavity + np.float32(0.4) * ripple
    heart = thorax.heart.on(grid) + ripple
    mediastinum = thorax.mediastinum.on(grid) + 2 * ripple
    abdomen = thorax.abdomen.on(grid) + ripple
    still = np.minimum(np.minimum(depth, -mediastinum), -abdomen)
    lung = np.zeros_like(depth)
    for amplitude, period, phase in tissues.heart_shifts:
        shift = np.float32(amplitude) * np.sin(2 * np.pi * grid.z / np.float32(period) + np.float32(phase))
        lung += np.float32(0.5) * ramp(np.minimum(still, -(heart + shift)), EDGE_MM)
    hu = _soft_tissue(thorax, tissues, scanner, grid, (cavity, heart, abdomen))
    hu += lung * (_parenchyma(thorax, tissues, scanner, grid) - hu)
    return hu


def _parenchyma(thorax: Thorax, tissues: Tissues, scanner: Scanner, grid: FineGrid) -> FloatArray:
    hu = np.float32(scanner.lung_sd_hu) * tissues.mottling.on(grid)
    hu += np.float32(0.5 * scanner.lung_sd_hu) * tissues.density.on(grid)
    # Blood collects at the back of a patient who lies on it.
    hu += (np.float32(scanner.lung_hu) + np.float32(tissues.gravity_hu) * grid.y)[:, None]
    wave = np.float32(2.5) * tissues.ripple.on(grid)
    for (point, normal), bright in zip(thorax.fissures, tissues.fissure_hu, strict=True):
        if bright:
            x, y, z = (
                (axis - np.float32(p)) * np.float32(n)
                for axis, p, n in zip((grid.x, grid.y, grid.z), point, normal, strict=True)
            )
            distance = x[:, None, None] + y[:, None] + z + wave
            hu += np.float32(bright) * np.exp(-(distance**2) / np.float32(0.7))
    return np.asarray(hu, np.float32)


def _soft_tissue(
    thorax: Thorax, tissues: Tissues, scanner: Scanner, grid: FineGrid, depths: tuple[FloatArray, ...]
) -> FloatArray:
    """Everything but lung: chest wall outside the cavity; heart, fat and vessels, and the abdomen, inside it."""
    cavity, heart, abdomen = depths
    fat = tissues.fat.on(grid)
    hu = np.full(cavity.shape, scanner.soft_hu, np.float32)
    # Fat between the structures of the mediastinum and around the heart.
    hu += ramp(fat - np.float32(0.3), 0.8) * np.float32(tissues.fat_hu - scanner.soft_hu)
    blood = np.float32(scanner.vessel_hu)
    hu += ramp(heart - 5, 2.0) * (blood - hu)
    organ = ramp(abdomen - 2, 1.5)
    hu += organ * (np.float32(tissues.organ_hu) + 8 * fat - hu)
    outside = np.flatnonzero(cavity < 1)
    u = thorax.lateral(grid.x)
    along = (np.float32(RIB_PERIMETER_MM) * np.arctan2(grid.y, u[:, None])).reshape(-1)
    tissue = np.full(outside.shape, scanner.soft_hu, np.float32)
    planes = len(grid.z)
    wall_depth = -cavity.reshape(-1)[outside]
    wall_tissue(tissue, wall_depth, along[outside // planes], grid.z[outside % planes], tissues.wall)
    # Below the skin there is fat, then air outside.
    skin = thorax.body.on(grid).reshape(-1)[outside]
    tissue += ramp(7 - skin, 4.0) * (np.float32(tissues.fat_hu) - tissue)
    tissue += ramp(1.6 - skin, 0.8) * (np.float32(scanner.soft_hu) - tissue)
    tissue += ramp(-skin, EDGE_MM) * (np.float32(AIR_HU) - tissue)
    flat = hu.reshape(-1)
    flat[outside] += ramp(wall_depth + np.float32(0.5), 1.0) * (tissue - flat[outside])
    return hu
