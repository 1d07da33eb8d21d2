#!/usr/bin/env python3
"""What a detector finds in whole scans of another kind than those that it was judged on, as real ones beside simulated.

    malignancy import lidc DICOM_ROOT . --whole-scans
    python benchmarks/detector_on_real_scans.py RUN --scans scans.csv [--rate 2]

RUN is the folder of a detector's training. The threshold is the lowest that gave at most ``--rate`` false positives a
scan on the test split there; it is not chosen again. Searches every scan of the table, whatever the detector has seen,
and prints for each what was found at that threshold: hits of the lesions that count, their distance from the centre
and place among the scan's candidates, and false positives. Candidates in lesions to be ignored are not counted. A scan
that cannot be searched has its code. A few scans are no sample: no interval is printed. The last line is JSON;
``ratio`` is the false positives a scan here over those there.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.cases.scan_table import read_scan_table
from pipeline.evaluation.detection.matching import MatchedScan, match_scan
from pipeline.scoring.finding.detector_directory import load_detector
from pipeline.scoring.finding.finder import Finder
from pipeline.workflow.detection.search_scans import search_scans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a detector's training")
    parser.add_argument("--scans", required=True, type=Path, help="table of scans, with lesions.csv beside it")
    parser.add_argument("--rate", type=float, default=2.0, help="false positives a scan that set the threshold")
    args = parser.parse_args()
    threshold, there = threshold_at(args.run, args.rate)
    scans = read_scan_table(args.scans)
    finder = Finder(load_detector(args.run / "model"), root=scans.root)
    searches = search_scans(lambda case: finder.search(case).candidates, scans, scans.scans.cases)
    matched = [match_scan(scan) for scan in searches.scans]
    table = Table("scan", "lesions", "hits", "each hit: mm from the centre, place", "false positives", "candidates")
    for scan in matched:
        places = [f"{distance:.1f} mm, {place}" for distance, place in hits(scan, threshold)]
        counts = [len(scan.lesions), len(places), "; ".join(places), false_positives(scan, threshold)]
        table.add_row(scan.scan.scan_id, *map(str, counts), str(len(scan.scan.candidates)))
    for case, error in searches.rejected:
        table.add_row(case.case_id, "", "", f"{error.code}: {error.reason}", "", "")
    console = Console(width=140)
    console.print(
        f"{finder.detector.label}, threshold {threshold:.3f}: {there:.2f} false positives a scan on its test split"
    )
    console.print(table)
    here = float(np.mean([false_positives(scan, threshold) for scan in matched])) if matched else math.nan
    print(
        json.dumps(
            {
                "ratio": here / there if there else None,
                "detector": finder.detector.label,
                "threshold": threshold,
                "scans": len(matched),
                "rejected": len(searches.rejected),
                "lesions": sum(len(scan.lesions) for scan in matched),
                "hits": sum(len(hits(scan, threshold)) for scan in matched),
                "hits_at_any_threshold": sum(len(hits(scan, 0.0)) for scan in matched),
                "false_positives_per_scan": here,
            }
        )
    )


def threshold_at(run: Path, rate: float) -> tuple[float, float]:
    """The lowest threshold with at most so many false positives a scan on the test split of a run, and how many."""
    scans = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["n_scans"]
    rows = pq.read_table(run / "candidates.parquet", columns=["outcome", "probability_nodule"]).to_pylist()
    wrong = [row["probability_nodule"] for row in rows if row["outcome"] == "false positive"]
    for threshold in sorted({row["probability_nodule"] for row in rows}):
        count = sum(probability >= threshold for probability in wrong)
        if count <= rate * scans:
            return threshold, count / scans
    return math.inf, 0.0


def hits(scan: MatchedScan, threshold: float) -> list[tuple[float, int]]:
    """Distance from the centre in mm, and place among all candidates from 1, of each lesion that is hit."""
    found = []
    for match in scan.lesions:
        if match.candidate is not None and scan.scan.candidates[match.candidate].probability >= threshold:
            found.append((float(match.distance_mm or 0.0), match.candidate + 1))
    return found


def false_positives(scan: MatchedScan, threshold: float) -> int:
    """How many candidates at or above the threshold lie in no lesion."""
    return sum(
        outcome == "false positive" and candidate.probability >= threshold
        for outcome, candidate in zip(scan.outcomes, scan.scan.candidates, strict=True)
    )


if __name__ == "__main__":
    main()
