"""``malignancy demo-data``: simulated scans of real nodule shapes."""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.demo import write_demo_data


def demo_data(out: Path, *, cases: int | None, seed: int) -> None:
    """Write the demo data and say what is real in it."""
    manifest = write_demo_data(out, cases=cases, seed=seed)
    print(f"{manifest}: real nodule shapes, ratings and patients (LIDC-IDRI, CC BY 3.0); simulated intensities")
