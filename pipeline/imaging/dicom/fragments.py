"""Transfer syntaxes, and where the frames of encapsulated pixel data lie in a file."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

from pipeline.errors import CaseError, Code

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
EXPLICIT_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"
JPEG: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
JPEG_LS: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
SUPPORTED_COMPRESSION: Final = JPEG | JPEG_LS | JPEG_2000 | {RLE}

_ITEM, _SEQUENCE_END = 0xE000, 0xE0DD
_BEGINS_JPEG, _ENDS_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_BEGINS_JPEG_2000 = b"\xff\x4f\xff\x51"  # whose end mark is that of JPEG
Fragment = tuple[int, int]
Frames = tuple[tuple[Fragment, ...], ...]


def locate_frames(
    path: Path, handle: IO[bytes], offset: int, size: int, count: int, *, syntax: str
) -> tuple[Frames, int]:
    """Fragments (offset, length) of each frame; the items are walked to their end, their contents skipped.

    Args:
        path: for messages.
        handle: the file; moved.
        offset: of the first item (the offset table).
        size: of the file.
        count: frames that the header claims.
        syntax: transfer syntax; it tells how a frame begins and ends where no offset table does.

    Returns:
        The fragments by frame, and where the pixel data end.

    Raises:
        CaseError: E_TRUNCATED when an item or the end mark lies beyond the file's end, E_CODEC when fragments and
            frames do not fit together.
    """
    items, end = _walk(path, handle, offset, size, most=64 * max(count, 1) + 1024)
    if not items:
        raise CaseError(Code.E_CODEC, path, "encapsulated pixel data without an offset table; export it again")
    table, fragments = items[0], items[1:]
    if not fragments:
        raise CaseError(Code.E_CODEC, path, "encapsulated pixel data without a single fragment; export it again")
    if count == 1:
        return (tuple(fragments),), end
    if len(fragments) == count:
        return tuple((fragment,) for fragment in fragments), end
    cuts = _by_table(handle, table, fragments, count) or _by_marks(handle, fragments, syntax)
    if not cuts or len(cuts) != count or cuts[0] != 0:
        reason = f"{len(fragments)} pixel fragments for {count} frames, and no offset table that fits; export it again"
        raise CaseError(Code.E_CODEC, path, reason)
    return tuple(tuple(fragments[a:b]) for a, b in pairwise([*cuts, len(fragments)])), end


def _walk(path: Path, handle: IO[bytes], offset: int, size: int, most: int) -> tuple[list[Fragment], int]:
    items: list[Fragment] = []
    while True:
        handle.seek(offset)
        head = handle.read(8)
        if len(head) < 8:
            raise CaseError(Code.E_TRUNCATED, path, f"pixel data end early at byte {size}; copy the file again")
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == (0xFFFE, _SEQUENCE_END):
            return items, offset + 8
        if (group, element) != (0xFFFE, _ITEM) or len(items) > most:
            raise CaseError(Code.E_CODEC, path, f"no pixel fragment at byte {offset}; export it again")
        if offset + 8 + length > size:
            raise CaseError(Code.E_TRUNCATED, path, f"a pixel fragment ends beyond byte {size}; copy the file again")
        items.append((offset + 8, length))
        offset += 8 + length


def _by_table(handle: IO[bytes], table: Fragment, fragments: list[Fragment], count: int) -> list[int]:
    """Numbers of the fragments that begin a frame, by the basic offset table; empty when it does not fit."""
    if count < 1 or table[1] != 4 * count:
        return []
    handle.seek(table[0])
    base = fragments[0][0] - 8
    starts = [base + start for start in struct.unpack(f"<{count}L", handle.read(table[1]))]
    places = {fragment[0] - 8: number for number, fragment in enumerate(fragments)}
    if starts[0] != base or starts != sorted(set(starts)) or not all(start in places for start in starts):
        return []
    return [places[start] for start in starts]


def _by_marks(handle: IO[bytes], fragments: list[Fragment], syntax: str) -> list[int]:
    """Numbers of the fragments that begin a frame, by its first bytes; the fragment before must end one.

    Only JPEG in its kinds marks both; coded pixels cannot hold these marks.
    """
    if syntax not in JPEG | JPEG_LS | JPEG_2000:
        return []
    begins = _BEGINS_JPEG_2000 if syntax in JPEG_2000 else _BEGINS_JPEG
    cuts, ended = [], True
    for number, (offset, length) in enumerate(fragments):
        handle.seek(offset)
        if handle.read(len(begins)) == begins:
            if not ended:
                return []
            cuts.append(number)
        handle.seek(offset + max(length - 3, 0))
        ended = handle.read(min(length, 3)).rstrip(b"\0").endswith(_ENDS_JPEG)
    return cuts if ended else []
