"""Choose which of several series of one study becomes the case, by a stated rule."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.cases.intake.scans import SurveyedScan

_SAME_PLACE = 0.5  # share of the smaller box that two series of one examination have in common
RULE = "the series with marked lesions; else the commonest kernel or kind, the thinnest slices, the most slices"


@dataclass(frozen=True)
class LeftOut:
    """A scan that does not become a case.

    Attributes:
        scan: which.
        reason: why, in a few words.
    """

    scan: SurveyedScan
    reason: str


def choose_series(
    scans: Sequence[SurveyedScan], marked: Collection[int] = ()
) -> tuple[list[SurveyedScan], list[LeftOut]]:
    """Keep one of the series that show the same part of a patient in one study.

    Series of one study that lie in other places, radiographs of other views, and scans that no DICOM header joins are
    all kept. Of series that show the same, one is chosen by `RULE`, so that the cohort is as homogeneous as possible.

    Args:
        scans: without copies.
        marked: places of the scans whose lesions are marked.
    """
    left_out: list[LeftOut] = []
    with_lesion = {id(scans[place]) for place in marked}
    groups: dict[tuple[str, str], list[SurveyedScan]] = defaultdict(list)
    single: list[SurveyedScan] = []
    for scan in scans:
        study = scan.attributes.study if scan.attributes else ""
        if study and scan.modality in ("CT", "MR"):
            groups[study, scan.modality].append(scan)
        else:
            single.append(scan)
    kinds = Counter(kind for group in groups.values() for kind in {_kind(scan) for scan in group})
    for group in groups.values():
        waiting = sorted(group, key=lambda scan: (id(scan) not in with_lesion, *_rank(scan, kinds)))
        while waiting:
            best, *rest = waiting
            single.append(best)
            same = [scan for scan in rest if _overlap(best, scan) > _SAME_PLACE]
            left_out += [LeftOut(scan, _difference(best, scan)) for scan in same]
            waiting = [scan for scan in rest if scan not in same]
    order = {id(scan): place for place, scan in enumerate(scans)}
    return sorted(single, key=lambda scan: order[id(scan)]), left_out


def without_copies(scans: Sequence[SurveyedScan]) -> tuple[list[SurveyedScan], list[LeftOut]]:
    """Keep of files with equal bytes the one with the shortest path, which lists the others as its copies.

    Only files of equal size are read for it.
    """
    sizes = Counter((scan.bytes, scan.shape) for scan in scans)
    alike: dict[str, list[SurveyedScan]] = defaultdict(list)
    for place, scan in enumerate(scans):
        alike[scan.digest() if sizes[scan.bytes, scan.shape] > 1 else str(place)].append(scan)
    originals: dict[int, SurveyedScan] = {}
    left_out = []
    for group in alike.values():
        first, *copies = sorted(group, key=lambda scan: (len(scan.image), scan.image))
        originals[id(first)] = replace(first, copies=tuple(scan.image for scan in copies))
        left_out += [LeftOut(scan, f"an exact copy of {first.image}") for scan in copies]
    return [originals[id(scan)] for scan in scans if id(scan) in originals], left_out


def _kind(scan: SurveyedScan) -> str:
    attributes = scan.attributes
    assert attributes is not None  # only DICOM series have a study
    return attributes.kernel if scan.modality == "CT" else attributes.description.casefold()


def _rank(scan: SurveyedScan, kinds: Counter[str]) -> tuple[int, float, int, str]:
    slices = scan.shape[2]
    return -kinds[_kind(scan)], scan.slice_spacing_mm, -slices, scan.image


def _difference(best: SurveyedScan, scan: SurveyedScan) -> str:
    if _kind(best) != _kind(scan):
        difference = "another kernel" if scan.modality == "CT" else "another kind of series"
    elif scan.slice_spacing_mm != best.slice_spacing_mm:
        difference = "thicker slices"
    else:
        difference = "a repetition"
    return f"{difference} of the study of {best.image}"


def _overlap(first: SurveyedScan, second: SurveyedScan) -> float:
    """Share of the smaller of two boxes in world mm that lies in the other."""
    (low_a, high_a), (low_b, high_b) = first.box_mm, second.box_mm
    common = np.prod(np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None))
    smaller = min(np.prod(high_a - low_a), np.prod(high_b - low_b))
    return float(common / smaller) if smaller > 0 else 0.0
