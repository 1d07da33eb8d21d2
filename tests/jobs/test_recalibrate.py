"""Recalibration on local cases: a new challenger with another intercept, other thresholds, and the same ranking."""

import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from coded_models import register_coded, save_coded, use_coded_networks, write_pictures

from pipeline.cli import run
from pipeline.config.experiment import Tracking
from pipeline.evaluation.calibration.calibrator import logit
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.files import sha256_file
from pipeline.scoring.model_description import hash_id
from pipeline.tracking.registry import model_folder
from pipeline.tracking.store import tracking_uri

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Local cases where malignancy is rarer than the model was calibrated for, and the registered model."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        use_coded_networks(patch)
        write_pictures(folder, patients=300, shift=-1.5)
        yield folder, register_coded(folder, Tracking())


@pytest.fixture
def inside(place, monkeypatch):
    monkeypatch.chdir(place[0])
    use_coded_networks(monkeypatch)
    return place


def description(uri):
    return json.loads((model_folder(uri, Tracking()) / "model.json").read_text())


def test_new_version_is_calibrated_here_and_ranks_as_before(inside, capsys):
    _, uri = inside
    assert run(["recalibrate", uri, "manifest.csv"]) == 0
    printed = capsys.readouterr().out
    made = printed.strip().splitlines()[-1].removeprefix("model: ")
    assert made == "models:/coded/2"
    old, new = description(uri), description(made)
    (calibrator,) = (member["calibrator"] for member in new["members"])
    assert calibrator["method"] == "platt"
    assert calibrator["parameters"]["slope"] == pytest.approx(1.0)
    assert calibrator["parameters"]["intercept"] == pytest.approx(-1.5, abs=0.35)  # as the cases were made
    assert new["members"][0]["weights_sha256"] == old["members"][0]["weights_sha256"]
    assert new["digests"]["model"] != old["digests"]["model"]
    assert new["operating_points"][0]["n_positive"] + new["operating_points"][0]["n_negative"] == 300
    assert new["operating_points"][0]["target"] == old["operating_points"][0]["target"]
    assert new["operating_points"][0]["sensitivity"] >= 0.9
    assert new["patients"]["train"] == old["patients"]["train"]
    assert hash_id("salt", "P7") in new["patients"]["calibration"]
    assert hash_id("salt", "k") in new["patients"]["calibration"]
    assert new["provenance"]["recalibration"]["from_model_digest"] == old["digests"]["model"]
    client = mlflow.MlflowClient(tracking_uri(Tracking()), tracking_uri(Tracking()))
    version = client.get_model_version_by_alias("coded", "challenger")
    assert str(version.version) == "2"
    assert str(client.get_model_version_by_alias("coded", "champion").version) == "1"
    made_by = client.get_run(version.run_id)
    assert made_by.data.tags["recalibrated_from"] == uri
    assert made_by.inputs.dataset_inputs[0].dataset.name == "manifest.csv"
    assert client.get_experiment(made_by.info.experiment_id).name == "coded"


def test_model_directory_and_another_prevalence(inside, tmp_path, capsys):
    save_coded(tmp_path / "model")
    shifts = []
    for options in ([], ["--prevalence", "0.02"]):
        assert run(["recalibrate", str(tmp_path / "model"), "manifest.csv", *options]) == 0
        made = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("model: ")
        assert made.startswith("runs:/")  # a directory that names no registered model registers nothing
        shifts.append(description(made)["provenance"]["recalibration"]["intercept_shift"])
    observed = pd.read_csv("manifest.csv")["label"].mean()
    assert shifts[1] - shifts[0] == pytest.approx(float(logit(0.02) - logit(observed)))
    assert description(made)["prevalence_at_calibration"] == 0.02


def test_patients_that_trained_the_model_are_refused(inside, tmp_path, capsys):
    save_coded(tmp_path / "model", trained_on=["P3", "P5"])
    assert run(["recalibrate", str(tmp_path / "model"), "manifest.csv"]) == 2
    assert "2 of 300 labelled cases are of patients that the model was trained on" in capsys.readouterr().err


def test_too_few_cases_and_impossible_prevalences_are_refused(inside, tmp_path, capsys):
    table = pd.read_csv("manifest.csv", dtype=str)
    few = pd.concat([table[table["label"] == "1"].head(9), table[table["label"] == "0"]])
    few.to_csv("few.csv", index=False)
    assert run(["recalibrate", inside[1], "few.csv"]) == 2
    assert "9 patients with malignant" in capsys.readouterr().err
    assert run(["recalibrate", inside[1], "manifest.csv", "--prevalence", "1"]) == 2
    assert "--prevalence 1 is not in (0, 1)" in capsys.readouterr().err


def test_rejected_cases_are_left_out_and_said(inside, tmp_path, capsys):
    table = pd.read_csv("manifest.csv", dtype=str)
    table.loc[0, "image"] = "images/none.png"
    table.to_csv("one_bad.csv", index=False)
    save_coded(tmp_path / "model")
    assert run(["recalibrate", str(tmp_path / "model"), "one_bad.csv"]) == 1
    printed = capsys.readouterr()
    assert "recalibrated on 299 local cases" in printed.out
    assert "E_NOT_FOUND" in printed.err
    assert not list(Path().glob("*.tmp"))


def test_a_refer_zone_is_refitted_or_dropped_and_never_kept(inside, tmp_path, capsys):
    old = ReferZone(0.9, 0.4, 0.6, 100, 100, (0.8, 0.95), (0.8, 0.95))
    save_coded(tmp_path / "model", refer_zone=old)
    table = pd.read_csv("manifest.csv", dtype=str)
    malignant = table[table["label"] == "1"]
    assert len(malignant) < 100
    assert run(["recalibrate", str(tmp_path / "model"), "manifest.csv"]) == 0
    printed = capsys.readouterr()
    assert "the new version refers no case: refer zone: " in printed.err
    assert description(printed.out.strip().splitlines()[-1].removeprefix("model: "))["refer_zone"] is None
    again = malignant.assign(case_id="again-" + malignant["case_id"], patient_id="again-" + malignant["patient_id"])
    pd.concat([table, again]).to_csv("more.csv", index=False)
    assert run(["recalibrate", str(tmp_path / "model"), "more.csv"]) == 0
    made = capsys.readouterr().out.strip().splitlines()
    found = description(made[-1].removeprefix("model: "))["refer_zone"]
    assert (found["coverage"], found["n_positive"]) == (0.9, 2 * len(malignant))
    assert found["benign_to"] != old.benign_to


def test_cases_of_another_kind_are_refused_and_another_label_source_is_said(inside, tmp_path, capsys):
    folder, uri = inside
    facts = folder / "manifest.yaml"
    try:
        other = {"real": "simulated", "simulated": "real"}[description(uri)["label"]["intensities"]]
        facts.write_text(f"intensities: {other}\n")
        assert run(["recalibrate", uri, "manifest.csv"]) == 2
        assert f"intensities of the cases: {other} (300); of the model" in capsys.readouterr().err
        facts.write_text("label_source: histology of the resected lesion\n")
        assert run(["recalibrate", uri, "manifest.csv"]) == 0
        printed = capsys.readouterr().out
        assert "labels of the cases: 'histology of the resected lesion' (300); of the model: " in printed
        assert "challenger; `malignancy promote` lets the gate compare" in printed
        made = printed.strip().splitlines()[-1].removeprefix("model: ")
        assert description(made)["label"]["source"].endswith("; calibrated to: histology of the resected lesion")
    finally:
        facts.unlink()


def test_the_first_version_in_a_store_is_champion_and_says_why(inside, monkeypatch, tmp_path, capsys):
    save_coded(tmp_path / "model", provenance={"config": {"tracking": {"registered_model": "elsewhere"}}})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert run(["recalibrate", str(tmp_path / "model"), "manifest.csv"]) == 0
    printed = capsys.readouterr().out
    assert "elsewhere version 1, champion, because no version of this name was in the store before" in printed


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ("images", "cases of patients that seem new have images that the model was fitted on; write the patients' ids"),
        ("case_ids", "none of the patients is known to the model, but 200 of 200 case ids are"),
    ],
)
def test_training_cases_under_new_patients_recalibrate_nothing(tmp_path, monkeypatch, capsys, known, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=200)
    seen = {
        "images": [sha256_file(tmp_path / "images" / "7.png")],
        "case_ids": [f"c{number}" for number in range(200)],
    }
    save_coded(tmp_path / "model", **{known: seen[known]})
    assert run(["recalibrate", "model", "manifest.csv"]) == 2
    assert says in capsys.readouterr().err
