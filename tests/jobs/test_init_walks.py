"""From ten folders as people have them to scored rows: four commands, no file edited by hand."""

import time

import pandas as pd
import pytest
from made_folders import MAKERS, Why
from test_init_folders import SOURCE, says

from pipeline.cli import run
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.predictions import read_predictions

SHORT = ("training.max_epochs=2", "training.min_steps=0", "evaluation.resamples=100", "training.folds=2")


def walk(made, monkeypatch, capsys, *overrides):
    """The four commands beside a made folder; out-of-fold predictions and score rows."""
    folder, name = made.folder, made.folder.name
    monkeypatch.chdir(folder.parent)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MALIGNANCY_PATIENT_SALT", "salt")
    cut = bool(made.expected.left_out_because(Why.TRUNCATED))
    assert run(["init", name, *says(name, folder), *SOURCE]) == 0
    assert run(["check", f"{name}/manifest.csv"]) == int(cut)
    capsys.readouterr()
    assert run(["train", f"{name}/config.yaml", *overrides]) == 0
    model = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("model: ")
    assert run(["score", model, f"{name}/manifest.csv", "--out", "scores", "--no-track"]) == int(cut)
    (run_folder,) = (folder.parent / "runs").iterdir()
    predictions = read_predictions(run_folder / "predictions.parquet").where(split="test").labelled()
    return predictions, pd.read_parquet("scores/scores.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MAKERS))
def test_from_folder_to_scored_rows_with_no_file_edited(name, tmp_path, monkeypatch, capsys, write_made_folder):
    made = write_made_folder(name, tmp_path / name)
    predictions, rows = walk(made, monkeypatch, capsys, *SHORT)
    manifest = pd.read_csv(tmp_path / name / "manifest.csv", dtype=str, keep_default_na=False)
    assert sorted(rows["case_id"]) == sorted(manifest["case_id"])
    rejected = rows[rows["status"] == "rejected"]
    cut = made.expected.left_out_because(Why.TRUNCATED)  # a download that is going on, `.part`, is not even a case
    assert set(rejected["case_id"]) == {path for path in cut if not path.endswith(".part")}
    assert rows["probability"].notna().sum() == len(rows) - len(rejected)
    assert set(predictions.frame["case_id"]) == set(manifest.loc[manifest["label"] != "", "case_id"])


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", list(MAKERS))
def test_the_default_configuration_ranks_made_classes(name, seed, tmp_path, monkeypatch, capsys, write_made_folder):
    made = write_made_folder(name, tmp_path / name)
    started = time.monotonic()
    predictions, rows = walk(made, monkeypatch, capsys, f"seed={seed}")
    area = auroc(predictions.labels, predictions.probabilities)
    minutes = (time.monotonic() - started) / 60
    with capsys.disabled():
        print(f"{name}, seed {seed}: AUROC {area:.3f} of {len(predictions)} cases, {len(rows)} rows, {minutes:.1f} min")
    assert area >= 0.9
