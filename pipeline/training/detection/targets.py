"""What each cell of a patch should say: Gaussian heat around lesions, and offsets and diameters inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.imaging.image import Float32Array
from pipeline.models.detector import STRIDE
from pipeline.training.detection.scans import MarkedLesion

_LEAST_SIGMA = 0.6  # cells; below it the neighbours of a small lesion's cell would count as plain background
_SIGMAS_A_RADIUS = 3.0
_REGRESSED = 0.3  # heat from which a cell learns offset and diameter
_OUTSIDE_CELLS = 1.0  # around an ignored lesion nothing is learnt either


@dataclass(frozen=True, eq=False)
class PatchTargets:
    """Targets of one patch of n cells a side.

    Attributes:
        heat: (C, n, n, n) in [0, 1]; 1 at the cell of a lesion of that class, NaN where nothing is learnt.
        offset: (3, n, n, n), in cells, to the centre of the cell's lesion.
        log_diameter: (1, n, n, n).
        weight: (1, n, n, n), of offset and diameter; 0 outside lesions.
    """

    heat: Float32Array
    offset: Float32Array
    log_diameter: Float32Array
    weight: Float32Array


def patch_targets(lesions: Sequence[MarkedLesion], *, side: int, classes: int, spacing_mm: float) -> PatchTargets:
    """Targets of a patch.

    A lesion's heat falls off with a standard deviation of a third of its radius. Where it has an attribute, that class
    has the same heat; where it has not, none; where that is unknown, the class learns nothing around it.

    Args:
        lesions: with ``voxel`` counted from the patch's first voxel; those outside it reach in as far as they do.
        side: of the patch, in voxels.
        classes: C.
        spacing_mm: between voxels.

    Source: Zhou et al., 2019 (objects as points), in three dimensions.
    """
    cells = side // STRIDE
    heat = np.zeros((classes, cells, cells, cells), np.float32)
    offset = np.zeros((3, cells, cells, cells), np.float32)
    log_diameter = np.zeros((1, cells, cells, cells), np.float32)
    weight = np.zeros((1, cells, cells, cells), np.float32)
    unknown = np.zeros((classes, cells, cells, cells), bool)
    axis = np.arange(cells, dtype=np.float64)
    for lesion in lesions:
        center = lesion.voxel / STRIDE
        steps = [axis - value for value in center]
        squares = steps[0][:, None, None] ** 2 + steps[1][None, :, None] ** 2 + steps[2][None, None, :] ** 2
        radius = lesion.diameter_mm / 2 / spacing_mm / STRIDE
        if lesion.ignore:
            unknown |= squares <= (radius + _OUTSIDE_CELLS) ** 2
            continue
        sigma = max(radius / _SIGMAS_A_RADIUS, _LEAST_SIGMA)
        around = np.exp(-squares / (2 * sigma**2)).astype(np.float32)
        middle = tuple(np.rint(center).astype(int))
        if all(0 <= index < cells for index in middle):
            around[middle] = 1.0
        stronger = around > weight[0]
        regressed = stronger & (around >= _REGRESSED)
        weight[0][regressed] = around[regressed]
        log_diameter[0][regressed] = np.log(lesion.diameter_mm)
        for world in range(3):
            toward = np.broadcast_to(
                -steps[world].reshape([-1 if at == world else 1 for at in range(3)]), squares.shape
            )
            offset[world][regressed] = toward[regressed]
        for number, value in enumerate((1.0, *lesion.attributes)):
            if np.isnan(value):
                unknown[number] |= squares <= (radius + _OUTSIDE_CELLS) ** 2
            elif value:
                np.maximum(heat[number], around, out=heat[number])
    heat[unknown] = np.nan
    return PatchTargets(heat, offset, log_diameter, weight)
