"""A file's bytes in one pass: decompressed when it is gzip, hashed, and verified to the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isal import igzip_lib

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import open_regular

GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_LIMIT = 1032  # deflate cannot expand a byte to more than this
_Damaged: Any = igzip_lib.error  # its stub calls the class an instance
_BLOCK = 1 << 17
_OUTPUT = 1 << 20
_RATIO_FROM = 16 << 20  # bytes from which the ratio is judged: short runs of one value compress well
_MOST_MEMBERS = 100_000  # of a gzip file; BGZF makes one for each 64 KiB


class Stream:
    """The decompressed bytes of a file, as an iterable of blocks; each iteration starts anew.

    Args:
        path: of the file.
        limits: what it may decompress to.
        prefix: bytes that the digest begins with (the header of a pair).

    Attributes:
        compressed: whether the file is gzip, by its content.
        size: bytes of the file on disk.
        trailing: bytes after the last gzip member; known at the end.
        sha256: of the file's bytes; whole at the end.
    """

    def __init__(self, path: Path, limits: Limits, *, prefix: bytes = b"") -> None:
        self.path, self.limits, self._prefix = path, limits, prefix
        self._begin()
        with open_regular(path) as handle:
            self.size = os.fstat(handle.fileno()).st_size
            self.compressed = handle.read(2) == GZIP_MAGIC

    def _begin(self) -> None:
        self.trailing = self._read = self._written = 0
        self.sha256 = hashlib.sha256(self._prefix)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the content to the end; CRC and length of every gzip member are verified by then.

        Raises:
            CaseError: E_TRUNCATED, E_CHECKSUM, E_TOO_LARGE or E_FORMAT.
        """
        self._begin()
        with open_regular(self.path) as handle:
            raw = iter(lambda: handle.read(_BLOCK), b"")
            yield from self._decompressed(raw) if self.compressed else self._hashed(raw)

    def head(self, count: int) -> bytes:
        """The first ``count`` decompressed bytes, or fewer when the content is shorter."""
        taken = b""
        for block in self:
            taken += block
            if len(taken) >= count:
                break
        return taken[:count]

    def _hashed(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        for block in raw:
            self.sha256.update(block)
            self._read += len(block)
            yield block

    def _decompressed(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        source = self._hashed(raw)
        rest, members = next(source, b""), 0
        while rest.startswith(GZIP_MAGIC):
            members += 1
            if members > _MOST_MEMBERS:
                raise CaseError(Code.E_FORMAT, self.path, f"more than {_MOST_MEMBERS} gzip members; compress it again")
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            yield from self._member(member, rest, source)
            rest = member.unused_data or next(source, b"")
            if len(rest) == 1:  # a magic number cut in two by the block's end
                rest += next(source, b"")
        self.trailing = len(rest) + sum(len(block) for block in source)

    def _member(self, member: Any, rest: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
        while not member.eof:
            if not rest and member.needs_input:
                rest = next(source, b"")
                if not rest:
                    raise CaseError(Code.E_TRUNCATED, self.path, "the gzip stream ends early; copy the file again")
            try:
                block = member.decompress(rest, _OUTPUT)
            except _Damaged:
                raise CaseError(
                    Code.E_CHECKSUM,
                    self.path,
                    f"gzip data or checksum damaged before byte {self._read}; copy the file again",
                ) from None
            rest = b""
            self._written += len(block)
            self._check_expansion()
            if block:
                yield block

    def _check_expansion(self) -> None:
        if self._written > self.limits.max_bytes:
            raise CaseError(
                Code.E_TOO_LARGE,
                self.path,
                f"decompresses beyond limits.max_bytes ({self.limits.max_bytes}); raise it if this is meant",
            )
        if self._written > _RATIO_FROM + self.limits.max_ratio * self._read:
            raise CaseError(
                Code.E_TOO_LARGE,
                self.path,
                f"decompresses more than {self.limits.max_ratio} to 1 (limits.max_ratio); raise it if this is meant",
            )
