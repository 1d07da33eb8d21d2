"""What a detector is judged on: a searched scan, its true lesions and its candidates. Points are in RAS world mm."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.cases.case import Point
from pipeline.errors import UsageError

UNKNOWN_DIAMETER_MM = 10.0  # what LUNA16's evaluation takes for a lesion without a diameter


@dataclass(frozen=True)
class TrueLesion:
    """A lesion that readers marked.

    Attributes:
        center_mm: its centre in RAS world mm.
        diameter_mm: above 0; None where it is unknown, which counts as 10 mm.
        ignore: whether it is neither to be found nor a mistake to find, as a mark of one reader among four.
        groups: what the lesion belongs to, by name, as ``{"texture": "solid"}``.
        lesion_id: of the table that it comes from; blank where it has none.
    """

    center_mm: Point
    diameter_mm: float | None
    ignore: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)
    lesion_id: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.center_mm):
            raise UsageError(f"lesion {self.lesion_id}: centre {self.center_mm} is not finite; expected RAS mm")
        if self.diameter_mm is not None and not 0.0 < self.diameter_mm < math.inf:
            raise UsageError(f"lesion {self.lesion_id}: diameter {self.diameter_mm} mm; expected above 0, or None")

    @property
    def radius_mm(self) -> float:
        """Half the diameter, or 5 mm where that is unknown."""
        return (UNKNOWN_DIAMETER_MM if self.diameter_mm is None else self.diameter_mm) / 2.0


@dataclass(frozen=True)
class ScoredPoint:
    """A candidate of the detector.

    Attributes:
        center_mm: its centre in RAS world mm.
        probability: calibrated, that a lesion lies there, in [0, 1].
        diameter_mm: as the detector estimates it.
    """

    center_mm: Point
    probability: float
    diameter_mm: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise UsageError(f"candidate: probability {self.probability}; expected [0, 1]; pass probabilities")
        if not all(math.isfinite(value) for value in (*self.center_mm, self.diameter_mm)):
            raise UsageError(f"candidate: centre {self.center_mm} or diameter {self.diameter_mm} mm is not finite")


@dataclass(frozen=True)
class SearchedScan:
    """A scan that could be searched, with or without lesions and candidates.

    Attributes:
        scan_id: unique text.
        patient_id: the unit of resampling.
        lesions: what readers marked, in any order.
        candidates: what the detector found, in any order.
    """

    scan_id: str
    patient_id: str
    lesions: tuple[TrueLesion, ...]
    candidates: tuple[ScoredPoint, ...]


def require_scans(scans: Sequence[SearchedScan]) -> None:
    """Refuse an empty set of scans, and scans that share an id.

    Raises:
        UsageError: when there is none, or an id occurs twice.
    """
    if not scans:
        raise UsageError("scans: there is none to judge; expected at least one searched scan")
    scan_id, times = Counter(scan.scan_id for scan in scans).most_common(1)[0]
    if times > 1:
        raise UsageError(f"scans: {scan_id} is given {times} times; expected each scan once")
