"""Read small annotation files as a whole, as checked bytes or text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import open_regular

LARGEST_BYTES: Final = 64 * 2**20  # far above any annotation in JSON, XML or a table


def read_small_file(path: Path) -> bytes:
    """The whole file.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION, E_NOT_REGULAR, E_EMPTY_FILE, or E_TOO_LARGE above 64 MiB.
    """
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > LARGEST_BYTES:
            reason = f"{size} bytes, above the {LARGEST_BYTES} that an annotation may have; split it"
            raise CaseError(Code.E_TOO_LARGE, path, reason)
        return bytes(handle.read() or b"")


def decode_text(path: Path, data: bytes) -> str:
    """Its text: UTF-8, or UTF-16 with its byte order mark, as spreadsheets write it.

    Raises:
        CaseError: E_ENCODING, or E_EMPTY_FILE when nothing follows the mark.
    """
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-{16 if wide else 8}; save it as UTF-8 and try again"
        raise CaseError(Code.E_ENCODING, path, reason) from None
    if "\0" in text:
        raise CaseError(Code.E_ENCODING, path, "holds a NUL character; save it as plain text")
    if not text.strip():
        raise CaseError(Code.E_EMPTY_FILE, path, "holds nothing but blanks; copy or export the file again")
    return text
