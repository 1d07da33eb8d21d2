"""Several findings, end to end on 96 small scans: the same probabilities everywhere, each finding judged by itself."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohorts import run_folder, tiny_config, train_tiny

from pipeline.cli import run
from pipeline.evaluation.predictions import read_predictions, write_predictions

NAMES = ["malignant", "large", "bright"]
COLUMNS = [f"{part}_{name}" for name in NAMES for part in ("probability", "decision")]


@pytest.fixture(scope="module")
def manifest(cohort_manifest):
    """The cohort with two more findings: blank here and there, and sometimes known where the label is not."""
    table = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False)
    number = np.arange(len(table))
    looks = (number % 3 == 0) != (number % 7 == 3)  # as the scans were drawn
    table["large"] = np.where(number % 4 == 1, "", (looks != (number % 5 == 2)).astype(int).astype(str))
    table["bright"] = np.where(number % 6 == 2, "", (looks != (number % 8 == 1)).astype(int).astype(str))
    table.loc[number % 16 == 5, "label"] = ""
    path = cohort_manifest.with_name("findings.csv")
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("multilabel")
    config = tiny_config(
        manifest,
        folder,
        task="multilabel",
        calibration={"method": "isotonic"},  # a few epochs may separate so few calibration cases
        data={"findings": NAMES, "splits": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    )
    return train_tiny(folder, config)


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return workspace


def test_same_probability_of_every_finding_from_evaluation_command_and_pyfunc(inside, manifest):
    import mlflow

    assert run(["score", "models:/tiny@champion", str(manifest), "--out", "scores", "--no-track"]) == 0
    scored = pd.read_parquet(inside / "scores" / "scores.parquet").set_index("case_id")
    assert list(scored.columns[-6:]) == COLUMNS
    predictions = read_predictions(run_folder(inside) / "predictions.parquet")
    mlflow.set_tracking_uri(f"sqlite:///{inside / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"root": str(manifest.parent)})
    table = pd.read_csv(manifest, dtype={"case_id": str})[
        ["case_id", "patient_id", "image", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system"]
    ]
    answered = model.predict(table).set_index("case_id")
    assert list(answered.columns) == list(scored.columns)
    for name in NAMES:
        column = scored[f"probability_{name}"]
        assert column.nunique() > 1  # isotonic: a few steps
        judged = predictions.where(finding=name).frame.set_index("case_id")["probability"]
        assert np.abs(judged - column[judged.index]).max() < 1e-6
        assert np.abs(answered[f"probability_{name}"] - column).max() < 1e-6
        assert (answered[f"decision_{name}"] == scored[f"decision_{name}"]).all()
    assert (scored["probability"] == scored["probability_malignant"]).all()
    spread = scored[[f"probability_{name}" for name in NAMES]].sum(axis=1)
    assert spread.max() - spread.min() > 0.1  # independent sigmoids, not shares of one


def test_predictions_are_long_and_keep_missing_labels(workspace, manifest):
    predictions = read_predictions(run_folder(workspace) / "predictions.parquet")
    counts = predictions.frame["finding"].value_counts()
    assert list(dict.fromkeys(predictions.frame["finding"])) == NAMES
    assert counts.nunique() == 1
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False).set_index("case_id")
    for name in NAMES[1:]:
        rows = predictions.where(finding=name).frame
        assert rows["label"].isna().any()
        given = table.loc[rows["case_id"], name].tolist()
        assert ["" if pd.isna(label) else str(label) for label in rows["label"]] == given


def test_cases_without_the_label_train_and_are_never_judged(workspace, manifest):
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False).set_index("case_id")
    splits = pd.read_csv(run_folder(workspace) / "splits.csv", dtype=str).set_index("case_id")["split"]
    unlabelled = [case for case in splits.index if table.loc[case, "label"] == ""]
    assert len(unlabelled) >= 5
    assert set(splits[unlabelled]) == {"train"}
    model = json.loads((run_folder(workspace) / "model" / "model.json").read_text())
    assert len(model["patients"]["train"]) == (splits == "train").sum()


def test_splits_are_those_of_the_binary_task(workspace, manifest):
    from pipeline.cases.manifest import read_manifest
    from pipeline.cases.splits import assign_splits
    from pipeline.config.inputs import SplitFractions

    fractions = SplitFractions(train=0.4, validation=0.2, calibration=0.2, test=0.2)
    expected = assign_splits(read_manifest(manifest), fractions, seed=0).of
    written = pd.read_csv(run_folder(workspace) / "splits.csv", dtype=str).set_index("case_id")["split"]
    assert {case: written[case] for case in expected} == dict(expected)


def test_model_report_summary_and_tracking_show_every_finding(inside):
    import mlflow

    folder = run_folder(inside)
    model = json.loads((folder / "model" / "model.json").read_text())
    assert model["findings"] == NAMES
    assert len(model["operating_points"]) == 3
    calibrators = [model["members"][0]["calibrator"], *model["members"][0]["other_calibrators"]]
    assert len({json.dumps(each) for each in calibrators}) == 3
    assert {"probability", "probability_large", "probability_bright"} <= set(model["drift_reference"])
    found = json.loads((folder / "evaluation.json").read_text())
    assert list(found["findings"]) == NAMES
    assert found["findings"]["malignant"]["intervals"] == found["intervals"]
    assert found["findings"]["large"]["operating_point"] == model["operating_points"][1]
    assert set(found["macro"]) | set(found["undefined_averages"]) >= {"auroc", "brier_score"}
    page, summary = (folder / "report.html").read_text(), (folder / "summary.txt").read_text()
    for name in NAMES:
        assert f'<tr><th scope="row">{name}</th>' in page
        assert f"│ {name} " in summary
    assert "not large calibration cases" in " ".join(summary.replace("│", " ").split()) or "not large" in summary
    assert (folder / "figures" / "findings.png").stat().st_size > 10_000
    client = mlflow.MlflowClient(f"sqlite:///{inside / 'mlflow.db'}")
    (record,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    metrics = record.data.metrics
    assert metrics["test_auroc"] == metrics["test_malignant_auroc"]
    assert {"test_large_auroc", "test_bright_auroc", "test_micro_auroc", "test_macro_auroc"} <= set(metrics)
    assert "test_large_threshold" not in metrics  # evaluation.json has it
    assert "| bright |" in record.data.tags["mlflow.note.content"]


def of_other_patients(manifest):
    """The same voxels in files of their own, of other patients and cases: what is tested is not accuracy."""
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    (manifest.parent / "other").mkdir(exist_ok=True)
    for image in table["image"]:
        scan = nib.load(manifest.parent / image)
        scan.header["descrip"] = b"of another patient"
        nib.save(scan, manifest.parent / "other" / Path(image).name)
    table["image"] = "other/" + table["image"].map(lambda image: Path(image).name)
    return table.assign(patient_id="other-" + table["patient_id"], case_id="other-" + table["case_id"])


def test_a_model_is_judged_finding_by_finding_on_other_patients(inside, manifest, tmp_path, capsys):
    table, local = of_other_patients(manifest), manifest.parent / "others.csv"
    table.assign(bright="").to_csv(local, index=False)
    model = str(run_folder(inside) / "model")
    assert run(["evaluate", model, str(local), "--out", str(tmp_path / "out")]) == 0
    assert "finding bright is blank in every case that may be judged, and is left out" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(found["findings"]) == ["malignant", "large"]
    assert found["findings"]["large"]["n_cases"] == ((table["large"] != "") & (table["label"] != "")).sum()
    read_predictions(tmp_path / "out" / "predictions.parquet")
    table.drop(columns="large").to_csv(local, index=False)
    assert run(["evaluate", model, str(local), "--out", str(tmp_path / "no")]) == 2
    assert "has no column 'large', which is one of the findings" in capsys.readouterr().err


def test_predictions_of_several_findings_are_judged_without_a_model(workspace, tmp_path, capsys):
    file = run_folder(workspace) / "predictions.parquet"
    assert run(["evaluate", "--predictions", str(file), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    trained = json.loads((run_folder(workspace) / "evaluation.json").read_text())
    for name in NAMES:
        assert found["findings"][name]["intervals"]["auroc"] == trained["findings"][name]["intervals"]["auroc"]
    predictions = read_predictions(file)
    frame = predictions.frame
    frame.loc[(frame["finding"] == "large") & (frame["split"] == "test"), "label"] = 0
    write_predictions(predictions.from_frame(frame), tmp_path / "one.parquet")
    assert run(["evaluate", "--predictions", str(tmp_path / "one.parquet"), "--out", str(tmp_path / "no")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "split 'test' has" in line
    assert "0 large rows" in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop(columns="large"), "has no column 'large', which is one of the findings"),
        (lambda table: table.assign(large=["maybe", *table["large"][1:]]), "large is 'maybe', expected 1 (present)"),
        (lambda table: table.assign(bright="1"), "0 not bright and"),
    ],
)
def test_a_bad_table_is_one_line_before_anything_is_computed(inside, manifest, capsys, change, says):
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    bad = manifest.with_name("bad.csv")
    change(table).to_csv(bad, index=False)
    assert run(["train", "tiny.yaml", f"data.manifest={bad}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert len(list((inside / "runs").iterdir())) == 1


def test_recalibration_moves_each_finding_that_is_known_and_leaves_the_others(inside, manifest, capsys):
    table = of_other_patients(manifest)
    table.drop(columns="bright").to_csv(manifest.with_name("local.csv"), index=False)
    model = run_folder(inside) / "model"
    assert run(["recalibrate", str(model), str(manifest.with_name("local.csv"))]) == 0
    printed = capsys.readouterr().out
    assert "bright: left as it was" in printed
    from pipeline.config.experiment import Tracking
    from pipeline.tracking.registry import model_folder

    uri = printed.strip().splitlines()[-1].removeprefix("model: ")
    new = json.loads((model_folder(uri, Tracking()) / "model.json").read_text())
    old = json.loads((model / "model.json").read_text())
    (before,), (after,) = old["members"], new["members"]
    assert after["calibrator"] != before["calibrator"]
    assert after["other_calibrators"][0] != before["other_calibrators"][0]
    assert after["other_calibrators"][1] == before["other_calibrators"][1]
    assert new["operating_points"][2] == old["operating_points"][2]
    assert new["operating_points"][1]["n_positive"] == ((table["large"] == "1") & (table["label"] != "")).sum()
