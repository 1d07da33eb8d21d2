"""Values of single DICOM elements, from their raw bytes.

Not through pydicom's converters: those warn with the value in the text, decode patients' names, and raise a different
exception for every kind of damage. A number that is not one becomes NaN, so that the check that knows its meaning
refuses it with its own code.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Final

from pydicom.dataset import Dataset

Numbers = tuple[float, ...]

_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_UID: Final = re.compile(r"[0-9.]{1,64}")


def items(header: Dataset, tag: int) -> list[Dataset]:
    """Items of a sequence, parsed by pydicom, which raises many kinds of exceptions on damage."""
    return list(header[tag].value or []) if tag in header else []


def _value(header: Dataset, tag: int) -> object:
    """As it was read: without ``keep_deferred`` pydicom would convert an empty value."""
    return header.get_item(tag, keep_deferred=True).value if tag in header else None


def raw(header: Dataset, tag: int) -> bytes:
    """Bytes of an element without padding; empty when it is absent or a sequence."""
    value = _value(header, tag)
    return value.strip(b" \0") if isinstance(value, bytes) else b""


def text(header: Dataset, tag: int) -> str:
    """An ASCII text; other bytes are replaced."""
    return raw(header, tag).decode("ascii", "replace")


def uid(header: Dataset, tag: int) -> str:
    """A UID, or '' when absent or not made of digits and dots (so that no other text can pass for one)."""
    value = text(header, tag)
    return value if _UID.fullmatch(value) else ""


def unsigned(header: Dataset, tag: int, *, absent: int = 0) -> int:
    """A 16-bit number; ``absent`` also when it has another length."""
    value = _value(header, tag)
    if not isinstance(value, bytes) or len(value) != 2:
        return absent
    little = getattr(header.get_item(tag, keep_deferred=True), "is_little_endian", True)
    return int.from_bytes(value, "little" if little else "big")


def numbers(header: Dataset, tag: int, size: int) -> Numbers | None:
    """``size`` decimal numbers; None when absent, NaN for what is no number, all NaN when there are more or fewer."""
    parts = [part.strip(" \0") for part in text(header, tag).split("\\")]
    if parts == [""]:
        return None
    if len(parts) != size:
        return (math.nan,) * size
    return tuple(float(part) if _DECIMAL.fullmatch(part) else math.nan for part in parts)


def mark(header: Dataset, tag: int, *, double: bool = False) -> object:
    """A value to be compared and never shown: numbers to four digits, else its bytes; None when absent.

    Args:
        header: that may hold it.
        tag: of the element.
        double: it is one binary number of 64 bits.
    """
    value = _value(header, tag)
    if not isinstance(value, bytes) or not value.strip(b" \0"):
        return None
    if double and len(value) == 8:
        little = getattr(header.get_item(tag, keep_deferred=True), "is_little_endian", True)
        return (f"{struct.unpack('<d' if little else '>d', value)[0]:.4g}",)
    parts = [part.strip(" \0") for part in value.decode("ascii", "replace").split("\\")]
    if all(_DECIMAL.fullmatch(part) for part in parts):
        return tuple(f"{float(part):.4g}" for part in parts)
    return value


def number(header: Dataset, tag: int) -> float | None:
    """One decimal number."""
    values = numbers(header, tag, 1)
    return None if values is None else values[0]
