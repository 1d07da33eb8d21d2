"""`malignancy audit`: a leak of each kind is planted and found, and a clean table is clean."""

import csv
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import yaml
from cohorts import tiny_config
from PIL import Image
from scipy.ndimage import gaussian_filter
from shared_data import shared
from tiny_models import save_tiny

from pipeline.cli import run
from pipeline.jobs.audit import audit
from pipeline.scoring.model_description import JSON_NAME, PatientHashes, read_description

SECRET = "Curie-Marie"
SPLITS = ("train", "validation", "calibration", "test")


def write_table(
    folder, *, name="manifest.csv", cases=12, splits=("train", "validation", "calibration", "test"), seed=0
):
    """Pictures that differ, each of its own patient, and their table."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(cases):
        pixels = 128 + 900 * gaussian_filter(rng.normal(size=(96, 80)), 4)
        file = f"{name[:4]}{number}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file)
        row = {"case_id": f"{name[:4]}{number}", "image": file, "patient_id": f"{SECRET}-{name}-{number}"}
        rows.append(row | {"label": str(number // 4 % 2), "split": splits[number % len(splits)] if splits else ""})
    return save(folder / name, rows)


def save(path, rows):
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def change(table, number, **cells):
    rows = list(csv.DictReader(table.open()))
    rows[number] |= cells
    save(table, rows)


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "data")


def kinds(result):
    return [match.kind for match in result.leaks]


def test_a_clean_table_is_clean(table, capsys):
    assert run(["audit", str(table)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "audit: clean"


def test_a_shared_patient_is_found_in_whatever_spelling_and_not_named(table, capsys):
    change(table, 3, patient_id=f" {SECRET.upper()}-MANIFEST.CSV-0 ")
    assert run(["audit", str(table)]) == 1
    out = capsys.readouterr().out
    assert "leaks, shared patients: 1" in out
    assert "'mani0' (train) and 'mani3' (test)" in out
    assert SECRET.lower() not in out.lower()


def test_the_same_bytes_in_two_splits_are_a_leak(table):
    (table.parent / "mani3.png").write_bytes((table.parent / "mani0.png").read_bytes())
    assert kinds(audit([str(table)])) == ["file"]


def test_the_same_voxels_in_another_format_are_a_leak(table):
    pixels = Image.open(table.parent / "mani0.png")
    pixels.save(table.parent / "mani3.tif")
    change(table, 3, image="mani3.tif")
    assert kinds(audit([str(table)])) == ["voxels"]


def test_the_same_scan_with_another_header_is_a_leak(table):
    voxels = np.random.default_rng(0).normal(0, 50, (20, 20, 20)).astype(np.int16)
    for number, compressed in ((0, 9), (3, 1)):
        image = nib.Nifti1Image(voxels, np.eye(4))
        image.header["descrip"] = f"export {number}".encode()
        path = table.parent / f"{number}.nii.gz"
        path.write_bytes(gzip.compress(image.to_bytes(), compressed))
        change(table, number, image=path.name)
    assert kinds(audit([str(table)])) == ["voxels"]


CHANGED = {
    "re-encoded": lambda image: image,
    "smaller": lambda image: image.resize((48, 60)),
    "darker": lambda image: image.point(lambda value: 0.8 * value + 10),
    "shifted": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, -2, 0, 1, 1)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("how", CHANGED)
def test_a_changed_picture_in_another_split_is_a_leak(table, how):
    CHANGED[how](Image.open(table.parent / "mani0.png")).save(table.parent / "other.jpg", quality=80)
    change(table, 3, image="other.jpg")
    (match,) = audit([str(table)]).leaks
    assert (match.kind, match.groups, match.mirrored) == ("similar", ("train", "test"), how == "mirrored")


def test_two_lesions_of_a_scan_in_two_splits_are_a_shared_scan_and_no_conflict(tmp_path):
    voxels = np.random.default_rng(0).normal(0, 50, (60, 60, 60)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")
    rows = [
        {"case_id": f"c{split}", "image": "scan.nii.gz", "patient_id": split, "label": label, "split": split}
        | {"center_x_mm": x, "center_y_mm": 30, "center_z_mm": 30, "coordinate_system": "RAS"}
        for split, label, x in (("train", 1, 15), ("test", 0, 45))
    ]
    result = audit([str(save(tmp_path / "lesions.csv", rows))])
    assert kinds(result) == ["file"]
    assert result.conflicts == ()
    rows[1]["split"] = "train"
    assert audit([str(save(tmp_path / "lesions.csv", rows))]).matches == ()  # two lesions of one scan are no fault


@pytest.mark.parametrize("how", ["same bytes", "darker"])
def test_one_picture_with_two_labels_is_a_label_conflict_in_one_split_too(table, capsys, how):
    first = Image.open(table.parent / "mani0.png")
    (first if how == "same bytes" else CHANGED[how](first)).save(table.parent / "mani4.png")
    assert run(["audit", str(table)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "label conflicts, one image labelled benign and malignant: 1" in lines
    assert any("'mani0' (train, label 0) and 'mani4' (train, label 1)" in line for line in lines)
    assert lines[-1] == "audit: 0 leaks, 1 label conflicts"


def test_copies_of_one_label_in_one_split_are_counted_and_no_fault(table, capsys):
    change(table, 4, label="0")
    (table.parent / "mani4.png").write_bytes((table.parent / "mani0.png").read_bytes())
    assert run(["audit", str(table)]) == 0
    assert "leaks, shared scans, the same bytes: 0 (and 1 inside one split or table)" in capsys.readouterr().out


def test_two_tables_without_splits_are_compared(tmp_path):
    train = write_table(tmp_path / "a", name="train.csv", splits=())
    test = write_table(tmp_path / "b", name="test.csv", splits=(), seed=1)
    assert audit([str(train), str(test)]).leaks == ()
    (test.parent / "test5.png").write_bytes((train.parent / "trai7.png").read_bytes())
    (match,) = audit([str(train), str(test)]).leaks
    assert match.groups == (str(train), str(test))
    assert [case.case.case_id for case in match.cases] == ["trai7", "test5"]


def test_a_configuration_is_audited_as_training_splits_it(cohort_manifest, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(cohort_manifest, tmp_path)))
    result = audit([str(config)])
    assert {case.group for case in result.cases} == {*SPLITS, None}  # one case is unlabelled
    assert "patient" not in kinds(result)


def test_what_a_model_was_fitted_on_is_found_in_a_table(table, tmp_path, capsys):
    save_tiny(tmp_path / "model")
    digest = audit([str(table)]).cases[7].digest
    description = read_description(tmp_path / "model")
    seen = {"train": [f"{SECRET}-manifest.csv-3", f"{SECRET}-manifest.csv-0"], "validation": [], "calibration": []}
    hashes = PatientHashes.of("salt", seen, images=[digest])
    text = description.model_copy(update={"patients": hashes}).model_dump_json()
    (tmp_path / "model" / JSON_NAME).write_text(text)
    result = audit([str(table), str(tmp_path / "model")])
    found = [(match.kind, match.cases[0].case.case_id) for match in result.leaks]
    assert found == [("patient", "mani3"), ("file", "mani7")]  # and not mani0, which is in the training split
    assert run(["audit", str(tmp_path / "model"), str(table)]) == 1
    assert "'mani3' (test) and model tiny" in capsys.readouterr().out


def test_everything_is_written_as_json_without_patients(table, tmp_path):
    change(table, 3, patient_id=f"{SECRET}-manifest.csv-0")
    assert run(["audit", str(table), "--json", str(tmp_path / "audit.json")]) == 1
    assert run(["audit", str(table), "--json", str(tmp_path / "audit.json")]) == 1  # its own file
    text = (tmp_path / "audit.json").read_text()
    assert SECRET not in text
    found = json.loads(text)
    assert found["leaks"] == {"patient": 1, "file": 0, "voxels": 0, "similar": 0}
    assert found["matches"][0]["case_ids"] == ["mani0", "mani3"]


def test_an_unreadable_scan_is_said_and_its_patient_compared(table, capsys):
    (table.parent / "mani3.png").write_bytes(b"no picture")
    change(table, 3, patient_id=f"{SECRET}-manifest.csv-0")
    assert run(["audit", str(table)]) == 1
    assert "1 cases could not be read, and only their patients are compared (first: 'mani3', E_FORMAT)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(("name", "says"), [("nowhere.csv", "nowhere.csv"), ("model", "a model alone has no cases")])
def test_wrong_usage_is_said(tmp_path, monkeypatch, capsys, name, says):
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model")
    assert run(["audit", name]) == 2
    assert says in capsys.readouterr().err


def test_a_file_that_no_audit_wrote_is_kept(table, capsys):
    assert run(["audit", str(table), "--json", str(table)]) == 2
    assert "no audit wrote it" in capsys.readouterr().err


@pytest.mark.slow
def test_the_copies_in_pneumoniamnist_are_found(tmp_path):
    file = shared("data/medmnist/pneumoniamnist.npz")
    assert run(["import", "medmnist", str(file), str(tmp_path / "out"), "--positive", "1"]) == 0
    result = audit([str(tmp_path / "out" / "manifest.csv")])
    # Half of the original validation set is the calibration split here.
    assert [match.kind for match in result.leaks] == ["file"] * 8
    assert {match.groups for match in result.leaks} == {("train", "validation"), ("train", "calibration")}
    assert result.conflicts == ()
