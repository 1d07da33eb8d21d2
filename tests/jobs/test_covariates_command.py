"""``data.covariates``: a column beside the image, from training to every way of scoring, and cases that lack it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import run_folder, tiny_config, train_tiny

from pipeline.cli import run
from pipeline.evaluation.predictions import read_predictions
from pipeline.scoring.model_description import read_description

SETTINGS = ("data.covariates={diameter_mm: linear}",)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, cohort_manifest):
    folder = tmp_path_factory.mktemp("covariates")
    return train_tiny(folder, tiny_config(cohort_manifest, folder), *SETTINGS)


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return run_folder(workspace)


@pytest.fixture
def table(cohort_manifest):
    """The manifest as text, its images named from where they lie."""
    return pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False)


def scored(model, manifest, out, *options, expect=0):
    assert run(["score", str(model), str(manifest), "--out", str(out), *options]) == expect
    return pd.read_parquet(out / "scores.parquet").set_index("case_id")


def beside(cohort_manifest, table, name):
    """Another manifest beside the cohort's."""
    path = cohort_manifest.with_name(name)
    table.to_csv(path, index=False)
    return path


def test_evaluation_command_and_pyfunc_say_the_same(inside, cohort_manifest, tmp_path):
    import mlflow

    rows = scored(inside / "model", cohort_manifest, tmp_path / "out")
    predictions = read_predictions(inside / "predictions.parquet").frame.set_index("case_id")
    for column in ("probability", "logit"):
        assert np.abs(predictions[column] - rows.loc[predictions.index, column]).max() < 1e-5
    mlflow.set_tracking_uri(f"sqlite:///{inside.parents[1] / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"root": str(cohort_manifest.parent)})
    cases = pd.read_csv(cohort_manifest, dtype={"case_id": str}).drop(columns="label")
    answered = model.predict(cases).set_index("case_id")
    assert np.abs(answered["probability"] - rows["probability"]).max() < 1e-6
    whole = model.predict(cases.assign(diameter_mm=8).head(2)).set_index(
        "case_id"
    )  # whole numbers, as tables have them
    assert (whole["status"] != "rejected").all()


def test_the_logit_moves_by_the_weight_and_the_digest_covers_it(inside, cohort_manifest, table, tmp_path, capsys):
    column = read_description(inside / "model").members[0].covariates["diameter_mm"]
    assert column.weights[0] > 0
    table["diameter_mm"] = f"{column.mean:.9f}"
    flat = scored(inside / "model", beside(cohort_manifest, table, "flat.csv"), tmp_path / "flat")
    table["diameter_mm"] = f"{column.mean + column.deviation:.9f}"
    larger = scored(inside / "model", beside(cohort_manifest, table, "larger.csv"), tmp_path / "larger")
    np.testing.assert_allclose(larger["logit"] - flat["logit"], column.weights[0], atol=1e-6)
    shutil.copytree(inside / "model", tmp_path / "edited")
    path = tmp_path / "edited" / "model.json"
    content = json.loads(path.read_text())
    content["members"][0]["covariates"]["diameter_mm"]["weights"] = [0.0]
    path.write_text(json.dumps(content))
    assert run(["score", str(path.parent), str(cohort_manifest), "--out", str(tmp_path / "out")]) == 2
    assert "was edited after training" in capsys.readouterr().err


def test_cases_without_the_column_are_rejected_one_by_one(inside, cohort_manifest, table, tmp_path, capsys):
    table.loc[[0, 1, 2], "diameter_mm"] = ["", "large", "800"]
    manifest = beside(cohort_manifest, table, "gaps.csv")
    rows = scored(inside / "model", manifest, tmp_path / "out", expect=1)
    assert list(rows["code"][:3]) == ["E_OUT_OF_ENVELOPE"] * 3
    assert "'diameter_mm' is blank, expected a number" in rows["reason"].iloc[0]
    assert "'large', expected a number" in rows["reason"].iloc[1]
    assert "diameter_mm is 800, accepted" in rows["reason"].iloc[2]
    assert (rows["status"][3:] != "rejected").all()
    capsys.readouterr()
    assert run(["check", str(manifest), "--model", str(inside / "model")]) == 1
    assert "3 rejected" in capsys.readouterr().out
    alone = beside(cohort_manifest, table.drop(columns="diameter_mm").assign(patient_id=table["case_id"]), "alone.csv")
    assert run(["evaluate", str(inside / "model"), str(alone), "--out", str(tmp_path / "judged")]) == 2
    assert "(first: E_OUT_OF_ENVELOPE: there is no column 'diameter_mm'" in capsys.readouterr().err


def test_a_value_that_changes_is_noticed_by_the_next_run(inside, cohort_manifest, table, tmp_path, capsys):
    manifest = beside(cohort_manifest, table, "changing.csv")
    before = scored(inside / "model", manifest, tmp_path / "out")
    table.loc[5, "diameter_mm"] = str(float(table.loc[5, "diameter_mm"]) + 1)
    table.to_csv(manifest, index=False)
    assert run(["score", str(inside / "model"), str(manifest), "--out", str(tmp_path / "out")]) == 2
    assert "1 inputs have changed since they were scored" in capsys.readouterr().err
    after = scored(inside / "model", manifest, tmp_path / "out", "--rescore-changed")
    moved = (after["logit"] - before["logit"]).abs()
    assert list(moved.index[moved > 1e-6]) == ["005"]


def train(tmp_path, manifest, columns):
    config = tiny_config(manifest, tmp_path, training={"max_epochs": 2, "early_stopping": None})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    return run(["train", "tiny.yaml", f"data.covariates={columns}", "tracking.registered_model=null"])


def test_training_excludes_and_lists_cases_without_it(tmp_path, cohort_manifest, table, monkeypatch, capsys):
    table.loc[3, "diameter_mm"] = ""
    # A name that a measure of the image has, and one that MLflow would not take: neither may matter.
    table["spacing_in_plane_mm"] = table["age (years)"] = [str(50 + number % 7) for number in range(len(table))]
    monkeypatch.chdir(tmp_path)
    columns = "{diameter_mm: log, spacing_in_plane_mm: linear, age (years): log}"
    assert train(tmp_path, beside(cohort_manifest, table, "training.csv"), columns) == 1
    printed = capsys.readouterr()
    assert "E_OUT_OF_ENVELOPE" in printed.out + printed.err
    description = read_description(run_folder(tmp_path) / "model")
    assert "column diameter_mm needed" in description.input_contract
    judged = json.loads((run_folder(tmp_path) / "evaluation.json").read_text())
    assert judged["comparisons"]["baseline"]["is"] == "logistic regression on log diameter_mm"  # as the model has it
    limits = description.envelope["limits"]
    assert limits["spacing_in_plane_mm"][3] < 2 < 40 < limits["column spacing_in_plane_mm"][0]


def test_a_column_that_says_nothing_is_refused_before_training(tmp_path, cohort_manifest, table, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path, beside(cohort_manifest, table.assign(same="7"), "same.csv"), "{same: linear}") == 2
    assert "data.covariates: 'same' is 7 in all" in capsys.readouterr().err
    assert train(tmp_path, cohort_manifest, "{center_x_mm: linear}") == 2
    assert "'center_x_mm' is one of the manifest's own columns" in capsys.readouterr().err


def test_a_column_that_the_table_lacks_is_one_line(tmp_path, cohort_manifest, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(cohort_manifest, tmp_path)))
    assert run(["train", "tiny.yaml", "data.covariates={age: linear}"]) == 2
    assert "data.covariates" in (said := capsys.readouterr().err)
    assert "no column 'age'" in said
