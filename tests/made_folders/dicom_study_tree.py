"""A PACS export, ``PAT00001/STU00001/SER00002/IM0001``, and a pathologist's CSV.

Every study holds a localizer, the same CT with a soft and a sharp kernel, and one annotation of the sharp one (SEG, SR
or RTSTRUCT, which in half the cases outlines the body too); some hold a captured screen with the dose. ``DICOMDIR``
indexes it all, Philips studies have a ``DIRFILE`` beside the slices. Files have no suffix. The CSV names accession
numbers and patients; behaviour is ``malignant``, ``benign`` or, in a few rows, ``uncertain``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from made_folders.cohort import PlannedScan, empty_folder, plan_scans
from made_folders.dicom_annotations import measurement_report, segmentation, structure_set
from made_folders.dicom_directory import write_directory
from made_folders.dicom_files import Person, SeriesName, Study, captured_screen, ct_slices, localizers, uid
from made_folders.geometry import Grid, as_point, make_grid, mask_center
from made_folders.painters import Painted, paint_lung, reconstruct_ct
from made_folders.truth import LeftOut, MadeFolder, MadeLesion, MadeScan, Unlabelled, Why, expect
from made_folders.writing import save_table

SCANNERS = {
    "SIEMENS": ("SOMATOM Definition AS", "B31f", "B70f"),
    "GE MEDICAL SYSTEMS": ("Discovery CT750 HD", "STANDARD", "LUNG"),
    "Philips": ("iCT 256", "B", "YC"),
    "TOSHIBA": ("Aquilion ONE", "FC08", "FC51"),
}
DIAGNOSES = {
    "malignant": ("adenocarcinoma, acinar", "squamous cell carcinoma", "carcinoid, atypical"),
    "benign": ("hamartoma", "necrotising granuloma", "organising pneumonia, no malignancy"),
    "uncertain": ("atypical adenomatous hyperplasia",),
}
UNCERTAIN_EVERY = 19


@dataclass(frozen=True)
class _Acquired:
    """One CT: its study, its grid, what was painted, and the randomness that goes on with it."""

    study: Study
    grid: Grid
    painted: Painted
    rng: np.random.Generator


def write_dicom_study_tree(folder: Path, *, cases: int = 40, seed: int = 0) -> MadeFolder:
    """Write the export and ``pathology_results.csv``; ``cases`` counts studies."""
    empty_folder(folder, cases=cases)
    rng = np.random.default_rng([seed, 2])
    plan = plan_scans(cases, seed, pairs=6)
    people = [Person.draw(rng, patient_id=f"{4700000 + 37 * number:08d}") for number in range(plan[-1].patient + 1)]
    scans: list[MadeScan] = []
    left_out = [LeftOut("DICOMDIR", Why.INDEX)]
    files: list[tuple[str, Dataset]] = []
    rows: list[list[object]] = []
    for planned in plan:
        uncertain = planned.patient % UNCERTAIN_EVERY == UNCERTAIN_EVERY // 2
        scan, others, written = _write_study(folder, planned, people[planned.patient], seed, uncertain=uncertain)
        scans.append(scan)
        left_out += others
        files += written
        behaviour = "uncertain" if uncertain else "malignant" if planned.malignant else "benign"
        diagnosis = str(rng.choice(DIAGNOSES[behaviour]))
        received = f"2023-{int(rng.integers(1, 13)):02d}-{int(rng.integers(1, 29)):02d}"
        rows.append(
            [f"H23-{1000 + 7 * planned.number}", _accession(planned), scan.patient, received, diagnosis, behaviour]
        )
    write_directory(folder / "DICOMDIR", files)
    header = ["lab_no", "imaging_accession", "hospital_no", "received", "diagnosis", "behaviour"]
    order = rng.permutation(len(rows))
    table = save_table(folder / "pathology_results.csv", [header, *(rows[place] for place in order)])
    expected = expect("CT", scans, region="lesion", left_out=left_out)
    return MadeFolder(folder, table, "malignant", "behaviour", expected)


def _accession(planned: PlannedScan) -> str:
    return f"CT23{planned.number + 101:06d}"


def _write_study(
    folder: Path, planned: PlannedScan, person: Person, seed: int, *, uncertain: bool
) -> tuple[MadeScan, list[LeftOut], list[tuple[str, Dataset]]]:
    rng = planned.random(seed)
    manufacturer = list(SCANNERS)[int(rng.integers(len(SCANNERS)))]
    model, soft, sharp = SCANNERS[manufacturer]
    study_uid = uid(seed, "study", planned.number)
    study = Study(person, study_uid, _accession(planned), f"2023{int(rng.integers(1, 13)):02d}17", manufacturer, model)
    tilt = float(rng.choice([0, 0, 0, 0, -9.0]))
    grid = make_grid(
        (36, 36, 26), (2.2, 2.2, 3.0), center_mm=rng.normal((80, -140, 900), (6, 6, 60)), axes="LPS", tilt_degrees=tilt
    )
    painted = paint_lung(grid, planned.shapes(grid, rng), rng)
    acquired = _Acquired(study, grid, painted, rng)
    place = f"PAT{planned.patient + 1:05d}/STU{planned.visit + 1:05d}"
    written = _save_series(folder, f"{place}/SER00001", localizers(study, uid(study_uid, 1), painted.values, grid))
    left_out = [LeftOut(f"{place}/SER00001", Why.LOCALIZER)]
    images: list[Dataset] = []
    for number, kernel in ((2, soft), (3, sharp)):
        series = SeriesName(uid(study_uid, number), number, f"Thorax 3.0 {kernel}", kernel)
        voxels = reconstruct_ct(painted.values, rng, noise_hu=14, sharp=number == 3)
        slices = _save_series(folder, f"{place}/SER0000{number}", ct_slices(study, series, voxels, grid))
        written += slices
        images = [header for _, header in slices]
        if manufacturer == "Philips":
            index = f"{place}/SER0000{number}/DIRFILE"
            write_directory(folder / index, [(name.rsplit("/", 1)[1], header) for name, header in slices])
            left_out.append(LeftOut(index, Why.INDEX))
    path = f"{place}/SER00003"
    left_out.append(LeftOut(f"{place}/SER00002", Why.OTHER_RECONSTRUCTION, of=path))
    malignant = None if uncertain else planned.malignant
    annotation, lesions = _annotate(
        acquired, images, planned, malignant=malignant, stated_in=f"{place}/SER00004/IM0001"
    )
    written += _save_series(folder, f"{place}/SER00004", [annotation])
    left_out.append(LeftOut(f"{place}/SER00004", Why.ANNOTATION, of=path))
    if planned.number % 4 == 1:
        screen = captured_screen(study, uid(study_uid, 501), rng)
        written += _save_series(folder, f"{place}/SER00501", [screen])
        left_out.append(LeftOut(f"{place}/SER00501", Why.SCREENSHOT))
    why = Unlabelled.UNCLEAR if uncertain else None
    return MadeScan(path, person.patient_id, malignant, lesions, why), left_out, written


def _save_series(folder: Path, place: str, images: Iterable[Dataset]) -> list[tuple[str, Dataset]]:
    """Write a series' files; give their paths and the images, whose pixels are taken off."""
    (folder / place).mkdir(parents=True)
    written = []
    for number, image in enumerate(images, start=1):
        name = f"{place}/IM{number:04d}"
        image.save_as(folder / name, enforce_file_format=True)
        if "PixelData" in image:
            del image.PixelData
        written.append((name, image))
    return written


def _annotate(
    acquired: _Acquired, images: list[Dataset], planned: PlannedScan, *, malignant: bool | None, stated_in: str
) -> tuple[Dataset, tuple[MadeLesion, ...]]:
    painted, grid, rng = acquired.painted, acquired.grid, acquired.rng
    series_uid = uid(acquired.study.study_uid, 4)
    kind = ("SEG", "RTSTRUCT", "SR")[planned.number % 3]
    exact = [mask_center(mask, grid) for mask in painted.masks]
    if kind == "SR":
        # A reader points at the lesion within half a millimetre and measures it with one decimal.
        points = [as_point(np.array(center) + rng.uniform(-0.3, 0.3, 3)) for _, center in exact]
        measured = [(point, round(_width_mm(mask, grid), 1)) for point, mask in zip(points, painted.masks, strict=True)]
        report = measurement_report(images, measured, series_uid=series_uid, as_ellipse=planned.number % 2 == 0)
        lesions = tuple(
            MadeLesion(tuple(np.round(grid.to_voxel(point), 4).tolist()), point, malignant, diameter_mm, stated_in)
            for point, diameter_mm in measured
        )
        return report, lesions
    if kind == "SEG":
        annotation: Dataset = segmentation(images, painted.masks, series_uid=series_uid)
    else:
        body = painted.values > -500 if planned.number % 2 else None
        annotation = structure_set(images, painted.masks, body, grid, series_uid=series_uid)
    return annotation, tuple(MadeLesion(voxel, center, malignant, None, stated_in) for voxel, center in exact)


def _width_mm(mask: np.ndarray, grid: Grid) -> float:
    """The mask's extent along the rows of the image."""
    columns = np.flatnonzero(mask.any((1, 2)))
    return float((columns[-1] - columns[0] + 1) * grid.spacing_mm[0])
