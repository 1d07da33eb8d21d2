"""One whole scan: half of a chest with vessels, bronchi, distractors and the patient's nodules, through a scanner.

Like a crop (``datasets.rendering``), the image depends on the nodules' shapes, one reader's ratings of texture,
calcification and margin, the scan's own geometry, and random numbers drawn by name. The background is painted in slabs
of a few planes, so that memory is that of two copies of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.datasets.chest_anatomy import FineGrid, balls
from pipeline.datasets.lidc import NoduleMask
from pipeline.datasets.rendering import (
    Painted,
    Scanner,
    ShortVolume,
    paint_lesion,
    ramp,
    scanner_noise,
    stored_values,
    through_scanner,
)
from pipeline.datasets.whole_scans.placing import PlacedNodule, place_nodules
from pipeline.datasets.whole_scans.thorax import MIDLINE_MM, THORAX_SIZE_MM, Thorax, draw_thorax, place
from pipeline.datasets.whole_scans.tissues import Tissues, draw_tissues, paint_background
from pipeline.datasets.whole_scans.vessel_tree import VesselTree, grow_tree
from pipeline.imaging.image import Float32Array

SLAB_PLANES = 16
HU_STEP = 8  # below the noise of every scan; the files are a quarter smaller than with steps of 4
BALL_GROUPS = (0.0, 0.5, 0.65, 0.85, 1.1, 1.5, 2.0, 2.6, 3.4, 4.4, 5.8, 7.6, 10.0)
MOST_GRANULOMA_MM = 1.45  # radius; a nodule of the collection is at least 3 mm wide


@dataclass(frozen=True, eq=False)
class Tubes:
    """Balls of one substance: centres, shape (n, 3), and radii, shape (n,), in mm, and its HU."""

    centres: Float32Array
    radii: Float32Array
    hu: float


@dataclass(frozen=True, eq=False)
class RenderedScan:
    """One whole scan.

    Attributes:
        hu: shape (x, y, slices).
        side: 1 for the patient's left half, -1 for the right.
        nodules: where each of the nodules lies.
    """

    hu: ShortVolume
    side: int
    nodules: tuple[PlacedNodule, ...]


def render_scan(
    nodules: Sequence[tuple[NoduleMask, Painted]],
    scanner: Scanner,
    grid: FineGrid,
    rng: np.random.Generator,
    *,
    contrast: bool,
) -> RenderedScan:
    """Render one scan.

    Args:
        nodules: shapes, and the ratings to paint them from.
        scanner: the patient's scanner.
        grid: where the pixels lie, in mm from the volume's middle.
        rng: the scan's own randomness.
        contrast: whether a contrast agent was given.
    """
    # One stream each, so that the random numbers of one part do not depend on another part.
    shape, tree, background, places, distractors, noise, *lesions = rng.spawn(6 + len(nodules))
    thorax = draw_thorax(shape)
    vessels = _grow_vessels(thorax, tree)
    tissues = draw_tissues(thorax, contrast=contrast, rng=background)
    placed = place_nodules([mask for mask, _ in nodules], thorax, vessels, places)
    tubes = [*_tubes(thorax, vessels, scanner, tree), _granulomas(thorax, distractors)]
    hu = _paint(thorax, tissues, scanner, tubes, grid)
    for (mask, painted), nodule, own in zip(nodules, placed, lesions, strict=True):
        paint_lesion(hu, mask, painted, grid.around(nodule.centre_mm), own)
    return RenderedScan(_through(hu, scanner, grid, noise), thorax.side, tuple(placed))


def _grow_vessels(thorax: Thorax, rng: np.random.Generator) -> list[VesselTree]:
    """Arteries and veins of the lung, and of the visible part of the other one; arteries first."""
    spacing = rng.uniform(8.5, 10.5)
    trees = []
    for own in (True, False):
        points, _ = thorax.lung_points(1.5, own=own)
        count = int(len(points) * 27 / spacing**3)
        hilum = thorax.hilum.copy()
        if not own:
            hilum[0] = -2 * thorax.side * MIDLINE_MM - hilum[0]
        for root, radius in ((hilum, 0.40), (hilum + np.array([0.0, 8.0, -14.0]), 0.37)):
            chosen = points[rng.choice(len(points), count, replace=False)]
            if count:
                trees.append(grow_tree(root, chosen + rng.uniform(-1.5, 1.5, chosen.shape), radius, rng))
    return trees


def _tubes(thorax: Thorax, vessels: Sequence[VesselTree], scanner: Scanner, rng: np.random.Generator) -> list[Tubes]:
    """Vessels; then the windpipe and a bronchus beside every larger artery: their walls, and the air in them."""
    points = [tree.points() for tree in vessels]
    centres, radii = points[0]  # the lung's own arteries
    large = radii > 1.3
    aside = rng.standard_normal(3)
    offset = (aside / np.linalg.norm(aside)).astype(np.float32) * (1.9 * radii[large] + 0.8)[:, None]
    windpipe, calibre = _windpipe(thorax, rng)
    airways = np.concatenate([centres[large] + offset, windpipe])
    lumen = np.concatenate([0.85 * radii[large], calibre])
    return [
        Tubes(np.concatenate([p for p, _ in points]), np.concatenate([r for _, r in points]), scanner.vessel_hu),
        Tubes(airways, lumen + np.float32(0.9), scanner.soft_hu - 20),
        Tubes(airways, lumen, -970.0),
    ]


def _windpipe(thorax: Thorax, rng: np.random.Generator) -> tuple[Float32Array, Float32Array]:
    """Balls of the trachea, from the top to where it divides, and of a main bronchus to either hilum."""
    middle = place(thorax.side, 0, thorax.hilum[1] - 2, thorax.hilum[2] + rng.uniform(18, 26))
    top = place(thorax.side, 0, thorax.hilum[1] - rng.uniform(4, 10), THORAX_SIZE_MM[2] / 2 + 8)
    other = thorax.hilum.copy()
    other[0] = -2 * thorax.side * MIDLINE_MM - other[0]
    wide = rng.uniform(6.5, 8.5)
    parts, radii = [], []
    for end, radius in ((top, wide), (thorax.hilum, 0.68 * wide), (other, 0.68 * wide)):
        along = np.linspace(0, 1, int(np.linalg.norm(end - middle)))[:, None]
        parts.append(middle + along * (end - middle))
        radii.append(np.full(len(along), radius))
    return np.concatenate(parts).astype(np.float32), np.concatenate(radii).astype(np.float32)


def _granulomas(thorax: Thorax, rng: np.random.Generator) -> Tubes:
    """Small calcified granulomas, too small to be nodules."""
    inside, _ = thorax.lung_points(3)
    points = inside[rng.choice(len(inside), int(rng.poisson(2.0)))]
    radii = rng.uniform(0.7, MOST_GRANULOMA_MM, len(points))
    return Tubes(points.astype(np.float32), radii.astype(np.float32), float(rng.uniform(400, 1200)))


def _paint(thorax: Thorax, tissues: Tissues, scanner: Scanner, tubes: Sequence[Tubes], grid: FineGrid) -> Float32Array:
    """HU on the fine planes, without nodules; slab by slab."""
    hu = np.empty((len(grid.x), len(grid.y), len(grid.z)), np.float32)
    everything = (slice(0, len(grid.x)), slice(0, len(grid.y)))
    for start in range(0, len(grid.z), SLAB_PLANES):
        planes = slice(start, min(start + SLAB_PLANES, len(grid.z)))
        slab = grid.cut((*everything, planes))
        painted, depth = paint_background(thorax, tissues, scanner, slab)
        # In the mediastinum vessels are visible only near the lung.
        seen = ramp(depth + np.float32(18), 6.0)
        for tube in tubes:
            fill = fill_tubes(tube, slab)
            if fill is None:
                continue
            if tube.hu > scanner.lung_hu:
                painted += seen * fill * np.maximum(np.float32(tube.hu) - painted, 0)
            else:
                painted += fill * (np.float32(tube.hu) - painted)
        hu[..., planes] = painted
    return hu


def fill_tubes(tubes: Tubes, slab: FineGrid) -> Float32Array | None:
    """How much of each voxel of a slab is tube, 0 to 1; None where no tube reaches it."""
    low, high = slab.z[0], slab.z[-1]
    near = (tubes.centres[:, 2] > low - tubes.radii - 1) & (tubes.centres[:, 2] < high + tubes.radii + 1)
    if not near.any():
        return None
    # Balls are painted whole, so the planes reach further than the slab, and are cut off.
    step = float(slab.z[1] - slab.z[0]) if len(slab.z) > 1 else 1.0
    more = int(np.ceil(2 * (float(tubes.radii[near].max()) + 1) / step)) + 1
    z = np.concatenate([low - step * np.arange(more, 0, -1), slab.z, high + step * np.arange(1, more + 1)]).astype(
        np.float32
    )
    wide = FineGrid(slab.x, slab.y, z, slab.slices, slab.slice_weights)
    fill = np.zeros((len(wide.x), len(wide.y), len(wide.z)), np.float32)
    centres, radii = tubes.centres[near], tubes.radii[near]
    for smallest, largest in pairwise(BALL_GROUPS):
        group = (radii > smallest) & (radii <= largest)
        if group.any():
            balls(fill, centres[group], radii[group], largest, wide)
    return fill[..., more : more + len(slab.z)]


def _through(hu: Float32Array, scanner: Scanner, grid: FineGrid, rng: np.random.Generator) -> ShortVolume:
    """Blur, slice thickness, noise and storage; some slices at a time."""
    out = np.empty((len(grid.x), len(grid.y), len(grid.slices)), np.int16)
    for start in range(0, len(grid.slices), SLAB_PLANES):
        part = slice(start, min(start + SLAB_PLANES, len(grid.slices)))
        weights = grid.slice_weights[part]
        used = np.flatnonzero(weights.any(axis=0))
        planes = slice(int(used[0]), int(used[-1]) + 1)
        slab = FineGrid(grid.x, grid.y, grid.z[planes], grid.slices[part], weights[:, planes])
        values = through_scanner(np.ascontiguousarray(hu[..., planes]), scanner, slab)
        values += scanner_noise(values.shape, scanner, rng)
        out[..., part] = stored_values(values, HU_STEP)
    return out
