"""A folder of forty scans in ``benign/`` and ``malignant/`` and nothing else."""

from __future__ import annotations

from pathlib import Path

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import make_grid, mask_center
from made_folders.painters import paint_lung, reconstruct_ct
from made_folders.truth import MadeFolder, MadeLesion, MadeScan, expect
from made_folders.writing import save_nifti


def write_forty_cases(folder: Path, *, cases: int = 40, seed: int = 0) -> MadeFolder:
    """Write NIfTI scans of one lesion each, well separable, each of another patient whom nothing names."""
    empty_folder(folder, cases=cases)
    scans = [_write_scan(folder, planned, seed) for planned in plan_scans(cases, seed, twice=0, pairs=0, atypical=15)]
    return MadeFolder(folder, None, "malignant", None, expect("CT", scans, region="image"))


def _write_scan(folder: Path, planned: PlannedScan, seed: int) -> MadeScan:
    rng = planned.random(seed)
    grid = make_grid((40, 40, 36), (2.0, 2.0, 2.0), center_mm=rng.normal((-70, 10, -200), (10, 8, 40)))
    shapes = planned.shapes(grid, rng, benign_radius=4.2, malignant_radius=10.0)
    painted = paint_lung(grid, shapes, rng)
    path = f"{'malignant' if planned.malignant else 'benign'}/case{planned.number + 1:02d}.nii.gz"
    save_nifti(folder / path, reconstruct_ct(painted.values, rng), grid)
    lesion = MadeLesion(*mask_center(painted.masks[0], grid), planned.malignant)
    return MadeScan(path, None, planned.malignant, (lesion,))
