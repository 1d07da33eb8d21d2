"""A volume whose header has been checked, and whose voxels lie in one stream of bytes, or in several one after another.

As for NIfTI, voxels come in one pass over the files that keeps only the asked-for box: the digest needs every byte, and
so do the checksums of what is compressed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import check_affine, check_size, file_kind
from pipeline.imaging.image import Affine, Box, Float32Array, Warning
from pipeline.imaging.streams import DEFLATE_LIMIT, Packing, Stream
from pipeline.imaging.volumes.voxels import Layout, Planes

CONVERT = "convert it, with SimpleITK: sitk.WriteImage(sitk.ReadImage('scan.in'), 'scan.nii.gz')"


@dataclass(frozen=True)
class Piece:
    """A file, or the rest of one, that holds voxels.

    Attributes:
        path: of the file.
        start: bytes before the voxels.
        packing: how they are compressed.
        length: bytes that they have when decompressed, for one of several pieces; None for the only one.
    """

    path: Path
    start: int = 0
    packing: Packing = "none"
    length: int | None = None


@dataclass(eq=False)
class Volume:
    """An opened volume; see `pipeline.imaging.image.Scan`.

    Attributes:
        pieces: where the voxels lie, in order.
        header: bytes of a header in a file of its own, which the digest begins with; b"" otherwise.
        tail: whether bytes may follow the voxels without a warning, because the format puts other things there.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    layout: Layout = field(repr=False)
    limits: Limits = field(repr=False)
    pieces: tuple[Piece, ...] = field(repr=False)
    header: bytes = field(default=b"", repr=False)
    tail: bool = field(default=False, repr=False)
    _digest: str | None = field(default=None, repr=False)

    has_millimetres: ClassVar[bool] = True
    body_part: ClassVar[None] = None

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the files' bytes (header, then voxels); known once ``read`` has returned."""
        if self._digest is None:
            raise RuntimeError("the digest is known once read() has returned")
        return self._digest

    def read(self, box: Box) -> Float32Array:
        """Voxels of a box of the stored grid, scaled, float32.

        All files are read, so that lengths and checksums are verified; only the box is converted and kept.

        Raises:
            CaseError: E_TRUNCATED, E_CHECKSUM, E_TOO_LARGE, E_SHAPE, E_NONFINITE or E_RANGE.
        """
        planes, digest = Planes(self.layout, box, self.path), hashlib.sha256(self.header)
        position = trailing = 0
        for piece in self.pieces:
            stream = Stream(piece.path, self.limits, start=piece.start, packing=piece.packing, continues=digest)
            begin = position
            for block in stream:
                planes.add(block, position)
                position += len(block)
            digest, trailing = stream.sha256, trailing + stream.trailing
            if piece.length is not None and position - begin != piece.length:
                raise _wrong_length(piece.path, position - begin, piece.length)
        if position < self.layout.end:
            raise _wrong_length(self.path, position, self.layout.end)
        self._flag_trailing(trailing + position - self.layout.end)
        self._digest = digest.hexdigest()
        return planes.voxels

    def _flag_trailing(self, count: int) -> None:
        if count and not self.tail and not any(warning.code is Code.W_TRAILING_BYTES for warning in self.warnings):
            self.warnings += (Warning(Code.W_TRAILING_BYTES, f"{count} bytes after the voxels are ignored"),)

    def check_lengths(self) -> None:
        """Refuse, before voxels are read, files that cannot hold them.

        Raises:
            CaseError: E_TRUNCATED, E_SHAPE for a file of several that is too long, and what opening may raise.
        """
        for piece in self.pieces:
            stream = Stream(piece.path, self.limits, start=piece.start, packing=piece.packing)
            needed = self.layout.end if piece.length is None else piece.length
            present = max(stream.size - piece.start, 0)
            if stream.compressed:
                if present * DEFLATE_LIMIT < needed:
                    raise _wrong_length(piece.path, present, needed, "compressed bytes")
            elif present < needed or (piece.length is not None and present != needed):
                raise _wrong_length(piece.path, present, needed)
            else:
                self._flag_trailing(present - needed)


def _wrong_length(path: Path, present: int, needed: int, unit: str = "bytes") -> CaseError:
    if present < needed or unit != "bytes":
        reason = f"{present} {unit} of voxels, but the header asks for {needed}; copy the file again"
        return CaseError(Code.E_TRUNCATED, path, reason)
    reason = f"{present} bytes of voxels, but the header asks for {needed}; size and voxels do not belong together"
    return CaseError(Code.E_SHAPE, path, reason)


def three_lengths(path: Path, lengths: Sequence[int]) -> tuple[int, int, int]:
    """The shape of a volume; trailing lengths of 1 are dropped.

    Raises:
        CaseError: E_SHAPE for anything but a volume.
    """
    text, shape = " x ".join(map(str, lengths)), list(lengths)
    if not shape or min(shape) < 1:
        raise CaseError(Code.E_SHAPE, path, f"lengths {text or '(none)'}; every length must be at least 1")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        reason = f"lengths {text}; expected one volume, not a series, a vector field or channels"
        raise CaseError(Code.E_SHAPE, path, reason)
    if len(shape) < 3:
        reason = f"lengths {text}; an image of {len(shape)} dimensions says nothing of its place in the patient"
        raise CaseError(Code.E_GEOMETRY_MISSING, path, f"{reason}; store it as a volume of one slice, or as PNG")
    return shape[0], shape[1], shape[2]


def open_volume(
    path: Path,
    *,
    shape: tuple[int, int, int],
    affine: Affine,
    dtype: np.dtype[Any],
    pieces: Sequence[Piece],
    limits: Limits,
    offset: int = 0,
    **details: Any,
) -> Volume:
    """Check size, affine and lengths, and put a volume together.

    Args:
        path: as it was asked for.
        shape: voxels along the stored axes, the fastest first.
        affine: (4, 4), stored voxel index → RAS+ world mm.
        dtype: of a stored voxel, with its byte order.
        pieces: where the voxels lie.
        limits: what may be allocated.
        offset: of the voxels in the decompressed content.
        **details: ``modality``, ``warnings``, ``header`` and ``tail`` of ``Volume``.

    Raises:
        CaseError: E_TOO_LARGE, E_AFFINE, E_SPACING, E_ORIENTATION, E_TRUNCATED, E_SHAPE.
    """
    warnings = [*details.pop("warnings", ()), *check_size(path, shape, dtype.itemsize, limits)]
    warnings += check_affine(path, affine)
    layout = Layout(dtype, shape, offset, 1.0, 0.0)
    modality = details.pop("modality", None)
    volume = Volume(path, shape, affine, modality, tuple(warnings), layout, limits, tuple(pieces), **details)
    volume.check_lengths()
    return volume


def side_file(header: Path, name: str) -> Path:
    """A data file that a header names, which must lie in the header's folder or below it.

    Raises:
        CaseError: E_OUTSIDE_ROOT for a path or a link that leads out of it, E_SIDE_FILE when it is not there.
    """
    outside = "a data file outside the header's folder; copy it there, and name it without a folder"
    if not name or "\0" in name:
        raise CaseError(Code.E_SIDE_FILE, header, "names no data file; export the scan again")
    path, folder = header.parent / name, header.resolve().parent
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CaseError(Code.E_OUTSIDE_ROOT, header, f"names {outside}")
    try:
        kind = file_kind(path)
    except CaseError as error:
        if error.code is not Code.E_NOT_FOUND:
            raise
        reason = f"its data file {Path(name).name} is not beside it; copy it there"
        raise CaseError(Code.E_SIDE_FILE, header, reason) from None
    if not path.resolve().is_relative_to(folder):
        raise CaseError(Code.E_OUTSIDE_ROOT, header, f"a link leads to {outside}")
    if kind == "folder":
        raise CaseError(Code.E_SIDE_FILE, header, "names a folder as its data file; export the scan again")
    return path


def slice_pieces(paths: Sequence[Path], shape: tuple[int, int, int], itemsize: int, start: int) -> list[Piece]:
    """One file a slice, or one for the whole volume."""
    if len(paths) == 1:
        return [Piece(paths[0], start)]
    return [Piece(path, start, length=shape[0] * shape[1] * itemsize) for path in paths]


def whole_numbers(path: Path, text: str, count: int | None, name: str) -> list[int]:
    """Whole decimal numbers separated by blanks.

    Raises:
        CaseError: E_FORMAT when there are others, or another count of them.
    """
    values = real_numbers(path, text, count, name)
    if any(value != int(value) for value in values):
        raise CaseError(Code.E_FORMAT, path, f"{name} holds other than whole numbers; export the scan again")
    return [int(value) for value in values]


def real_numbers(path: Path, text: str, count: int | None, name: str) -> list[float]:
    """Finite decimal numbers separated by blanks.

    Raises:
        CaseError: E_FORMAT when there are others, or another count of them.
    """
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        values = []
    if not values or (count is not None and len(values) != count) or not all(map(math.isfinite, values)):
        expected = f"{count} numbers" if count is not None else "numbers"
        raise CaseError(Code.E_FORMAT, path, f"{name} holds other than {expected}; export the scan again")
    return values
