"""Results of every reader: a scan whose headers have been checked, and the image read from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes

Float32Array = NDArray[np.float32]
Affine = NDArray[np.float64]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Warning:  # noqa: A001  # the contract's word; the builtin is not used here
    """A ``W_`` code and its details, without patients' data, for something unusual that does not stop the case."""

    code: Code
    detail: str


@contextmanager
def carrying(warnings: Sequence[Warning]) -> Iterator[None]:
    """Add the codes of earlier warnings to a refusal, which they often explain."""
    try:
        yield
    except CaseError as error:
        error.warnings = error.warnings or tuple(warning.code for warning in warnings)
        raise


class Scan(Protocol):
    """An opened scan: its headers have passed every check, no voxel has been converted yet.

    Attributes:
        path: as it was asked for.
        shape: voxels along the three stored axes; a 2D picture or a single slice has shape (X, Y, 1).
        affine: (4, 4) float64, stored voxel index → RAS+ world mm.
        modality: as the file declares it (DICOM does), else None.
        warnings: found so far.
        has_millimetres: whether the file states the distance of its pixels. Where it does not (pictures, many
            ultrasound images and radiographs), the affine counts a pixel as 1 mm, and whoever needs millimetres
            refuses the scan (E_GEOMETRY_MISSING).
        body_part: the defined term that the header names (DICOM's may), else None.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]

    @property
    def has_millimetres(self) -> bool: ...  # noqa: D102  # see the attributes

    @property
    def body_part(self) -> str | None: ...  # noqa: D102  # see the attributes

    def read(self, box: Box) -> Float32Array:
        """Voxels of a box of the stored grid, rescaled (CT: HU), float32.

        Length and checksum of the whole file are verified before this returns.

        Raises:
            CaseError: when the file or a voxel of the box is damaged.
        """
        ...

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the source bytes; known once ``read`` has returned."""
        ...


@dataclass(frozen=True, eq=False)
class Image:
    """Voxels with their place in the world.

    Attributes:
        voxels: (R, A, S) float32: the axes are the stored ones, permuted and flipped to the nearest RAS+.
        affine: (4, 4) float64, voxel index → RAS+ world mm.
        modality: as the file declares it, else None.
        warnings: what the reader found odd.
        digest: hex SHA-256 of the source bytes.
    """

    voxels: Float32Array
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    digest: str

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis."""
        r, a, s = spacing_mm(self.affine)
        return r, a, s


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan once its voxels have been read.

    Attributes:
        digest: hex SHA-256 of the source bytes.
        shape: voxels along the stored axes.
        spacing_mm: along the stored axes; None when the scan does not say.
        orientation: of the stored axes, as ``"LPS"``.
        modality: as the file declares it; of a model's input, else the declared one.
        body_part: the defined term that the file names; None where it names none.
    """

    digest: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    orientation: str
    modality: str | None
    body_part: str | None = None


def scan_facts(scan: Scan, *, modality: str | None = None) -> ScanFacts:
    """The facts of a scan that has been read.

    Args:
        scan: whose ``read`` has returned.
        modality: the declared one, where the file names none.
    """
    a, b, c = spacing_mm(scan.affine)
    return ScanFacts(
        digest=scan.digest,
        shape=scan.shape,
        spacing_mm=(a, b, c) if scan.has_millimetres else None,
        orientation=orientation(scan.affine),
        modality=scan.modality or modality,
        body_part=scan.body_part,
    )


def part_digest(digest: str, number: int) -> str:
    """Digest of one page or frame of a file that has several: SHA-256 of the file's digest, ``#`` and the number."""
    return sha256_bytes(f"{digest}#{number}".encode())


def spacing_mm(affine: Affine) -> tuple[float, ...]:
    """Lengths of an affine's three columns, mm."""
    with np.errstate(over="ignore"):  # infinite, which no range of spacings accepts
        return tuple(float(value) for value in np.linalg.norm(affine[:3, :3], axis=0))


def orientation(affine: Affine) -> str:
    """The stored axes' nearest world directions, as ``"LPS"``."""
    return "".join(nib.orientations.aff2axcodes(affine))  # type: ignore[no-untyped-call]
