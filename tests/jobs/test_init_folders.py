"""``init`` on ten folders as hospitals and researchers have them: the truth of each, with no file edited by hand."""

import csv
from collections import defaultdict

import numpy as np
import pytest
from made_folders import MAKERS, Why

from pipeline.cli import run

SOURCE = ("--label-source", "made up")
# What the user of each folder says beside the folder.
SAYS = {
    "ct_xlsx_masks": ("--positive", "maligne"),
    "busi_tree": (),
    "dicom_study_tree": (),
    "luna16_like": ("--table", "nodule_malignancy.csv", "--positive", "1"),
    "slicer_session": ("--positive", "carcinoma"),
    "mr_mgz": ("--positive", "patient"),
    "semicolon_export": ("--positive", "bösartig"),
    "mammography": (
        *("--positive", "MALIGNANT"),
        *("--negative", "BENIGN"),
        *("--negative", "BENIGN_WITHOUT_CALLBACK"),
    ),
    "forty_cases": (),
    "mess": ("--positive", "bösartig", "--negative", "gutartig"),
}
CENTER_MM = 0.75  # how far the centroid of a mask, or of an outline, may lie from where the lesion was painted


def says(name, folder):
    """The options, with paths in the folder."""
    return [str(folder / word) if word.endswith(".csv") else word for word in SAYS[name]]


@pytest.fixture(scope="module", params=list(MAKERS))
def taken(request, tmp_path_factory, write_made_folder):
    """A made folder after ``init``, with the rows that were written."""
    folder = tmp_path_factory.mktemp(request.param) / request.param
    made = write_made_folder(request.param, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALIGNANCY_PATIENT_SALT", "salt")
        assert run(["init", str(folder), *says(request.param, folder), *SOURCE]) == 0
    assert {path: path.read_bytes() for path in before} == before  # nothing of the user's is touched
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as handle:
        return made, list(csv.DictReader(handle))


def by_image(made, rows):
    """Rows by the path of their scan; a copy stands for the scan that it is a copy of.

    Left aside are scans that only say at their end that they are cut off, which training rejects with a code, and
    pictures without a lesion, which stay unlabelled.
    """
    copies = {item.path: item.of for item in made.expected.left_out if item.why == Why.DUPLICATE}
    cut = made.expected.left_out_because(Why.TRUNCATED)
    no_lesion = made.expected.left_out_because(Why.NO_LESION)
    groups = defaultdict(list)
    for row in rows:
        image = row["image"].split("#")[0]
        if image in cut or (image in no_lesion and row["label"] == ""):
            continue
        groups[copies.get(image, image)].append(row)
    return groups


def test_every_scan_is_a_case_and_nothing_else_is(taken):
    made, rows = taken
    assert set(by_image(made, rows)) == {scan.path for scan in made.expected.scans}


def test_every_label_is_the_folders_own(taken):
    made, rows = taken
    found = {image: {row["label"] for row in group} for image, group in by_image(made, rows).items()}
    per_lesion = {
        scan.path: {"" if lesion.malignant is None else str(int(lesion.malignant)) for lesion in scan.lesions}
        for scan in made.expected.scans
    }
    of_scan = {path: {"" if label is None else str(int(label))} for path, label in made.expected.labels.items()}
    wrong = {path for path in of_scan if found[path] not in (of_scan[path], per_lesion[path])}
    assert wrong == set()


def test_patients_are_told_apart_and_kept_together(taken):
    made, rows = taken
    if made.expected.patients is None:
        assert len({row["patient_id"] for row in rows}) == len({row["image"] for row in rows})
        return
    of_image = {image: {row["patient_id"] for row in group} for image, group in by_image(made, rows).items()}
    truth = {scan.path: scan.patient for scan in made.expected.scans}
    pairs = {(truth[image], patient) for image, patients in of_image.items() for patient in patients}
    labelled = {truth[scan.path] for scan in made.expected.labelled}
    pairs = {pair for pair in pairs if pair[0] in labelled}
    assert len(pairs) == len({patient for _, patient in pairs}) == len(labelled)


def test_every_stated_lesion_is_a_case_at_its_place(taken):
    made, rows = taken
    if made.expected.region == "image":
        assert "center_x_mm" not in rows[0]
        return
    groups = by_image(made, rows)
    for scan in made.expected.scans:
        found = [[float(row[f"center_{axis}_mm"]) for axis in "xyz"] for row in groups[scan.path]]
        assert len(found) == len(scan.lesions), scan.path
        for lesion in scan.lesions:
            assert min(np.linalg.norm(np.subtract(found, lesion.center_mm), axis=1)) < CENTER_MM, scan.path
    assert {row["coordinate_system"] for row in rows} == {"RAS"}


def test_the_configuration_fits_the_folder(taken):
    made, _ = taken
    text = (made.folder / "config.yaml").read_text()
    modality = {"MG": "XR", "US": "US"}.get(made.expected.modality, made.expected.modality)
    assert f"modality: {modality} " in text
    assert f"region: {made.expected.region}\n" in text
