"""Search the scans of a table for evaluation: the detector's candidates beside the lesions that readers marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.cases.case import Case
from pipeline.cases.scan_table import ScanTable, is_ignored, lesion_diameter_mm, lesion_flag
from pipeline.errors import CaseError
from pipeline.evaluation.detection.searched_scan import ScoredPoint, SearchedScan, TrueLesion
from pipeline.scoring.finding.candidate import Candidate

SOLID, PART_SOLID, CALCIFIED = "solid", "part_solid_or_ground_glass", "calcified"
_UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Searches:
    """Results of searching some scans.

    Attributes:
        scans: those that could be searched, with their lesions and candidates, in order.
        cases: of the same scans, in the same order.
        candidates: of the same scans, in the same order, each with its probability of every class.
        rejected: the other scans, with the reason.
    """

    scans: tuple[SearchedScan, ...]
    cases: tuple[Case, ...]
    candidates: tuple[tuple[Candidate, ...], ...]
    rejected: tuple[tuple[Case, CaseError], ...]


def search_scans(
    search: Callable[[Case], Sequence[Candidate]],
    table: ScanTable,
    scans: Sequence[Case],
    *,
    groups: Sequence[str] = (),
) -> Searches:
    """Search scans one after the other.

    Args:
        search: candidates of a scan; raises CaseError for one that cannot be searched.
        table: that holds the lesions.
        scans: of the table.
        groups: columns of the lesions that are judged apart, beside texture and calcification.
    """
    searched: list[tuple[SearchedScan, Case, tuple[Candidate, ...]]] = []
    rejected: list[tuple[Case, CaseError]] = []
    for case in scans:
        try:
            candidates = tuple(search(case))
        except CaseError as error:
            rejected.append((case, error))
            continue
        lesions = tuple(true_lesion(lesion, groups) for lesion in table.lesions_of[case.case_id])
        points = tuple(ScoredPoint(point.center_mm, point.probabilities[0], point.diameter_mm) for point in candidates)
        searched.append((SearchedScan(case.case_id, str(case.patient_id), lesions, points), case, candidates))
    return Searches(
        scans=tuple(scan for scan, _, _ in searched),
        cases=tuple(case for _, case, _ in searched),
        candidates=tuple(candidates for _, _, candidates in searched),
        rejected=tuple(rejected),
    )


def true_lesion(lesion: Case, groups: Sequence[str] = ()) -> TrueLesion:
    """A row of the lesions' table as a lesion to be found.

    Args:
        lesion: with a centre.
        groups: columns that are judged apart, beside texture and calcification.
    """
    assert lesion.center_mm is not None  # the table has been checked
    return TrueLesion(
        center_mm=lesion.center_mm,
        diameter_mm=lesion_diameter_mm(lesion),
        ignore=is_ignored(lesion),
        groups=_usual_groups(lesion) | {name: lesion.extra.get(name, "").strip() for name in groups},
        lesion_id=lesion.case_id,
    )


def _usual_groups(lesion: Case) -> dict[str, str]:
    """Texture and calcification, where the table has columns for them."""
    groups: dict[str, str] = {}
    if SOLID in lesion.extra or PART_SOLID in lesion.extra:
        named: Mapping[str, str] = {SOLID: "solid", PART_SOLID: "part-solid or ground-glass"}
        groups["texture"] = next((word for column, word in named.items() if lesion_flag(lesion, column)), _UNKNOWN)
    if CALCIFIED in lesion.extra:
        flag = lesion_flag(lesion, CALCIFIED)
        groups["calcified"] = _UNKNOWN if flag is None else "yes" if flag else "no"
    return groups
