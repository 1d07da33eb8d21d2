"""Chest CTs as NIfTI with lesion masks, and a German department's Excel list with one row a patient.

The list has a title above its header, line breaks in a header cell, an empty spacer column, dates as dates and as text,
ids as numbers (``7``) where file names have ``Pat_007``, words with capitals and trailing spaces, rows of patients
without a CT, a footnote, and a second sheet with a legend.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from openpyxl.styles import Font, PatternFill

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.geometry import make_grid, mask_center
from made_folders.painters import paint_lung, reconstruct_ct
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Unlabelled, Why, expect
from made_folders.writing import save_nifti, save_workbook

HEADER = (
    "Fall-Nr.", "Pat.-ID", "Geb.-Dat.", "Geschl.", "CT vom", "Ø max.\n(mm)", "Lokalisation", None, "Histologie",
    "Bemerkung",
)  # fmt: skip
LEGEND = (
    ("Abkürzung", "Bedeutung"),
    ("ROL / RML / RUL", "rechter Ober-, Mittel-, Unterlappen"),
    ("LOL / LUL", "linker Ober-, Unterlappen"),
    ("gutartig", "Hamartom, Granulom, Lymphknoten, > 2 Jahre größenkonstant"),
    ("maligne", "Adeno-Ca, PEC, SCLC, Metastase"),
)
COMMENTS = (
    None,
    None,
    "V.a. Adeno-Ca",
    "Verlauf in 3 Mon.",
    "Z.n. Mamma-Ca 2009, Pat. wünscht keine OP",
    "s. Vorbefund",
)
BLANK_EVERY = 19  # histology still missing for one patient in so many


def write_ct_xlsx_masks(folder: Path, *, cases: int = 60, seed: int = 0) -> MadeFolder:
    """Write the CTs, their masks and the list; ``cases`` is the number of CTs."""
    empty_folder(folder, cases=cases)
    plan = plan_scans(cases, seed)
    rng = np.random.default_rng([seed, 2])
    patients = plan[-1].patient + 1
    ids = np.cumsum(rng.integers(1, 4, patients + 2)).tolist()  # the last two have no CT
    blank = {patient for patient in range(patients) if patient % BLANK_EVERY == BLANK_EVERY // 2}
    scans, masks = [], []
    for planned in plan:
        scan, mask = _write_scan(folder, planned, seed, patient_id=ids[planned.patient], blank=planned.patient in blank)
        scans.append(scan)
        masks.append(mask)
    rows = []
    for patient, patient_id in enumerate(ids):
        malignant = next((scan.malignant for scan in plan if scan.patient == patient), None)
        rows.append(
            _row(patient_id, rng, malignant=malignant, blank=patient in blank, without_scan=patient >= patients)
        )
    table = _write_list(folder / "Rundherde Liste 2019-2023_final_v3.xlsx", rows)
    expected = expect("CT", scans, region="lesion", left_out=masks, rows_without_scan=map(str, ids[patients:]))
    return MadeFolder(folder, table, "maligne", "Histologie", expected)


def _write_scan(
    folder: Path, planned: PlannedScan, seed: int, *, patient_id: int, blank: bool
) -> tuple[MadeScan, LeftOut]:
    rng = planned.random(seed)
    axes = "LAS" if rng.random() < 0.8 else "LPS"
    grid = make_grid((40, 40, 34), (2.0, 2.0, 2.5), center_mm=rng.normal((-72, 15, -210), (9, 8, 40)), axes=axes)
    painted = paint_lung(grid, planned.shapes(grid, rng), rng)
    name = f"Pat_{patient_id:03d}_Thorax{'_Verlauf' if planned.visit else ''}"
    image, mask = f"CT/{name}.nii.gz", f"Segmentierung/{name}_lesion.nii.gz"
    save_nifti(folder / image, reconstruct_ct(painted.values, rng), grid, description="Philips iCT 256")
    # Some readers give each lesion a number of its own, others paint all with 1; ITK-SNAP and Slicer differ in type.
    numbered = rng.random() < 0.5
    labels = np.zeros(grid.shape, np.uint8 if rng.random() < 0.6 else np.int16)
    for number, painted_mask in enumerate(painted.masks, start=1):
        labels[painted_mask] = number if numbered else 1
    save_nifti(folder / mask, labels, grid, description="ITK-SNAP")
    malignant = None if blank else planned.malignant
    lesions = tuple(MadeLesion(*mask_center(part, grid), malignant, stated_in=mask) for part in painted.masks)
    why = Unlabelled.BLANK if blank else None
    return MadeScan(image, str(patient_id), malignant, lesions, why), LeftOut(mask, Why.MASK, of=image)


def _row(
    patient_id: int, rng: np.random.Generator, *, malignant: bool | None, blank: bool, without_scan: bool
) -> list[object]:
    born = date(1932, 1, 1) + timedelta(days=int(rng.integers(0, 17000)))
    seen = date(2019, 1, 7) + timedelta(days=int(rng.integers(0, 1700)))
    birthday: object = born
    if rng.random() < 0.1:
        birthday = str(rng.choice([f"{born:%d.%m.%y}", str(born.year), "unbek."]))
    word: str | None = None
    if not blank:
        word = "maligne" if (malignant if malignant is not None else rng.random() < 0.5) else "gutartig"
        if rng.random() < 0.12:
            word = str(rng.choice([word.capitalize(), f"{word} "]))
    diameter = round(float(rng.normal(18 if malignant else 9, 1.5)), 1)
    comment = "Histo ausstehend" if blank else rng.choice(np.array(COMMENTS, object))
    if without_scan:
        comment = "CT auswärts, Bilder nicht im PACS"
    place = str(rng.choice(["ROL", "RML", "RUL", "LOL", "LUL"]))
    number = int(rng.integers(4_100_000, 9_900_000))
    return [number, patient_id, birthday, str(rng.choice(["w", "m"])), seen, diameter, place, None, word, comment]


def _write_list(path: Path, rows: list[list[object]]) -> Path:
    workbook = Workbook()
    sheet = workbook.active
    assert sheet is not None
    sheet.title = "Patienten"
    sheet["A1"] = "Pulmonale Rundherde 2019–2023, Institut für Radiologie (Stand 14.03.2024)"
    sheet["A1"].font = Font(bold=True, size=14)
    sheet.merge_cells(start_row=1, start_column=1, end_row=1, end_column=len(HEADER))
    sheet.append([])
    sheet.append(list(HEADER))
    for cell in sheet[3]:
        cell.font, cell.fill = Font(bold=True), PatternFill("solid", fgColor="DDEBF7")
    for row in rows:
        sheet.append(row)
        for cell in sheet[sheet.max_row]:
            if isinstance(cell.value, date):
                cell.number_format = "DD.MM.YYYY"
    sheet.append([])
    sheet.append(["Histologie aus CT-gesteuerter Biopsie oder OP, sonst Verlauf > 2 Jahre"])
    sheet.freeze_panes = "A4"
    sheet.auto_filter.ref = f"A3:J{3 + len(rows)}"
    legend = workbook.create_sheet("Legende")
    for line in LEGEND:
        legend.append(line)
    return save_workbook(path, workbook)
