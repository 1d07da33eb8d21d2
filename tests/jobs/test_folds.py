"""``train --folds``: every case judged once, by a network that never saw its patient; the networks as one model."""

import json

import numpy as np
import pandas as pd
import pytest
from cohorts import run_folder, tiny_config, train_tiny
from mlflow.tracking import MlflowClient

from pipeline.cli import run
from pipeline.evaluation.predictions import read_predictions
from pipeline.scoring.model_description import read_description
from pipeline.scoring.model_directory import load_model


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, cohort_manifest):
    folder = tmp_path_factory.mktemp("folds")
    config = tiny_config(cohort_manifest, folder)
    # A fold's calibration split holds 8 cases here, which a few epochs separate: no finite temperature fits.
    return train_tiny(folder, config, "--folds", "3", "training.max_epochs=3", "calibration.method=isotonic")


@pytest.fixture
def finished(workspace, monkeypatch):
    """The folder of the run, inside the workspace."""
    monkeypatch.chdir(workspace)
    return run_folder(workspace)


def test_every_case_is_judged_once_by_a_network_that_never_saw_its_patient(finished):
    frame = read_predictions(finished / "predictions.parquet").frame
    tests = frame[frame["split"] == "test"]
    splits = pd.read_csv(finished / "splits.csv", dtype=str)
    assert sorted(tests["case_id"]) == sorted(splits["case_id"])
    fold_of = dict(zip(splits["case_id"], splits["split"], strict=True))
    assert all(fold_of[row.case_id] == f"fold-{row.fold}" for row in tests.itertuples())
    assert tests.groupby("patient_id")["fold"].nunique().max() == 1
    calibration = frame[frame["split"] == "calibration"]
    for fold in range(3):
        judged = set(tests[tests["fold"] == fold]["patient_id"])
        assert not judged & set(calibration[calibration["fold"] == fold]["patient_id"])


def test_the_model_is_all_networks_and_knows_all_patients(finished):
    description = read_description(finished / "model")
    assert len(description.members) == 3
    assert len({member.weights_sha256 for member in description.members}) == 3
    splits = pd.read_csv(finished / "splits.csv", dtype=str)
    assert description.patients.seen_patients(splits["patient_id"]) == set(splits["patient_id"])


def test_it_scores_as_an_ensemble_of_calibrated_members(finished, cohort_manifest, tmp_path):
    assert run(["score", str(finished / "model"), str(cohort_manifest), "--out", str(tmp_path / "out")]) == 0
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    calibrator, *others = (member.calibrators[0] for member in load_model(finished / "model").members)
    assert others == [calibrator] * 2
    np.testing.assert_allclose(rows["probability"], calibrator.apply(rows["logit"]), atol=1e-9)  # of the mean logit
    members = rows[[f"probability_member_{number}" for number in (1, 2, 3)]]
    assert (members.nunique(axis=1) > 1).any()
    assert (np.ptp(members, axis=1) > 0).any()


def test_pooled_and_within_fold_auroc_stand_side_by_side(finished):
    summary = (finished / "summary.txt").read_text()
    assert "out of fold, 3 folds" in summary
    assert "AUROC within folds: mean" in summary
    assert "out of fold, 3 folds" in (finished / "report.html").read_text()


def test_folds_are_runs_below_the_parent_and_are_not_registered(finished):
    client = MlflowClient(f"sqlite:///{finished.parents[1] / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    children = [each for each in runs if each.data.tags.get("kind") == "fold"]
    (parent,) = (each for each in runs if each.data.tags.get("kind") == "training")
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert len(children) == 3
    assert all(child.info.status == "FINISHED" for child in children)
    assert "mean_fold_auroc" in parent.data.metrics
    (version,) = client.search_model_versions()
    assert version.run_id == parent.info.run_id


def test_more_folds_than_patients_are_refused(workspace, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    assert run(["train", "tiny.yaml", "--folds", "1000"]) == 2
    assert (
        "1000 folds (--folds, training.folds): at least 2, and 1000 patients of each class are needed"
        in capsys.readouterr().err
    )


def test_the_description_is_json_without_a_patient(finished):
    text = (finished / "model" / "model.json").read_text()
    splits = pd.read_csv(finished / "splits.csv", dtype=str)
    assert not any(f'"{patient}"' in text for patient in splits["patient_id"])
    assert json.loads(text)["provenance"]["split_source"] == "folds"
