"""NIfTI scans and a German Excel's CSV: semicolons, cp1252, decimal commas, coordinates typed by hand.

One row a lesion; a scan may have a benign and a malignant one. The coordinates are LPS, as the column ``System`` says
in small letters. Ids keep their zeros (``0012``) as the files' names do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import Grid, as_point, make_grid
from made_folders.painters import paint_lung, reconstruct_ct
from made_folders.shapes import draw_centers, draw_shape
from made_folders.truth import MadeFolder, MadeLesion, MadeScan, expect
from made_folders.writing import save_nifti, save_table

HEADER = (
    "Patienten-Nr.", "Datei", "Größe (cm)", "Gewicht (kg)", "x", "y", "z", "System", "Durchmesser (mm)", "Dignität",
    "Ärztliche Bemerkung",
)  # fmt: skip
REMARKS = (
    "", "", "größenkonstant", "Prof. Jäger: Biopsie empfohlen; Termin folgt", 'sog. "Milchglas"',
    "s. Vorbefund\nvom 3.5.", "Übergewicht",
)  # fmt: skip
TABLE = "Befunde_Export_für_KI.csv"


def write_semicolon_export(folder: Path, *, cases: int = 48, seed: int = 0) -> MadeFolder:
    """Write the scans and the export; ``cases`` counts scans."""
    empty_folder(folder, cases=cases)
    rng = np.random.default_rng([seed, 2])
    plan = plan_scans(cases, seed, pairs=4)
    ids = np.cumsum(rng.integers(1, 9, plan[-1].patient + 1)) + 3
    rows: list[list[object]] = [list(HEADER)]
    scans = []
    for planned in plan:
        patient = f"{ids[planned.patient]:04d}"
        scan = _write_scan(folder, planned, seed, patient=patient)
        scans.append(scan)
        body = [str(int(rng.normal(172, 9))), _comma(rng.normal(78, 14))]
        for lesion in scan.lesions:
            assert lesion.center_mm is not None
            assert lesion.diameter_mm is not None
            x, y, z = (_comma(value) for value in np.array(lesion.center_mm) * (-1, -1, 1))
            if rng.random() < 0.1:
                z += " "
            word = "bösartig" if lesion.malignant else "gutartig"
            remark = str(rng.choice(REMARKS))
            file = scan.path.rsplit("/", 1)[1]
            rows.append([patient, file, *body, x, y, z, "lps", _comma(lesion.diameter_mm), word, remark])
    table = save_table(folder / TABLE, rows, delimiter=";", encoding="cp1252", line_end="\r\n")
    return MadeFolder(folder, table, "bösartig", "Dignität", expect("CT", scans, region="lesion"))


def _write_scan(folder: Path, planned: PlannedScan, seed: int, *, patient: str) -> MadeScan:
    rng = planned.random(seed)
    axes = str(rng.choice(["LAS", "LPS", "RAS"]))
    grid = make_grid((42, 40, 34), (2.1, 2.1, 2.5), center_mm=rng.normal((78, -35, 1240), (8, 10, 60)), axes=axes)
    # The second lesion of some patients is of the other kind.
    classes = [planned.malignant, planned.malignant != (planned.number % 8 == 3)][: planned.lesions]
    centers = draw_centers(rng, count=planned.lesions, half_width=grid.half_width_mm * (0.4, 0.4, 0.5), apart=33.0)
    shapes = [
        draw_shape(rng, malignant=kind, center=center, atypical=planned.atypical)
        for kind, center in zip(classes, centers, strict=True)
    ]
    painted = paint_lung(grid, shapes, rng)
    path = f"Bilder/{patient}{f'_{planned.visit + 1}' if planned.visit else ''}.nii.gz"
    save_nifti(folder / path, reconstruct_ct(painted.values, rng), grid)
    lesions = tuple(
        _typed(mask, grid, malignant=kind, diameter_mm=2 * shape.radius, rng=rng)
        for mask, kind, shape in zip(painted.masks, classes, shapes, strict=True)
    )
    return MadeScan(path, patient, any(classes), lesions)


def _typed(
    mask: np.ndarray, grid: Grid, *, malignant: bool, diameter_mm: float, rng: np.random.Generator
) -> MadeLesion:
    """A centre read off a viewer and typed with one decimal: within a millimetre of the centroid."""
    point = as_point(grid.to_mm(np.argwhere(mask).mean(0)) + rng.uniform(-0.5, 0.5, 3), decimals=1)
    voxel = tuple(np.round(grid.to_voxel(point), 4).tolist())
    return MadeLesion(voxel, point, malignant, round(diameter_mm, 1), stated_in=TABLE)


def _comma(value: float) -> str:
    return f"{value:.1f}".replace(".", ",").replace("-0,0", "0,0")
