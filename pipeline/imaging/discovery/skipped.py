"""What a search for scans leaves out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class SkippedCount:
    """Counts of the files that a search left out.

    Counted by suffix (lower case; "" has none), by kind, as ``(link)``, or by what a DICOM object is that is no image,
    as ``DICOM segmentation``.
    """

    by_suffix: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """How many files and links were left out."""
        return self.by_suffix.total()
