"""Labels and splits from folder names: ``benign/`` and ``malignant/``, ``train/``, ``val/`` and ``test/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from pipeline.cases.intake.names import parts, plain
from pipeline.cases.intake.words import BENIGN_FOLDERS, MALIGNANT_FOLDERS, NEUTRAL_FOLDERS, SPLIT_FOLDERS
from pipeline.cases.label_words import LabelWords
from pipeline.errors import UsageError

_UNCLEAR = -1  # a folder's name that holds a label's word, and more
_MOST_CLASSES = 8


@dataclass(frozen=True)
class FolderLabels:
    """Labels by folder.

    Attributes:
        labels: of each image: 1, 0, or None where no folder says.
        words: images by the folder's word and what it was taken for, as ``{"benign=0": 30}``.
        unlabelled: images by the folder beside those whose name means neither.
    """

    labels: tuple[int | None, ...]
    words: dict[str, int]
    unlabelled: dict[str, int]


def folder_labels(images: Sequence[str], words: LabelWords) -> FolderLabels | None:
    """Labels from folder names; None where no folder has a label's name.

    A folder is ``malignant``, ``01_malignant`` or ``malignant nodules``; one with other words, as ``not malignant`` or
    ``suspected malignant``, and one below a folder of the other class, leave their scans unlabelled.

    Args:
        images: paths relative to the searched folder.
        words: given by the user; without them ``malignant`` and ``benign``, in the languages that are known, count.

    Raises:
        UsageError: when a word was given that no folder has, or that leaves open which of the others mean benign.
    """
    positive: Collection[str] = {plain(word) for word in words.positive} or MALIGNANT_FOLDERS
    given_negative = {plain(word) for word in words.negative}
    _require_given(images, words)
    levels = Counter(level for image in images for level, name in enumerate(_folders(image)) if _is(name, positive))
    if not levels:
        return None
    level = levels.most_common(1)[0][0]
    names = [_folders(image)[level] if level < len(_folders(image)) else "" for image in images]
    negative: Collection[str] = given_negative
    if not words.positive:
        negative = given_negative | BENIGN_FOLDERS
    elif not negative:
        others = {name for name in names if name and not _is(name, positive)}
        if len(others) > 1:
            raise UsageError(
                f"--positive {words.positive[0]}: beside it there are the folders "
                f"{', '.join(map(repr, sorted(others)))}; name those that mean benign: --negative WORD; what is named "
                "as neither is left unlabelled"
            )
        negative = {plain(name) for name in others} or BENIGN_FOLDERS
    labels: list[int | None] = []
    counts: Counter[str] = Counter()
    unlabelled: Counter[str] = Counter()
    for image, name in zip(images, names, strict=True):
        meanings = {folder: _meaning(folder, positive, negative) for folder in _folders(image)}
        stated = {folder: value for folder, value in meanings.items() if value is not None}
        is_clear = len(set(stated.values())) == 1 and _UNCLEAR not in stated.values()
        labels.append(next(iter(stated.values())) if is_clear else None)
        if is_clear:
            counts[f"{next(iter(stated))}={labels[-1]}"] += 1
        else:
            unlabelled["/".join(stated) or name or "(no folder)"] += 1
    return FolderLabels(tuple(labels), dict(counts), dict(unlabelled))


def folders_that_could_mean_classes(images: Sequence[str]) -> dict[str, int]:
    """Images by the name of their folder, at the first level where there are a few of them; else empty."""
    for level in range(max((len(_folders(image)) for image in images), default=0)):
        names = Counter(_folders(image)[level] for image in images if level < len(_folders(image)))
        if 2 <= len(names) <= _MOST_CLASSES and min(names.values()) > 1:
            return dict(names)
    return {}


def _require_given(images: Sequence[str], words: LabelWords) -> None:
    """Refuse a word of the user's that is no folder's name."""
    names = {name for image in images for name in _folders(image)}
    for option, label_words in (("--positive", words.positive), ("--negative", words.negative)):
        for word in label_words:
            if not any(_is(name, {plain(word)}) for name in names):
                near = get_close_matches(plain(word), {plain(name): name for name in names}, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise UsageError(f"{option} {word}: no folder is called so, and no table names the scans{hint}")


def folder_splits(images: Sequence[str]) -> list[str] | None:
    """Split of each image by folder name; None unless every image has one and there are two and more of them."""
    splits = [
        next((SPLIT_FOLDERS[plain(name)] for name in _folders(image) if plain(name) in SPLIT_FOLDERS), "")
        for image in images
    ]
    return splits if all(splits) and len(set(splits)) > 1 else None


def _folders(image: str) -> tuple[str, ...]:
    return PurePosixPath(image.split("#")[0]).parts[:-1]


def _meaning(name: str, positive: Collection[str], negative: Collection[str]) -> int | None:
    """1 or 0 for a plain class name, `_UNCLEAR` where other words stand beside it, None without a class name."""
    exact = {1: plain(name) in positive, 0: plain(name) in negative}
    labels = [label for label, is_so in exact.items() if is_so] or [
        label for label, words in ((1, positive), (0, negative)) if _is(name, words)
    ]
    if len(labels) == 1:
        return labels[0]
    holds = any(set(parts(name)) & set(words) for words in (positive, negative, MALIGNANT_FOLDERS, BENIGN_FOLDERS))
    return _UNCLEAR if labels or holds else None


def _is(name: str, words: Collection[str]) -> bool:
    """Whether a folder's name is one of the words, alone or with numbers and neutral words."""
    if plain(name) in words:
        return True
    rest = [part for part in parts(name) if part not in NEUTRAL_FOLDERS and not part.isdecimal()]
    return len(rest) == 1 and rest[0] in words
