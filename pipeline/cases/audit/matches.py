"""Cases that share a patient or scan, or look the same, between splits or tables and inside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.cases.audit.fingerprint import Fingerprint
from pipeline.cases.audit.similar import similar_pairs
from pipeline.cases.ids import plain_id

Kind = Literal["patient", "file", "voxels", "similar"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Match:
    """Cases that share something.

    Attributes:
        kind: ``patient``; ``file``, the same bytes; ``voxels``, the same voxels in other bytes; ``similar``, images
            that look the same.
        cases: two or more; of one that a model has seen, the case alone.
        similarity: correlation of images that look the same.
        mirrored: whether one of them is mirrored.
        model: name of the model that has seen the patient or image.
    """

    kind: Kind
    cases: tuple[Fingerprint, ...]
    similarity: float | None = None
    mirrored: bool = False
    model: str | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """Splits or tables, and the model, that the cases are in."""
        groups = dict.fromkeys(case.group for case in self.cases if case.group is not None)
        return tuple(groups) + ((f"model {self.model}",) if self.model else ())

    @property
    def is_leak(self) -> bool:
        """Whether it joins two splits or tables, or one and a model."""
        return len(self.groups) > 1

    @property
    def is_conflict(self) -> bool:
        """Whether one image, or two that look the same, are labelled both benign and malignant."""
        if self.kind == "patient":
            return False
        if self.kind == "similar":
            return _both_labels(self.cases)
        return any(_both_labels(cases) for cases in _grouped(self.cases, lambda case: case.place))


def _both_labels(cases: Iterable[Fingerprint]) -> bool:
    return {0, 1} <= {case.case.label for case in cases}


def find_matches(cases: Sequence[Fingerprint]) -> list[Match]:
    """All matches, except those that are no fault: several cases or lesions of one patient in one split."""
    patients = [
        Match("patient", tuple(group))
        for group in _grouped(cases, lambda fingerprint: plain_id(fingerprint.case.patient_id or ""))
    ]
    read = [case for case in cases if case.error is None]
    files = [Match("file", tuple(group)) for group in _grouped(read, lambda fingerprint: fingerprint.digest)]
    voxels = [
        Match("voxels", tuple(group))
        for group in _grouped(read, lambda fingerprint: fingerprint.voxels)
        if len({case.digest for case in group}) > 1
    ]
    return [
        *(match for match in patients if match.is_leak),
        *(match for match in (*files, *voxels) if match.is_leak or _repeats_a_place(match)),
        *_similar(read),
    ]


def _repeats_a_place(match: Match) -> bool:
    return len({case.place for case in match.cases}) < len(match.cases)


def _grouped(cases: Iterable[Fingerprint], key: Callable[[Fingerprint], Hashable]) -> list[list[Fingerprint]]:
    """Groups of two or more cases with one key, that is not blank."""
    groups: dict[Hashable, list[Fingerprint]] = defaultdict(list)
    for case in cases:
        if key(case):
            groups[key(case)].append(case)
    return [group for group in groups.values() if len(group) > 1]


def _similar(cases: Sequence[Fingerprint]) -> list[Match]:
    """Pairs of different images that look the same, pictures and volumes each among themselves."""
    places: dict[object, list[Fingerprint]] = defaultdict(list)
    for case in cases:
        if case.views is not None:
            places[case.place].append(case)
    matches = []
    for view_count in (1, 3):
        groups = [
            group for group in places.values() if group[0].views is not None and len(group[0].views) == view_count
        ]
        if len(groups) < 2:
            continue
        for pair in similar_pairs(np.stack([group[0].views for group in groups if group[0].views is not None])):
            first, second = groups[pair.first], groups[pair.second]
            if first[0].voxels != second[0].voxels:
                matches.append(Match("similar", (*first, *second), pair.similarity, pair.mirrored))
    return matches
