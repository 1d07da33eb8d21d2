"""``malignancy init``: what it refuses, what it asks for, and that it writes all or nothing of the user's choosing."""

import csv
import os
import shlex
import stat

import nibabel as nib
import numpy as np
import pytest
import yaml

from pipeline.cases.manifest import read_manifest
from pipeline.cli import run
from pipeline.errors import Code, TableError


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


def patients_of(folder, *, malignant, benign):
    """The folder's scans with labels and patients of their own; more scans than it has are left aside."""
    words = ["cancer"] * malignant + ["no cancer"] * benign
    rows = [f"case{number},P{number},{word}" for number, word in enumerate(words)]
    (folder / "labels.csv").write_text("id,patient,finding\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize(("malignant", "warned"), [(3, True), (4, False)])
def test_too_few_patients_of_a_class_are_said(folder, malignant, warned, capsys):
    patients_of(folder, malignant=malignant, benign=4)
    assert run(["init", str(folder), "--positive", "cancer", "--label-source", "histology"]) == 0
    assert ("training needs 4 patients of each class" in capsys.readouterr().err) == warned


def test_a_column_for_a_folder_without_a_table_is_refused(folder, capsys):
    (folder / "labels.csv").unlink()
    assert run(["init", str(folder), "--label", "finding"]) == 2
    assert "has no table that names its scans; name one: --table FILE" in capsys.readouterr().err


def test_what_other_programs_leave_beside_a_table_is_no_table(folder):
    for name in ("._labels.csv", "~labels.csv"):
        (folder / name).write_bytes((folder / "labels.csv").read_bytes())
    assert run(["init", str(folder), "--positive", "cancer"]) == 0


def test_label_maps_under_the_scans_own_names_are_told(folder, capsys):
    (folder / "lungs").mkdir()
    for number in range(8):
        voxels = np.zeros((16, 16, 8), np.uint8)
        voxels[4:8, 4:8] = 1
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "lungs" / f"case{number}.nii.gz")
    assert run(["init", str(folder), "--positive", "cancer"]) == 0
    assert "8 masks: lungs/case0.nii.gz" in capsys.readouterr().out
    assert len(rows_of(folder)) == 8


def rows_of(folder):
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def lesions_of(folder, cells):
    """A table of the folder's lesions in LPS, with more columns by name and by what each row holds."""
    header = ",".join(["id,finding,x,y,z,system", *cells])
    rows = [
        ",".join(
            [
                f"case{number},{'cancer' if number % 2 else 'no cancer'},-2,-3,4,LPS",
                *(cell[number] for cell in cells.values()),
            ]
        )
        for number in range(8)
    ]
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")


def test_a_column_with_the_coordinate_system_stands_before_the_option(folder):
    lesions_of(folder, {})
    assert run(["init", str(folder), "--positive", "cancer", "--system", "RAS"]) == 0
    row = rows_of(folder)[0]
    assert [row[f"center_{axis}_mm"] for axis in "xyz"] == ["2.000", "3.000", "4.000"]
    assert row["coordinate_system"] == "RAS"


@pytest.mark.parametrize(("last", "covariates"), [("9.5", {"diameter_mm": "log"}), ("", {})])
def test_a_diameter_is_a_covariate_where_every_case_has_one(folder, last, covariates):
    lesions_of(folder, {"diameter": ["8.5"] * 7 + [last]})
    assert run(["init", str(folder), "--positive", "cancer"]) == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["covariates"] == covariates


def test_a_column_is_a_subgroup_where_it_varies(folder):
    lesions_of(folder, {"site": ["A"] * 8, "scanner": ["S1", "S2"] * 4})
    assert run(["init", str(folder), "--positive", "cancer"]) == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["evaluation"]["subgroups"] == ["scanner"]


def test_a_split_that_only_some_rows_have_is_written_for_these(folder):
    lesions_of(folder, {"split": ["train"] * 4 + ["test"] * 3 + [""]})
    assert run(["init", str(folder), "--positive", "cancer"]) == 0
    assert [row["split"] for row in rows_of(folder)] == ["train"] * 4 + ["test"] * 3 + [""]


def test_a_name_with_spaces_is_quoted_in_the_next_commands(folder, capsys, tmp_path):
    place = folder.rename(tmp_path / "my scans (new)")
    assert run(["init", str(place), "--positive", "cancer", "--label-source", "histology"]) == 0
    next_command = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(next_command) == ["malignancy", "train", str(place / "config.yaml")]


def test_no_training_is_named_where_none_is_possible(folder, capsys):
    (folder / "labels.csv").unlink()
    assert run(["init", str(folder)]) == 0
    assert "malignancy train" not in capsys.readouterr().out


def test_a_table_with_the_manifests_own_columns_is_read(folder):
    rows = [f"c{n},p{n // 2},case{n}.nii.gz,{'cancer' if n % 2 else 'no cancer'}" for n in range(8)]
    (folder / "labels.csv").write_text("case_id,patient_id,image,label\n" + "\n".join(rows) + "\n")
    assert run(["init", str(folder), "--positive", "cancer", "--label-source", "histology"]) == 0
    first = (folder / "manifest.csv").read_text().splitlines()[1]
    assert first == "c0,p0,case0.nii.gz,0"


def test_a_failed_init_leaves_nothing_behind(folder, monkeypatch, capsys):
    def fail(path):
        raise TableError(Code.E_FORMAT, path, "made to fail")

    before = files(folder)
    monkeypatch.setattr("pipeline.jobs.init.read_manifest", fail)
    assert run(["init", str(folder), "--positive", "cancer", "--label-source", "histology"]) == 2
    assert files(folder) == before


def test_a_sheet_that_no_table_has_is_refused(folder, capsys):
    assert run(["init", str(folder), "--sheet", "Info"]) == 2
    assert "--sheet Info: no Excel table of" in capsys.readouterr().err


def test_runs_models_and_scores_beside_the_scans_are_passed_over(folder, capsys):
    assert run(["init", str(folder), "--positive", "cancer", "--label-source", "histology"]) == 0
    for place, names in {
        "runs/a": ["run.json", "model/model.json", "figures/roc.png", "predictions.parquet"],
        "scores": ["parts/0.parquet", "summary.json", "scores.csv"],
        "mlartifacts/exp": ["golden.nii.gz"],
        "kept": ["model.json", "model.safetensors", "golden/golden.nii.gz"],
    }.items():
        for name in names:
            path = folder / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((folder / "case0.nii.gz").read_bytes())
    (folder / "mlflow.db").touch()
    assert run(["check", str(folder)]) == 0
    assert "8 cases: 8 ok" in capsys.readouterr().out
    for name in ("manifest.csv", "manifest.yaml", "config.yaml"):
        (folder / name).unlink()
    assert run(["init", str(folder), "--positive", "cancer", "--label-source", "histology"]) == 0
    assert "8 cases (4 malignant)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["runs", "parts", "mlartifacts", "model"])
def test_the_users_own_folders_of_such_names_are_searched(folder, name, capsys):
    (folder / name).mkdir()
    (folder / "case0.nii.gz").rename(folder / name / "case0.nii.gz")
    assert run(["check", str(folder)]) == 0
    assert "8 cases: 8 ok" in capsys.readouterr().out


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
