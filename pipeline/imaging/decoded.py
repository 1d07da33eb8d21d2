"""A scan whose voxels have been decoded once, for reading several regions of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.imaging.image import Affine, Box, Float32Array, Scan, Warning

_WHOLE: Box = (slice(None), slice(None), slice(None))


@dataclass(eq=False)
class DecodedScan:
    """A `Scan` that is held in memory: reading a box of it copies nothing and opens no file.

    Attributes:
        path: as it was asked for.
        shape: voxels along the three stored axes.
        voxels: of the stored grid, rescaled (CT: HU), float32.
        affine: (4, 4), stored voxel index → RAS+ world mm.
        modality: as the file declares it, else None.
        warnings: of opening it.
        has_millimetres: whether the file says how far apart its voxels are.
        body_part: the defined term that the header names, else None.
        digest: hex SHA-256 of the source bytes.
    """

    path: Path
    shape: tuple[int, int, int]
    voxels: Float32Array
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    has_millimetres: bool
    body_part: str | None
    digest: str

    def read(self, box: Box) -> Float32Array:
        """Voxels of a box of the stored grid, as a view."""
        part: Float32Array = self.voxels[box]
        return part


def decode(scan: Scan) -> DecodedScan:
    """Decode all voxels of an opened scan.

    Raises:
        CaseError: when the file or a voxel is damaged.
    """
    voxels = scan.read(_WHOLE)
    return DecodedScan(
        path=scan.path,
        shape=scan.shape,
        voxels=voxels,
        affine=scan.affine,
        modality=scan.modality,
        warnings=scan.warnings,
        has_millimetres=scan.has_millimetres,
        body_part=scan.body_part,
        digest=scan.digest,
    )
