"""``malignancy plan``: what a table can train and show, from the table alone."""

import csv
import json

import pytest
import yaml
from cohorts import tiny_config

from pipeline.cases.manifest import read_manifest
from pipeline.cases.splits import assign_splits
from pipeline.cli import run
from pipeline.config.experiment import Config
from pipeline.workflow.learning.experiment import read_experiment


def write_table(folder, patients, *, malignant=3, per_patient=2, **columns):
    """A manifest without scans: every ``malignant``-th patient has malignant cases."""
    path = folder / "manifest.csv"
    with open(path, "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["case_id", "patient_id", "image", "label", *columns])
        for number in range(patients):
            for case in range(per_patient):
                label = int(number % malignant == 0)
                cells = [make(number) for make in columns.values()]
                rows.writerow([f"{number}-{case}", f"P{number}", f"{number}-{case}.nii.gz", label, *cells])
    return path


def planned(path, *options):
    found = path.parent / "plan.json"
    assert run(["plan", str(path), "--json", str(found), *options]) == 0
    return json.loads(found.read_text())


def test_many_patients_are_judged_on_the_test_split_that_training_draws(tmp_path, capsys):
    path = write_table(tmp_path, 600)
    found = planned(path)
    manifest = read_manifest(path)
    splits = assign_splits(manifest, Config.model_fields["data"].annotation.model_fields["splits"].default, seed=0)
    tested = [case for case in manifest.cases if splits.of[case.case_id] == "test"]
    assert found["judging"]["malignant"] == sum(case.label for case in tested)
    assert found["judging"]["patients"] == len({case.patient_id for case in tested})
    assert found["calibrating"]["malignant"] == 400 - found["judging"]["malignant"]  # five networks
    assert found["worth"]["cases"] == pytest.approx(len(tested) / 1.3)
    printed = capsys.readouterr().out
    assert "5 networks, each leaving out another part" in printed
    assert "AUROC" in printed
    assert "aim" in printed
    assert "smallest gap between 20 % of the patients and the others" in printed
    assert "Riley et al. (2021)" in printed
    assert "No such rule exists for the network" in printed


def test_few_patients_are_judged_by_folds_on_all_their_cases(tmp_path, capsys):
    found = planned(write_table(tmp_path, 60))
    assert found["judging"] == found["calibrating"]
    assert (found["judging"]["malignant"], found["judging"]["patients"]) == (40, 60)
    holds = {each["name"]: each["holds"] for each in found["conditions"]}
    # 20 patients with malignant cases, 40 malignant cases: too few for the gate, 45 cases, and 100 cases.
    assert holds == {
        "promotion gate": False,
        "operating_point.confidence: 0.9": False,
        "operating_point.refer_coverage": False,
    }
    printed = capsys.readouterr().out
    assert "5 folds by patient" in printed
    assert "asks for 40 unseen patients of each class; with folds the model is fitted on all" in printed
    assert "40 malignant calibration cases cannot show 95 % with probability 0.9; expected at least 45" in printed


@pytest.mark.parametrize(("tested", "holds"), [(40, True), (39, False)])
def test_the_gate_can_be_asked_with_40_patients_of_each_class(tmp_path, tested, holds):
    def split(number):  # every third patient is malignant: the first 3 * tested patients hold ``tested`` of them
        return "test" if number < 3 * tested else ("train", "validation", "calibration")[number // 3 % 3]

    found = planned(write_table(tmp_path, 300, split=split))
    assert found["judging"]["malignant_patients"] == tested
    assert next(each for each in found["conditions"] if each["name"] == "promotion gate")["holds"] is holds


def test_with_folds_no_patient_is_unseen_by_the_model_that_the_gate_is_asked_about(tmp_path):
    found = planned(write_table(tmp_path, 150))
    assert found["judging"]["malignant_patients"] == 50
    assert next(each for each in found["conditions"] if each["name"] == "promotion gate")["holds"] is False


def test_a_configuration_brings_its_splits_and_covariates(tmp_path, capsys):
    path = write_table(tmp_path, 400, diameter_mm=lambda number: 5 + number % 9)
    config = tiny_config(path, tmp_path)
    config["data"] |= {
        "covariates": {"diameter_mm": "log"},
        "splits": {"train": 0.2, "validation": 0.1, "calibration": 0.2, "test": 0.5},
    }
    config["preprocessing"] = {"dimensions": 3, "region": "image", "size": [28, 28, 28], "spacing_mm": None}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    found = planned(path, "--config", str(tmp_path / "c.yaml"))
    assert found["judging"]["patients"] == pytest.approx(200, abs=15)
    assert found["calibrating"]["patients"] == pytest.approx(80, abs=10)
    assert found["riley_2020_cases"]["parameters"] == 2
    assert "the logit and 1 covariates" in capsys.readouterr().out.replace("covariate)", "covariates)")


def test_one_network_that_calibrates_on_a_split_of_its_own_is_counted_so(tmp_path):
    path = write_table(tmp_path, 400, per_patient=1)
    config = tiny_config(path, tmp_path)
    config["preprocessing"] = {"dimensions": 3, "region": "image", "size": [28, 28, 28], "spacing_mm": None}
    config["evaluation"] = {}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    of = read_experiment(tmp_path / "c.yaml").splits.of
    found = planned(path, "--config", str(tmp_path / "c.yaml"))
    assert found["calibrating"]["patients"] == sum(name == "calibration" for name in of.values())
    assert found["judging"]["patients"] == sum(name == "test" for name in of.values())
    folds = planned(path)  # without a configuration `auto` settles it: 134 patients of the rarer class, five networks
    assert folds["calibrating"]["patients"] == 400 - folds["judging"]["patients"]


def test_more_alike_cases_and_a_lower_auroc_need_more_patients(tmp_path):
    path = write_table(tmp_path, 600)
    plain = planned(path)["patients_needed"]
    alike = planned(path, "--within-patient", "0.9")["patients_needed"]
    weak = planned(path, "--auroc", "0.7")["patients_needed"]
    assert all(alike[name] > plain[name] for name in plain)
    assert weak["auroc"] > plain["auroc"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("label", "lable"), "has no column 'label'"),
        (lambda text: text.replace(",1\n", ",0\n"), "only label 0"),
        (lambda text: "\n".join(text.splitlines()[:5]), "4 patients of each class are needed"),
    ],
)
def test_a_table_fault_is_one_line_and_exit_2(tmp_path, capsys, change, says):
    path = write_table(tmp_path, 60)
    path.write_text(change(path.read_text()))
    assert run(["plan", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_an_auroc_that_says_nothing_is_exit_2(tmp_path, capsys):
    assert run(["plan", str(write_table(tmp_path, 60)), "--auroc", "0.5"]) == 2
    assert "auroc: 0.5 is not between 0.5 and 1" in capsys.readouterr().err
