"""Which candidate hits which lesion, by the rule of the LUNA16 challenge.

A candidate hits a lesion when it lies less than the lesion's radius from its centre. The most probable of several in
one lesion is the hit; the others are duplicates, neither hit nor false positive. A candidate in a lesion that is to be
ignored, and in no other, is not counted either. Every other candidate is a false positive. A candidate that lies in
two lesions may hit both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.arrays import FloatArray, IntArray, as_groups
from pipeline.evaluation.detection.searched_scan import ScoredPoint, SearchedScan, TrueLesion, require_scans

CandidateOutcome = Literal["hit", "duplicate", "ignored", "false positive"]


@dataclass(frozen=True)
class MatchedLesion:
    """A lesion that counts, and the candidate that hits it.

    Attributes:
        lesion: as marked.
        candidate: position of the hit among the scan's candidates; None where the lesion was missed.
        distance_mm: from the lesion's centre to the hit; None where the lesion was missed.
    """

    lesion: TrueLesion
    candidate: int | None
    distance_mm: float | None


@dataclass(frozen=True)
class MatchedScan:
    """A scan whose lesions and candidates have been matched.

    Attributes:
        scan: as searched.
        lesions: those that count, in the scan's order.
        outcomes: of each candidate, in the scan's order.
    """

    scan: SearchedScan
    lesions: tuple[MatchedLesion, ...]
    outcomes: tuple[CandidateOutcome, ...]


def match_scan(scan: SearchedScan) -> MatchedScan:
    """Match a scan's candidates with its lesions.

    Of equally probable candidates in one lesion, the nearest to its centre is the hit.

    Source: Setio et al., 2017 (LUNA16), and the challenge's evaluation script.
    """
    outcomes: list[CandidateOutcome] = ["false positive"] * len(scan.candidates)
    for lesion in scan.lesions:
        if lesion.ignore:
            for number in _inside(lesion, scan.candidates):
                outcomes[number] = "ignored"
    counted = [lesion for lesion in scan.lesions if not lesion.ignore]
    for lesion in counted:
        for number in _inside(lesion, scan.candidates):
            outcomes[number] = "duplicate"
    matches = []
    for lesion in counted:
        inside = _inside(lesion, scan.candidates)
        if not inside:
            matches.append(MatchedLesion(lesion, None, None))
            continue
        hit = min(inside, key=lambda number: (-scan.candidates[number].probability, inside[number], number))
        outcomes[hit] = "hit"
        matches.append(MatchedLesion(lesion, hit, inside[hit]))
    return MatchedScan(scan, tuple(matches), tuple(outcomes))


def _inside(lesion: TrueLesion, candidates: Sequence[ScoredPoint]) -> dict[int, float]:
    """Distance in mm of each candidate that lies in the lesion, by its position."""
    distances = {number: math.dist(point.center_mm, lesion.center_mm) for number, point in enumerate(candidates)}
    return {number: distance for number, distance in distances.items() if distance < lesion.radius_mm}


@dataclass(frozen=True, eq=False)
class Matches:
    """All scans' lesions and false positives as arrays.

    Attributes:
        scans: matched, in the order given.
        scan_patients: number of the patient of each scan, 0 … patients-1, shape (scans,).
        lesions: those that count, over all scans.
        lesion_patients: number of the patient of each, shape (lesions,).
        hit_probabilities: of the hit of each; NaN where it was missed, shape (lesions,).
        distances_mm: from each lesion's centre to its hit; NaN where it was missed, shape (lesions,).
        false_positives: their probabilities, shape (m,).
        false_positive_patients: number of the patient of each, shape (m,).
    """

    scans: tuple[MatchedScan, ...]
    scan_patients: IntArray
    lesions: tuple[MatchedLesion, ...]
    lesion_patients: IntArray
    hit_probabilities: FloatArray
    distances_mm: FloatArray
    false_positives: FloatArray
    false_positive_patients: IntArray

    @property
    def patients(self) -> int:
        """Patients over all scans."""
        return int(self.scan_patients.max()) + 1

    def count(self, outcome: CandidateOutcome) -> int:
        """Candidates of all scans with this outcome."""
        return sum(scan.outcomes.count(outcome) for scan in self.scans)


def match_scans(scans: Sequence[SearchedScan]) -> Matches:
    """Match each scan, and gather what the statistics need.

    Raises:
        UsageError: without scans, or when two share an id.
    """
    require_scans(scans)
    matched = tuple(match_scan(scan) for scan in scans)
    patients = as_groups(np.asarray([scan.patient_id for scan in scans]), np.zeros(len(scans)))
    lesions = [(int(patient), scan, match) for patient, scan in _numbered(patients, matched) for match in scan.lesions]
    hits = [
        np.nan if match.candidate is None else scan.scan.candidates[match.candidate].probability
        for _, scan, match in lesions
    ]
    false_positives = [
        (patient, point.probability)
        for patient, scan in _numbered(patients, matched)
        for point, outcome in zip(scan.scan.candidates, scan.outcomes, strict=True)
        if outcome == "false positive"
    ]
    return Matches(
        scans=matched,
        scan_patients=patients,
        lesions=tuple(match for _, _, match in lesions),
        lesion_patients=np.array([patient for patient, _, _ in lesions], dtype=np.int64),
        hit_probabilities=np.array(hits, dtype=np.float64),
        distances_mm=np.array(
            [np.nan if match.distance_mm is None else match.distance_mm for _, _, match in lesions], dtype=np.float64
        ),
        false_positives=np.array([probability for _, probability in false_positives], dtype=np.float64),
        false_positive_patients=np.array([patient for patient, _ in false_positives], dtype=np.int64),
    )


def _numbered(patients: IntArray, matched: Sequence[MatchedScan]) -> list[tuple[int, MatchedScan]]:
    return [(int(patient), scan) for patient, scan in zip(patients, matched, strict=True)]
