"""2D pictures: PNG, JPEG, TIFF, BMP, WebP and JPEG 2000, as grey values of the depth that the file has.

A picture has no geometry. Its rows are taken to run to posterior and its columns to the patient's left, as an axial
slice is shown; one pixel counts as 1 mm, and callers that need millimetres must refuse it
(``Picture.has_millimetres``).

Colour: three equal channels are the grey picture they show, exactly, of 16 bits too. Anything coloured is turned into
luminance (ITU-R 601) in its own depth and flagged W_PHOTOMETRIC. Pictures whose grey cannot be known (transparency,
CMYK, inverted 16-bit TIFF) are refused with E_PHOTOMETRIC. The turn that EXIF asks for is applied in every format.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.checks import check_size, open_regular
from pipeline.imaging.image import Affine, Box, Float32Array, Warning, part_digest
from pipeline.imaging.pictures.decode import Decoder, open_decoder

_RATIO_FROM = 16 << 20  # bytes from which the ratio is judged


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
    _decoder: Decoder

    has_millimetres: ClassVar[bool] = False
    body_part: ClassVar[None] = None

    def read(self, box: Box) -> Float32Array:
        """Grey values of a box, float32.

        Raises:
            CaseError: E_TRUNCATED, E_CHECKSUM, E_CODEC, E_PHOTOMETRIC or E_NONFINITE.
        """
        rows, coloured = self._decoder.grey(self._content, self.path)
        coloured_warning = Warning(Code.W_PHOTOMETRIC, "coloured; its luminance was taken")
        if coloured and coloured_warning not in self.warnings:
            self.warnings += (coloured_warning,)
        voxels = np.asarray(rows.T[:, :, np.newaxis][box], dtype=np.float32)  # (row, column) -> (column, row, 1)
        if not np.isfinite(voxels).all():
            raise CaseError(Code.E_NONFINITE, self.path, "NaN or infinity among the pixels; export the picture again")
        return voxels


def open_picture(path: Path, *, limits: Limits, modality: str | None = None, part: str | None = None) -> Picture:
    """Check a picture's header and what it claims to hold; no pixel is decoded.

    Args:
        path: of the file.
        limits: what may be allocated.
        modality: not used, because a picture declares none and no rule depends on it.
        part: the number of a page, from 1; needed where there are several.

    Raises:
        CaseError: E_FORMAT, E_TOO_LARGE, E_SHAPE, E_PHOTOMETRIC, or E_NOT_FOUND for a page that is not there.
    """
    del modality
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > limits.max_bytes:
            raise CaseError(
                Code.E_TOO_LARGE, path, f"{size} bytes on disk, above limits.max_bytes ({limits.max_bytes})"
            )
        content = handle.read()
    decoder = open_decoder(content, path, part)
    width, height = decoder.size
    warnings = check_size(path, (width, height), max(decoder.pixel_bytes, 4), limits)  # float32 in the end
    if width * height * decoder.pixel_bytes > _RATIO_FROM + limits.max_ratio * len(content):
        raise CaseError(
            Code.E_TOO_LARGE,
            path,
            f"{width} x {height} pixels in {len(content)} bytes, above limits.max_ratio ({limits.max_ratio})",
        )
    if decoder.trailing:
        warnings.append(Warning(Code.W_TRAILING_BYTES, f"{decoder.trailing} bytes after the picture are ignored"))
    digest = sha256_bytes(content)
    if decoder.pages > 1:
        digest = part_digest(digest, decoder.page)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    return Picture(path, (width, height, 1), affine, None, tuple(warnings), digest, content, decoder)
