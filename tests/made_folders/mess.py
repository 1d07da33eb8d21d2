"""Everything that goes wrong in a shared folder, at once.

``train/ val/ test/`` with NIfTI scans whose names have spaces, umlauts (composed and decomposed) and other scripts;
exact copies under other names, one of them in another split; masks; empty and cut files; what macOS and Windows leave
behind; documents and a zip. The table with the diagnoses is UTF-16 with tabs, as Excel's "Unicode Text"; its ids match
the files only partly (leading zeros, spaces, capitals, typos), rows are doubled, contradict each other, lack a
diagnosis or say ``unklar``. A second table of the same patients has laboratory values and a yes-no column that is no
diagnosis.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from made_folders.clutter import write_clutter
from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import make_grid, mask_center
from made_folders.painters import paint_lung, reconstruct_ct
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Unlabelled, Why, expect
from made_folders.writing import save_nifti, save_table

HEADER = ("Patient", "Name", "Diagnose", "Arzt", "Datum")
WORDS = {True: "bösartig", False: "gutartig"}
TAILS = (" Lunge", " Lungenröntgen-CT", "_CT (neu)", " – Verlauf №1", " Größe ok", " 肺", "")
Split = Literal["train", "validation", "test"]
FOLDERS: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class _Patient:
    """A patient of the table, and what is wrong with the rows."""

    number: int
    malignant: bool
    split: Split
    trouble: Unlabelled | None

    @property
    def name(self) -> str:
        """How file names write the id."""
        return f"Fall {self.number:03d}"


def write_mess(folder: Path, *, cases: int = 60, seed: int = 0) -> MadeFolder:
    """Write the folder; ``cases`` counts different readable scans, of which about one in six gets no label."""
    empty_folder(folder, cases=cases)
    rng = np.random.default_rng([seed, 2])
    plan = plan_scans(cases, seed)
    patients = _draw_patients(plan)
    scans: list[MadeScan] = []
    left_out: list[LeftOut] = []
    for planned in plan:
        scan, masks = _write_scan(folder, planned, patients[planned.patient], seed)
        scans.append(scan)
        left_out += masks
    left_out += _write_copies(folder, scans)
    left_out += write_clutter(folder, rng, beside=scans[0].path)
    rows, orphans = _rows(patients, rng)
    table = save_table(
        folder / "Diagnosen Endversion.txt", [HEADER, *rows], delimiter="\t", encoding="utf-16", line_end="\r\n"
    )
    laboratory: list[list[object]] = [["Patient", "CEA (ng/ml)", "Raucher", "Kreatinin"]]
    for patient in patients:
        smoker = str(rng.choice(["ja", "nein"]))
        laboratory.append(
            [patient.number, f"{rng.gamma(2, 2):.1f}".replace(".", ","), smoker, f"{rng.normal(90, 15):.0f}"]
        )
    save_table(folder / "Laborwerte.csv", laboratory, delimiter=";", encoding="cp1252", line_end="\r\n")
    expected = expect("CT", scans, region="image", left_out=left_out, rows_without_scan=orphans)
    return MadeFolder(folder, table, "bösartig", "Diagnose", expected)


def _draw_patients(plan: list[PlannedScan]) -> list[_Patient]:
    """Give each patient a split, most to train, and some of those a trouble, so that small folders have each."""
    troubles = {1: Unlabelled.CONTRADICTORY, 2: Unlabelled.BLANK, 4: Unlabelled.UNCLEAR, 5: Unlabelled.NO_ROW}
    patients: list[_Patient] = []
    classes = {planned.patient: planned.malignant for planned in plan}
    seen = {True: 0, False: 0}
    for number, malignant in classes.items():
        # Every fifth patient of a class validates, every fifth tests: both classes are in each split.
        split: Split = {3: "validation", 4: "test"}.get(seen[malignant] % 5, "train")  # type: ignore[assignment]
        seen[malignant] += 1
        trained = sum(patient.split == "train" for patient in patients)
        trouble = troubles.get(trained % 16) if split == "train" else None
        patients.append(_Patient(3 * number + 1, malignant, split, trouble))
    return patients


def _write_scan(folder: Path, planned: PlannedScan, patient: _Patient, seed: int) -> tuple[MadeScan, list[LeftOut]]:
    rng = planned.random(seed)
    grid = make_grid((40, 40, 32), (2.0, 2.0, 2.5), center_mm=rng.normal((-70, 20, -180), (10, 8, 40)))
    painted = paint_lung(grid, planned.shapes(grid, rng, malignant_radius=9.5), rng)
    # macOS decomposes umlauts in file names, other systems do not.
    name = patient.name + TAILS[planned.number % len(TAILS)] + (" b" if planned.visit else "")
    name = unicodedata.normalize("NFD" if planned.number % 2 else "NFC", name)
    image = f"{FOLDERS[patient.split]}/{name}.nii.gz"
    save_nifti(folder / image, reconstruct_ct(painted.values, rng), grid)
    malignant = None if patient.trouble else patient.malignant
    left_out, mask = [], None
    if planned.number % 3 == 0:  # somebody began to draw masks
        mask = f"Masken/{name}_mask.nii.gz"
        save_nifti(folder / mask, np.any(painted.masks, axis=0).astype(np.uint8), grid)
        left_out.append(LeftOut(mask, Why.MASK, of=image))
    lesions = tuple(MadeLesion(*mask_center(part, grid), malignant, stated_in=mask) for part in painted.masks)
    return MadeScan(image, f"{patient.number:03d}", malignant, lesions, patient.trouble, patient.split), left_out


def _write_copies(folder: Path, scans: list[MadeScan]) -> list[LeftOut]:
    """Copy three scans: beside the original, into a folder of copies, and from training into the test folder."""
    trained = [scan for scan in scans if scan.split == "train"]
    copies = (
        (trained[0], trained[0].path.removesuffix(".nii.gz") + " - Kopie.nii.gz"),
        (trained[1], "Kopie von train/" + trained[1].path.rsplit("/", 1)[1]),
        (trained[2], "test/Scan_neu.nii.gz"),
    )
    for scan, copy in copies:
        (folder / copy).parent.mkdir(exist_ok=True)
        (folder / copy).write_bytes((folder / scan.path).read_bytes())
    return [LeftOut(copy, Why.DUPLICATE, of=scan.path) for scan, copy in copies]


def _rows(patients: list[_Patient], rng: np.random.Generator) -> tuple[list[list[object]], list[str]]:
    """The table's rows, and the ids in it that mean no scan."""
    rows: list[list[object]] = []
    orphans = ["Fall 900", "fall 901 "]
    for place, patient in enumerate(patients):
        word = WORDS[patient.malignant]
        if place % 6 == 2:
            word = word.upper() if place % 12 == 2 else f" {word} "
        spellings = (
            patient.name,
            f"{patient.name} ",
            patient.name.upper(),
            f"Fall {patient.number}",
            f"fall_{patient.number:03d}",
        )
        row: list[object] = [spellings[place % 5], f"M. {chr(65 + place % 26)}.", word, "Dr. Weiß", "12.03.2023"]
        if patient.trouble == Unlabelled.NO_ROW:  # a typo: the letter O for zero
            row[0] = str(row[0]).replace("0", "O") if "0" in str(row[0]) else f"{row[0]}?"
            orphans.append(str(row[0]))
        elif patient.trouble == Unlabelled.BLANK:
            row[2] = ""
        elif patient.trouble == Unlabelled.UNCLEAR:
            row[2] = "unklar"
        rows.append(row)
        if patient.trouble == Unlabelled.CONTRADICTORY:
            rows.append([patient.name, row[1], WORDS[not patient.malignant], "Dr. Jäger", "02.05.2023"])
        elif place % 9 == 4:
            rows.append(list(row))  # entered twice
    rows += [[orphan, "", str(rng.choice(["gutartig", "bösartig"])), "Dr. Weiß", ""] for orphan in orphans[:2]]
    return [rows[place] for place in rng.permutation(len(rows))], orphans
