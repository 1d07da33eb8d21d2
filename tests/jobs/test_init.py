"""``malignancy init``: what it refuses, what it asks for, and that it writes all or nothing of the user's choosing."""

import csv
import stat

import nibabel as nib
import numpy as np
import pytest
import yaml

from pipeline.cases.manifest import read_manifest
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


def test_no_cell_of_the_manifest_is_a_formula_and_every_path_reads_back(folder, capsys):
    (folder / "case0.nii.gz").rename(folder / "-1+cmd.nii.gz")
    (folder / "case1.nii.gz").rename(folder / "=HYPERLINK(1).nii.gz")
    (folder / "labels.csv").unlink()
    rows = [f"{path.name},{number % 2},{'@SUM(1)' if number == 3 else -7}" for number, path in enumerate(scans(folder))]
    (folder / "labels.csv").write_text("image,label,note\n" + "\n".join(rows) + "\n")
    assert run(["init", str(folder), "--positive", "1", "--keep", "note"]) == 0
    assert "manifest.csv: an apostrophe stands before 1 cells that a spreadsheet would run" in capsys.readouterr().err
    manifest = read_manifest(folder / "manifest.csv")
    assert sorted(case.path.name for case in manifest.cases) == sorted(path.name for path in scans(folder))
    assert {case.extra["note"] for case in manifest.cases} == {"-7", "'@SUM(1)"}
    with open(folder / "manifest.csv", newline="") as handle:
        assert not [
            cell for row in csv.reader(handle) for cell in row if cell[:1] in ("=", "@", "+") or "-1+" in cell[:3]
        ]


def scans(folder):
    return sorted(folder.glob("*.nii.gz"))


def test_an_id_that_is_a_formula_is_refused_and_nothing_is_written(folder, capsys):
    rows = [f"case{number}.nii.gz,{number % 2},=CMD({number})" for number in range(8)]
    (folder / "labels.csv").write_text("image,label,patient_id\n" + "\n".join(rows) + "\n")
    assert run(["init", str(folder), "--positive", "1", "--patient", "patient_id"]) == 2
    error = capsys.readouterr().err
    assert "column 'patient_id': 8 of 8 cells begin with = + - or @" in error
    assert "CMD" not in error
    assert files(folder) == ["labels.csv"]


def test_a_file_that_came_while_the_scans_were_looked_at_is_not_overwritten(folder, monkeypatch, capsys):
    def meanwhile(*_, **__):
        (folder / "manifest.csv").write_text("theirs")
        return "text"

    monkeypatch.setattr("pipeline.jobs.init.configuration_text", meanwhile)
    assert run(["init", str(folder), "--positive", "cancer"]) == 2
    assert "manifest.csv: exists already and is not overwritten" in capsys.readouterr().err
    assert files(folder) == ["labels.csv", "manifest.csv"]
    assert (folder / "manifest.csv").read_text() == "theirs"
