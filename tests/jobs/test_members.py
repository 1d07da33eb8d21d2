"""``training.members``: several networks, each leaving out other patients, calibrated together as one model."""

import json

import numpy as np
import pandas as pd
import pytest
from cohorts import run_folder, tiny_config, train_tiny
from scipy.special import logit

from pipeline.cli import run
from pipeline.evaluation.predictions import read_predictions
from pipeline.scoring.model_description import read_description

SETTINGS = ("training.members=3", "training.early_stopping=null", "training.max_epochs=3")
BASELINE = "evaluation.image_baseline=true"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, cohort_manifest):
    folder = tmp_path_factory.mktemp("members")
    return train_tiny(folder, tiny_config(cohort_manifest, folder), *SETTINGS, BASELINE)


@pytest.fixture
def finished(workspace, monkeypatch):
    """The folder of the run, inside the workspace."""
    monkeypatch.chdir(workspace)
    return run_folder(workspace)


def test_each_training_case_calibrates_once_and_no_tested_patient_does(finished):
    frame = read_predictions(finished / "predictions.parquet").frame
    splits = pd.read_csv(finished / "splits.csv", dtype=str).set_index("case_id")["split"]
    calibration, test = (frame[frame["split"] == name] for name in ("calibration", "test"))
    assert sorted(calibration["case_id"]) == sorted(splits.index[splits == "train"])
    assert sorted(test["case_id"]) == sorted(splits.index[splits == "test"])
    assert not set(calibration["patient_id"]) & set(test["patient_id"])


def test_the_model_is_the_members_under_one_calibrator(finished):
    description = read_description(finished / "model")
    assert len({member.weights_sha256 for member in description.members}) == 3
    assert len({str(member.calibrators) for member in description.members}) == 1
    assert "test split" in (finished / "summary.txt").read_text()


def test_a_regression_on_the_image_stands_beside_the_model(finished):
    summary = (finished / "summary.txt").read_text()
    assert "image_baseline" in summary
    assert "15 measures of the image" in summary
    beside = json.loads((finished / "evaluation.json").read_text())["comparisons"]["image_baseline"]
    # The scans are balls of two sizes with a seventh of them labelled wrongly: size alone says nearly all there is.
    assert beside["evaluation"]["intervals"]["auroc"]["estimate"] > 0.7


def test_scoring_says_what_evaluation_said_and_each_member_its_part(finished, cohort_manifest, tmp_path):
    assert run(["score", str(finished / "model"), str(cohort_manifest), "--out", str(tmp_path / "out")]) == 0
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet").set_index("case_id")
    frame = read_predictions(finished / "predictions.parquet").frame.set_index("case_id")
    test, calibration = (frame[frame["split"] == name] for name in ("test", "calibration"))
    np.testing.assert_allclose(rows.loc[test.index, "probability"], test["probability"], atol=1e-6)
    members = rows.loc[calibration.index, [f"probability_member_{number}" for number in (1, 2, 3)]].to_numpy()
    factor = read_description(finished / "model").provenance["calibration"]["malignant"]["mean"]["factor"]
    assert 1 / np.sqrt(3) <= factor < 1  # three small networks differ
    for label in (0, 1):
        # A training case was judged by one member, whose log odds were drawn to the mean of its class.
        own = (calibration["label"] == label).to_numpy()
        drawn, said = logit(calibration[["probability"]].to_numpy()[own]), logit(members[own])
        centers = (drawn - factor * said) / (1 - factor)  # (cases, members)
        distance = min((np.abs(centers - center) for center in centers[0]), key=lambda each: each.min(axis=1).max())
        assert distance.min(axis=1).max() < 1e-4
        assert set(distance.argmin(axis=1)) == {0, 1, 2}


def test_folds_of_members_are_one_model_of_all_of_them(tmp_path, cohort_manifest, monkeypatch):
    config = tiny_config(cohort_manifest, tmp_path)
    train_tiny(tmp_path, config, "--folds", "2", "training.members=2", *SETTINGS[1:])
    monkeypatch.chdir(tmp_path)
    finished = run_folder(tmp_path)
    assert len(read_description(finished / "model").members) == 4
    frame = read_predictions(finished / "predictions.parquet").frame
    tests = frame[frame["split"] == "test"]
    assert tests["case_id"].is_unique
    assert "out of fold, 2 folds" in (finished / "summary.txt").read_text()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("training.members=2",), "early_stopping: with training.members 2"),
        (("training.members=2", SETTINGS[1], "calibration.method=isotonic"), "'isotonic' of a mean logit"),
        (("training.members=500", SETTINGS[1]), "members need as many training patients of each class"),
    ],
)
def test_members_that_cannot_be_are_refused(workspace, monkeypatch, capsys, overrides, said):
    monkeypatch.chdir(workspace)
    assert run(["train", "tiny.yaml", *overrides]) == 2
    assert said in capsys.readouterr().err
