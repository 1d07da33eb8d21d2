"""A small detection data set of simulated chests with balls, and its configuration, for tests of training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from chest_scans import write_chest

SPLITS = ("train", "train", "train", "validation", "calibration", "calibration", "test", "test")
CONFIG = """\
name: balls
task: detection
output: runs
data:
  scans: scans.csv
  lesions: lesions.csv
  label_source: balls drawn for a test
  intensities: simulated
classes: [nodule, solid]
grid: {spacing_mm: 3.0, patch: 32}
network: {width: 4, levels: 2}
candidates: {lowest_probability: 0.0, most: 8}
training: {max_epochs: 2, steps_per_epoch: 3, batch_size: 2, mined_scans: 2, precision: 32-true, accelerator: cpu}
evaluation: {resamples: 100}
tracking: {experiment: balls, registered_model: balls}
"""


def write_detection_set(folder: Path, *, splits=SPLITS) -> Path:
    """Scans of three balls each, their tables, and ``find.yaml``; returns the configuration's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    scans, lesions = [], []
    for number, split in enumerate(splits):
        balls = [
            ((float(x), float(rng.uniform(-25, 25)), float(rng.uniform(-40, 40))), float(rng.uniform(8, 18)))
            for x in (-40 + rng.uniform(-5, 5), rng.uniform(-5, 5), 40 + rng.uniform(-5, 5))
        ]
        name = f"s{number}.nii.gz"
        write_chest(folder / name, balls, seed=number)
        scans.append({"case_id": f"s{number}", "image": name, "patient_id": f"p{number}", "label": 1, "split": split})
        for index, (center, diameter) in enumerate(balls):
            lesions.append(
                {
                    "case_id": f"s{number}-{index}",
                    "image": name,
                    "patient_id": f"p{number}",
                    "label": 1,
                    **dict(zip(("center_x_mm", "center_y_mm", "center_z_mm"), center, strict=True)),
                    "coordinate_system": "RAS",
                    "diameter_mm": diameter,
                    "ignore": int(index == 2),
                    "solid": ["1", "0", ""][index],
                }
            )
    write_rows(folder / "scans.csv", scans)
    write_rows(folder / "lesions.csv", lesions)
    (folder / "find.yaml").write_text(CONFIG)
    return folder / "find.yaml"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def write_rows(path: Path, rows: list[dict]) -> None:
    """Rows as a CSV file."""
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
