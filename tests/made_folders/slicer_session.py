"""A folder a patient as 3D Slicer saves a scene: NRRD volume, markups or a segmentation, ``.mrml``.

The annotations differ from patient to patient: points in ``.mrk.json`` (LPS, and RAS in a few), a line across the
lesion, the older ``.fcsv`` with ``0`` for RAS or with LPS, a ``.seg.nrrd`` on the volume's grid or cut to its bounding
box. Some folders hold a screenshot. The diagnosis stands in a tab-separated text file by folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import Grid, as_point, make_grid, mask_center
from made_folders.painters import Painted, paint_lung, reconstruct_ct
from made_folders.shapes import Shape
from made_folders.slicer_files import write_fcsv, write_markups, write_scene, write_segmentation
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Point, Unlabelled, Why, expect
from made_folders.writing import save_nrrd, save_table

KINDS = ("points", "points in RAS", "old fcsv", "segmentation", "lines", "fcsv", "points", "cut segmentation")
NOT_KNOWN_EVERY = 21


@dataclass(frozen=True)
class _Annotation:
    """Files that state where lesions are: names, and for each lesion its file, centre and diameter."""

    markups: tuple[str, ...]
    segmentations: tuple[str, ...]
    stated: tuple[tuple[str, Point, float | None], ...]


def write_slicer_session(folder: Path, *, cases: int = 48, seed: int = 0) -> MadeFolder:
    """Write the folders and ``diagnoses.txt``; ``cases`` counts volumes."""
    empty_folder(folder, cases=cases)
    rng = np.random.default_rng([seed, 2])
    scans: list[MadeScan] = []
    left_out: list[LeftOut] = []
    rows: list[list[object]] = [["Folder", "Patient", "Scan date", "Side", "Diagnosis", "Remarks"]]
    for planned in plan_scans(cases, seed, pairs=5):
        place = f"Patient {planned.patient + 1:02d}{' follow-up' if planned.visit else ''}"
        known = planned.number % NOT_KNOWN_EVERY != NOT_KNOWN_EVERY // 2
        scan, others = _write_folder(folder, place, planned, seed, known=known)
        scans.append(scan)
        left_out += others
        word = "" if not known else "carcinoma" if planned.malignant else "benign"
        seen = f"{int(rng.integers(1, 13))}/{int(rng.integers(1, 29))}/2023"
        remark = str(rng.choice(["", "", "motion", "2nd reader: Zoë", "contrast"]))
        rows.append([place, f"{planned.patient + 1:02d}", seen, str(rng.choice(["L", "R"])), word, remark])
    table = save_table(folder / "diagnoses.txt", rows, delimiter="\t", line_end="\r\n")
    expected = expect("CT", scans, region="lesion", left_out=left_out)
    return MadeFolder(folder, table, "carcinoma", "Diagnosis", expected)


def _write_folder(
    folder: Path, place: str, planned: PlannedScan, seed: int, *, known: bool
) -> tuple[MadeScan, list[LeftOut]]:
    rng = planned.random(seed)
    grid = make_grid(
        (40, 40, 36),
        (2.0, 2.0, 2.2),
        center_mm=rng.normal((-85, -20, -150), (8, 8, 40)),
        axes="LPS",
        tilt_degrees=float(rng.choice([0, 0, 0, 11.5])),
    )
    shapes = planned.shapes(grid, rng)
    painted = paint_lung(grid, shapes, rng)
    volume = f"{int(rng.integers(2, 9))} Thorax  1.0  B{rng.choice([30, 31, 60])}f.nrrd"
    (folder / place).mkdir()
    voxels = reconstruct_ct(painted.values, rng)
    save_nrrd(folder / place / volume, voxels, grid)
    kind = KINDS[planned.number % len(KINDS)]
    annotation = _annotate(folder / place, kind, grid, (painted, shapes), rng)
    write_scene(
        folder / place / "2023-11-04-Scene.mrml",
        volume=volume,
        markups=annotation.markups,
        segmentations=annotation.segmentations,
    )
    path = f"{place}/{volume}"
    left_out = [LeftOut(f"{place}/{name}", Why.ANNOTATION, of=path) for name in annotation.markups]
    left_out += [LeftOut(f"{place}/{name}", Why.MASK, of=path) for name in annotation.segmentations]
    if planned.number % 9 == 1:
        view = np.clip((voxels[:, :, voxels.shape[2] // 2].T + 1000) / 5, 0, 255).astype(np.uint8)
        Image.fromarray(np.stack([view] * 3, -1)).resize((160, 160)).save(folder / place / "Master Scene View.png")
        left_out.append(LeftOut(f"{place}/Master Scene View.png", Why.SCREENSHOT, of=path))
    malignant = planned.malignant if known else None
    lesions = tuple(
        MadeLesion(tuple(np.round(grid.to_voxel(center), 4).tolist()), center, malignant, diameter, f"{place}/{name}")
        for name, center, diameter in annotation.stated
    )
    patient = f"{planned.patient + 1:02d}"
    return MadeScan(path, patient, malignant, lesions, None if known else Unlabelled.BLANK), left_out


def _annotate(
    folder: Path, kind: str, grid: Grid, lesions: tuple[Painted, list[Shape]], rng: np.random.Generator
) -> _Annotation:
    painted, shapes = lesions
    if "segmentation" in kind:
        name = "Segmentation.seg.nrrd"
        write_segmentation(folder / name, painted.masks, grid, crop=kind.startswith("cut"))
        stated = tuple((name, mask_center(mask, grid)[1], None) for mask in painted.masks)
        return _Annotation((), (name,), stated)
    # A point is clicked within half a millimetre of the lesion's middle.
    centroids = [np.array(mask_center(mask, grid)[1]) for mask in painted.masks]
    points = [as_point(center + rng.uniform(-0.3, 0.3, 3)) for center in centroids]
    if kind == "lines":
        names = tuple(f"L{f'_{number}' if number else ''}.mrk.json" for number in range(len(points)))
        stated_lines = []
        for name, shape, center in zip(names, shapes, centroids, strict=True):
            along = grid.affine[:3, 0] / grid.spacing_mm[0] * shape.radius
            ends = [as_point(center - along), as_point(center + along)]
            write_markups(folder / name, ends, kind="Line", system="LPS")
            middle = as_point(np.mean(ends, axis=0), decimals=4)
            stated_lines.append((name, middle, round(float(np.linalg.norm(np.subtract(*ends))), 3)))
        return _Annotation(names, (), tuple(stated_lines))
    if "fcsv" in kind:
        name = "F.fcsv"
        write_fcsv(folder / name, points, system="RAS" if kind.startswith("old") else "LPS")
    else:
        name = "F.mrk.json"
        write_markups(folder / name, points, system="RAS" if kind.endswith("RAS") else "LPS")
    return _Annotation((name,), (), tuple((name, point, None) for point in points))
