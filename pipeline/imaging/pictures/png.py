"""PNG beyond what Pillow keeps: 16 bits in colour or with transparency, which it cuts to 8; and the turn of eXIf.

The format's checksums (of every chunk, and of the compressed pixels) are verified, and the pixels must be as many as
the header says. Source: W3C Recommendation PNG, third edition, 2025.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First column and row, and steps, of the seven passes of an interlaced picture.
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE: Final = ((0, 0, 1, 1),)
_BAND: Final = 1024  # rows that are unfiltered at once; a band takes twice its size in memory


@dataclass(frozen=True)
class PngHeader:
    """Header of a PNG.

    Attributes:
        width: in pixels, as stored.
        height: in pixels, as stored.
        bits: of a sample.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        interlaced: in seven passes.
        exif: content of the eXIf chunk, b"" without one.
        key: the samples of the colour that stands for transparency; None without one.
    """

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: bool
    exif: bytes
    key: tuple[int, ...] | None

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return _SAMPLES[self.colour_type]

    @property
    def is_deep(self) -> bool:
        """Whether it holds 16 bits in more than one sample."""
        return self.bits == 16 and self.samples > 1


def png_header(content: bytes, path: Path) -> PngHeader:
    """Read the header, and the chunks beside the pixels that matter to grey values.

    Raises:
        CaseError: E_FORMAT, E_TRUNCATED.
    """
    chunks: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(content, path):
        if kind in (b"IHDR", b"tRNS", b"eXIf"):
            chunks.setdefault(kind, content[start:end])
    head = chunks.get(b"IHDR", b"")
    if len(head) != 13 or content[12:16] != b"IHDR":
        raise CaseError(Code.E_FORMAT, path, "the PNG does not begin with its header; export it again")
    width, height, bits, colour_type, method, filters, interlace = struct.unpack(">LLBBBBB", head)
    if not (width and height) or colour_type not in _SAMPLES or method or filters or interlace > 1:
        raise CaseError(Code.E_FORMAT, path, "the PNG's header holds values that the standard does not know")
    key = chunks.get(b"tRNS") if colour_type in (0, 2) else None
    is_valid = key is not None and len(key) == 2 * _SAMPLES[colour_type]
    return PngHeader(
        width=width,
        height=height,
        bits=bits,
        colour_type=colour_type,
        interlaced=interlace == 1,
        exif=chunks.get(b"eXIf", b""),
        key=struct.unpack(f">{_SAMPLES[colour_type]}H", key) if key is not None and is_valid else None,
    )


def _chunks(content: bytes, path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, and where its body begins and ends; its checksum follows. The last one is IEND."""
    place = len(SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">L", content, place)
        kind, end = content[place + 4 : place + 8], place + 8 + length
        if end + 4 > len(content):
            break
        yield kind, place + 8, end
        if kind == b"IEND":
            return
        place = end + 4
    raise CaseError(Code.E_TRUNCATED, path, "the PNG has no end; copy the file again")


def decode_deep_png(content: bytes, header: PngHeader, path: Path) -> NDArray[np.uint16]:
    """Samples of a 16-bit picture, shape (rows, columns, samples).

    Raises:
        CaseError: E_CHECKSUM, E_TRUNCATED or E_FORMAT.
    """
    data = bytearray()
    for kind, start, end in _chunks(content, path):
        if zlib.crc32(memoryview(content)[start - 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise CaseError(Code.E_CHECKSUM, path, "a checksum in the PNG does not hold; copy the file again")
        if kind == b"IDAT":
            data += content[start:end]
    passes = _PASSES if header.interlaced else _WHOLE
    pixel_bytes = 2 * header.samples
    sizes = [
        (-(-(header.height - row) // down), -(-(header.width - column) // across))
        for column, row, across, down in passes
    ]
    expected = sum(rows * (1 + columns * pixel_bytes) for rows, columns in sizes if rows > 0 and columns > 0)
    raw = np.frombuffer(_inflate(bytes(data), expected, path), np.uint8)
    picture = np.zeros((header.height, header.width, header.samples), np.uint16)
    place = 0
    for (column, row, across, down), (rows, columns) in zip(passes, sizes, strict=True):
        if rows <= 0 or columns <= 0:
            continue
        length = rows * (1 + columns * pixel_bytes)
        lines = raw[place : place + length].reshape(rows, -1)
        place += length
        pixels = _unfilter(lines[:, 1:].reshape(rows, columns, pixel_bytes), lines[:, 0], path)
        picture[row::down, column::across] = pixels.view(">u2")
    return picture


def _inflate(data: bytes, expected: int, path: Path) -> bytes:
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(data, expected)
        more = engine.decompress(engine.unconsumed_tail, 1)  # nothing, but its checksum is read by this
    except zlib.error:
        raise CaseError(Code.E_CHECKSUM, path, "the PNG's pixels are damaged; copy the file again") from None
    if len(out) < expected or more or not engine.eof:
        raise CaseError(Code.E_TRUNCATED, path, "the PNG holds other than its number of pixels; copy the file again")
    return out


def _unfilter(lines: NDArray[np.uint8], filters: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Undo the filters of the rows, a band of them at a time.

    Args:
        lines: filtered bytes, shape (rows, columns, bytes of a pixel).
        filters: of each row: 0 none, 1 left, 2 above, 3 their mean, 4 Paeth's choice.
        path: named in errors.
    """
    if filters.max(initial=0) > 4:
        raise CaseError(Code.E_FORMAT, path, "the PNG uses a filter that the standard does not know")
    out = np.empty_like(lines)
    above = np.zeros_like(lines[0])
    for first in range(0, len(lines), _BAND):
        band = slice(first, first + _BAND)
        out[band] = _unfilter_band(lines[band], filters[band], above)
        above = out[band][-1]
    return out


def _unfilter_band(
    lines: NDArray[np.uint8], filters: NDArray[np.uint8], above_band: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """All pixels on a diagonal at once, as each needs those left of it and above it."""
    rows, columns, size = lines.shape
    # Diagonal d holds pixel d - place of the row in each place; place 0 is the row above the band.
    diagonals = np.zeros((columns + rows, rows + 1, size), np.uint8)
    for place, row in enumerate((above_band, *lines)):
        diagonals[place : place + columns, place] = row
    for number in range(1, columns + rows):
        first, stop = max(1, number - columns + 1), min(rows, number) + 1
        before, corner = diagonals[number - 1], diagonals[max(number - 2, 0)]
        left, above = before[first:stop].astype(np.int16), before[first - 1 : stop - 1].astype(np.int16)
        across = corner[first - 1 : stop - 1].astype(np.int16) if number > 1 else np.zeros_like(left)
        kind = filters[first - 1 : stop - 1, np.newaxis]
        guess = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 4],
            [left, above, (left + above) >> 1, _paeth(left, above, across)],
            0,
        )
        diagonals[number, first:stop] += guess.astype(np.uint8)
    return np.stack([diagonals[place : place + columns, place] for place in range(1, rows + 1)])


def _paeth(left: NDArray[np.int16], above: NDArray[np.int16], across: NDArray[np.int16]) -> NDArray[np.int16]:
    """Of the three neighbours, the one nearest to left + above - across; the first of equals."""
    to_left, to_above = np.abs(above - across), np.abs(left - across)
    to_across = np.abs(left + above - 2 * across)
    nearest = (to_left <= to_above) & (to_left <= to_across)
    return np.where(nearest, left, np.where(to_above <= to_across, above, across))
