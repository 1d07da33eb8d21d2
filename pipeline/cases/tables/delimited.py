"""Text tables: comma, semicolon, tab or bar between the cells; UTF-8, UTF-16, or optionally Windows-1252."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from pipeline.cases.tables.grid import CellGrid
from pipeline.errors import Code, TableError

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LOOKED_AT = 20  # lines from which the delimiter is judged


def read_delimited(path: Path, data: bytes, *, guess_encoding: bool, ragged: bool) -> CellGrid:
    """Cells of a text table.

    Args:
        path: named in errors.
        data: the file's bytes.
        guess_encoding: read bytes that are not UTF-8 as Windows-1252 instead of refusing them.
        ragged: title lines of other lengths may stand above the table.

    Raises:
        TableError: E_ENCODING, or E_FORMAT for quotes that are not closed.
    """
    text, encoding = _decode(path, data, guess_encoding=guess_encoding)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise TableError(Code.E_ENCODING, path, f"holds a NUL character in line {line}; save it as plain CSV")
    separator, text = _declared_separator(text)
    delimiter = separator or _delimiter(text, ragged=ragged)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, numbers = [], []
    try:
        for row in reader:
            rows.append(row)
            numbers.append(reader.line_num + bool(separator))
    except csv.Error as error:
        raise TableError(
            Code.E_FORMAT, path, f"line {reader.line_num} is not CSV ({error}); close its quotes"
        ) from None
    notes = [encoding] if encoding else []
    if delimiter != ",":
        notes.append(f"cells separated by {_DELIMITERS.get(delimiter, repr(delimiter))}")
    return CellGrid(rows, numbers, tuple(notes))


def _decode(path: Path, data: bytes, *, guess_encoding: bool) -> tuple[str, str]:
    """The text, and its encoding where that is not UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16"), "UTF-16"
        except UnicodeDecodeError:
            raise TableError(Code.E_ENCODING, path, "begins as UTF-16 and is not; save it as 'CSV UTF-8'") from None
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        if guess_encoding:
            return data.decode("cp1252", errors="replace"), "read as Windows-1252"
        raise TableError(
            Code.E_ENCODING, path, f"byte {error.start} is not UTF-8; save the table as 'CSV UTF-8' and try again"
        ) from None


def _declared_separator(text: str) -> tuple[str, str]:
    """Excel's first line ``sep=;``, and the text after it."""
    first, newline, rest = text.partition("\n")
    line = first.strip().lower()
    if line.startswith("sep=") and len(line) == 5 and newline:
        return line[4], rest
    return "", text


def _delimiter(text: str, *, ragged: bool) -> str:
    """The delimiter that occurs most often in the header; with title lines, the one that splits most lines alike."""
    lines = text.splitlines()[: _LOOKED_AT if ragged else 1]

    def cells(delimiter: str) -> int:
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            return 0
        counts = sorted(len(row) for row in rows if row)
        return counts[len(counts) // 2] if counts else 0

    return max(_DELIMITERS, key=cells)
