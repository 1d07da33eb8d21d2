"""``malignancy pretrain``: readings of cases that nobody is judged on, and nothing of the others."""

from __future__ import annotations

import csv
import re

import pytest
import yaml
from cohorts import tiny_config, train_tiny, write_cohort
from safetensors.torch import load_file

from pipeline.cases.manifest import read_manifest
from pipeline.cases.splits import assign_splits
from pipeline.cli import run
from pipeline.config.inputs import SplitFractions

AUXILIARY = {"auxiliary": {"columns": {"reading": "linear"}}}
PATIENTS, UNLABELLED = 60, 12


def write_readings(folder):
    """A cohort with a reading of each lesion, the last patients without a label."""
    manifest = write_cohort(folder, patients=PATIENTS)
    with open(manifest, newline="") as handle:
        rows = list(csv.DictReader(handle))
    for number, row in enumerate(rows):
        row["reading"] = f"{float(row['diameter_mm']) / 3 + number % 5:.2f}"
        row["label"] = "" if number >= PATIENTS - UNLABELLED else str(int(number % 3 == 0))
    with open(manifest, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


@pytest.fixture
def here(tmp_path, monkeypatch):
    manifest = write_readings(tmp_path / "cohort")
    config = tiny_config(manifest, tmp_path, training=AUXILIARY)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def pretrain(name, *options):
    return run(["pretrain", "tiny.yaml", "--out", f"{name}.safetensors", *options])


def test_images_of_patients_who_calibrate_or_judge_change_nothing(here, capsys):
    manifest = read_manifest(here / "cohort" / "manifest.csv")
    split_of = assign_splits(manifest, SplitFractions(), seed=0).of
    judged = [case for case in manifest.cases if split_of.get(case.case_id, "train") != "train"]
    assert {split_of[case.case_id] for case in judged} == {"validation", "calibration", "test"}
    assert pretrain("first") == 0
    said = capsys.readouterr().out
    assert f"from {PATIENTS - len(judged)} cases of {PATIENTS - len(judged)} patients" in said
    assert f"left out: {len(judged)} patients" in said
    for case in judged:
        case.path.write_bytes(b"no scan at all")
    assert pretrain("second") == 0
    assert (here / "first.safetensors").read_bytes() == (here / "second.safetensors").read_bytes()
    used = next(case for case in manifest.cases if split_of.get(case.case_id) == "train")
    donor = next(case for case in manifest.cases if case.case_id in split_of and case not in judged and case != used)
    used.path.write_bytes(donor.path.read_bytes())
    assert pretrain("third") == 0
    assert (here / "third.safetensors").read_bytes() != (here / "first.safetensors").read_bytes()


def test_with_folds_only_patients_without_a_label_are_learnt_from(here, capsys):
    for path in sorted((here / "cohort" / "images").iterdir())[: PATIENTS - UNLABELLED]:
        path.unlink()
    assert pretrain("folds", "--folds", "3") == 0
    said = capsys.readouterr().out
    assert f"from {UNLABELLED} cases of {UNLABELLED} patients" in said
    assert f"left out: {PATIENTS - UNLABELLED} patients" in said


def test_a_training_starts_from_the_file_as_the_last_line_says(here, capsys):
    assert pretrain("own") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    settings = ("network.weights=own.safetensors", "network.weights_source=readings of our own scans (reading)")
    assert last == f"train from them with: {settings[0]} '{settings[1]}'"
    config = yaml.safe_load((here / "tiny.yaml").read_text())
    train_tiny(here, config, *settings, "training.early_stopping=null", "network.freeze=features")
    said = capsys.readouterr().out
    assert "tensors loaded (the same names), 0 of them renamed; 2 skipped; 0 random" in said
    assert load_file(here / "own.safetensors")["head.3.weight"].shape == (1, 16)  # none of the readings' outputs


@pytest.mark.parametrize("more", [["--folds", "3"], ["data.split_seed=1"]])
def test_a_training_with_other_splits_refuses_weights_that_saw_whom_it_judges(more, here, capsys):
    assert pretrain("own") == 0
    settings = ["network.weights=own.safetensors", "network.weights_source=own readings", "training.max_epochs=3"]
    assert run(["train", "tiny.yaml", *settings, *more]) == 2
    message = capsys.readouterr().err
    assert re.search(
        r"own\.safetensors: was learnt from \d+ of the \d+ patients that this training is calibrated", message
    )
    assert not (here / "runs").exists()


def test_a_training_refuses_the_weights_of_a_model_that_saw_whom_it_judges(here, capsys):
    train_tiny(here, yaml.safe_load((here / "tiny.yaml").read_text()), "training.auxiliary=null")
    (weights,) = (here / "runs").glob("*/model/*.safetensors")
    settings = [f"network.weights={weights}", "network.weights_source=last year's model", "data.split_seed=1"]
    assert run(["train", "tiny.yaml", *settings]) == 2
    assert "was learnt from" in capsys.readouterr().err


def test_a_scan_that_cannot_be_read_is_named_and_the_exit_code_is_1(here, capsys):
    (here / "cohort" / "images" / f"{PATIENTS - 1:03d}.nii.gz").write_bytes(b"no scan at all")
    assert pretrain("most", "--folds", "3") == 1
    assert f"rejected {PATIENTS - 1:03d}: E_" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["training.auxiliary=null"], "training.auxiliary: null; name the readings to learn"),
        (["training.auxiliary={columns: {texture: linear}}"], "has no column 'texture'"),
        (["network.weights=none.pth", "network.weights_source=nowhere"], "network.weights: no such file"),
    ],
)
def test_what_cannot_be_learnt_is_one_line(options, says, here, capsys):
    assert pretrain("none", *options) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert not (here / "none.safetensors").exists()


def test_a_file_that_exists_is_not_overwritten(here, capsys):
    (here / "mine.safetensors").write_text("precious")
    assert pretrain("mine") == 2
    assert (here / "mine.safetensors").read_text() == "precious"
    assert "exists" in capsys.readouterr().err


def test_too_few_cases_are_refused(here, capsys):
    with open(here / "cohort" / "manifest.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows[: PATIENTS - 3]:
        row["label"] = row["label"] or "0"
    with open(here / "cohort" / "manifest.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert pretrain("few", "--folds", "3") == 2
    assert "3 readable cases may be learnt from, expected 8 or more" in capsys.readouterr().err
