"""Reading a whole scan as a detector sees it: resampled to one spacing, windowed, a byte a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import nearest_axes, within_root
from pipeline.imaging.image import Affine, Scan, ScanFacts, Warning, carrying, scan_facts, spacing_mm
from pipeline.imaging.ranges import check_range
from pipeline.imaging.read import open_scan
from pipeline.imaging.roi import image_grid

ByteArray = NDArray[np.uint8]
LEVELS = 255  # a window of 1400 HU in steps of 5.5, well below a CT's noise


@dataclass(frozen=True, eq=False)
class WholeScan:
    """A scan on the detector's grid.

    Attributes:
        voxels: (R, A, S) uint8, C-contiguous; 0 is the window's lower end and 255 its upper one.
        affine: (4, 4), index of ``voxels`` → RAS+ world mm.
        warnings: of reading.
        facts: digest, shape, spacing and orientation as stored.
    """

    voxels: ByteArray
    affine: Affine
    warnings: tuple[Warning, ...]
    facts: ScanFacts


def read_whole_scan(
    path: Path,
    *,
    spacing: float,
    window: tuple[float, float],
    modality: str,
    limits: Limits,
    root: Path | None = None,
    files: Sequence[Path] | None = None,
    part: str | None = None,
) -> WholeScan:
    """Read, check, resample and window a whole scan.

    Args:
        path: of the scan (a file, or a folder with one DICOM series).
        spacing: mm between voxels along R, A and S.
        window: values that become 0 and 255.
        modality: the declared one; its range rules are applied.
        limits: what may be allocated.
        root: the folder that the path, with its links resolved, must lie in; None allows any place.
        files: the slices of one DICOM series in the folder ``path``.
        part: which series of a folder, or which page or frame of a file.

    Raises:
        CaseError: with the code of what is wrong.
    """
    path = path if root is None else within_root(path, root)
    scan = open_scan(path, limits=limits, modality=modality, files=files, part=part)
    with carrying(scan.warnings):
        if not scan.has_millimetres:
            reason = "says nothing of the distance between its pixels, which finding needs; export it with its spacing"
            raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
        voxels, affine = resample_whole(scan, path, spacing=spacing, window=window, modality=modality)
    return WholeScan(voxels, affine, tuple(scan.warnings), scan_facts(scan, modality=modality))


def resample_whole(
    scan: Scan, path: Path, *, spacing: float, window: tuple[float, float], modality: str
) -> tuple[ByteArray, Affine]:
    """The voxels and the affine of ``WholeScan``; linear interpolation between stored voxels."""
    lengths = spacing_mm(scan.affine)
    size = [
        max(1, round(scan.shape[stored] * lengths[stored] / spacing)) for stored, _ in nearest_axes(scan.affine, path)
    ]
    grid = image_grid(path, scan.shape, scan.affine, size=tuple(size), spacing=(spacing,) * 3)
    box = scan.read(grid.box)
    check_range(path, box, modality)
    values = grid.resample(box)
    lower, upper = window
    values -= lower
    values *= LEVELS / (upper - lower)
    np.clip(values, 0, LEVELS, out=values)
    outside = 0.0 if modality == "CT" else float(values.min())  # air lies at or below the window's lower end
    return grid.pad(np.rint(values, out=values), outside).astype(np.uint8), grid.affine


def as_input(voxels: ByteArray) -> NDArray[np.float32]:
    """Bytes as the network's values in [0, 1], float32."""
    return voxels.astype(np.float32) / np.float32(LEVELS)
