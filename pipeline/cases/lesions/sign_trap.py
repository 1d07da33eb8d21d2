"""Detect centres in LPS that are declared RAS, or the other way round, from the headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.lesions.images import ImageIndex
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError


def swapped_signs(cases: Iterable[Case], *, root: Path | None, limits: Limits | None = None) -> str | None:
    """A warning that centres lie in their images only after x and y change sign; None when they do not.

    It is given when that holds for every centre for which the sign makes a difference (near the middle of the body it
    makes none). Only headers are read, and reading stops at the first centre that is right as it is.

    Args:
        cases: those without a centre, and those whose image cannot be opened, are ignored.
        root: folder that no image may leave.
        limits: of the readers.
    """
    located = [case for case in cases if case.center_mm is not None and case.fault is None]
    swapped: list[str] = []
    undecided = 0
    for image in ImageIndex(located, root=root, limits=limits).images:
        try:
            grid = image.grid
        except CaseError:
            continue
        for case in image.cases:
            assert case.center_mm is not None
            x, y, z = case.center_mm
            inside, inside_turned = grid.holds(case.center_mm), grid.holds((-x, -y, z))
            if inside and not inside_turned:
                return None
            if inside_turned and not inside:
                swapped.append(case.case_id)
            else:
                undecided += 1
    return _line(swapped, undecided) if swapped else None


def _line(swapped: Sequence[str], undecided: int) -> str:
    total = len(swapped) + undecided
    which = "the only lesion centre lies" if total == 1 else f"{len(swapped)} of {total} lesion centres lie"
    rest = "" if total == 1 or not undecided else ", none of them as given and not so"
    return (
        f"{which} in their image only after x and y change sign{rest} (first: {swapped[0]!r}): coordinate_system is "
        "the wrong one of RAS and LPS; change RAS to LPS, or LPS to RAS, in every row"
    )
