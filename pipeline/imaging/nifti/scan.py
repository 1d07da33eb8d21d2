"""NIfTI-1 and NIfTI-2: the header is checked before any voxel is read, the stream to its last byte.

Voxels come in one pass over the file that keeps only the asked-for box: the digest needs every byte anyway, gzip's
checksum too, and a memory map would turn a file that shrinks while it is read into the death of the process.
No text field of the header (descrip, aux_file, db_name, intent_name) and no extension is ever read: they may hold
patients' data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import check_size
from pipeline.imaging.image import Affine, Box, Float32Array, Warning
from pipeline.imaging.nifti.geometry import geometry
from pipeline.imaging.streams import DEFLATE_LIMIT, Stream
from pipeline.imaging.volumes.voxels import Layout, Planes

NIFTI_HEADER_BYTES = 544  # the longer of the two headers, and the flag of its extensions
_LARGEST_HEADER = 1 << 20  # of a pair, extensions included
_SIZES: dict[int, type[Any]] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGIC = {(348, b"n+1\0"): "single", (348, b"ni1\0"): "pair", (540, b"n+2\0"): "single", (540, b"ni2\0"): "pair"}
# Real numbers only. float128 is a different type on every machine; complex and RGB are no scan.
_DATATYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_NAMES = {
    1: "binary",
    32: "complex64",
    128: "RGB24",
    1536: "float128",
    1792: "complex128",
    2048: "complex256",
    2304: "RGBA32",
}


@dataclass(frozen=True)
class Claims:
    """Claims of a header that bytes after the voxels can contradict.

    Attributes:
        extension: its flag says that extensions follow, but ``vox_offset`` leaves no room for any.
        bitpix: bits a voxel, when they are not those of the datatype; else None.
    """

    extension: bool
    bitpix: int | None

    def judge_trailing(self, path: Path, count: int) -> Warning:
        """The warning for bytes after the voxels, unless they show that the voxels were read from a wrong offset.

        Raises:
            CaseError: E_FORMAT, E_DTYPE.
        """
        if self.extension:
            reason = (
                f"{count} bytes too many, and an extension is claimed where vox_offset says voxels; export it again"
            )
            raise CaseError(Code.E_FORMAT, path, reason)
        if self.bitpix is not None:
            reason = f"{count} bytes too many for the datatype, and bitpix is {self.bitpix}; export the scan again"
            raise CaseError(Code.E_DTYPE, path, reason)
        return Warning(Code.W_TRAILING_BYTES, f"{count} bytes after the voxels are ignored")


@dataclass(eq=False)
class NiftiScan:
    """An opened NIfTI file; see `pipeline.imaging.image.Scan`."""

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    _layout: Layout
    _limits: Limits
    _claims: Claims
    _header: Path | None = None  # of a .hdr/.img pair; path is then the pair as it was asked for
    _voxels: Path = field(default=Path())
    _digest: str | None = None

    has_millimetres: ClassVar[bool] = True
    body_part: ClassVar[None] = None

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the file's bytes (of a pair: header, then voxels); known once ``read`` has returned."""
        if self._digest is None:
            raise RuntimeError("the digest is known once read() has returned")
        return self._digest

    def read(self, box: Box) -> Float32Array:
        """Voxels of a box of the stored grid, scaled, float32, Fortran-ordered.

        The whole file is read, so that length and gzip checksum are verified; only the box is converted and kept.

        Raises:
            CaseError: E_TRUNCATED, E_CHECKSUM, E_TOO_LARGE, E_NONFINITE or E_RANGE.
        """
        header = self._header.read_bytes() if self._header else b""
        stream = Stream(self._voxels, self._limits, prefix=header)
        planes = Planes(self._layout, box, self.path)
        position = 0
        for block in stream:
            planes.add(block, position)
            position += len(block)
        if position < self._layout.end:
            raise CaseError(
                Code.E_TRUNCATED,
                self.path,
                f"{position} bytes, but the header asks for {self._layout.end}; copy the file again",
            )
        trailing = stream.trailing + position - self._layout.end
        if trailing and not any(warning.code is Code.W_TRAILING_BYTES for warning in self.warnings):
            self.warnings += (self._claims.judge_trailing(self.path, trailing),)
        self._digest = stream.sha256.hexdigest()
        return planes.voxels


def open_nifti(path: Path, *, limits: Limits, modality: str | None = None) -> NiftiScan:
    """Check a NIfTI file's header; no voxel is read.

    Args:
        path: a single file, plain or gzip, or either file of a ``.hdr``/``.img`` pair.
        limits: what may be allocated.
        modality: the declared one; a negative slope is refused for CT.

    Raises:
        CaseError: with the code of what is wrong.
    """
    header_path = _header_of_pair(path)
    stream = Stream(header_path, limits)
    block = stream.head(NIFTI_HEADER_BYTES)
    header, kind = _parse(block, path)
    shape = _shape(header, path)
    datatype = int(header["datatype"])
    if datatype not in _DATATYPES:
        name = _NAMES.get(datatype, f"code {datatype}")
        raise CaseError(Code.E_DTYPE, path, f"datatype {name}; expected whole or real numbers of 8 to 64 bits")
    dtype = np.dtype(_DATATYPES[datatype]).newbyteorder(header.endianness)
    warnings = check_size(path, shape, dtype.itemsize, limits)
    bitpix = int(header["bitpix"]) if int(header["bitpix"]) != 8 * dtype.itemsize else None
    if bitpix is not None:
        warnings.append(Warning(Code.W_BITPIX, f"bitpix is {bitpix} for {dtype.name}; the datatype is followed"))
    slope, inter = _scaling(header, path, modality)
    voxels_path = _voxels_path(header_path, kind, stream.size, path)
    layout = Layout(dtype, shape, _offset(header, kind, path), slope, inter)
    claims = Claims(_has_no_room(block, header, layout, kind), bitpix)
    affine, geometry_warnings = geometry(header, shape, path)
    voxels = stream if kind == "single" else Stream(voxels_path, limits)
    warnings += geometry_warnings + _check_length(layout, voxels, claims, path)
    pair = header_path if kind == "pair" else None
    return NiftiScan(path, shape, affine, None, tuple(warnings), layout, limits, claims, pair, voxels_path)


def _parse(block: bytes, path: Path) -> tuple[Any, str]:
    """The header, and whether voxels follow in the same file (``single``) or lie in another (``pair``)."""
    for order, prefix in (("little", "<"), ("big", ">")):
        length = int.from_bytes(block[:4], order)  # type: ignore[arg-type]
        if length in _SIZES:
            if len(block) < length:
                raise CaseError(Code.E_TRUNCATED, path, f"{len(block)} bytes, shorter than a NIfTI header ({length})")
            header = _SIZES[length](block[:length], endianness=prefix, check=False)
            magic = block[344:348] if length == 348 else block[4:8]
            if (length, magic) not in _MAGIC:
                raise CaseError(
                    Code.E_FORMAT,
                    path,
                    "ANALYZE 7.5 or a damaged magic number; such a header has no orientation: convert to NIfTI",
                )
            return header, _MAGIC[length, magic]
    raise CaseError(Code.E_FORMAT, path, f"sizeof_hdr is {int.from_bytes(block[:4], 'little')}, expected 348 or 540")


def _shape(header: Any, path: Path) -> tuple[int, int, int]:
    """Three lengths: trailing singletons are dropped, a flat image has one slice."""
    dim = [int(value) for value in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise CaseError(Code.E_SHAPE, path, f"dim[0] is {dim[0]}, expected 1 to 7")
    lengths = dim[1 : dim[0] + 1]
    text = " x ".join(str(length) for length in lengths)
    if min(lengths) < 1:
        raise CaseError(Code.E_SHAPE, path, f"dimensions {text}; every length must be at least 1")
    while len(lengths) > 3 and lengths[-1] == 1:
        lengths.pop()
    if len(lengths) > 3:
        raise CaseError(
            Code.E_SHAPE, path, f"dimensions {text}; expected one volume, not a series, a vector field or channels"
        )
    if len(lengths) == 1:
        raise CaseError(Code.E_SHAPE, path, f"one dimension ({text}), expected an image")
    x, y, z = (*lengths, 1)[:3]
    return x, y, z


def _scaling(header: Any, path: Path, modality: str | None) -> tuple[float, float]:
    """Slope and intercept by NIfTI's rules: a slope of 0 or NaN means unscaled."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isnan(slope) or slope == 0:
        return 1.0, 0.0
    if not math.isfinite(slope) or not math.isfinite(inter):
        raise CaseError(Code.E_SCALING, path, f"scl_slope {slope:g} and scl_inter {inter:g}; expected finite numbers")
    if slope < 0 and modality == "CT":
        raise CaseError(Code.E_SCALING, path, f"scl_slope {slope:g} turns CT upside down; expected a positive slope")
    return slope, inter


def _offset(header: Any, kind: str, path: Path) -> int:
    offset = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4 if kind == "single" else 0
    if not math.isfinite(offset) or offset != int(offset) or offset < least:
        raise CaseError(Code.E_FORMAT, path, f"vox_offset is {offset:g}, expected a whole number of bytes from {least}")
    return int(offset)


def _has_no_room(block: bytes, header: Any, layout: Layout, kind: str) -> bool:
    """Whether extensions are claimed, each of which has 16 bytes and more, and voxels begin where they would."""
    size = int(header["sizeof_hdr"])
    return kind == "single" and block[size : size + 1] not in (b"", b"\0") and layout.offset < size + 4 + 16


def _check_length(layout: Layout, stream: Stream, claims: Claims, path: Path) -> list[Warning]:
    """Refuse, before voxels are read, a file that cannot hold them."""
    most = stream.size * DEFLATE_LIMIT if stream.compressed else stream.size
    if most < layout.end:
        raise CaseError(
            Code.E_TRUNCATED,
            path,
            f"{stream.size} bytes{' of gzip' * stream.compressed}, but the header asks for {layout.end}; "
            "copy the file again",
        )
    if not stream.compressed and stream.size > layout.end:
        return [claims.judge_trailing(path, stream.size - layout.end)]
    return []


def _header_of_pair(path: Path) -> Path:
    """The header's file, when the path may be the voxels of a pair."""
    name = path.name
    for image, header in ((".img.gz", ".hdr.gz"), (".img", ".hdr")):
        if name.lower().endswith(image):
            header_path = path.with_name(name[: -len(image)] + header)
            return header_path if header_path.is_file() else path
    return path


def _voxels_path(header_path: Path, kind: str, header_size: int, path: Path) -> Path:
    """The file that holds the voxels.

    Raises:
        CaseError: E_SIDE_FILE, when a pair's voxels are absent or a link leads to another folder; E_FORMAT.
    """
    if kind == "single":
        if header_path != path:
            raise CaseError(
                Code.E_SIDE_FILE, path, f"{header_path.name} beside it is a whole image, not its header; name one"
            )
        return path
    if header_size > _LARGEST_HEADER:
        raise CaseError(Code.E_FORMAT, path, f"the header's file has {header_size} bytes, expected a header alone")
    stem = header_path.name.removesuffix(".gz").rsplit(".", 1)[0]
    for name in (f"{stem}.img", f"{stem}.img.gz"):
        voxels = header_path.with_name(name)
        if voxels.is_file():
            if voxels.resolve().parent != header_path.resolve().parent:
                raise CaseError(
                    Code.E_SIDE_FILE, path, f"{name} is a link to another folder; copy it beside the header"
                )
            return voxels
    raise CaseError(Code.E_SIDE_FILE, path, f"the header of a pair, but {stem}.img is not beside it; copy it there")
