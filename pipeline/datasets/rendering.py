"""Simulated CT intensities around a real nodule shape.

What is painted depends on four things only: the nodule's consensus shape, one reader's ratings of texture,
calcification and margin (``Painted``), the scan's own geometry, and random numbers drawn per patient (``Scanner``) and
per case. No malignancy rating and no other reader's opinion is used, so an image reveals no more of its label than the
shape and one reader's description do.

A case is built on the scan's pixels in-plane and on a finer grid along z, from soft-edged objects, blurred in-plane,
averaged over the slice thickness, and given noise that is correlated in-plane. Objects are painted brightest wins, as
in a maximum, so a ground-glass lesion does not hide a vessel, nor the chest wall a calcified one.

All arrays are (x, y, z) with x along the image's columns (to the patient's left), y along its rows (to the back) and z
upwards, in millimetres from the lesion's centroid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.datasets.chest_anatomy import FineGrid, chest_wall, vessels
from pipeline.datasets.lidc import NoduleMask
from pipeline.imaging.image import Float32Array

ShortVolume = npt.NDArray[np.int16]

FWHM_TO_SIGMA = 1 / 2.3548
GROUND_GLASS, PART_SOLID, SOLID = 1, 3, 5
CALCIFICATION_ABSENT = 6


@dataclass(frozen=True)
class Painted:
    """The one reading a case is painted from; scales as in ``LidcNodule.ratings``."""

    texture: int
    calcification: int
    margin: int


@dataclass(frozen=True)
class Scanner:
    """Common properties of a patient's images; drawn per patient, independently of the lesions.

    Attributes:
        lung_hu: parenchyma between the visible vessels.
        lung_sd_hu: mottling of the parenchyma.
        noise_sd_hu: pixel noise.
        noise_sigma_px: in-plane correlation of the noise along x and y, as Gaussian sigma in pixels.
        fwhm_mm: in-plane blur.
        soft_hu: muscle and heart.
        vessel_hu: blood in the lung's vessels, with contrast or without.
    """

    lung_hu: float
    lung_sd_hu: float
    noise_sd_hu: float
    noise_sigma_px: tuple[float, float]
    fwhm_mm: float
    soft_hu: float
    vessel_hu: float


def draw_scanner(rng: np.random.Generator, *, contrast: bool) -> Scanner:
    """Draw a patient's scanner; medians and spreads follow real crops (see ``benchmarks/demo_realism.py``)."""
    sigma = float(rng.uniform(0.65, 1.1))
    streaks = float(rng.uniform(0.75, 1.35))
    return Scanner(
        lung_hu=float(np.clip(rng.normal(-860, 45), -945, -765)),
        lung_sd_hu=float(rng.uniform(20, 36)),
        noise_sd_hu=float(np.clip(rng.lognormal(np.log(25), 0.42), 9, 65)),
        noise_sigma_px=(sigma * streaks, sigma / streaks),
        fwhm_mm=float(rng.uniform(0.8, 1.3)),
        soft_hu=float(rng.normal(45, 12)),
        vessel_hu=float(rng.normal(150 if contrast else 45, 35 if contrast else 10)),
    )


def render(
    mask: NoduleMask, painted: Painted, scanner: Scanner, grid: FineGrid, rng: np.random.Generator
) -> ShortVolume:
    """Render one case.

    Args:
        mask: the lesion's shape.
        painted: the ratings to paint it from.
        scanner: the patient's scanner.
        grid: where the pixels lie, in mm from the lesion's centroid.
        rng: the case's own randomness.

    Returns:
        HU, shape (len(grid.x), len(grid.y), len(grid.slices)).
    """
    # One stream each, so that the random numbers of one part do not depend on another part.
    background, vessel, wall, lesion, noise = rng.spawn(5)
    hu = _parenchyma(scanner, grid, background)
    vessels(hu, scanner.vessel_hu, grid, vessel)
    paint_lesion(hu, mask, painted, grid, lesion)
    chest_wall(hu, scanner.soft_hu, grid, wall)
    hu = through_scanner(hu, scanner, grid)
    hu += scanner_noise((len(grid.x), len(grid.y), len(grid.slices)), scanner, noise)
    return stored_values(hu)


def stored_values(hu: Float32Array, step: int = 4) -> ShortVolume:
    """HU from -1024 to about 3070 in steps, which are below the noise and make the files a third smaller."""
    return (step * np.clip(np.rint(hu / step), -1024 // step, 3071 // step)).astype(np.int16)


def interpolation(source: npt.NDArray[np.float64], target: npt.NDArray[np.float32]) -> Float32Array:
    """Matrix of linear interpolation from an evenly spaced axis to another, shape (target, source); ends are held."""
    step = source[1] - source[0]
    position = np.clip((target - source[0]) / step, 0, len(source) - 1)
    lower = np.minimum(position.astype(int), len(source) - 2)
    weight = position - lower
    matrix = np.zeros((len(target), len(source)), np.float32)
    rows = np.arange(len(target))
    matrix[rows, lower] = 1 - weight
    matrix[rows, lower + 1] = weight
    return matrix


def resample(values: Float32Array, matrices: tuple[Float32Array, Float32Array, Float32Array]) -> Float32Array:
    """Apply one interpolation matrix along each axis."""
    x, y, z = matrices
    along_z = values @ z.T  # (X, Y, Z) -> (X, Y, z)
    along_y = np.matmul(y, along_z)  # (X, Y, z) -> (X, y, z)
    return np.asarray((x @ along_y.reshape(len(along_y), -1)).reshape(len(x), len(y), len(z)), np.float32)


def smooth_field(grid: FineGrid, step_mm: float, rng: np.random.Generator) -> Float32Array:
    """A smooth random field of mean 0 and standard deviation about 1 whose grain is about ``step_mm``."""
    sources, matrices = [], []
    for axis in (grid.x, grid.y, grid.z):
        source = np.arange(axis[0] - step_mm * rng.random(), axis[-1] + 2 * step_mm, step_mm)
        sources.append(len(source))
        matrices.append(interpolation(source, axis))
    # Linear interpolation in 3D shrinks the variance to (2/3)^3 on average.
    values = rng.standard_normal(tuple(sources), dtype=np.float32) * np.float32(1.5**1.5)
    return resample(values, (matrices[0], matrices[1], matrices[2]))


def _parenchyma(scanner: Scanner, grid: FineGrid, rng: np.random.Generator) -> Float32Array:
    hu = smooth_field(grid, 2.2, rng)
    hu *= np.float32(scanner.lung_sd_hu)
    # Blood collects at the back of a patient who lies on it.
    gravity = np.float32(rng.uniform(0.1, 0.9))
    hu += (np.float32(scanner.lung_hu) + gravity * grid.y)[:, None][None]
    return hu


def _depth(mask: NoduleMask, margin_mm: float) -> tuple[Float32Array, list[npt.NDArray[np.float64]]]:
    """Depth below the lesion's surface in mm (negative outside) on the mask's grid, and that grid's axes."""
    pad = int(np.ceil(margin_mm / mask.spacing_mm))
    padded = np.pad(mask.voxels, pad)
    inside = ndimage.distance_transform_edt(padded)
    outside = ndimage.distance_transform_edt(~padded)
    # A distance between voxel centres is half a voxel too long on either side; the filter takes the stairs off.
    signed = inside - outside
    signed -= 0.5 * np.sign(signed)
    depth: Float32Array = ndimage.uniform_filter(np.float32(mask.spacing_mm) * signed.astype(np.float32), 3)
    axes = [
        offset + mask.spacing_mm * (np.arange(size) - pad)
        for offset, size in zip(mask.offset_mm, padded.shape, strict=True)
    ]
    return depth, axes


def paint_lesion(
    hu: Float32Array, mask: NoduleMask, painted: Painted, grid: FineGrid, rng: np.random.Generator
) -> None:
    """Paint the lesion into ``hu``, in place."""
    depth, axes = _depth(mask, 2.0)
    box = grid.box([axis[0] for axis in axes], [axis[-1] for axis in axes])
    local = grid.cut(box)
    matrices = tuple(interpolation(s, t) for s, t in zip(axes, (local.x, local.y, local.z), strict=True))
    depth = resample(depth, (matrices[0], matrices[1], matrices[2]))
    deepest = float(depth.max())
    region = hu[box]
    grain = smooth_field(local, 2.5, rng)

    width = {5: 0.6, 4: 1.0, 3: 1.5, 2: 2.1, 1: 2.8}[painted.margin] * rng.uniform(0.85, 1.15)
    # A lesion of a few millimetres would vanish under a wide edge, and was seen by its reader.
    width = min(width, max(0.5, deepest))
    # Readers outlined what they could see, which includes the blurred rim.
    inset = rng.uniform(0.0, 0.6)
    edge = ramp(depth - np.float32(inset), width)
    density = _density(depth, deepest, painted, rng)
    density += grain * np.float32(rng.uniform(15, 35) if painted.texture > PART_SOLID else rng.uniform(30, 55))
    region += edge * np.maximum(density - region, 0)
    if painted.calcification != CALCIFICATION_ABSENT:
        region[...] = np.maximum(region, _calcification(depth, deepest, painted.calcification, region, local, rng))


def ramp(depth: Float32Array, width: float) -> Float32Array:
    """Smooth step from 0 to 1 over about ``width`` mm around depth 0."""
    t = np.clip(depth / np.float32(width) + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _density(depth: Float32Array, deepest: float, painted: Painted, rng: np.random.Generator) -> Float32Array:
    """HU of the lesion's substance: ground glass, with a solid part as large as the texture rating says."""
    glass = float(np.clip(rng.normal(-640, 95), -790, -400))
    solid = float(rng.normal(52, 18) - rng.exponential(22))
    if painted.texture >= SOLID:
        return np.full_like(depth, solid)
    # Depth, as a fraction of the deepest point, at which the solid part begins.
    start = {4: 0.12, 3: 0.45, 2: 0.75, 1: 2.0}[painted.texture] + rng.uniform(-0.1, 0.1)
    solid -= {4: 40.0, 3: 120.0, 2: 200.0, 1: 0.0}[painted.texture]
    core = ramp(depth - np.float32(start * deepest), max(0.8, 0.3 * deepest))
    return np.asarray(glass + core * (solid - glass), np.float32)


def _calcification(
    depth: Float32Array,
    deepest: float,
    kind: int,
    surroundings: Float32Array,
    local: FineGrid,
    rng: np.random.Generator,
) -> Float32Array:
    """HU of the lesion's calcium by LIDC's nominal codes, ``surroundings`` where there is none."""
    bright = float(np.clip(rng.lognormal(np.log(950), 0.6), 250, 2400))
    fraction = np.clip(depth / np.float32(max(deepest, 0.5)), 0, 1)
    if kind == 3:  # solid: all but a rim
        amount = ramp(depth - np.float32(0.15 * deepest), max(0.8, 0.3 * deepest))
    elif kind == 5:  # central
        amount = ramp(depth - np.float32(0.5 * deepest), max(0.8, 0.3 * deepest))
    elif kind == 2:  # laminated: shells
        amount = np.asarray(np.cos(fraction * np.float32(3 * np.pi)) ** 2 * (fraction > 0.1), np.float32)
    else:  # popcorn and non-central: specks, here and there or on one side
        specks = smooth_field(local, max(1.2, 0.6 * deepest), rng)
        amount = ramp(specks - np.float32(0.6), 0.6) * ramp(depth - np.float32(0.3), 0.8)
    return np.asarray(surroundings + amount * np.float32(bright) * (fraction > 0), np.float32)


def through_scanner(hu: Float32Array, scanner: Scanner, grid: FineGrid) -> Float32Array:
    """Blur in-plane and average over the slice thickness; (x, y, z) -> (x, y, slices)."""
    averaged = (hu.reshape(-1, hu.shape[2]) @ grid.slice_weights.T).reshape(*hu.shape[:2], -1)
    # Objects are already averaged over about a pixel where they were painted.
    variance = (scanner.fwhm_mm * FWHM_TO_SIGMA) ** 2 - grid.pixel_mm**2 / 12
    sigma = np.sqrt(max(variance, 0.01)) / grid.pixel_mm
    return _blur(averaged, (sigma, sigma))


def _blur(values: Float32Array, sigma: tuple[float, float]) -> Float32Array:
    """Gaussian blur along x and y; the ends are held at their own level."""
    x, y = (_gaussian_matrix(size, s) for size, s in zip(values.shape[:2], sigma, strict=True))
    return _along_plane(values, x / x.sum(1, keepdims=True), y / y.sum(1, keepdims=True))


def _gaussian_matrix(size: int, sigma: float) -> Float32Array:
    position = np.arange(size, dtype=np.float32)
    return np.asarray(np.exp(-((position[:, None] - position) ** 2) / np.float32(2 * sigma**2)), np.float32)


def _along_plane(values: Float32Array, x: Float32Array, y: Float32Array) -> Float32Array:
    """Multiply a matrix along x and one along y: on arrays this small it beats a filter."""
    along_x = (x @ values.reshape(len(values), -1)).reshape(values.shape)
    return np.asarray(np.matmul(y, along_x), np.float32)


def scanner_noise(shape: tuple[int, int, int], scanner: Scanner, rng: np.random.Generator) -> Float32Array:
    """Noise correlated in-plane, whose standard deviation is the scanner's everywhere, edges included."""
    white = rng.standard_normal(shape, dtype=np.float32)
    x, y = (_gaussian_matrix(size, s) for size, s in zip(shape[:2], scanner.noise_sigma_px, strict=True))
    x *= np.float32(scanner.noise_sd_hu) / np.sqrt((x**2).sum(1, keepdims=True))
    return _along_plane(white, x, y / np.sqrt((y**2).sum(1, keepdims=True)))
