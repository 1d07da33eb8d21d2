"""``malignancy init``: what it refuses, what it asks for, and that it writes all or nothing of the user's choosing."""

import os
import stat

import nibabel as nib
import numpy as np
import pytest
import yaml

from pipeline.cli import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight scans named by number, and a table of their labels in words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MALIGNANCY_PATIENT_SALT", "salt")
    place = tmp_path / "scans"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        voxels = rng.integers(0, 900, (16, 16, 8)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), place / f"case{number}.nii.gz")
    rows = [f"case{number},{'cancer' if number % 2 else 'no cancer'}" for number in range(8)]
    (place / "labels.csv").write_text("id,finding\n" + "\n".join(rows) + "\n")
    return place


def files(place):
    return sorted(path.name for path in place.iterdir() if not path.name.startswith("case"))


def test_words_of_the_label_are_asked_for_before_anything_is_written(folder, capsys):
    assert run(["init", str(folder)]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert ", cancer (4)" in error
    assert "'no cancer' (4)" in error
    assert "--positive" in error
    assert files(folder) == ["labels.csv"]


def test_manifest_facts_and_configuration_are_written_for_the_owner_alone(folder, capsys):
    options = ["--positive", "cancer", "--label-source", "histology", "--simulated", "--name", "mine"]
    assert run(["init", str(folder), *options]) == 0
    printed = capsys.readouterr().out
    assert files(folder) == ["config.yaml", "labels.csv", "manifest.csv", "manifest.yaml"]
    assert stat.S_IMODE((folder / "manifest.csv").stat().st_mode) == 0o600
    facts = yaml.safe_load((folder / "manifest.yaml").read_text())
    assert facts == {"label_source": "histology", "intensities": "simulated"}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["name"], config["data"]["label_source"]) == ("mine", "histology")
    assert printed.endswith(
        f"next:\n  malignancy check {folder}/manifest.csv\n  malignancy train {folder}/config.yaml\n"
    )


def test_label_source_that_nobody_said_is_asked_for_by_the_training(folder, capsys):
    assert run(["init", str(folder), "--positive", "cancer"]) == 0
    told = capsys.readouterr()
    assert "whose opinion or which test" in told.err
    assert "data.label_source='histology'" in told.out
    assert run(["train", str(folder / "config.yaml")]) == 2
    assert "data.label_source" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.yaml", "config.yaml"])
def test_file_that_stands_there_is_not_overwritten(folder, name, capsys):
    (folder / name).write_text("mine\n")
    assert run(["init", str(folder), "--positive", "cancer"]) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (folder / name).read_text() == "mine\n"
    assert len(files(folder)) == 2


def test_folder_without_a_scan_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    assert run(["init", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "no scan" in error


def test_scans_alone_leave_labels_to_fill_in(folder, capsys):
    (folder / "labels.csv").unlink()
    assert run(["init", str(folder), "--label-source", "histology"]) == 0
    error = capsys.readouterr().err
    assert "training needs 4 patients of each class, and there are 0 with malignant and 0 with benign" in error
    assert "fill in the column label" in error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--table", "none.csv"], "none.csv"),
        (["--positive", "tumour"], "'tumour'"),
        (["--label", "diagnosis"], "'diagnosis'"),
        (["--id", "case"], "'case'"),
        (["--modality", "PET"], "PET"),
    ],
)
def test_what_the_folder_does_not_have_is_one_line(folder, options, says, capsys):
    assert run(["init", str(folder), *options]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert files(folder) == ["labels.csv"]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--label-source", "x", "--label-source 'x': String should have at least 3 characters; give another"),
        ("--name", "a/b", "--name 'a/b': String should match pattern"),
    ],
)
def test_what_the_files_could_not_hold_is_refused_before_anything_is_written(folder, capsys, option, value, says):
    before = files(folder)
    assert run(["init", str(folder), "--positive", "cancer", option, value]) == 2
    assert says in capsys.readouterr().err
    assert files(folder) == before


@pytest.mark.parametrize("name", [b"line\nbreak.nii.gz", b"\xff\xfe.nii.gz", b"tab\t.nii.gz", b"\x1b[31mred.nii.gz"])
def test_a_name_that_no_table_can_hold_is_left_out_with_the_reason(folder, capsys, name):
    nib.save(nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4)), folder / "new.nii.gz")
    (folder / "new.nii.gz").rename(folder / os.fsdecode(name))
    assert run(["init", str(folder), "--positive", "cancer", "--label-source", "histology"]) == 0
    printed = capsys.readouterr().out
    assert "1 with E_CASE_ID (its name has a line break, a character that cannot be printed" in printed
    assert run(["check", str(folder / "manifest.csv")]) == 0
    assert "8 cases: 8 ok" in capsys.readouterr().out
