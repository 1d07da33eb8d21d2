"""Write ``configs/lidc_slices_readings.csv``: what LIDC's readers drew and rated, for each slice of a published set.

    python tools/lidc_slice_readings.py lidc_slices/manifest.csv [--out FILE]

The manifest names a nodule by its patient and by the malignancy ratings of its readers (``ratings``, as ``5|4``, in
the order of the readings). A row gets a nodule's columns when exactly one nodule of that patient in the package's own
annotations (``pipeline/datasets/lidc.py``) has that sequence, and exactly one row asks for it; about 70 % do. Rows
whose nodule cannot be told are left out, never guessed: within a patient, neither set is in an order that the other
keeps. Malignancy itself is not written: the table is for what a network learns beside it, and for findings.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from pipeline.cases.manifest import read_manifest
from pipeline.datasets.lidc import LidcNodule, load_nodules
from pipeline.files import atomic_write

RATED = ("texture", "margin", "spiculation", "lobulation", "sphericity", "subtlety")  # 1 to 5, so a mean has a meaning
COLUMNS = ("case_id", "readers_diameter_mm", "readers_volume_mm3", "calcified", *RATED)
_NOT_CALCIFIED = 6


def row_of(case_id: str, nodule: LidcNodule) -> list[str]:
    """The columns of one nodule; calcification codes are nominal, so a majority, not a mean."""
    calcified = np.mean([code != _NOT_CALCIFIED for code in nodule.ratings["calcification"]]) >= 0.5
    means = [f"{np.mean(nodule.ratings[name]):.2f}" for name in RATED]
    return [case_id, f"{nodule.diameter_mm:.1f}", f"{nodule.volume_mm3:.0f}", str(int(calcified)), *means]


def main() -> None:
    """Match, write, and print how many rows found their nodule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, default=Path("configs/lidc_slices_readings.csv"))
    arguments = parser.parse_args()
    nodules = defaultdict(list)
    for nodule in load_nodules():
        nodules[nodule.patient_id, "|".join(map(str, nodule.ratings["malignancy"]))].append(nodule)
    cases = defaultdict(list)
    for case in read_manifest(arguments.manifest).cases:
        cases[case.patient_id, case.extra["ratings"]].append(case)
    rows = [
        row_of(same[0].case_id, nodules[key][0])
        for key, same in cases.items()
        if len(same) == 1 and len(nodules[key]) == 1
    ]
    with atomic_write(arguments.out) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(sorted(rows))
    print(f"{arguments.out}: {len(rows)} of {sum(map(len, cases.values()))} rows have one nodule of their own")


if __name__ == "__main__":
    main()
