"""Mammograms FOR PRESENTATION, four views a patient, and a CSV with one row a breast in the words of CBIS-DDSM.

12 bits in 16; some units send MONOCHROME1 (dense is dark in the stored values, the presentation inverts it), others
MONOCHROME2. A folder a view; file names say nothing. The label of a breast is that of its two views.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from made_folders.cohort import empty_folder, is_atypical
from made_folders.dicom_files import Person, mammogram, uid
from made_folders.painters import paint_mammogram
from made_folders.shapes import draw_shape
from made_folders.truth import MadeFolder, MadeLesion, MadeScan, expect
from made_folders.writing import save_table

HEADER = (
    "patient_id",
    "breast_density",
    "left or right breast",
    "abnormality type",
    "assessment",
    "pathology",
    "subtlety",
)
VIEWS = ("CC", "MLO")
SIZE = (96, 72)  # rows, columns


@dataclass(frozen=True)
class _Breast:
    """One breast of a patient, and what pathology says of it."""

    person: Person
    side: str  # L or R
    pathology: str
    atypical: bool

    @property
    def malignant(self) -> bool:
        return self.pathology == "MALIGNANT"


def write_mammography(folder: Path, *, cases: int = 48, seed: int = 0) -> MadeFolder:
    """Write the views and ``case_description.csv``; ``cases`` counts breasts (even), two views each."""
    empty_folder(folder, cases=cases)
    patients = (cases + 1) // 2
    rng = np.random.default_rng([seed, 2])
    rows: list[list[object]] = [list(HEADER)]
    scans: list[MadeScan] = []
    seen = {True: 0, False: 0}
    for number in range(patients):
        person = Person.draw(rng, patient_id=f"P_{3 * number + 1:05d}", sex="F", language="english")
        unit = ("HOLOGIC, Inc.", "MONOCHROME2") if rng.random() < 0.6 else ("FUJIFILM Corporation", "MONOCHROME1")
        density = int(rng.integers(1, 5))
        # Two of three patients have one malignant breast.
        sick = str(rng.choice(["L", "R"])) if number % 3 != 2 else ""
        for side, word in (("L", "LEFT"), ("R", "RIGHT")):
            benign = str(rng.choice(["BENIGN", "BENIGN_WITHOUT_CALLBACK"]))
            pathology = "MALIGNANT" if side == sick else benign
            breast = _Breast(person, side, pathology, is_atypical(seen[side == sick]))
            seen[side == sick] += 1
            rating = {"MALIGNANT": (4, 5), "BENIGN": (3, 4), "BENIGN_WITHOUT_CALLBACK": (2, 2)}[pathology]
            assessment = int(rng.choice(rating))
            kind = str(rng.choice(["mass", "mass", "calcification"]))
            rows.append([person.patient_id, density, word, kind, assessment, pathology, int(rng.integers(1, 6))])
            scans += [_write_view(folder, breast, view, unit, [seed, number, side == "L"]) for view in VIEWS]
    table = save_table(folder / "case_description.csv", rows)
    return MadeFolder(folder, table, "MALIGNANT", "pathology", expect("MG", scans, region="image"))


def _write_view(folder: Path, breast: _Breast, view: str, unit: tuple[str, str], seed: list[int]) -> MadeScan:
    rng = np.random.default_rng([*seed, VIEWS.index(view), 3])
    wall = "left" if breast.side == "L" else "right"
    from_wall = rng.uniform(0.3, 0.5) * SIZE[1]
    column = from_wall if wall == "left" else SIZE[1] - 1 - from_wall
    center = (rng.uniform(0.4, 0.62) * SIZE[0], column)
    shape = draw_shape(
        rng,
        malignant=breast.malignant,
        center=center,
        benign_radius=4.5,
        malignant_radius=9.5,
        atypical=breast.atypical,
    )
    painted = paint_mammogram(SIZE, [shape], rng, chest_wall=wall, oblique=view == "MLO")
    dense = np.rint(painted.values * 4095).astype(np.uint16)
    manufacturer, photometric = unit
    stored = 4095 - dense if photometric == "MONOCHROME1" else dense
    person = breast.person
    place = f"{person.patient_id}/{breast.side}{view}"
    image = mammogram(
        stored, person, photometric=photometric, manufacturer=manufacturer, side=breast.side, view=view,
        series_uid=uid(*seed, person.patient_id, view),
    )  # fmt: skip
    (folder / place).mkdir(parents=True)
    image.save_as(folder / place / "1-1.dcm", enforce_file_format=True)
    row, column = np.argwhere(painted.masks[0]).mean(0)
    voxel = (round(float(column), 4), round(float(row), 4))
    return MadeScan(
        f"{place}/1-1.dcm", person.patient_id, breast.malignant, (MadeLesion(voxel, None, breast.malignant),)
    )
