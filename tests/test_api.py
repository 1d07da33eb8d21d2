"""``import pipeline``: light, and the same answers as the command's."""

import doctest
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from cohorts import tiny_config

import pipeline
from pipeline import api, loaded_model
from pipeline.errors import ModelError, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory, cohort_manifest):
    """A training through the interface, in a folder of its own."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(cohort_manifest, folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield pipeline.train("tiny.yaml", {"training.max_epochs": 3, "training.early_stopping": None})


@pytest.fixture(scope="module")
def model(run):
    return pipeline.load_model(run.model_uri)


def test_importing_is_light():
    code = (
        "import sys, pipeline; dir(pipeline); pipeline.score; "
        "heavy = {'torch', 'monai', 'mlflow', 'lightning', 'pandas', 'numpy', 'sklearn'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'forecast'"):
        _ = pipeline.forecast


@pytest.mark.parametrize("module", [api, loaded_model], ids=lambda module: module.__name__)
def test_examples_of_the_docstrings_run(module):
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


def test_a_training_says_where_everything_is(run):
    assert run.model_uri.startswith("models:/tiny/")
    assert run.report.exists()
    assert (run.folder / "model" / "model.json").exists()
    assert 0 <= run.evaluation["auroc"].estimate <= 1
    assert run.rejected == ()


def test_a_model_predicts_paths_and_tables_as_score_does(model, cohort_manifest, tmp_path):
    table = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False).head(4)
    of_table = model.predict(table, root=cohort_manifest.parent)
    of_path = model.predict(cohort_manifest)
    scored = pipeline.score(model, cohort_manifest, out=tmp_path / "scores", workers=1, track=False)
    assert scored.summary["unscored_share"] == 0
    assert len(scored.rows) == len(of_path)
    expected = scored.rows.set_index("case_id")["probability"]
    for rows in (of_table, of_path):
        np.testing.assert_allclose(rows["probability"], expected.loc[rows["case_id"]], atol=1e-6)
    assert "threshold" in of_table
    assert model.thresholds["malignant"].threshold == of_table["threshold"].iloc[0]
    assert model.contract


def test_wrong_use_is_an_error_and_a_bad_scan_a_row(model, cohort_manifest, tmp_path):
    with pytest.raises(UsageError, match="needs a column 'image' or 'image_base64'; found case_id"):
        model.predict(pd.DataFrame({"case_id": ["1"]}))
    with pytest.raises(UsageError, match="no path was given"):
        model.predict([])
    with pytest.raises(ModelError, match="nowhere"):
        pipeline.load_model(tmp_path / "nowhere")
    table = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False).head(2)
    table.loc[0, "image"] = "missing.nii.gz"
    rows = model.predict(table, root=cohort_manifest.parent)
    assert rows["code"].tolist()[0] == "E_NOT_FOUND"
    assert np.isnan(rows["probability"].tolist()[0])
    assert rows["status"].tolist()[1] == "scored"


def test_evaluation_has_intervals_calibration_and_a_report(model, cohort_manifest, tmp_path):
    new = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False).head(40)
    new["patient_id"] = "other-" + new["patient_id"]
    manifest = cohort_manifest.with_name("others.csv")
    new.drop(columns="split", errors="ignore").to_csv(manifest, index=False)
    judged = pipeline.evaluate(model, manifest, out=tmp_path / "judged", prevalence=0.05)
    assert judged.report.exists()
    assert 0 < judged.intervals["brier_score"].lower <= judged.intervals["brier_score"].estimate
    assert judged.calibration.verdict in ("shown", "not shown", "refuted")
    assert str(judged.report) in judged.summary
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        pipeline.evaluate(model, manifest, out=tmp_path / "taken")


def test_check_names_what_would_be_rejected(cohort_manifest, tmp_path):
    found = pipeline.check(cohort_manifest)
    assert (found.rejected, found.faults) == ((), ())
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    found = pipeline.check(tmp_path)
    assert [str(each.error.code) for each in found.rejected] == ["E_FORMAT"]
    assert "1 rejected" in found.summary


def test_audit_names_a_patient_in_two_tables(tmp_path):
    for name, patients in {"train.csv": "ab", "test.csv": "bc"}.items():
        rows = [f"{name}-{patient},{patient}.png,{patient},1" for patient in patients]
        (tmp_path / name).write_text("\n".join(["case_id,image,patient_id,label", *rows]) + "\n")
    audited = pipeline.audit(tmp_path / "train.csv", tmp_path / "test.csv")
    assert [match.kind for match in audited.leaks] == ["patient"]
    assert "4 cases could not be read" in audited.summary


def test_overrides_may_be_values_or_texts():
    assert api._texts({"training.max_epochs": 8, "network.head": "softmax", "data.cache": None}) == [
        "training.max_epochs=8",
        'network.head="softmax"',
        "data.cache=null",
    ]
    assert api._texts(["a.b=1"]) == ["a.b=1"]
