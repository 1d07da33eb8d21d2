"""Chest CTs as LUNA16 comes: ``subset0/<seriesuid>.mhd`` with ``.raw`` or ``.zraw``, and tables of coordinates (LPS).

``annotations.csv`` has every nodule, ``nodule_malignancy.csv`` says which are malignant (not of every nodule),
``candidates_V2.csv`` is the challenge's list of places, most of them no nodule, whose ``class`` says nothing of
malignancy. ``seg-lungs-LUNA16/`` has the lungs' masks under the same names as the scans. A few scans have no nodule,
some have axes that run the other way, and some are padded with -3024 outside the field of view.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.uid import generate_uid

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import Grid, as_point, make_grid
from made_folders.painters import Painted, paint_lung, reconstruct_ct
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Unlabelled, Why, expect
from made_folders.writing import save_table, save_with_itk

SUBSETS = 4
UNRATED_EVERY = 16
COORDINATES = ("coordX", "coordY", "coordZ")


def write_luna16_like(folder: Path, *, cases: int = 48, seed: int = 0, lung_masks: bool = True) -> MadeFolder:
    """Write the scans and tables; ``cases`` counts scans with a nodule, an eighth as many have none.

    Args:
        lung_masks: also write ``seg-lungs-LUNA16/``, which is part of the download.
    """
    empty_folder(folder, cases=cases)
    empty = [PlannedScan(cases + n, cases + n, 0, malignant=False, lesions=0) for n in range(max(1, cases // 8))]
    scans: list[MadeScan] = []
    left_out: list[LeftOut] = []
    elsewhere: list[list[object]] = []  # rows of candidates that are no nodule
    for planned in plan_scans(cases, seed, twice=0, pairs=4) + empty:
        rng = planned.random(seed)
        uid = str(generate_uid(prefix="1.3.6.1.4.1.14519.5.2.1.6279.6001.", entropy_srcs=[f"{seed}/{planned.number}"]))
        path = f"subset{planned.number % SUBSETS}/{uid}.mhd"
        grid = _draw_grid(rng)
        painted = _write_scan(folder / path, grid, planned, rng)
        if lung_masks:
            mask = f"seg-lungs-LUNA16/{uid}.mhd"
            save_with_itk(folder / mask, _lungs(painted, grid), grid, packed=True)
            left_out.append(LeftOut(mask, Why.MASK, of=path))
        elsewhere += [[uid, *_lps(grid.to_mm(place * grid.shape)), 0] for place in rng.uniform(0.2, 0.8, (4, 3))]
        if not planned.lesions:
            left_out.append(LeftOut(path, Why.NO_LESION))
            continue
        malignant = None if planned.number % UNRATED_EVERY == 5 else planned.malignant
        lesions = tuple(_lesion(mask, grid, malignant=malignant, rng=rng) for mask in painted.masks)
        # One series a patient, as the dataset says; nothing else names a patient.
        scans.append(MadeScan(path, uid, malignant, lesions, Unlabelled.NO_ROW if malignant is None else None))
    table = _write_tables(folder, scans, elsewhere)
    return MadeFolder(folder, table, "1", "malignant", expect("CT", scans, region="lesion", left_out=left_out))


def _write_tables(folder: Path, scans: Sequence[MadeScan], elsewhere: Sequence[list[object]]) -> Path:
    """Write the three tables.

    Returns:
        The one that says which nodules are malignant.
    """
    annotations: list[list[object]] = [["seriesuid", *COORDINATES, "diameter_mm"]]
    candidates: list[list[object]] = [["seriesuid", *COORDINATES, "class"], *elsewhere]
    malignancy: list[list[object]] = [["nodule_id", "seriesuid", *COORDINATES, "malignant"]]
    for scan in scans:
        for lesion in scan.lesions:
            assert lesion.center_mm is not None
            place = [scan.patient, *_lps(np.array(lesion.center_mm))]
            annotations.append([*place, lesion.diameter_mm])
            candidates.append([*place, 1])
            if lesion.malignant is not None:
                malignancy.append([f"nodule_{len(malignancy):03d}", *place, int(lesion.malignant)])
    save_table(folder / "annotations.csv", annotations)
    save_table(folder / "candidates_V2.csv", [candidates[0], *sorted(candidates[1:], key=str)])
    return save_table(folder / "nodule_malignancy.csv", malignancy)


def _draw_grid(rng: np.random.Generator) -> Grid:
    # Most stored axes run to L, P and S; some series run the other way in the plane.
    axes = "LPS" if rng.random() < 0.85 else "RAS"
    spacing = round(float(rng.uniform(1.8, 2.2)), 6)
    return make_grid((42, 42, 36), (spacing, spacing, 2.5), center_mm=rng.normal((75, 12, -190), (8, 8, 50)), axes=axes)


def _write_scan(path: Path, grid: Grid, planned: PlannedScan, rng: np.random.Generator) -> Painted:
    painted = paint_lung(grid, planned.shapes(grid, rng), rng)
    voxels = reconstruct_ct(painted.values, rng, sharp=rng.random() < 0.3)
    if rng.random() < 0.3:  # older GE scanners pad what lies outside their round field of view
        across = np.hypot(*np.meshgrid(*(np.linspace(-1, 1, size) for size in grid.shape[:2]), indexing="ij"))
        voxels[across > 1.08] = -3024
    save_with_itk(path, voxels, grid, packed=planned.number % 3 == 0)
    return painted


def _lesion(mask: np.ndarray, grid: Grid, *, malignant: bool | None, rng: np.random.Generator) -> MadeLesion:
    """Where readers put a nodule: its centroid within about a millimetre."""
    centroid = np.argwhere(mask).mean(0)
    center_mm = as_point(grid.to_mm(centroid) + rng.normal(0, 0.3, 3), decimals=9)
    volume_mm3 = mask.sum() * float(np.prod(grid.spacing_mm))
    diameter_mm = round(float((6 * volume_mm3 / np.pi) ** (1 / 3)), 6)
    voxel = tuple(np.round(grid.to_voxel(center_mm), 4).tolist())
    return MadeLesion(voxel, center_mm, malignant, diameter_mm, stated_in="annotations.csv")


def _lps(point_mm: np.ndarray) -> list[float]:
    return [round(float(value), 9) for value in point_mm * (-1, -1, 1)]


def _lungs(painted: Painted, grid: Grid) -> np.ndarray:
    """The challenge's labels: 3 and 4 are the lungs; here one lung, with the vessels and nodules in it left out."""
    inside = (painted.values < -500) & (painted.values > -980)
    return np.where(inside, 4 if grid.center_mm[0] > 0 else 3, 0).astype(np.uint8)
