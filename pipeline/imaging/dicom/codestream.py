"""Check a compressed frame's own header before it is given to a codec.

The codecs allocate what a codestream claims and accept many damaged ones, so a frame is handed to one only when
its own header agrees with the DICOM header, its marker segments follow each other to the end mark, and its coded
bytes hold no pattern that the coder cannot produce. Damage that leaves the bytes legal is not found.
JPEG, JPEG-LS, JPEG 2000 and RLE carry no checksum (nor does uncompressed DICOM).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

_SOF: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})  # baseline, extended, progressive, lossless, JPEG-LS
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_APP0, _APP8, _APP14, _CODING_STYLE = 0xE0, 0xE8, 0xEE, 0x52
# In coded data 0xFF is followed by a stuffed byte; anything else is a marker, and only these may stand there.
_JPEG_ILLEGAL: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_LS_ILLEGAL: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_J2K_ILLEGAL: Final = re.compile(rb"\xff[\x90\x93-\xff]")  # 0xFF91 and 0xFF92 delimit packets


class CodestreamError(Exception):
    """The codestream is damaged or contradicts the DICOM header; the text says how."""


@dataclass(frozen=True)
class Codestream:
    """Size and sample format as the codestream has them.

    Attributes:
        rows: of the picture.
        columns: of the picture.
        components: channels; all have the same size and format.
        precision: bits of a sample.
        signed: whether samples have a sign; JPEG and JPEG-LS know none.
        colours: ``RGB`` or ``YBR`` when the codestream says which its decoded channels are, else None.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    colours: str | None = None


def inspect_jpeg(data: bytes, *, jpeg_ls: bool) -> Codestream:
    """Walk a JPEG or JPEG-LS stream from its first to its last marker.

    Raises:
        CodestreamError: when it is damaged or cut short.
    """
    if data[:2] != b"\xff\xd8":
        raise CodestreamError("does not begin with the mark of a JPEG image")
    place, header, colours = 2, None, None
    while True:
        marker, place = _next_marker(data, place)
        if marker in _BARE:
            continue
        segment = _segment(data, place)
        if marker in _SOF:
            header = _frame_header(segment)
            if segment[6::3][:3] == b"RGB":
                colours = colours or "RGB"
        elif marker in (_APP0, _APP8, _APP14):
            colours = _application(marker, segment) or colours
        place += 2 + len(segment)
        if marker == 0xDA:
            break
        if marker == 0xD9:
            raise CodestreamError("ends before its first scan")
    if header is None:
        raise CodestreamError("has no frame header before its first scan")
    end = data.rfind(b"\xff\xd9")
    if end < place:
        raise CodestreamError("has no end mark, so it is cut short")
    if header.components == 1 and (_JPEG_LS_ILLEGAL if jpeg_ls else _JPEG_ILLEGAL).search(data[place:end]):
        raise CodestreamError("has a marker inside its coded pixels")
    return replace(header, colours=colours)


def _application(marker: int, segment: bytes) -> str | None:
    """Colours as an application's marker states them."""
    if marker == _APP8 and segment.startswith(b"mrfx"):
        raise CodestreamError("has colours transformed in a way that its standard does not know")
    if marker == _APP0 and segment.startswith(b"JFIF\0"):
        return "YBR"
    if marker == _APP14 and segment.startswith(b"Adobe") and len(segment) >= 12:
        return "YBR" if segment[11] == 1 else "RGB"
    return None


def _next_marker(data: bytes, place: int) -> tuple[int, int]:
    if data[place : place + 1] != b"\xff":
        raise CodestreamError(f"has no marker at byte {place}")
    while data[place : place + 1] == b"\xff":
        place += 1
    if place >= len(data):
        raise CodestreamError("ends inside its header")
    return data[place], place + 1


def _segment(data: bytes, place: int) -> bytes:
    length = int.from_bytes(data[place : place + 2], "big")
    if length < 2 or place + length > len(data):
        raise CodestreamError(f"has a segment of {length} bytes at byte {place}, beyond its end")
    return data[place + 2 : place + length]


def _frame_header(segment: bytes) -> Codestream:
    if len(segment) < 6:
        raise CodestreamError("has a frame header that is too short")
    precision, rows, columns, components = struct.unpack(">BHHB", segment[:6])
    return Codestream(rows, columns, components, precision, signed=False)


def inspect_jpeg_2000(data: bytes) -> Codestream:
    """Walk a JPEG 2000 codestream: main header, every tile-part by its length, end mark.

    Raises:
        CodestreamError: when it is damaged or cut short.
    """
    if data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n":
        raise CodestreamError("is a JP2 file where DICOM asks for a bare codestream")
    if data[:4] != b"\xff\x4f\xff\x51":
        raise CodestreamError("does not begin with the marks of a JPEG 2000 codestream")
    header, tiles = _image_size(_segment(data, 4))
    place, parts = 2, set()
    while data[place : place + 2] != b"\xff\x90":
        if data[place : place + 1] != b"\xff" or data[place + 1 : place + 2] in (b"\xd9", b""):
            raise CodestreamError(f"has no marker at byte {place} of its header")
        segment = _segment(data, place + 2)
        if data[place + 1] == _CODING_STYLE and segment[4:5] == b"\1":
            header = replace(header, colours="RGB")  # the decoder undoes the transform that was made from RGB
        place += 4 + len(segment)
    while data[place : place + 2] == b"\xff\x90":
        tile, place = _tile_part(data, place)
        parts.add(tile)
    if data[place : place + 2] != b"\xff\xd9":
        raise CodestreamError(f"has neither a tile nor the end mark at byte {place}, so it is damaged or cut short")
    if parts != set(range(tiles)):
        raise CodestreamError(f"holds {len(parts)} of {tiles} tiles")
    return header


def _image_size(segment: bytes) -> tuple[Codestream, int]:
    if len(segment) < 39:
        raise CodestreamError("has an image header that is too short")
    x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = struct.unpack(">8LH", segment[2:36])
    depth, step_x, step_y = segment[36:39]
    if components > 1 and segment[36 : 36 + 3 * components] != segment[36:39] * components:
        raise CodestreamError("has channels of different sizes or formats")
    if min(tile_x, tile_y, step_x, step_y) == 0 or x <= x0 or y <= y0 or max(step_x, step_y) > 1:
        raise CodestreamError("has an impossible image size")
    tiles = -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y)
    if not 0 < tiles <= 65535:
        raise CodestreamError(f"claims {tiles} tiles, of 65535 at most")
    return Codestream(y - y0, x - x0, components, (depth & 0x7F) + 1, depth >= 0x80), tiles


def _tile_part(data: bytes, place: int) -> tuple[int, int]:
    """Tile number of the part at ``place``, and where the next marker must stand."""
    segment = _segment(data, place + 2)
    if len(segment) != 8:
        raise CodestreamError(f"has a damaged tile header at byte {place}")
    tile, length = struct.unpack(">HL", segment[:6])
    end = place + length if length else data.rfind(b"\xff\xd9")
    body = data.find(b"\xff\x93", place + 12, max(end, place))
    if not place + 14 <= end <= len(data) or body < 0:
        raise CodestreamError(f"has a tile of {length} bytes at byte {place}, beyond its end")
    if _J2K_ILLEGAL.search(data, body + 2, end):
        raise CodestreamError("has a marker inside its coded pixels")
    return tile, end


def unpack_rle(data: bytes, *, pixels: int, planes: int) -> bytes:
    """Decode RLE (PackBits) segments, most significant byte plane first, into big-endian pixels.

    Written here because pylibjpeg-rle panics on a segment that is too long, past every ``except Exception``. Decoding
    stops as soon as a segment exceeds the size of the image, so its expansion is bounded.

    Raises:
        CodestreamError: when a segment is missing, or is not exactly one byte a pixel.
    """
    if len(data) < 64:
        raise CodestreamError("ends inside its RLE header")
    count, *offsets = struct.unpack("<16L", data[:64])
    if count != planes:
        raise CodestreamError(f"has {count} RLE segments, expected {planes}")
    starts = [*offsets[:planes], len(data)]
    if starts[0] != 64 or any(a >= b for a, b in pairwise(starts)):
        raise CodestreamError("has RLE segments out of order or beyond its end")
    out = bytearray(pixels * planes)
    for plane in range(planes):
        out[plane::planes] = _unpack_bits(memoryview(data)[starts[plane] : starts[plane + 1]], pixels)
    return bytes(out)


def _unpack_bits(data: memoryview, size: int) -> bytes:
    out, place, end = bytearray(), 0, len(data)
    while place < end and len(out) < size:
        head = data[place]
        if head < 128:
            out += data[place + 1 : place + 2 + head]
            place += 2 + head
        elif head > 128:
            out += bytes(data[place + 1 : place + 2]) * (257 - head)
            place += 2
        else:
            place += 1
    if len(out) != size or place > end or end - place > 2:
        raise CodestreamError(f"has an RLE segment that does not decode to {size} bytes")
    return bytes(out)
