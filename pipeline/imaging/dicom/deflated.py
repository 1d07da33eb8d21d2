"""Deflated data sets: inflated in blocks within the limits, and checked at their end.

Deflate carries no checksum, so damage is seen where it makes no code, changes the length, or contradicts the checksum
that some writers append as gzip does.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, Final

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code

_TRAILER: Final = struct.Struct("<LL")  # CRC-32 and length, as gzip and some writers of DICOM append them


def inflate(path: Path, handle: IO[bytes], *, keep: int, limits: Limits, skip: int = 0) -> tuple[bytes, int]:
    """Inflate to the end of the stream in blocks, keeping ``keep`` bytes after the first ``skip``.

    Returns:
        The bytes kept, and the length of the whole inflated data set.

    Raises:
        CaseError: E_TOO_LARGE above the limits, E_CODEC, E_TRUNCATED, E_CHECKSUM, E_FORMAT for bytes after its end.
    """
    engine, start, total, used, checksum = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), 0, 0, 0
    while not engine.eof:
        block = engine.unconsumed_tail or handle.read(1 << 16)
        if not block:
            raise CaseError(Code.E_TRUNCATED, path, "the deflated data set ends early; copy the file again")
        used += 0 if engine.unconsumed_tail else len(block)
        try:
            out = engine.decompress(block, 1 << 20)
        except zlib.error:
            raise CaseError(Code.E_CODEC, path, "the deflated data set is damaged; export it again") from None
        first = max(skip - total, 0)
        start += out[first : first + max(keep - len(start), 0)]
        total, checksum = total + len(out), zlib.crc32(out, checksum)
        if total > limits.max_bytes or (total > 16 * 2**20 and total > used * limits.max_ratio):
            most = f"{limits.max_bytes} bytes or {limits.max_ratio} to 1"
            reason = f"inflates beyond {most}; raise the limits if that is meant"
            raise CaseError(Code.E_TOO_LARGE, path, reason)
    _check_end(path, (engine.unused_data + handle.read(_TRAILER.size + 2)), checksum, total)
    return bytes(start), total


def _check_end(path: Path, rest: bytes, checksum: int, length: int) -> None:
    """Check the end of a deflated data set: nothing, a byte that pads it to an even length, or gzip's trailer."""
    if rest in (b"", b"\0"):
        return
    if rest[_TRAILER.size :] in (b"", b"\0") and len(rest) >= _TRAILER.size:
        stored, size = _TRAILER.unpack_from(rest)
        if stored == checksum and size == length & 0xFFFFFFFF:
            return
        if size == length & 0xFFFFFFFF:
            raise CaseError(Code.E_CHECKSUM, path, "the checksum of the deflated data set does not hold; copy it again")
    raise CaseError(Code.E_FORMAT, path, "bytes follow the deflated data set, so it is damaged; copy the file again")
