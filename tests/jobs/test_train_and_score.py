"""The spine, end to end on 96 small scans: train, track, register, score, and the same probability everywhere."""

import csv
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import run_folder, tiny_config, train_tiny

from pipeline.cli import run
from pipeline.evaluation.predictions import read_predictions
from pipeline.tracking.views import HEADLINE


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, cohort_manifest):
    """A trained and registered tiny model, with the folder that everything was written to."""
    folder = tmp_path_factory.mktemp("work")
    return train_tiny(folder, tiny_config(cohort_manifest, folder))


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def scores(path):
    return pd.read_parquet(path / "scores.parquet").set_index("case_id")


def test_training_leaves_everything_a_reviewer_needs(workspace):
    folder = run_folder(workspace)
    assert {path.name for path in folder.iterdir()} >= {
        "model",
        "predictions.parquet",
        "report.html",
        "summary.txt",
        "splits.csv",
        "characteristics.csv",
        "figures",
    }
    summary = (folder / "summary.txt").read_text()
    for words in (
        "simulated intensities",
        "AUROC",
        "baseline",
        "Brier score, uncalibrated to calibrated",
        "operating point",
        "made up for a test",
    ):
        assert words in summary
    assert not list(folder.rglob("*.tmp"))


def test_characteristics_are_those_of_each_split(workspace):
    described = pd.read_csv(run_folder(workspace) / "characteristics.csv", index_col="characteristic")
    assert [*described.columns] == ["value", "train", "validation", "calibration", "test"]
    with open(run_folder(workspace) / "splits.csv") as handle:
        splits = [row["split"] for row in csv.DictReader(handle)]
    for split in ("train", "test"):
        assert int(described.loc["cases", split]) == splits.count(split)
    assert " to " in described.loc["diameter_mm", "train"]


def test_held_out_splits_do_their_own_jobs(workspace):
    predictions = read_predictions(run_folder(workspace) / "predictions.parquet")
    assert set(predictions.frame["split"]) == {"validation", "calibration", "test"}
    description = json.loads((run_folder(workspace) / "model" / "model.json").read_text())
    with open(run_folder(workspace) / "splits.csv") as handle:
        splits = {row["case_id"]: row["split"] for row in csv.DictReader(handle)}
    assert sum(split == "train" for split in splits.values()) == len(description["patients"]["train"])
    drift = description["drift_reference"]
    assert (
        drift["intensity_q50"]["cases"] == drift["intensity_q50"]["patients"] == len(description["patients"]["train"])
    )
    expected = drift["probability_given_measures"]["expected"]
    assert {*expected["terms"]} <= {*drift} - {"probability"}
    assert drift["probability"]["cases"] == len(description["patients"]["calibration"])
    assert description["label"] == {
        "positive": "malignant",
        "negative": "benign",
        "source": "made up for a test",
        "intensities": "simulated",
    }


def test_same_probability_from_evaluation_command_and_pyfunc(inside, cohort_manifest):
    import mlflow

    assert run(["score", "models:/tiny@champion", str(cohort_manifest), "--out", "scores"]) == 0
    scored = scores(inside / "scores")
    predictions = read_predictions(run_folder(inside) / "predictions.parquet").frame.set_index("case_id")
    assert np.abs(predictions["probability"] - scored.loc[predictions.index, "probability"]).max() < 1e-6
    mlflow.set_tracking_uri(f"sqlite:///{inside / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"root": str(cohort_manifest.parent)})
    table = pd.read_csv(cohort_manifest, dtype={"case_id": str}).drop(columns=["label", "diameter_mm"])
    answered = model.predict(table).set_index("case_id")
    assert list(answered.columns) == list(scored.columns)
    assert np.abs(answered["probability"] - scored["probability"]).max() < 1e-6


def test_batch_size_and_workers_change_no_probability(inside, cohort_manifest):
    model = str(run_folder(inside) / "model")
    assert run(["score", model, str(cohort_manifest), "--out", "one", "--batch-size", "1", "--workers", "1"]) == 0
    assert run(["score", model, str(cohort_manifest), "--out", "many", "--batch-size", "7", "--workers", "5"]) == 0
    one, many = scores(inside / "one"), scores(inside / "many")
    assert list(one.index) == list(many.index)
    assert np.abs(one["probability"] - many["probability"]).max() < 1e-6


def test_one_bad_scan_costs_one_row(inside, cohort_manifest, tmp_path):
    shutil.copytree(cohort_manifest.parent, tmp_path / "scans")
    images = tmp_path / "scans" / "images"
    (images / "000.nii.gz").write_bytes(b"")
    (images / "001.nii.gz").write_bytes((images / "001.nii.gz").read_bytes()[:-9])
    (images / "002.nii.gz").unlink()
    assert (
        run(["score", str(run_folder(inside) / "model"), str(tmp_path / "scans" / "manifest.csv"), "--out", "bad"]) == 1
    )
    rows = scores(inside / "bad")
    assert list(rows["code"][:3]) == ["E_EMPTY_FILE", "E_TRUNCATED", "E_NOT_FOUND"]
    assert (rows["status"][:3] == "rejected").all()
    assert rows["probability"][:3].isna().all()
    assert rows["decision"][:3].isna().all()
    assert (rows["status"][3:] != "rejected").all()
    summary = json.loads((inside / "bad" / "summary.json").read_text())
    assert summary["rejected"] == 3
    assert summary["codes"]["E_TRUNCATED"] == 1
    assert summary["cases"] == len(rows) == 96


def test_folder_without_centres_is_refused_case_by_case(inside, cohort_manifest):
    assert run(["score", str(run_folder(inside) / "model"), str(cohort_manifest.parent), "--out", "folder"]) == 1
    assert set(scores(inside / "folder")["code"]) == {"E_CENTER_MISSING"}


def test_formulas_are_neutralised_in_csv_alone(inside, cohort_manifest, tmp_path):
    table = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False).head(1).assign(case_id="=cmd|' /C calc'!A0")
    shutil.copytree(cohort_manifest.parent / "images", tmp_path / "images")
    table.to_csv(tmp_path / "m.csv", index=False)
    assert run(["score", str(run_folder(inside) / "model"), str(tmp_path / "m.csv"), "--out", "formula"]) == 0
    with open(inside / "formula" / "scores.csv") as handle:
        assert next(csv.DictReader(handle))["case_id"] == "'=cmd|' /C calc'!A0"
    assert list(scores(inside / "formula").index) == ["=cmd|' /C calc'!A0"]


def test_the_run_is_closed_and_the_version_says_what_it_is(inside):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{inside / 'mlflow.db'}", f"sqlite:///{inside / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment.experiment_id != "0"
    assert "metrics.`test_auroc`" in experiment.tags["mlflow.sharedViewState.headline"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert "simulated intensities" in found.info.run_name
    headline = {name for name in found.data.metrics if name.startswith("test_")}
    assert {"test_auroc", "test_auroc_lower", "test_auroc_upper", "test_sensitivity", "test_brier_score"} <= headline
    assert headline <= {f"test_{name}" for name in HEADLINE}
    assert {"train_loss", "best_epoch"} <= set(found.data.metrics)
    assert len([name for name in found.data.metrics if not name.startswith("system/")]) < 20
    whole = json.loads((run_folder(inside) / "evaluation.json").read_text())
    assert whole["ece_null"]["p95"] > 0
    assert set(whole["comparisons"]["baseline"]["gain"]) >= {"estimate", "lower", "upper"}
    assert whole["intervals"]["auroc"]["estimate"] == found.data.metrics["test_auroc"]
    assert found.data.params["training.max_epochs"] == "3"
    assert "Research use" in found.data.tags["mlflow.note.content"]
    assert found.inputs.dataset_inputs[0].dataset.digest == found.data.tags["dataset_sha256"][:32]
    artifacts = {entry.path for entry in client.list_artifacts(found.info.run_id)}
    assert {"report.html", "predictions.parquet", "splits.csv", "figures", "environment.txt", "model.json"} <= artifacts
    version = client.get_model_version_by_alias("tiny", "champion")
    assert version.tags["label_source"] == "made up for a test"
    assert version.tags["intensities"] == "simulated"
    assert "lesion centre needed" in version.tags["input_contract"]
    assert list((inside / "mlartifacts").rglob("*.pkl")) == []


def test_nothing_published_with_the_model_says_where_the_data_lie_or_holds_a_case(inside, cohort_manifest):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{inside / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (example,) = inside.glob("mlartifacts/**/input_example.json")
    record = json.loads(example.read_text())
    assert dict(zip(record["columns"], record["data"][0], strict=True)) == {
        "case_id": "example",
        "patient_id": "example",
        "image": "example.nii.gz",
        "center_x_mm": 0.0,
        "center_y_mm": 0.0,
        "center_z_mm": 0.0,
        "coordinate_system": "RAS",
    }
    assert found.data.params["data.manifest"] == "manifest.csv"
    assert found.data.params["tracking.uri"] == "sqlite:///mlflow.db"
    published = [str(found.data.params), str(found.data.tags), str(found.inputs.dataset_inputs[0].dataset)]
    published += [path.read_text() for path in inside.glob("mlartifacts/**/*.json")]
    for text in published:
        assert str(cohort_manifest.parent) not in text
        assert str(inside) not in text


def test_dataset_digest_covers_images_not_only_the_manifest(inside, cohort_manifest, tmp_path):
    from pipeline.cases.manifest import read_manifest
    from pipeline.cases.splits import assign_splits
    from pipeline.config.experiment import Config
    from pipeline.workflow.cohort import prepare_cohort

    def digest(path):
        config = Config.model_validate(tiny_config(path, tmp_path))
        manifest = read_manifest(path)
        return prepare_cohort(manifest, assign_splits(manifest, config.data.splits, seed=0).of, config).digest(manifest)

    shutil.copytree(cohort_manifest.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / "manifest.csv"
    assert digest(copy) == digest(cohort_manifest)
    shutil.copy(tmp_path / "copy" / "images" / "001.nii.gz", tmp_path / "copy" / "images" / "002.nii.gz")
    assert digest(copy) != digest(cohort_manifest)


def test_changing_test_labels_changes_no_fitted_thing(workspace, cohort_manifest, tmp_path, monkeypatch):
    shutil.copytree(cohort_manifest.parent, tmp_path / "scans")
    with open(run_folder(workspace) / "splits.csv") as handle:
        splits = {row["case_id"]: row["split"] for row in csv.DictReader(handle)}
    table = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False)
    table["split"] = table["case_id"].map(splits).fillna("")
    descriptions = []
    for name, flip in (("a", False), ("b", True)):
        changed = table.copy()
        test = changed["split"] == "test"
        changed.loc[test, "label"] = (
            changed.loc[test, "label"].map({"0": "1", "1": "0"}) if flip else changed.loc[test, "label"]
        )
        changed.to_csv(tmp_path / "scans" / f"{name}.csv", index=False)
        config = tiny_config(
            tmp_path / "scans" / f"{name}.csv",
            tmp_path / name,
            training={"max_epochs": 2, "early_stopping": {"patience": 1}},
        )
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        assert run(["train", str(tmp_path / f"{name}.yaml")]) == 0
        descriptions.append(json.loads((run_folder(tmp_path / name) / "model" / "model.json").read_text()))
    one, two = descriptions
    for key in ("members", "operating_points", "envelope", "prevalence_at_calibration"):
        assert one[key] == two[key], key
    assert one["digests"] == two["digests"]


def test_soft_targets_lie_between_the_ends_and_fall_back_to_the_label():
    from pathlib import Path

    from pipeline.cases.case import Case
    from pipeline.config.training import SoftLabels
    from pipeline.errors import ConfigError
    from pipeline.workflow.cohort import soft_targets

    def case(label, text):
        return Case(case_id="a", image="a", path=Path("a"), label=label, extra={"mean": text})

    settings = SoftLabels(column="mean", lowest=1.0, highest=5.0)
    assert soft_targets([case(1, "4"), case(0, "1"), case(1, ""), case(0, " ")], settings) == [0.75, 0.0, 1.0, 0.0]
    for text in ("6", "x", "nan"):
        with pytest.raises(ConfigError, match="expected a number from 1 to 5"):
            soft_targets([case(1, text)], settings)


def test_a_refer_zone_that_the_calibration_split_is_too_small_for_is_refused_before_training(inside, capsys):
    assert run(["train", "tiny.yaml", "operating_point.refer_coverage=0.9"]) == 2
    assert "expected at least 100 of each" in (said := capsys.readouterr().err)
    assert "operating_point.refer_coverage: 0.9: refer zone: " in said


def test_a_confidence_that_the_calibration_split_is_too_small_for_is_refused_before_training(inside, capsys):
    assert run(["train", "tiny.yaml", "operating_point.confidence=0.99"]) == 2
    assert "operating_point.confidence: 0.99: operating point: " in (said := capsys.readouterr().err)
    assert re.search(
        r"\d+ malignant calibration cases cannot show \d+ % with probability 0.99; expected at least", said
    )
