"""Read a file's bytes in one pass: decompress gzip or zlib, hash, and verify to the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

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
Packing = Literal["by content", "none", "gzip", "zlib"]


class Stream:
    """The decompressed bytes of a file, as an iterable of blocks; each iteration starts from the beginning.

    Args:
        path: of the file.
        limits: what it may decompress to.
        prefix: bytes that the digest begins with (the header of a pair).
        start: bytes of the file before the content; they are hashed and not yielded.
        packing: how the content is compressed; ``by content`` looks for gzip at the file's beginning.
        continues: the digest so far, when this is the next of several files; instead of ``prefix``.

    Attributes:
        compressed: whether the content is compressed.
        size: bytes of the file on disk.
        trailing: bytes after the compressed content; known at the end.
        sha256: of the file's bytes; whole at the end.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        prefix: bytes = b"",
        start: int = 0,
        packing: Packing = "by content",
        continues: Any = None,
    ) -> None:
        self.path, self.limits, self._start, self._packing = path, limits, start, packing
        self._before = hashlib.sha256(prefix) if continues is None else continues
        self._begin()
        with open_regular(path) as handle:
            self.size = os.fstat(handle.fileno()).st_size
            if packing == "by content" and handle.read(2) == GZIP_MAGIC:
                self._packing = "gzip"
        self.compressed = self._packing in ("gzip", "zlib")

    def _begin(self) -> None:
        self.trailing = self._read = self._written = 0
        self.sha256 = self._before.copy()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the content to the end; checksums and lengths of all that is compressed are verified by then.

        Raises:
            CaseError: E_TRUNCATED, E_CHECKSUM, E_TOO_LARGE or E_FORMAT.
        """
        self._begin()
        with open_regular(self.path) as handle:
            source = self._after_start(self._hashed(iter(lambda: handle.read(_BLOCK), b"")))
            if self._packing == "gzip":
                yield from self._gunzipped(source)
            elif self._packing == "zlib":
                yield from self._inflated(source)
            else:
                yield from source

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

    def _after_start(self, source: Iterator[bytes]) -> Iterator[bytes]:
        left = self._start
        for block in source:
            if left < len(block):
                yield block[left:] if left else block
            left = max(left - len(block), 0)

    def _inflated(self, source: Iterator[bytes]) -> Iterator[bytes]:
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
        yield from self._member(member, b"", source)
        self.trailing = len(member.unused_data) + sum(len(block) for block in source)

    def _gunzipped(self, source: Iterator[bytes]) -> Iterator[bytes]:
        rest, members = next(source, b""), 0
        if len(rest) == 1:
            rest += next(source, b"")
        if not rest.startswith(GZIP_MAGIC):
            raise CaseError(Code.E_FORMAT, self.path, "no gzip stream where the header says one; export it again")
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
                    reason = f"the {self._packing} stream ends early; copy the file again"
                    raise CaseError(Code.E_TRUNCATED, self.path, reason)
            try:
                block = member.decompress(rest, _OUTPUT)
            except _Damaged:
                raise CaseError(
                    Code.E_CHECKSUM,
                    self.path,
                    f"{self._packing} data or checksum damaged before byte {self._read}; copy the file again",
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
