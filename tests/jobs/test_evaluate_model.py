"""`malignancy evaluate MODEL MANIFEST`: subgroups and doubtful labels of the manifest stand in the evaluation."""

import json

import pandas as pd
from coded_models import save_coded, use_coded_networks, write_pictures

from pipeline.cli import run


def test_doubtful_cases_and_subgroups_of_the_manifest_are_judged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=120)
    table = pd.read_csv("manifest.csv", dtype=str)
    doubtful = table.index % 6 == 5
    table["mean_malignancy"] = table["label"].map({"0": "1.5", "1": "4.5"})
    table.loc[doubtful, ["label", "mean_malignancy"]] = ["", "3"]
    table.loc[table.index % 6 == 4, "label"] = ""  # unlabelled for another reason: counts nowhere
    table.to_csv("manifest.csv", index=False)
    save_coded(tmp_path / "model", trained_on=["P5"])  # the patient of a doubtful case
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    counts = {each["value"]: each["n_cases"] for each in found["label_certainty"]}
    assert counts["indeterminate excluded"] == found["n_cases"] == 80
    assert counts["indeterminate counted benign"] == counts["indeterminate counted malignant"] == 80 + 19
    assert {(each["column"], each["value"]) for each in found["subgroups"]} == {("site", "north"), ("site", "south")}
    assert "refer zone" in found["missing"]  # a model directory keeps no calibration predictions
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Label certainty" in page
    assert "to be filled in by a person" in page
