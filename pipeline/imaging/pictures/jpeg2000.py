"""JPEG 2000 pictures: a bare codestream, or one in the boxes of a JP2 file. All bits are kept.

The codestream is walked to its end mark before its codec sees it (see ``dicom.codestream``); it carries no checksum.
Source: ITU-T T.800, annex I.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.codestream import Codestream, CodestreamError, inspect_jpeg_2000

JP2_SIGNATURE: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM_SIGNATURE: Final = b"\xff\x4f\xff\x51"
_SRGB, _GREY, _SYCC = 16, 17, 18  # enumerated colour spaces


@dataclass(frozen=True)
class Jpeg2000:
    """A picture's codestream, its header, and whether its channels are YCbCr."""

    codestream: bytes
    header: Codestream
    is_ybr: bool


def inspect_picture(content: bytes, path: Path) -> Jpeg2000:
    """Find the codestream and walk it to its end.

    Raises:
        CaseError: E_CODEC, E_PHOTOMETRIC, E_TRUNCATED or E_FORMAT.
    """
    colours = 0
    codestream = content
    if content.startswith(JP2_SIGNATURE):
        boxes = dict(_boxes(content, path))
        head = dict(_boxes(boxes.get(b"jp2h", b""), path))
        codestream = boxes.get(b"jp2c", b"")
        if b"pclr" in head:
            raise CaseError(Code.E_PHOTOMETRIC, path, "colours from a palette, expected grey; export as greyscale")
        colour = head.get(b"colr", b"")
        colours = int.from_bytes(colour[3:7], "big") if colour[:1] == b"\1" and len(colour) >= 7 else 0
    try:
        header = inspect_jpeg_2000(codestream)
    except CodestreamError as error:
        raise CaseError(Code.E_CODEC, path, f"the codestream {error}; export the picture again") from None
    if header.components not in (1, 2, 3, 4) or header.precision > 16 or colours not in (0, _SRGB, _GREY, _SYCC):
        channels = f"{header.components} channels of {header.precision} bits"
        raise CaseError(
            Code.E_PHOTOMETRIC, path, f"{channels}, expected grey or RGB of at most 16; export as greyscale"
        )
    return Jpeg2000(codestream, header, colours == _SYCC)


def _boxes(content: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place < len(content):
        head, size = content[place : place + 16], 8
        if len(head) < 8:
            raise CaseError(Code.E_TRUNCATED, path, "the JP2 file ends inside a box; copy it again")
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length, size = struct.unpack(">Q", head[8:])[0], 16
        elif length == 0:
            length = len(content) - place
        if length < size or place + length > len(content):
            raise CaseError(Code.E_TRUNCATED, path, "a box of the JP2 file ends beyond it; copy the file again")
        yield head[4:8], content[place + size : place + length]
        place += length


def decode_jpeg2000(picture: Jpeg2000, path: Path) -> NDArray[Any]:
    """Samples, shape (rows, columns, channels).

    Raises:
        CaseError: E_CODEC.
    """
    import openjpeg as module

    codec: Any = module  # not annotated
    header = picture.header
    try:
        out = bytes(codec.decode_pixel_data(picture.codestream, version=2))
    except (RuntimeError, ValueError, TypeError, UnicodeDecodeError, MemoryError) as error:
        reason = f"the picture cannot be decoded ({type(error).__name__} of the codec); export it again"
        raise CaseError(Code.E_CODEC, path, reason) from None
    size = 1 if header.precision <= 8 else 2
    values = np.frombuffer(out, f"{'<' if sys.byteorder == 'little' else '>'}{'i' if header.signed else 'u'}{size}")
    if values.size != header.rows * header.columns * header.components:
        raise CaseError(Code.E_CODEC, path, f"the picture decodes to {len(out)} bytes; export it again")
    return values.reshape(header.rows, header.columns, header.components)
