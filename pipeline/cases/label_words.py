"""Meaning of the label words of a table, malignant or benign; nothing is guessed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cases.case import ZERO_AND_ONE
from pipeline.cases.tables.table import most_common


@dataclass(frozen=True)
class LabelWords:
    """How label cells are read.

    Attributes:
        positive: words that mean malignant; empty reads 1 and 0 alone.
        negative: words that mean benign; empty takes the only other word.
    """

    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    def values(self, cells: Sequence[str]) -> dict[str, int | None]:
        """What each distinct filled cell means: 1, 0, or None for a word that leaves its case unlabelled.

        Args:
            cells: of the label column.

        Raises:
            ValueError: for a word that does not occur, or words whose meaning was not given.
        """
        counts = Counter(cell.strip() for cell in cells if cell.strip())
        if not self.positive:
            return _zero_and_one(counts)
        by_key: dict[str, str] = {}
        for word in counts:
            by_key.setdefault(_key(word), word)
        for word in (*self.positive, *self.negative):
            if _key(word) not in by_key:
                near = difflib.get_close_matches(_key(word), by_key, n=1)
                hint = f"; did you mean {by_key[near[0]]!r}?" if near else ""
                raise ValueError(f"no cell says {word!r}; the column holds {most_common(counts)}{hint}")
        positive, negative = ({_key(word) for word in words} for words in (self.positive, self.negative))
        if both := positive & negative:
            raise ValueError(f"{by_key[both.pop()]!r} is named as malignant and as benign; choose one")
        others = {_key(word) for word in counts} - positive - negative
        if not negative:
            if len(others) > 1:
                raise ValueError(
                    f"beside {', '.join(map(repr, self.positive))} there are {len(others)} words "
                    f"({most_common({word: count for word, count in counts.items() if _key(word) in others})}); "
                    "name those that mean benign; what is named as neither is left unlabelled"
                )
            negative = others
        return {word: 1 if _key(word) in positive else 0 if _key(word) in negative else None for word in counts}


def _key(word: str) -> str:
    """Words are the same in any case of letters, and 1.0 is 1."""
    folded = " ".join(word.casefold().split())
    return str(ZERO_AND_ONE[folded]) if folded in ZERO_AND_ONE else folded


def _zero_and_one(counts: Counter[str]) -> dict[str, int | None]:
    strange = Counter({word: count for word, count in counts.items() if word not in ZERO_AND_ONE})
    if strange:
        raise ValueError(
            f"holds {most_common(strange)} in {strange.total()} rows, expected 1 (malignant), 0 (benign) or blank; "
            "correct them, or name the word that means malignant"
        )
    return {word: ZERO_AND_ONE[word] for word in counts}
