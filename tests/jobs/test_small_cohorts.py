"""Few cases: what they can bear is said at once, and a training keeps what it learned."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import run_folder, tiny_config, train_tiny, write_scan
from mlflow.tracking import MlflowClient

from pipeline.cli import run
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.predictions import read_predictions
from pipeline.scoring.model_description import read_description

AUTO = ("training.folds=auto", "training.members=auto", "training.early_stopping=null", "training.min_steps=30")


def write_separable(folder, *, malignant, benign):
    """Scans whose balls of 6 and 14 mm tell the classes apart, a patient each, and their manifest."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(malignant + benign):
        write_scan(folder / f"{number:02d}.nii.gz", malignant=number < malignant, rng=rng)
        rows.append((f"{number:02d}", f"P{number}", f"{number:02d}.nii.gz", int(number < malignant), 0, 0, 0, "RAS", 8))
    names = ["case_id", "patient_id", "image", "label", "center_x_mm", "center_y_mm", "center_z_mm"]
    table = pd.DataFrame(rows, columns=[*names, "coordinate_system", "diameter_mm"])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forty")
    manifest = write_separable(folder / "scans", malignant=20, benign=20)
    return train_tiny(folder, tiny_config(manifest, folder, evaluation={"baseline_columns": []}), *AUTO)


def test_forty_separable_cases_end_with_a_model_that_ranks_out_of_fold(forty):
    frame = read_predictions(run_folder(forty) / "predictions.parquet").frame
    tests = frame[frame["split"] == "test"]
    assert len(tests) == 40
    assert auroc(tests["label"], tests["probability"]) >= 0.9
    assert len(read_description(run_folder(forty) / "model").members) == 5
    assert (run_folder(forty) / "report.html").exists()


def test_the_calibrator_in_place_of_the_configured_one_is_named_with_the_reason(forty):
    record = read_description(run_folder(forty) / "model").provenance["calibration"]["malignant"]
    assert record["used"] == "platt_prior"
    assert "separate all" in record["reasons"][0]
    for name in ("summary.txt", "report.html"):
        assert "with a prior on the slope, in place of platt" in (run_folder(forty) / name).read_text()


def test_the_resolved_numbers_are_recorded_and_not_auto(forty):
    config = json.loads((run_folder(forty) / "run.json").read_text())["config"]
    assert (config["training"]["folds"], config["training"]["members"]) == (5, 1)


def test_a_model_without_a_calibrator_is_not_registered_and_keeps_its_report(tmp_path, monkeypatch, capsys):
    # Five patients of a class in four splits leave one malignant case to calibrate on.
    manifest = write_separable(tmp_path / "scans", malignant=5, benign=5)
    config = tiny_config(manifest, tmp_path, evaluation={"baseline_columns": []})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run(["train", "tiny.yaml"]) == 1
    said = capsys.readouterr().out
    assert "not registered: no calibrator could be fitted" in said
    assert "model: runs:/" in said
    assert read_description(run_folder(tmp_path) / "model").provenance["calibration"]["malignant"]["used"] == "none"
    assert (run_folder(tmp_path) / "report.html").exists()
    assert not MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_registered_models()


def test_what_the_splits_hold_is_said_before_torch_is_imported(tmp_path):
    manifest = write_separable(tmp_path / "scans", malignant=8, benign=8)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(manifest, tmp_path)))
    code = (
        "import sys; from pathlib import Path; from pipeline.workflow.learning.experiment import read_experiment; "
        "print('\\n'.join(read_experiment(Path('tiny.yaml')).describe())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "16 cases (8 malignant) of 16 patients" in done.stdout
    assert "training.members=auto" in done.stdout
    assert "--folds 5" in done.stdout


@pytest.mark.parametrize("folder", ["beside", "current"])
def test_a_manifest_is_found_beside_the_configuration_or_in_the_current_folder(tmp_path, monkeypatch, folder):
    from pipeline.workflow.learning.experiment import read_experiment

    (tmp_path / "configs").mkdir()
    manifest = write_separable(tmp_path / "scans", malignant=8, benign=8)
    place = tmp_path / "configs" if folder == "beside" else tmp_path
    (place / "table.csv").write_text(manifest.read_text())
    config = tiny_config(manifest, tmp_path, data={"manifest": "table.csv"})
    (tmp_path / "configs" / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    experiment = read_experiment(tmp_path / "configs" / "tiny.yaml")
    assert experiment.manifest.path.resolve() == place / "table.csv"


def test_a_manifest_that_is_nowhere_is_refused_with_both_places(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").mkdir()
    config = tiny_config(tmp_path / "none.csv", tmp_path, data={"manifest": "none.csv"})
    (tmp_path / "configs" / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert run(["train", "configs/tiny.yaml"]) == 2
    said = capsys.readouterr().err
    assert "data.manifest" in said
    assert "configs/none.csv and " in said
    assert str(tmp_path / "none.csv") in said


def test_a_label_source_that_nobody_filled_in_is_refused(tmp_path, monkeypatch, capsys):
    manifest = write_separable(tmp_path / "scans", malignant=4, benign=4)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(manifest, tmp_path)))
    monkeypatch.chdir(tmp_path)
    assert run(["train", "tiny.yaml", "data.label_source=CHANGE whose opinion"]) == 2
    assert "label_source is still 'CHANGE whose opinion'" in capsys.readouterr().err


def test_lesions_of_a_training_come_from_annotation_files(tmp_path, monkeypatch, capsys):
    manifest = write_separable(tmp_path / "scans", malignant=6, benign=6)
    table = pd.read_csv(manifest, dtype=str)
    marks = table[["case_id", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system"]]
    marks.iloc[:-1].assign(diameter_mm="8.5").to_csv(tmp_path / "scans" / "marks.csv", index=False)
    table[["case_id", "patient_id", "image", "label"]].to_csv(manifest, index=False)
    config = tiny_config(manifest, tmp_path, data={"lesions": ["marks.csv"]}, evaluation={"baseline_columns": []})
    (tmp_path / "scans" / "tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run(["train", "scans/tiny.yaml", "--folds", "2", "training.early_stopping=null"]) == 1
    said = capsys.readouterr()
    assert "table: 11 lesions in 1 file" in said.err
    assert "rejected 11: E_CENTER_MISSING" in said.err
    tests = read_predictions(run_folder(tmp_path) / "predictions.parquet").where(split="test")
    assert len(tests) == 11
    assert run(["train", "scans/tiny.yaml", "data.lesions=[nowhere]"]) == 2
    assert "data.lesions: no such file: " in capsys.readouterr().err
