"""Detect evenly spaced slices that belong to several interleaved volumes.

Two phases half a slice apart, echoes, b-values or kernels in one series look like one volume of twice the slices, and
every second one is of another image. Slices of one volume share what ``frames.MARKS`` lists; where values differ, one
may follow the other along the stack (a scan of two parts), but they never take turns.

Number and time of the acquisition are weaker evidence: the passes of one multi-slice MR may differ in them and
alternate. They count only where slices overlap or instance numbers repeat, which such passes never do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.frames import MARKS, WEAK_MARKS
from pipeline.imaging.dicom.pixels import Slice

# Distance of slices per thickness: below the first they overlap; below the second, only the numbering counts.
_OVERLAP: Final = 0.9
_DEEP_OVERLAP: Final = 0.75
_SAME_STRIDE: Final = 0.8  # share of steps from number to number that must be equal
_FEWEST: Final = 4  # slices


def check_one_volume(path: Path, slices: Sequence[Slice], distance_mm: float) -> None:
    """Refuse slices of several volumes.

    Args:
        path: named in errors.
        slices: in order of position.
        distance_mm: the usual one between slices.

    Raises:
        CaseError: E_MIXED_SERIES.
    """
    if len(slices) < _FEWEST:
        return
    for number, word in enumerate(MARKS):
        values = [image.frame.marks[number] for image in slices]
        if _take_turns(values):
            raise _mixed(path, f"slices of {len(set(values))} {word}")
    thickness = slices[0].frame.thickness
    per_thickness = 0.0 if thickness is None or not thickness > 0 else distance_mm / thickness
    numbers = [image.file.instance_number for image in slices if image.file.frame_count == 1]
    doubtful = per_thickness < _OVERLAP or len(set(numbers)) < len(numbers)
    for number, word in enumerate(WEAK_MARKS):
        values = [image.frame.weak_marks[number] for image in slices]
        if doubtful and _take_turns(values):
            raise _mixed(path, f"slices of {len(set(values))} {word}")
    overlapping = 0 < per_thickness < _DEEP_OVERLAP
    if len(numbers) == len(slices) and (_numbered_twice(numbers) or (overlapping and _strides(numbers))):
        raise _mixed(path, "slices whose instance numbers run through the stack several times")


def _mixed(path: Path, mixture: str) -> CaseError:
    reason = f"{mixture} lie between each other, as of several volumes in one series; export each as its own series"
    return CaseError(Code.E_MIXED_SERIES, path, reason)


def _take_turns(values: Sequence[Hashable]) -> bool:
    """Whether a value returns after another along the stack; single slices without a value are ignored."""
    counts = Counter(values)
    meaningful = [value for value in values if value is not None or counts[value] > 1]
    return len(list(groupby(meaningful))) > len(set(meaningful))


def _numbered_twice(numbers: Sequence[float | None]) -> bool:
    """Whether each number stands at the same count of neighbouring slices, two or more: 1, 1, 2, 2, 3, 3."""
    lengths = [len(list(run)) for _, run in groupby(numbers)]
    return len(lengths) > 1 and len(lengths) == len(set(numbers)) and set(lengths) != {1} and len(set(lengths)) == 1


def _strides(numbers: Sequence[float | None]) -> bool:
    """Whether slices in the order of their numbers step over others, always as many: 1, 9, 2, 10, 3, 11."""
    if None in numbers or len(set(numbers)) < len(numbers):
        return False
    places = np.argsort([number for number in numbers if number is not None])
    steps = Counter(np.abs(np.diff(places)).tolist())
    stride, count = steps.most_common(1)[0]
    return stride > 1 and count >= _SAME_STRIDE * (len(numbers) - 1)
