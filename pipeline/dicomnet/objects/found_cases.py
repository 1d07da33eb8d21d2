"""Cases for DICOM reports from the output folder of a search: candidates, or the reason why a scan has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.cases.case import CENTER_COLUMNS, Case
from pipeline.errors import Code
from pipeline.scoring.finding.scan_rows import DETECTOR, DETECTOR_DIGEST, DIAMETER, LESION_PROBABILITY_COLUMN

Row = Mapping[str, Any]


@dataclass(frozen=True)
class FoundScans:
    """Scans that were searched, with their candidates and the candidates' scores.

    Attributes:
        scans: rows of ``scans.parquet`` by scan id.
        candidates: rows of ``candidates.parquet`` by scan id, by falling probability of being a lesion.
        scores: rows of ``scores.parquet`` by case id.
    """

    scans: Mapping[str, Row]
    candidates: Mapping[str, list[Row]]
    scores: Mapping[str, Row]

    @classmethod
    def read(cls, folder: Path) -> FoundScans:
        """Read the three tables of an output folder.

        Raises:
            FileNotFoundError: when one is missing.
            ArrowException: when one is no table.
        """
        scans, candidates, scores = (_rows(folder / f"{name}.parquet") for name in ("scans", "candidates", "scores"))
        by_scan: dict[str, list[Row]] = defaultdict(list)
        for row in candidates:
            by_scan[row["scan_id"]].append(row)
        return cls({row["scan_id"]: row for row in scans}, by_scan, {row["case_id"]: row for row in scores})

    def cases_of(self, scan: Case, *, least_probability: float) -> list[tuple[Case, Row]]:
        """The cases of a scan with their rows: one a candidate, or the scan itself with the reason why there is none.

        Args:
            scan: of the input that was searched; it has a row.
            least_probability: of being a lesion; candidates below it are passed over.
        """
        likely = [
            row for row in self.candidates.get(scan.case_id, []) if row[LESION_PROBABILITY_COLUMN] >= least_probability
        ]
        if not likely:
            return [(scan, _without_candidate(self.scans[scan.case_id], least_probability))]
        return [(_candidate(scan, row), self.scores[row["case_id"]]) for row in likely]


def _candidate(scan: Case, row: Row) -> Case:
    x, y, z = (row[name] for name in CENTER_COLUMNS)
    known = {name: repr(row[name]) for name in (DIAMETER, LESION_PROBABILITY_COLUMN)}
    known |= {name: row[name] for name in (DETECTOR, DETECTOR_DIGEST)}
    return replace(scan, case_id=row["case_id"], center_mm=(x, y, z), extra={**scan.extra, **known}, fault=None)


def _without_candidate(row: Row, least_probability: float) -> Row:
    """A score row of a scan that has no candidate to be reported."""
    row = {**row, "case_id": row["scan_id"], "probability": None}
    if row["status"] in ("scored", "flagged"):
        reason = f"the detector found no lesion with a probability of {least_probability:g} or more; look at it"
        row |= {"status": "rejected", "code": str(Code.E_CENTER_MISSING), "reason": reason}
    return row


def _rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path, partitioning=None).to_pylist()  # type: ignore[no-any-return]
