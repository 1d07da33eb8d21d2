"""Tissues of a simulated half of a chest, slab by slab: lung, chest wall, heart, mediastinum and abdomen.

They are the background without nodules. Randomness is drawn once a scan (``draw_tissues``), so a slab does not depend
on where slabs begin and end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.datasets.chest_anatomy import ChestWall, FineGrid, Vector, draw_chest_wall, wall_tissue
from pipeline.datasets.rendering import Scanner, ramp
from pipeline.datasets.whole_scans.thorax import CoarseField, Thorax, random_field
from pipeline.imaging.image import Float32Array

OUTSIDE_HU = -1000.0
EDGE_MM = 0.9  # width of the transition between two tissues
RIB_PERIMETER_MM = 90.0  # converts the angle around the body's middle to mm along the wall


@dataclass(frozen=True, eq=False)
class Sheet:
    """Something thin and flat in the lung.

    Attributes:
        point: in its middle, shape (3,).
        normal: across it, of length 1.
        hu: how much brighter than lung it is.
        thickness_mm: distance at which the brightness has fallen to a third.
        reach_mm: from the middle to where it fades, infinite for a fissure.
    """

    point: Vector
    normal: Vector
    hu: float
    thickness_mm: float
    reach_mm: float = np.inf


@dataclass(frozen=True, eq=False)
class Tissues:
    """Random parts of the background of one scan.

    Attributes:
        wall: fat, muscles and ribs.
        mottling: of the parenchyma, in standard deviations; its grain is finer than a nodule.
        density: the same, coarser: lobules that hold more or less air.
        fat: where the mediastinum is fat, and how the liver's density varies.
        ripple: fine unevenness of surfaces, in standard deviations.
        bumps: coarser unevenness of the mediastinum and diaphragm, and flat thickenings of the pleura.
        gravity_hu: HU a mm towards the back.
        heart_shifts: mm that the heart's border is away from its place at two moments of its beat, as functions of z:
            amplitude, period, phase. A slice sees the mean of both, so the border is double and jumps between slices.
        sheets: fissures and bands of scar.
        fat_hu: fat.
        organ_hu: liver or spleen.
    """

    wall: ChestWall
    mottling: CoarseField
    density: CoarseField
    fat: CoarseField
    ripple: CoarseField
    bumps: CoarseField
    gravity_hu: float
    heart_shifts: tuple[tuple[float, float, float], ...]
    sheets: tuple[Sheet, ...]
    fat_hu: float
    organ_hu: float


def draw_tissues(thorax: Thorax, *, contrast: bool, rng: np.random.Generator) -> Tissues:
    """Draw the background of one scan.

    Args:
        thorax: the shapes.
        contrast: whether a contrast agent was given.
        rng: the scan's own randomness.
    """
    # Ribs fall from the back to the front.
    wall = replace(draw_chest_wall(rng), slant=rng.uniform(0.3, 0.6))
    moves, beat = rng.uniform(0.5, 3.0), rng.uniform(8, 22)
    return Tissues(
        wall=wall,
        mottling=random_field(2.2, rng),
        density=random_field(11.0, rng),
        fat=random_field(9.0, rng),
        ripple=random_field(6.0, rng),
        bumps=random_field(14.0, rng),
        gravity_hu=rng.uniform(0.1, 0.9),
        heart_shifts=tuple(
            (moves * rng.uniform(0.6, 1.0), beat * rng.uniform(0.8, 1.2), rng.uniform(0, 2 * np.pi)) for _ in range(2)
        ),
        sheets=_draw_sheets(thorax, rng),
        fat_hu=rng.normal(-105, 8),
        organ_hu=rng.normal(115 if contrast else 55, 12),
    )


def _draw_sheets(thorax: Thorax, rng: np.random.Generator) -> tuple[Sheet, ...]:
    """Fissures, of which nine in ten are seen, and up to three bands of scar near the pleura."""
    sheets = [
        Sheet(point, normal, rng.uniform(120, 420), rng.uniform(0.7, 1.0))
        for point, normal in thorax.fissures
        if rng.random() < 0.9
    ]
    near = np.argwhere((thorax.lung.values > 2) & (thorax.lung.values < 15))
    for index in near[rng.choice(len(near), rng.integers(0, 4))]:
        middle = np.array([axis[n] for axis, n in zip(thorax.lung.axes, index, strict=True)])
        normal = rng.standard_normal(3)
        reach = rng.uniform(5, 14)
        sheets.append(
            Sheet(middle, normal / np.linalg.norm(normal), rng.uniform(300, 750), rng.uniform(0.8, 1.6), reach)
        )
    return tuple(sheets)


def paint_background(
    thorax: Thorax, tissues: Tissues, scanner: Scanner, grid: FineGrid
) -> tuple[Float32Array, Float32Array]:
    """HU of a slab without vessels, bronchi and nodules, and how deep each voxel lies in the lung, mm."""
    ripple, bumps = np.float32(0.25) * tissues.ripple.on(grid), tissues.bumps.on(grid)
    cavity = thorax.cavity.on(grid)
    # The wall is smooth but for flat thickenings of the pleura; the mediastinum and diaphragm are less so.
    depth = cavity + ripple - np.float32(2.2) * np.maximum(bumps - np.float32(1.7), 0)
    heart = thorax.heart.on(grid) + ripple + bumps
    mediastinum = thorax.mediastinum.on(grid) + 2 * (ripple + bumps)
    abdomen = thorax.abdomen.on(grid) + ripple + bumps
    still = np.minimum(np.minimum(depth, -mediastinum), -abdomen)
    lung = np.zeros_like(depth)
    for amplitude, period, phase in tissues.heart_shifts:
        shift = np.float32(amplitude) * np.sin(2 * np.pi * grid.z / np.float32(period) + np.float32(phase))
        lung += np.float32(0.5) * ramp(np.minimum(still, -(heart + shift)), EDGE_MM)
    hu = _soft_tissue(thorax, tissues, scanner, grid, (cavity, heart, abdomen))
    hu += lung * (_parenchyma(tissues, scanner, grid, bumps) - hu)
    return hu, np.asarray(np.minimum(still, -heart), np.float32)


def _parenchyma(tissues: Tissues, scanner: Scanner, grid: FineGrid, bumps: Float32Array) -> Float32Array:
    hu = np.float32(scanner.lung_sd_hu) * tissues.mottling.on(grid)
    hu += np.float32(0.5 * scanner.lung_sd_hu) * tissues.density.on(grid)
    # Blood collects at the back of a patient who lies on it.
    hu += (np.float32(scanner.lung_hu) + np.float32(tissues.gravity_hu) * grid.y)[:, None]
    wave = np.float32(1.6) * bumps
    for sheet in tissues.sheets:
        x, y, z = (axis - np.float32(p) for axis, p in zip((grid.x, grid.y, grid.z), sheet.point, strict=True))
        a, b, c = (np.float32(n) for n in sheet.normal)
        if np.isfinite(sheet.reach_mm) and (z[0] > 2 * sheet.reach_mm or z[-1] < -2 * sheet.reach_mm):
            continue
        distance = (a * x)[:, None, None] + (b * y)[:, None] + c * z + wave
        bright = np.exp(-((distance / np.float32(sheet.thickness_mm)) ** 2))
        if np.isfinite(sheet.reach_mm):
            away = (x**2)[:, None, None] + (y**2)[:, None] + z**2
            bright *= np.exp(-((away / np.float32(sheet.reach_mm**2)) ** 2))
        hu += np.float32(sheet.hu) * bright
    return np.asarray(hu, np.float32)


def _soft_tissue(
    thorax: Thorax, tissues: Tissues, scanner: Scanner, grid: FineGrid, depths: tuple[Float32Array, ...]
) -> Float32Array:
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
    # Above the apex lie the neck's muscles, and no ribs.
    radius = np.hypot(grid.y, u[:, None]).reshape(-1)[outside // planes]
    tissue += ramp(42 - radius, 8.0) * (np.float32(scanner.soft_hu) - tissue)
    # Below the skin there is fat, then air outside.
    skin = thorax.body.on(grid).reshape(-1)[outside]
    tissue += ramp(7 - skin, 4.0) * (np.float32(tissues.fat_hu) - tissue)
    tissue += ramp(1.6 - skin, 0.8) * (np.float32(scanner.soft_hu) - tissue)
    tissue += ramp(-skin, EDGE_MM) * (np.float32(OUTSIDE_HU) - tissue)
    flat = hu.reshape(-1)
    flat[outside] += ramp(wall_depth + np.float32(0.5), 1.0) * (tissue - flat[outside])
    _bones(hu, thorax, tissues, grid)
    return hu


def _bones(hu: Float32Array, thorax: Thorax, tissues: Tissues, grid: FineGrid) -> None:
    """Paint vertebrae with discs between them, and the breastbone, into ``hu``, in place."""
    bone = (tissues.wall.cortex_hu, tissues.wall.marrow_hu)
    spine, sternum = np.float32(thorax.spine_mm), np.float32(thorax.sternum_mm)
    middle = np.flatnonzero(np.abs(thorax.lateral(grid.x)) < 20)
    columns = slice(int(middle[0]), int(middle[-1]) + 1)
    u = thorax.lateral(grid.x[columns])[:, None]
    back = slice(int(np.searchsorted(grid.y, spine - 16)), len(grid.y))
    y = grid.y[back]
    level = (grid.z + np.float32(tissues.wall.phase_mm)) % np.float32(tissues.wall.period_mm)
    disc = np.minimum(level, np.float32(tissues.wall.period_mm) - level) - np.float32(2.5)
    vertebra = np.float32(14) * (1 - np.hypot(u / np.float32(17), (y - spine) / np.float32(14)))
    arch = np.float32(4.5) - np.abs(np.hypot(u, y - spine - np.float32(22)) - np.float32(12))
    _bone(hu[columns, back], np.minimum(vertebra[:, :, None], disc), bone)
    _bone(hu[columns, back], np.minimum(arch[:, :, None], disc + np.float32(4)), bone)
    front = slice(0, int(np.searchsorted(grid.y, sternum + 7)))
    plate = 1 - np.hypot(u / np.float32(17), (grid.y[front] - sternum) / np.float32(5.5))
    # It ends above the diaphragm.
    _bone(hu[columns, front], np.minimum(np.float32(5.5) * plate[:, :, None], grid.z + np.float32(50)), bone)


def _bone(hu: Float32Array, depth: Float32Array, bone: tuple[float, float]) -> None:
    """Paint cortex and marrow where ``depth`` below the bone's surface, mm, is positive."""
    touched = depth > -0.5
    d = depth[touched]
    cortex, marrow = (np.float32(value) for value in bone)
    inside = cortex + ramp(d - np.float32(1.5), 1.0) * (marrow - cortex)
    old = hu[touched]
    hu[touched] = old + ramp(d, EDGE_MM) * (inside - old)
