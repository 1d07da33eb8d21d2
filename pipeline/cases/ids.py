"""Ids of cases and patients in the spellings that spreadsheets give them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NUMBER = re.compile(r"0*(\d+)(\.0*)?")
_ROUNDED = re.compile(r"\d(\.\d+)?[eE]\+\d+")


def plain_id(text: str) -> str:
    """An id without what spreadsheets change: spaces around it, case of letters, leading zeros, ``.0``.

    Example:
        >>> {plain_id(text) for text in ("1000", "1000.0", "01000", " 1000.00")}
        {'1000'}
    """
    plain = unicodedata.normalize("NFKC", text).strip().casefold()
    number = _NUMBER.fullmatch(plain)
    return number[1] if number else plain


def spelt_apart(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of ids that differ in spelling only: the first spelling and each other one."""
    first: dict[str, str] = {}
    pairs = []
    for text in dict.fromkeys(ids):
        earlier = first.setdefault(plain_id(text), text)
        if earlier != text:
            pairs.append((earlier, text))
    return pairs


def is_rounded(text: str) -> bool:
    """Whether an id is a number that a spreadsheet shortened, as ``1.23457E+11``: its last digits are lost."""
    return _ROUNDED.fullmatch(text.strip()) is not None
