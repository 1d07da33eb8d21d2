"""What folder names say of the scans in them: ``benign/`` and ``malignant/``, ``train/``, ``val/`` and ``test/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.cases.intake.names import parts, plain
from pipeline.cases.intake.words import BENIGN_FOLDERS, MALIGNANT_FOLDERS, SPLIT_FOLDERS
from pipeline.cases.label_words import LabelWords
from pipeline.errors import UsageError


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

    Args:
        images: paths relative to the searched folder.
        words: given by the user; without them ``malignant`` and ``benign``, in the languages that are known, count.

    Raises:
        UsageError: when a word was given and the folders beside it leave open which mean benign.
    """
    positive = {plain(word) for word in words.positive} or MALIGNANT_FOLDERS
    levels = Counter(level for image in images for level, name in enumerate(_folders(image)) if _is(name, positive))
    if not levels:
        return None
    level = levels.most_common(1)[0][0]
    names = [_folders(image)[level] if level < len(_folders(image)) else "" for image in images]
    others = {name for name in names if name and not _is(name, positive)}
    negative: Collection[str] = {plain(word) for word in words.negative}
    if not negative and words.positive:
        if len(others) > 1:
            raise UsageError(
                f"--positive {words.positive[0]}: beside it there are the folders "
                f"{', '.join(map(repr, sorted(others)))}; name those that mean benign: --negative WORD; what is named "
                "as neither is left unlabelled"
            )
        negative = {plain(name) for name in others}
    negative = negative or BENIGN_FOLDERS
    labels = [1 if _is(name, positive) else 0 if _is(name, negative) else None for name in names]
    taken = Counter(f"{name}={label}" for name, label in zip(names, labels, strict=True) if label is not None)
    beside = Counter(name or "(no folder)" for name, label in zip(names, labels, strict=True) if label is None)
    return FolderLabels(tuple(labels), dict(taken), dict(beside))


def folder_splits(images: Sequence[str]) -> list[str] | None:
    """Split of each image by folder name; None unless every image has one and there are two and more of them."""
    splits = [
        next((SPLIT_FOLDERS[plain(name)] for name in _folders(image) if plain(name) in SPLIT_FOLDERS), "")
        for image in images
    ]
    return splits if all(splits) and len(set(splits)) > 1 else None


def _folders(image: str) -> tuple[str, ...]:
    return PurePosixPath(image.split("#")[0]).parts[:-1]


def _is(name: str, words: Collection[str]) -> bool:
    """Whether a folder's name is one of the words, or holds one between separators, as ``01_malignant``."""
    return plain(name) in words or bool(set(parts(name)) & set(words))
