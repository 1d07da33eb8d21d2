"""A candidate: a place in a scan that may be a lesion."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cases.case import Point


@dataclass(frozen=True)
class Candidate:
    """A place in a scan that may be a lesion.

    Attributes:
        center_mm: in RAS world mm.
        diameter_mm: as the detector estimates it.
        probabilities: calibrated, one for each of the detector's classes; independent, they do not sum to 1.
    """

    center_mm: Point
    diameter_mm: float
    probabilities: tuple[float, ...]
