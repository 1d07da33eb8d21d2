"""What a table says of its images: one under several names, paths of Windows, none that can be read."""

import shutil

import pandas as pd
import pytest
import yaml
from cohorts import tiny_config, write_cohort

from pipeline.cli import run


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return write_cohort(tmp_path / "data", patients=24)


def with_copy(manifest, of, **cells):
    """Add a copy of a case's file under a new name, and of its row with other cells; returns the new case's id."""
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    row = table.iloc[of].to_dict()
    shutil.copyfile(manifest.parent / row["image"], manifest.parent / "images" / "copy.nii.gz")
    row |= {"case_id": "copy", "patient_id": "other", "image": "images/copy.nii.gz", **cells}
    pd.concat([table, pd.DataFrame([row])]).to_csv(manifest, index=False)
    return row["case_id"]


def train(manifest, folder):
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(manifest, folder)))
    return run(["train", str(folder / "config.yaml")])


def test_check_finds_both_labels_of_one_image_by_its_content(cohort, capsys, tmp_path):
    with_copy(cohort, 0, label="0")  # case 0 is malignant
    assert run(["check", str(cohort), "--json", str(tmp_path / "check.json")]) == 1
    assert "E_LABEL_CONFLICT" in (tmp_path / "check.json").read_text()
    assert "1 image has cases of both labels: 'copy' and '000' are the same image" in capsys.readouterr().out


def test_check_finds_both_labels_of_one_path_in_two_spellings(cohort, capsys):
    with_copy(cohort, 0, label="0", image="images/../images/./000.nii.gz")
    assert run(["check", str(cohort)]) == 1
    assert "E_LABEL_CONFLICT" in capsys.readouterr().out


def test_the_same_label_twice_is_no_fault(cohort, capsys):
    with_copy(cohort, 0)
    assert run(["check", str(cohort)]) == 0
    assert "W_DUPLICATE_CONTENT" in capsys.readouterr().out


def test_another_place_of_the_image_may_have_another_label(cohort):
    with_copy(cohort, 0, label="0", center_x_mm="3.0")
    assert run(["check", str(cohort)]) == 0


def test_training_refuses_both_labels_of_one_image(cohort, tmp_path, capsys):
    with_copy(cohort, 0, label="0")
    assert train(cohort, tmp_path) == 2
    assert "E_LABEL_CONFLICT: 1 image has cases of both labels" in capsys.readouterr().err


def test_training_names_images_that_stand_in_several_splits(cohort, tmp_path, capsys):
    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    splits = ["train", "validation", "calibration", "test"]
    table["split"] = [splits[number // 3 % 4] if label else "" for number, label in enumerate(table["label"])]
    table.to_csv(cohort, index=False)
    with_copy(cohort, 0, split="test")
    train(cohort, tmp_path)
    assert "warning: 1 images are in several splits, under different patients (first: '" in capsys.readouterr().err


def test_backslashes_of_windows_are_read(cohort):
    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    table["image"] = table["image"].str.replace("/", "\\")
    table.to_csv(cohort, index=False)
    assert run(["check", str(cohort)]) == 0


def train_as(cohort, folder, **sections):
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(cohort, folder, **sections)))
    return run(["train", str(folder / "config.yaml")])


def test_folds_of_which_every_scan_is_rejected_are_one_line(cohort, tmp_path, capsys):
    for path in (tmp_path / "data" / "images").iterdir():
        path.unlink()
    training = {"folds": 3, "early_stopping": None}
    assert train_as(cohort, tmp_path, training=training) == 2
    assert "cases were rejected, most of them E_NOT_FOUND" in capsys.readouterr().err


def test_lesions_without_a_centre_are_refused_before_a_scan_is_opened(cohort, tmp_path, capsys):
    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    table.drop(columns=[name for name in table if name.startswith("center_")]).to_csv(cohort, index=False)
    assert train(cohort, tmp_path) == 2
    said = capsys.readouterr().err
    assert "preprocessing.region: 'lesion' needs the lesions' centres, and no labelled case of" in said
    assert "rejected" not in said
