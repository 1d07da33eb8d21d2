"""Decode a picture's bytes to grey values, with the decoder that keeps its full depth.

Pillow reads what it keeps without loss: up to 8 bits a channel, and grey of any depth. Deeper colour is decoded by
``png``, ``tiff`` and ``jpeg2000``. The content decides on the decoder before a pixel is decoded.
"""

from __future__ import annotations

import io
import re
import struct
import warnings as python_warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from pipeline.errors import CaseError, Code
from pipeline.imaging.colour import grey_of_rgb
from pipeline.imaging.pictures import jpeg2000, png, tiff

FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_BYTES: Final = {"1": 1, "L": 1, "P": 1, "LA": 2, "PA": 2, "RGB": 3, "RGBA": 4, "RGBX": 4, "I": 4, "F": 4}
_ORIENTATION: Final = 0x0112
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_FAULTS: Final = (
    OSError, ValueError, EOFError, SyntaxError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Decoder(ABC):
    """What a picture's header says, and how its pixels become grey.

    Attributes:
        size: width and height in pixels, turned as they will be.
        pixel_bytes: of one pixel while it is decoded.
        page: which of the pages, from 1.
        pages: how many there are.
        trailing: bytes after the end that the file itself states.
    """

    size: tuple[int, int]
    pixel_bytes: int
    page: int = 1
    pages: int = 1
    trailing: int = 0

    @abstractmethod
    def grey(self, content: bytes, path: Path) -> tuple[NDArray[Any], bool]:
        """Grey values (row, column), and whether they were made from colours.

        Raises:
            CaseError: for damage, or when grey cannot be known.
        """


def open_decoder(content: bytes, path: Path, part: str | None) -> Decoder:
    """The decoder that a picture needs.

    Raises:
        CaseError: E_FORMAT, E_TRUNCATED, E_SHAPE, E_PHOTOMETRIC, E_CODEC, or E_NOT_FOUND for a page that is not there.
    """
    if content.startswith((jpeg2000.JP2_SIGNATURE, jpeg2000.CODESTREAM_SIGNATURE)):
        _page(path, part, 1)
        picture = jpeg2000.inspect_picture(content, path)
        header = picture.header
        return _Jpeg2000Decoder((header.columns, header.rows), 2 * header.components, picture=picture)
    if content.startswith((b"II", b"MM")):
        pages = tiff.tiff_pages(content, path)
        number = _page(path, part, len(pages))
        page = pages[number - 1]
        if page.is_deep:
            size = _turned((page.width, page.height), page.orientation)
            return _DeepTiff(size, page.samples * page.bits // 8, number, len(pages), picture=page)
        if page.has_deep_palette:
            raise CaseError(Code.E_PHOTOMETRIC, path, "a palette of 16-bit colours; export as greyscale")
        return _with_pillow(content, path, page=number, pages=len(pages))
    _page(path, part, 1)
    if content.startswith(png.SIGNATURE):
        head = png.png_header(content, path)
        if head.is_deep:
            orientation = _png_orientation(content, path)
            size = _turned((head.width, head.height), orientation)
            return _DeepPng(size, 2 * head.samples, picture=head, orientation=orientation)
        return _with_pillow(content, path, head=head)
    return _with_pillow(content, path, trailing=_trailing(content, path))


def _page(path: Path, part: str | None, pages: int) -> int:
    if part is None and pages == 1:
        return 1
    if part is None:
        raise CaseError(
            Code.E_SHAPE,
            path,
            f"{pages} pictures in one file, expected one; name one of #1 to #{pages}, as image: {path.name}#1, or save "
            "a stack of slices as NIfTI, with its spacing",
        )
    if not re.fullmatch(r"[0-9]{1,9}", part) or not 1 <= int(part) <= pages:
        choices = f"pages #1 to #{pages}" if pages > 1 else "one picture, #1"
        raise CaseError(Code.E_NOT_FOUND, path, f"no such part; the file has {choices}")
    return int(part)


def _trailing(content: bytes, path: Path) -> int:
    """Bytes after the length that BMP and WebP files state; 0 where they state none."""
    if content.startswith(b"RIFF"):
        length = int.from_bytes(content[4:8], "little")
        length += 8 + length % 2
    elif content.startswith(b"BM"):
        length = int.from_bytes(content[2:6], "little") or len(content)  # some writers leave it out
    else:
        return 0
    if length > len(content) + 1:
        raise CaseError(Code.E_TRUNCATED, path, f"{len(content)} bytes of {length}; copy the file again")
    return max(len(content) - length, 0)


def _png_orientation(content: bytes, path: Path) -> int:
    with _quietly(), _open(content, path) as picture:
        return _orientation(picture)


def _orientation(picture: Pillow.Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except _FAULTS:
        return 1  # damaged metadata are ignored
    return value if isinstance(value, int) else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _turn(rows: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror (row, column, …) values as EXIF asks."""
    if orientation in (5, 6, 7, 8):
        rows = rows.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        rows = rows[::-1]
    if orientation in (2, 3, 6, 7):
        rows = rows[:, ::-1]
    return rows


def _grey_of(samples: NDArray[Any], path: Path, most: float) -> tuple[NDArray[Any], bool]:
    """Grey of (row, column, 1 to 4 samples); an even count has transparency last, which must be ``most`` everywhere."""
    count = samples.shape[2]
    if count in (2, 4) and (samples[..., -1] != most).any():
        raise _transparent(path)
    return (samples[..., 0], False) if count < 3 else grey_of_rgb(samples[..., :3])


def _transparent(path: Path) -> CaseError:
    return CaseError(Code.E_PHOTOMETRIC, path, "transparent pixels have no grey value; export without transparency")


@dataclass(frozen=True, kw_only=True)
class _DeepPng(Decoder):
    picture: png.PngHeader
    orientation: int

    def grey(self, content: bytes, path: Path) -> tuple[NDArray[Any], bool]:
        samples = png.decode_deep_png(content, self.picture, path)
        if self.picture.key is not None and (samples == np.array(self.picture.key)).all(axis=2).any():
            raise _transparent(path)
        rows, coloured = _grey_of(samples, path, 65535)
        return _turn(rows, self.orientation), coloured


@dataclass(frozen=True, kw_only=True)
class _DeepTiff(Decoder):
    picture: tiff.TiffPage

    def grey(self, content: bytes, path: Path) -> tuple[NDArray[Any], bool]:
        try:
            with _quietly():
                samples = tiff.decode_deep_tiff(content, self.picture, path)
        except (*_FAULTS, struct.error) as error:
            raise _damaged(error, path) from None
        rows, coloured = _grey_of(samples, path, 65535 if samples.dtype.kind == "u" else 1.0)
        return _turn(rows, self.picture.orientation), coloured


@dataclass(frozen=True, kw_only=True)
class _Jpeg2000Decoder(Decoder):
    picture: jpeg2000.Jpeg2000

    def grey(self, content: bytes, path: Path) -> tuple[NDArray[Any], bool]:
        samples, header = jpeg2000.decode_jpeg2000(self.picture, path), self.picture.header
        if self.picture.is_ybr and header.components == 3:
            middle = 0 if header.signed else 1 << (header.precision - 1)
            return samples[..., 0], bool((samples[..., 1:] != middle).any())
        return _grey_of(samples, path, (1 << header.precision) - 1)


@dataclass(frozen=True, kw_only=True)
class _PillowDecoder(Decoder):
    key: tuple[int, ...] | None = None
    verified: bool = False

    def grey(self, content: bytes, path: Path) -> tuple[NDArray[Any], bool]:
        try:
            if self.verified:
                with _quietly(), _open(content, path) as picture:
                    picture.verify()  # the checksums of all chunks, which decoding alone skips
            with _quietly(), _open(content, path) as picture:
                picture.seek(self.page - 1)
                picture.load()
                return self._grey(ImageOps.exif_transpose(picture), path)
        except SyntaxError:  # raised by Pillow for a wrong PNG checksum
            raise CaseError(Code.E_CHECKSUM, path, "a checksum in the PNG does not hold; copy the file again") from None
        except _FAULTS as error:
            raise _damaged(error, path) from None

    def _grey(self, picture: Pillow.Image, path: Path) -> tuple[NDArray[Any], bool]:
        if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
            grey = np.asarray(picture)
            if self.key is not None and (grey == self.key[0]).any():
                raise _transparent(path)
            return grey.astype(grey.dtype.newbyteorder("=")), False
        if picture.mode == "1":
            return np.asarray(picture, dtype=np.uint8), False
        alpha = "A" in picture.mode or "transparency" in picture.info
        if alpha and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
            raise _transparent(path)
        return grey_of_rgb(np.asarray(picture.convert("RGB")))


def _with_pillow(
    content: bytes, path: Path, *, page: int = 1, pages: int = 1, trailing: int = 0, head: png.PngHeader | None = None
) -> Decoder:
    try:
        with _quietly(), _open(content, path) as picture:
            picture.seek(page - 1)
            width, height, mode = picture.width, picture.height, picture.mode
            tags = getattr(picture, "tag_v2", None)
            if tags:  # whose size Pillow has turned already
                width, height = tags[256], tags[257]
            orientation = _orientation(picture)
            frames = getattr(picture, "n_frames", 1) if pages == 1 else 1
            inverted = _inverted(picture)
    except _FAULTS as error:
        raise _damaged(error, path) from None
    if frames != 1:
        raise CaseError(Code.E_SHAPE, path, f"an animation of {frames} pictures, expected one; save one of them")
    if mode not in _BYTES and not mode.startswith("I;16"):
        raise CaseError(Code.E_PHOTOMETRIC, path, f"colour space {mode}, expected grey; export as greyscale")
    if inverted:
        raise CaseError(Code.E_PHOTOMETRIC, path, f"white is zero, in mode {mode}; export with black as zero")
    size, key = _turned((width, height), orientation), None if head is None else head.key
    return _PillowDecoder(size, _BYTES.get(mode, 2), page, pages, trailing, key=key, verified=head is not None)


def _inverted(picture: Pillow.Image) -> bool:
    """Whether 0 means white and Pillow will not turn it (it does for 8 bits and fewer)."""
    tags = getattr(picture, "tag_v2", {})
    return tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO and picture.mode not in ("1", "L")


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence Pillow's warnings of sizes, which the limits check, and of damaged metadata, which are not used."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        yield


def _open(content: bytes, path: Path) -> Pillow.Image:
    try:
        picture = Pillow.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise CaseError(
            Code.E_FORMAT, path, f"not a picture that can be opened ({', '.join(FORMATS)}); export it again"
        ) from None
    except Pillow.DecompressionBombError:
        raise CaseError(Code.E_TOO_LARGE, path, "far more pixels than a scan has") from None
    if picture.format == "PNG" and "Raw profile type exif" not in picture.info:
        # Pillow would look for an eXIf chunk after the pixels, and decode them all for it.
        picture.info["exif"] = png.png_header(content, path).exif
    return picture


def _damaged(error: Exception, path: Path) -> CaseError:
    if isinstance(error, OSError | EOFError) and (
        "truncated" in str(error).lower() or "not enough" in str(error).lower()
    ):
        return CaseError(Code.E_TRUNCATED, path, "the picture ends early; copy the file again")
    return CaseError(Code.E_FORMAT, path, f"the picture cannot be decoded ({type(error).__name__}); export it again")
