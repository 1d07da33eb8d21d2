"""2D pictures: PNG, JPEG and TIFF, grey, of 1 to 32 bits.

A picture has no geometry. Its rows are taken to run to posterior and its columns to the patient's left, as an axial
slice is shown; one pixel counts as 1 mm, and whoever needs millimetres must refuse it (``Picture.has_millimetres``).

Colour: three equal channels are the grey picture they show, exactly. Anything coloured is turned into luminance
(ITU-R 601) and flagged W_PHOTOMETRIC. Pictures whose grey cannot be known (transparency, CMYK, inverted 16-bit TIFF)
are refused with E_PHOTOMETRIC. JPEG's EXIF rotation is applied.
"""

from __future__ import annotations

import io
import os
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.checks import check_size, open_regular
from pipeline.imaging.image import Affine, Box, FloatArray, Warning

FORMATS = ("PNG", "JPEG", "TIFF")
_RATIO_FROM = 16 << 20  # bytes from which the ratio is judged
_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "PA": 2, "RGB": 3, "RGBA": 4, "I": 4, "F": 4}
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0


@dataclass(eq=False)
class Picture:
    """An opened picture; see `pipeline.imaging.image.Scan`. Stored axes: column, row, one slice."""

    path: Path
    shape: tuple[int, int, int]
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    digest: str
    _content: bytes

    has_millimetres: ClassVar[bool] = False

    def read(self, box: Box) -> FloatArray:
        """Grey values of a box, float32.

        Raises:
            CaseError: E_TRUNCATED, E_CHECKSUM, E_PHOTOMETRIC or E_NONFINITE.
        """
        try:
            with _quietly(), _open(self._content, self.path) as picture:
                if picture.format == "PNG":
                    picture.verify()  # the checksums of all chunks, which decoding alone skips
            with _quietly(), _open(self._content, self.path) as picture:
                rows, found = _grey(picture, self.path)
        except SyntaxError:  # so Pillow calls a wrong PNG checksum
            raise CaseError(
                Code.E_CHECKSUM, self.path, "a checksum in the PNG does not hold; copy the file again"
            ) from None
        except (OSError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise _damaged(error, self.path) from None
        if found and not self.warnings:
            self.warnings += found
        voxels = np.asarray(rows.T[:, :, np.newaxis][box], dtype=np.float32)  # (row, column) -> (column, row, 1)
        if not np.isfinite(voxels).all():
            raise CaseError(Code.E_NONFINITE, self.path, "NaN or infinity among the pixels; export the picture again")
        return voxels


def open_picture(path: Path, *, limits: Limits, modality: str | None = None) -> Picture:
    """Check a picture's header and what it claims to hold; no pixel is decoded.

    Raises:
        CaseError: E_FORMAT, E_TOO_LARGE, E_SHAPE or E_PHOTOMETRIC.
    """
    del modality  # a picture declares none, and no rule here depends on it
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > limits.max_bytes:
            raise CaseError(
                Code.E_TOO_LARGE, path, f"{size} bytes on disk, above limits.max_bytes ({limits.max_bytes})"
            )
        content = handle.read()
    try:
        with _quietly(), _open(content, path) as picture:
            width, height = ImageOps.exif_transpose(picture).size if _turned(picture) else picture.size
            frames = getattr(picture, "n_frames", 1)
            mode, inverted = picture.mode, _inverted(picture)
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:
        raise _damaged(error, path) from None
    if frames != 1:
        raise CaseError(Code.E_SHAPE, path, f"{frames} pictures in one file, expected one")
    if mode not in _BYTES and not mode.startswith("I;16"):
        raise CaseError(Code.E_PHOTOMETRIC, path, f"colour space {mode}, expected grey; export as greyscale")
    if inverted:
        raise CaseError(Code.E_PHOTOMETRIC, path, f"white is zero, in mode {mode}; export with black as zero")
    each = _BYTES.get(mode, 2)
    found = check_size(path, (width, height), max(each, 4), limits)  # float32 in the end
    if width * height * each > _RATIO_FROM + limits.max_ratio * len(content):
        raise CaseError(
            Code.E_TOO_LARGE,
            path,
            f"{width} x {height} pixels in {len(content)} bytes, above limits.max_ratio ({limits.max_ratio})",
        )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    return Picture(path, (width, height, 1), affine, None, tuple(found), sha256_bytes(content), content)


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of sizes, which limits judge, and of damaged metadata, which matter to nobody here."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        yield


def _open(content: bytes, path: Path) -> Pillow.Image:
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # sizes are judged by limits; damaged metadata matter to nobody here
        try:
            return Pillow.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            raise CaseError(
                Code.E_FORMAT, path, "not a PNG, JPEG or TIFF that can be opened; export it again"
            ) from None
        except Pillow.DecompressionBombError:
            raise CaseError(Code.E_TOO_LARGE, path, "far more pixels than a scan has") from None


def _turned(picture: Pillow.Image) -> bool:
    return picture.format == "JPEG" and picture.getexif().get(0x0112, 1) in range(2, 9)


def _inverted(picture: Pillow.Image) -> bool:
    """Whether 0 means white and Pillow will not turn it (it does for 8 bits and fewer)."""
    tags = getattr(picture, "tag_v2", {})
    return tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO and picture.mode not in ("1", "L")


def _grey(picture: Pillow.Image, path: Path) -> tuple[np.ndarray, tuple[Warning, ...]]:
    """Grey values (row, column), and a warning when they were made from colours."""
    if _turned(picture):
        picture = ImageOps.exif_transpose(picture)
    picture.load()
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        grey = np.asarray(picture)
        return (grey.astype(grey.dtype.newbyteorder("=")), ())
    if picture.mode == "1":
        return np.asarray(picture, dtype=np.uint8), ()
    alpha = "A" in picture.mode or "transparency" in picture.info
    if alpha and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        raise CaseError(Code.E_PHOTOMETRIC, path, "transparent pixels have no grey value; export without transparency")
    colours = picture.convert("RGB")
    channels = np.asarray(colours)
    if (channels == channels[..., :1]).all():
        return channels[..., 0], ()
    return np.asarray(colours.convert("L")), (Warning(Code.W_PHOTOMETRIC, "coloured; its luminance was taken"),)


def _damaged(error: Exception, path: Path) -> CaseError:
    if isinstance(error, OSError | EOFError) and (
        "truncated" in str(error).lower() or "not enough" in str(error).lower()
    ):
        return CaseError(Code.E_TRUNCATED, path, "the picture ends early; copy the file again")
    return CaseError(Code.E_FORMAT, path, f"the picture cannot be decoded ({type(error).__name__}); export it again")
