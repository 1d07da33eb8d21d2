"""Names of files, folders, columns and ids, made comparable."""

from __future__ import annotations

import re
import unicodedata

_PARTS = re.compile(r"[^\W_]+")
_LETTERS_OR_DIGITS = re.compile(r"\d+|[^\W\d_]+")
_DECIMAL_ZERO = re.compile(r"(\d+)\.0+")


def plain(text: str) -> str:
    """Lower case, without accents and umlauts; ``ß`` as ``ss``."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def parts(text: str) -> tuple[str, ...]:
    """Runs of letters and digits, plain: ``Pat_001-Thorax`` → ``("pat", "001", "thorax")``."""
    return tuple(_PARTS.findall(plain(text)))


def fine_parts(text: str) -> tuple[str, ...]:
    """The same, with letters parted from digits, and numbers without leading zeros: ``P007b`` → ``("p", "7", "b")``."""
    return tuple(same_number(part) for part in _LETTERS_OR_DIGITS.findall(plain(text)))


def same_number(text: str) -> str:
    """A number as spreadsheets may have changed it, without leading zeros and ``.0``; other texts as they are."""
    match = _DECIMAL_ZERO.fullmatch(text)
    digits = match[1] if match else text
    return (digits.lstrip("0") or "0") if digits.isdecimal() else text


def same_id(text: str) -> str:
    """An id without what spreadsheets and people change: case, accents, separators, leading zeros, ``.0``."""
    stripped = same_number(text.strip())
    return " ".join(fine_parts(stripped)) or plain(stripped)
