"""How real the whole demonstration scans look: lung of simulated scans beside that of real slabs, measured alike.

    python benchmarks/whole_scan_realism.py --real FOLDER_OF_CT_SERIES [--demo FOLDER] [--scans 10]

``--real`` is a folder of DICOM series, ``--demo`` one that ``malignancy demo-data --whole-scans`` wrote; without it one
is made. Of a simulated scan 35 mm in the middle are measured. Lung is what is dark and encloses no way out, closed over
its vessels, and 8 mm inside the pleura, so that nodules, vessels and bronchi count and chest wall does not. Prints its
median HU, the spread of the dark part, and what shares of it are above -700, -500 and -200 HU. Both sides hold nodules,
so this compares little more than parenchyma, noise and vessels; three real slabs are no sample. The last line is JSON;
``ratio`` is the simulated share above -500 HU over the real one (medians).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.config.inputs import Limits
from pipeline.datasets.whole_scans.write import write_whole_scans
from pipeline.imaging.discovery.find import find_scans
from pipeline.imaging.image import Scan
from pipeline.imaging.read import open_scan

MIDDLE_MM = 35.0
LEVELS_HU = (-700, -500, -200)
Volume = npt.NDArray[np.float32]


def read(scan: Scan) -> tuple[Volume, npt.NDArray[np.float64]]:
    """HU with the axial planes first, and spacing in that order."""
    hu = scan.read((slice(None), slice(None), slice(None)))
    upright = int(np.argmax(np.abs(scan.affine[2, :3])))
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    order = [upright, *(axis for axis in range(3) if axis != upright)]
    return hu.transpose(order), spacing[order]


def middle(hu: Volume, spacing_mm: npt.NDArray[np.float64]) -> Volume:
    count = max(int(MIDDLE_MM / spacing_mm[0]), 8)
    start = max((len(hu) - count) // 2, 0)
    return hu[start : start + count]


def lung(hu: Volume, spacing_mm: npt.NDArray[np.float64]) -> Volume:
    """HU of the lung's voxels at least 8 mm from its edge, in the plane."""
    regions, count = ndimage.label(hu < -400)
    at_edges = np.unique(
        np.concatenate(
            [regions[:, edge].ravel() for edge in (0, -1)] + [regions[:, :, edge].ravel() for edge in (0, -1)]
        )
    )
    sizes_mm3 = ndimage.sum_labels(regions > 0, regions, np.arange(count + 1)) * float(np.prod(spacing_mm))
    kept = [n for n in range(1, count + 1) if sizes_mm3[n] > 2e4 and n not in at_edges]
    disc, shrink = (max(round(reach / spacing_mm[1]), 1) for reach in (6, 8))
    planes = [
        ndimage.binary_erosion(ndimage.binary_closing(np.isin(plane, kept), iterations=disc), iterations=shrink)
        for plane in regions
    ]
    return hu[np.stack(planes)]


def measure(values: Volume) -> dict[str, float]:
    shares = {f"above {level}": float((values > level).mean()) for level in LEVELS_HU}
    return {"median": float(np.median(values)), "spread": float(values[values < -700].std()), **shares}


def rows(folder: Path, *, slabs: bool, most: int) -> Iterator[tuple[str, dict[str, float]]]:
    for found in list(find_scans(folder))[:most]:
        hu, spacing_mm = read(open_scan(found.path, limits=Limits()))
        values = lung(hu if slabs else middle(hu, spacing_mm), spacing_mm)
        if len(values):
            yield found.name, measure(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--scans", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        demo = given.demo or write_whole_scans(Path(made) / "demo", scans=given.scans).parent
        sides = {
            "real": dict(rows(given.real, slabs=True, most=given.scans)),
            "simulated": dict(rows(demo / "scans", slabs=False, most=given.scans)),
        }
    medians = {}
    for side, scans in sides.items():
        for name, measured in scans.items():
            print(f"{side:10} {name:30.30}", *(f"{key} {value:8.3f}" for key, value in measured.items()))
        medians[side] = {key: float(np.median([scan[key] for scan in scans.values()])) for key in measured}
    ratio = medians["simulated"]["above -500"] / medians["real"]["above -500"]
    print(json.dumps({"ratio": round(ratio, 3), **medians}))


if __name__ == "__main__":
    main()
