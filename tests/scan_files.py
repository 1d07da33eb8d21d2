"""Small scans on disk, and the optional folder of shared data."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.config.inputs import Limits, Preprocessing
from pipeline.imaging.image import Warning
from pipeline.imaging.nifti.scan import NiftiScan, open_nifti
from pipeline.imaging.preprocess import ModelInput, ScanRequest, preprocess

LIMITS = Limits()
WHOLE = (slice(None), slice(None), slice(None))
SHAPE, CENTER_MM = (24, 20, 16), (-9.75, 4.5, 6.0)
AFFINE = np.array([[1.5, 0, 0, -18], [0, 1.5, 0, -15], [0, 0, 2, -16], [0, 0, 0, 1.0]])
LESION = Preprocessing(region="lesion", size=(12, 12, 12), spacing_mm=(1.0, 1.0, 1.0))


def phantom(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A body of 40 HU in air with a lung and a bright lesion, and noise; int16 HU, RAS."""
    rng = np.random.default_rng(seed)
    voxels = np.full(shape, -1000.0)
    voxels[2:-2, 2:-2, :] = 40
    voxels[3 : shape[0] // 2 + 2, 4:-4, 2:-2] = -850
    voxels[3:8, 11:16, 9:14] = 60
    return (voxels + rng.normal(0, 12, shape)).round().astype(np.int16)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, **header: object) -> Path:
    """Write a NIfTI-1 file and then overwrite raw header fields."""
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    if header:
        patch(path, **header)
    return path


def patch(path: Path, **header: object) -> Path:
    """Overwrite raw header fields, unchecked; an array field takes a dict of index to value."""
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    content = gzip.decompress(content) if packed else content
    size = int.from_bytes(content[:4], "little")
    kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    fields = np.frombuffer(content[:size], dtype=kind.template_dtype).copy()
    for name, value in header.items():
        if isinstance(value, dict):
            for index, item in value.items():
                fields[name][0][index] = item
        else:
            fields[name] = value
    content = fields.tobytes() + content[size:]
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def read(path: Path, modality: str | None = "CT") -> tuple[np.ndarray, NiftiScan]:
    """All voxels, and the scan after reading."""
    scan = open_nifti(path, limits=LIMITS, modality=modality)
    return scan.read(WHOLE), scan


def lesion(path: Path, center_mm: tuple[float, float, float] | None = CENTER_MM, **changes: object) -> ModelInput:
    """The lesion input of a scan; ``changes`` are of the configuration."""
    config = Preprocessing.model_validate(LESION.model_dump() | changes)
    return preprocess(ScanRequest(path, center_mm), config, modality="CT")


def codes(warnings: tuple[Warning, ...]) -> list[str]:
    """The codes of warnings."""
    return [str(warning.code) for warning in warnings]
