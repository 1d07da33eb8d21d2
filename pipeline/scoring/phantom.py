"""Phantoms drawn from a seed: a ball in noise."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from pipeline.config.inputs import Modality, Preprocessing

_VALUES: dict[Modality, tuple[float, float, float]] = {"CT": (-850.0, 40.0, 30.0), "mask": (0.0, 1.0, 0.0)}
_OTHER = (200.0, 700.0, 25.0)  # background, ball, noise


def phantom(config: Preprocessing, modality: Modality, *, radius_mm: float, rng: np.random.Generator) -> Any:
    """A ball in noise around world (0, 0, 0), stored as L, A, S so that orientation is exercised too."""
    background, ball, noise = _VALUES.get(modality, _OTHER)
    spacing = np.resize(config.spacing_mm or (1.0,), 3) * 1.1
    shape = np.minimum(np.resize(config.size, 3) + 8, 96)
    if config.dimensions == 2:
        shape[2] = 1
    grid = np.stack(np.meshgrid(*(np.arange(side) - side // 2 for side in shape), indexing="ij"), -1) * spacing
    voxels = background + noise * rng.standard_normal(tuple(shape))
    voxels[np.linalg.norm(grid, axis=-1) < max(radius_mm, 2 * spacing.max())] += ball - background
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [spacing[0] * (shape[0] // 2), *(-spacing[1:] * (shape[1:] // 2))]
    image: Any = nib.Nifti1Image(np.rint(voxels).astype(np.int16), affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    return image
