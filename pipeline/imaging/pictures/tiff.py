"""TIFF beyond what Pillow keeps: 16 bits and floats in colour or with transparency, which it cuts to 8 or cannot open.

The pixels of a page with S samples are those of a grey page S times as wide. So such a page is shown to Pillow (and its
libtiff, which knows the compressions) through a directory of its own, appended to the file's bytes; the predictor,
which works on neighbouring pixels and not on neighbouring samples, is undone here. Source: TIFF revision 6.0, 1992, and
the BigTIFF extension.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.errors import CaseError, Code

_MOST_PAGES: Final = 100_000
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE: Final = {1: "B", 3: "H", 4: "L", 16: "Q"}  # unsigned whole numbers; all that is needed are such
_SHORT, _LONG = 3, 4
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _ORIENTATION = 256, 257, 258, 259, 262, 273, 274
_SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH = 277, 278, 279, 284, 317, 320, 322
_TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT, _FILL_ORDER = 323, 324, 325, 339, 266
_SHORT_TAGS: Final = (_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PREDICTOR, _FORMAT)
_USED: Final = frozenset(
    {*_SHORT_TAGS, _WIDTH, _HEIGHT, _OFFSETS, _COUNTS, _ROWS, _ORIENTATION, _PLANAR, _COLOUR_MAP, _TILE_WIDTH,
     _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS}
)  # fmt: skip
_GREY, _RGB = 1, 2
_LOSSLESS: Final = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard


@dataclass(frozen=True)
class TiffPage:
    """One page, as its directory describes it.

    Attributes:
        tags: values by tag, of those tags that hold unsigned whole numbers.
    """

    tags: dict[int, tuple[int, ...]]

    def one(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def width(self) -> int:
        """In pixels, as stored."""
        return self.one(_WIDTH, 0)

    @property
    def height(self) -> int:
        """In pixels, as stored."""
        return self.one(_HEIGHT, 0)

    @property
    def orientation(self) -> int:
        """As EXIF numbers them; 1 is upright."""
        return self.one(_ORIENTATION, 1)

    @property
    def bits(self) -> int:
        """Of a sample; 0 when its samples differ."""
        bits = set(self.tags.get(_BITS, (1,)))
        return bits.pop() if len(bits) == 1 else 0

    @property
    def samples(self) -> int:
        """Of a pixel."""
        return self.one(_SAMPLES, 1)

    @property
    def is_deep(self) -> bool:
        """Whether it holds 16 bits or floats in more than one sample."""
        return self.samples > 1 and self.bits > 8

    @property
    def has_deep_palette(self) -> bool:
        """Whether its colours have more than the 8 bits that are kept of a palette."""
        colours = np.array(self.tags.get(_COLOUR_MAP, ()), dtype=np.int64)
        return bool((colours > 255).any() and (colours % 257 != 0).any() and (colours % 256 != 0).any())


def tiff_pages(content: bytes, path: Path) -> list[TiffPage]:
    """The pages of a file in order.

    Raises:
        CaseError: E_FORMAT, E_TRUNCATED when a directory lies beyond the file's end.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2], "")
    try:
        (version,) = struct.unpack_from(f"{order}H", content, 2)
        big = version == 43
        (place,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", content, 8 if big else 4)
        pages: list[TiffPage] = []
        places: set[int] = set()
        while place:
            if place in places or len(pages) >= _MOST_PAGES:
                raise CaseError(Code.E_FORMAT, path, "the TIFF's pages lead back to each other; export it again")
            places.add(place)
            tags, place = _directory(content, place, order, big=big)
            pages.append(TiffPage(tags))
    except (struct.error, OverflowError):
        raise CaseError(Code.E_TRUNCATED, path, "the TIFF ends before its directory; copy the file again") from None
    if not pages or any(min(page.width, page.height) < 1 for page in pages):
        raise CaseError(Code.E_FORMAT, path, "the TIFF has no page with a size; export it again")
    return pages


def _directory(content: bytes, place: int, order: str, *, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, place)
    first, size = place + (8 if big else 2), 20 if big else 12
    if first + count * size > len(content):
        raise struct.error
    tags = {}
    for number in range(count):
        entry = first + number * size
        tag, kind, values = struct.unpack_from(f"{order}HH{'Q' if big else 'L'}", content, entry)
        if kind not in _WHOLE or tag not in _USED:
            continue
        start, room = entry + (12 if big else 8), 8 if big else 4
        if values * _SIZES[kind] > room:
            (start,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", content, start)
        if 0 < values * _SIZES[kind] <= len(content):
            tags[tag] = struct.unpack_from(f"{order}{values}{_WHOLE[kind]}", content, start)
    (following,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", content, first + count * size)
    return tags, following


def decode_deep_tiff(content: bytes, page: TiffPage, path: Path) -> NDArray[Any]:
    """Samples of a page, shape (rows, columns, samples): unsigned 16-bit numbers, or 32-bit floats.

    Raises:
        CaseError: E_PHOTOMETRIC for what has no certain grey, E_CODEC for a compression that is not read.
    """
    _check_kind(page, path)
    samples, predicted = page.samples, page.one(_PREDICTOR, 1) == 2
    if page.one(_PLANAR, 1) == 2:
        count = len(page.tags[_TILE_OFFSETS if _TILE_OFFSETS in page.tags else _OFFSETS]) // samples
        planes = [_grey(content, page, 1, slice(count * number, count * (number + 1))) for number in range(samples)]
        return np.stack(planes, axis=2)
    pixels = _grey(content, page, samples, slice(None)).reshape(page.height, page.width, samples)
    if predicted:  # differences between neighbouring pixels, restarting in each tile
        step = page.one(_TILE_WIDTH, page.width)
        for column in range(0, page.width, step):
            part = pixels[:, column : column + step]
            part[...] = np.cumsum(part, axis=1, dtype=pixels.dtype)
    return pixels


def _check_kind(page: TiffPage, path: Path) -> None:
    colours = {(_GREY, 2), (_RGB, 3), (_RGB, 4)}
    kind = (page.bits, page.one(_FORMAT, 1))
    if (page.one(_PHOTOMETRIC, -1), page.samples) not in colours or kind not in ((16, 1), (32, 3)):
        reason = f"{page.samples} samples of {page.bits} bits, of a kind that has no certain grey; export as greyscale"
        raise CaseError(Code.E_PHOTOMETRIC, path, reason)
    if page.one(_COMPRESSION, 1) not in _LOSSLESS or page.one(_PREDICTOR, 1) not in (1, 2):
        reason = f"compression {page.one(_COMPRESSION, 1)} of {page.bits}-bit colour is not read; save it uncompressed"
        raise CaseError(Code.E_CODEC, path, reason)
    pieces = [page.tags.get(tag, ()) for tag in (_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS)]
    planes = page.samples if page.one(_PLANAR, 1) == 2 else 1
    if len(pieces[0]) != len(pieces[1]) or len(pieces[2]) != len(pieces[3]) or len(pieces[0] or pieces[2]) % planes:
        raise CaseError(Code.E_FORMAT, path, "the TIFF's strips or tiles have no lengths; export it again")
    if not pieces[0] and not pieces[2]:
        raise CaseError(Code.E_FORMAT, path, "the TIFF's page has no pixels; export it again")


def _grey(content: bytes, page: TiffPage, samples: int, pieces: slice) -> NDArray[Any]:
    """Some strips or tiles of a page, as those of a grey page ``samples`` times as wide, by Pillow."""
    tags: dict[int, tuple[int, ...]] = {
        _WIDTH: (page.width * samples,),
        _HEIGHT: (page.height,),
        _BITS: (page.bits,),
        _COMPRESSION: (page.one(_COMPRESSION, 1),),
        _PHOTOMETRIC: (_GREY,),
        _FILL_ORDER: (page.one(_FILL_ORDER, 1),),
        _SAMPLES: (1,),
        _PREDICTOR: (page.one(_PREDICTOR, 1) if samples == 1 else 1,),
        _FORMAT: (page.one(_FORMAT, 1),),
    }
    if _TILE_OFFSETS in page.tags:
        tags |= {
            _TILE_WIDTH: (page.one(_TILE_WIDTH, 0) * samples,),
            _TILE_HEIGHT: (page.one(_TILE_HEIGHT, 0),),
            _TILE_OFFSETS: page.tags[_TILE_OFFSETS][pieces],
            _TILE_COUNTS: page.tags[_TILE_COUNTS][pieces],
        }
    else:
        tags |= {
            _ROWS: (min(page.one(_ROWS, page.height), page.height),),
            _OFFSETS: page.tags[_OFFSETS][pieces],
            _COUNTS: page.tags[_COUNTS][pieces],
        }
    with Pillow.open(io.BytesIO(_with_directory(content, tags)), formats=("TIFF",)) as picture:
        picture.load()
        values = np.array(picture)
    return values.astype(values.dtype.newbyteorder("="))


def _with_directory(content: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """The file with one more directory, which is its only one now, in the classic format (big ones are not larger)."""
    order = "<" if content[:2] == b"II" else ">"
    values, entries = bytearray(content + bytes(-len(content) % 8)), bytearray()
    for tag, numbers in sorted(tags.items()):
        if tag in _SHORT_TAGS:
            entries += struct.pack(f"{order}HHLHxx", tag, _SHORT, 1, numbers[0])
            continue
        packed = struct.pack(f"{order}{len(numbers)}L", *numbers)
        entries += struct.pack(f"{order}HHL", tag, _LONG, len(numbers))
        if len(packed) > 4:
            entries += struct.pack(f"{order}L", len(values))
            values += packed
        else:
            entries += packed
    place = len(values)
    values += struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    struct.pack_into(f"{order}HL", values, 2, 42, place)
    return bytes(values)
