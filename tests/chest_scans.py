"""Small simulated chests with bright balls in the lung, for tests of finding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_writing import ct_slice, save

Ball = tuple[tuple[float, float, float], float]  # RAS centre and diameter in mm


def chest(balls: Sequence[Ball], *, spacing=(1.5, 1.5, 2.0), noise=15.0, seed=0):
    """Voxels (X, Y, Z) in HU and affine of a chest with balls in its lung, stored as L, P, S."""
    shape = tuple(round(side / mm) for side, mm in zip((180, 150, 140), spacing, strict=True))
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [spacing[0] * (shape[0] - 1) / 2, spacing[1] * (shape[1] - 1) / 2, -spacing[2] * (shape[2] - 1) / 2]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    across = np.sqrt((world[..., 0] / 84) ** 2 + (world[..., 1] / 70) ** 2)
    hu = np.where(across < 1, 30.0, -1000.0)
    hu[np.sqrt((world[..., 0] / 70) ** 2 + (world[..., 1] / 56) ** 2) < 1] = -850.0
    for center, diameter in balls:
        distance = np.linalg.norm(world - np.array(center), axis=-1)
        hu += np.clip((diameter / 2 - distance) / 1.5 + 0.5, 0, 1) * (50.0 - hu)
    hu += np.random.default_rng(seed).normal(0, noise, shape)
    return hu, affine


def write_chest(path: Path, balls: Sequence[Ball], **settings) -> Path:
    """A chest as a NIfTI file."""
    hu, affine = chest(balls, **settings)
    nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), affine), path)
    return path


def write_chest_series(folder: Path, balls: Sequence[Ball], *, skip: Sequence[int] = ()) -> Path:
    """A chest as a DICOM series, one file a slice."""
    voxels, affine = chest(balls)
    for number in range(voxels.shape[2]):
        if number in skip:
            continue
        image = ct_slice(number % 16)
        image.Columns, image.Rows = voxels.shape[:2]
        image.PixelSpacing, image.SliceThickness = [1.5, 1.5], 2.0
        image.ImagePositionPatient = [-float(affine[0, 3]), -float(affine[1, 3]), float(affine[2, 3]) + 2.0 * number]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.9.1.{number}"
        image.InstanceNumber = number + 1
        image.PixelData = (np.maximum(voxels[:, :, number].T, -1024).astype(np.int32) + 1024).astype("<u2").tobytes()
        save(image, folder / f"{number:03d}.dcm")
    return folder
