"""Whether a mask lies on its image's grid: the same voxels in any order, or a part of them."""

from __future__ import annotations

import itertools

import numpy as np

from pipeline.cases.lesions.lesion import Points, VoxelGrid
from pipeline.imaging.image import spacing_mm

_SAME_VOXELS = 0.1  # of the smallest spacing, by which corners of the same grid may differ
_SAME_MM = 0.05  # and at least this
_REACH = 1.0  # voxels by which a part of the image, or a finer or coarser grid, may reach beyond it


def grid_disagreement(mask: VoxelGrid, image: VoxelGrid) -> str | None:
    """Why a mask's grid cannot be its image's; None when it can.

    Of the same size, the grids must be the same; their axes may be stored in another order or direction. A mask of
    another size may be a part of the image or resampled, so it must not reach beyond it. Pictures have no position, so
    that only their size is compared.
    """
    sizes = " x ".join(map(str, mask.shape)), " x ".join(map(str, image.shape))
    if mask.has_millimetres != image.has_millimetres or (not mask.has_millimetres and mask.shape != image.shape):
        return f"the mask has {sizes[0]} voxels, its image {sizes[1]}; save the mask on the image's grid"
    corners = mask.world(_corners(mask.shape))
    if sorted(mask.shape) == sorted(image.shape):
        distances = np.linalg.norm(corners[:, np.newaxis] - image.world(_corners(image.shape)), axis=2)
        apart = max(float(distances.min(axis=1).max()), float(distances.min(axis=0).max()))
        if apart > max(_SAME_VOXELS * min(spacing_mm(image.affine)), _SAME_MM):
            return f"the mask's grid lies up to {apart:.3g} mm from its image's; save the mask on the image's grid"
        return None
    places = image.index(corners)
    beyond = max(float((-places).max()), float((places - (np.array(image.shape) - 1)).max()))
    if beyond > _REACH:
        return (
            f"the mask's grid ({sizes[0]} voxels) reaches {beyond:.3g} voxels beyond its image ({sizes[1]}); "
            "save the mask on the image's grid"
        )
    return None


def _corners(shape: tuple[int, int, int]) -> Points:
    """Indices of the eight corner voxels, (8, 3)."""
    return np.array(list(itertools.product(*((0, length - 1) for length in shape))), dtype=np.float64)
