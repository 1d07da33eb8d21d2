"""What ``mlflow models serve`` answers on a logged model: JSON that a strict parser takes, whatever a row is."""

from __future__ import annotations

import base64
import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server
from serving import mlflow_serves
from starlette.testclient import TestClient
from tiny_models import write_model, write_scans

from pipeline.config.experiment import Tracking
from pipeline.files import parse_json
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_description import read_description
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer
from pipeline.tracking.registry import log_model
from pipeline.tracking.runs import open_run
from pipeline.workflow.judging.labelled_cases import example_record
from pipeline.workflow.learning.record import row_columns

CENTER = {"center_x_mm": 0.0, "center_y_mm": 0.0, "center_z_mm": 0.0, "coordinate_system": "RAS"}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A model's folder, the logged MLflow model's URI, and the folder of three scans; the last one is damaged."""
    folder = tmp_path_factory.mktemp("logged")
    model = write_model(folder / "model")
    cases = write_scans(folder / "scans", 3)
    cases[2].path.write_bytes(cases[2].path.read_bytes()[:-9])
    shutil.copy(cases[0].path, folder / "scans" / "0003.nii")  # gzip under the suffix of plain NIfTI: a warning
    tracking = Tracking(uri=f"sqlite:///{folder}/mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with open_run(tracking, name="tiny", tags={}) as run:
            description = read_description(model)
            log_model(run, model, input_example=example_record(description), columns=row_columns(description))
            logged = run.store.client.get_run(run.run_id).outputs.model_outputs[-1].model_id
            path = next(folder.glob(f"mlartifacts/**/{logged}/artifacts"))
    return model, str(path), folder / "scans"


@pytest.fixture
def ask(logged, monkeypatch):
    """Posts records to the server's own application; the answer's status, and its JSON as a strict parser reads it."""
    _, path, scans = logged
    monkeypatch.setenv("MALIGNANCY_MODEL_ROOT", str(scans))
    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(path)))

    def post(records):
        answer = client.post("/invocations", json={"dataframe_records": records})
        return answer.status_code, parse_json(answer.content)

    return post


def records_of(scans):
    return [{"case_id": path.name, "image": path.name, **CENTER} for path in sorted(scans.iterdir())]


def test_scored_flagged_and_rejected_rows_are_strict_json(ask, logged):
    status, answer = ask(records_of(logged[2]))
    assert status == 200
    rows = answer["predictions"]
    assert [row["status"] for row in rows] == ["scored", "scored", "rejected", "flagged"]
    assert rows[2]["code"] == "E_TRUNCATED"
    assert {rows[2][name] for name in ("probability", "decision", "threshold", "logit", "image_sha256")} == {None}
    assert rows[0]["patient_id"] is None
    assert rows[3]["warnings"] == "W_SUFFIX"
    model, _, scans = logged
    (expected, *_) = score_cases(Scorer(load_model(model)), write_scans(scans.parent / "again", 1))
    assert rows[0]["probability"] == pytest.approx(expected.probability, abs=1e-6)


def test_one_rejected_row_alone_is_strict_json(ask, logged):
    _, answer = ask(records_of(logged[2])[2:3])
    assert answer["predictions"][0]["probability"] is None


def test_bytes_give_the_probability_of_the_file(ask, logged):
    records = records_of(logged[2])
    by_path = ask(records)[1]["predictions"]
    for record in records[:3]:
        data = (logged[2] / record["image"]).read_bytes()
        record["image_base64"] = base64.b64encode(data).decode()
    records[1] |= {"image": None, "case_id": None}
    by_bytes = ask(records)[1]["predictions"]
    for path_row, bytes_row in zip(by_path, by_bytes, strict=True):
        for name in ("status", "code", "warnings", "probability", "decision", "image_sha256"):
            assert bytes_row[name] == path_row[name], name
    assert [row["case_id"] for row in by_bytes] == ["0000.nii.gz", "row 2", "0002.nii.gz", "0003.nii"]
    assert by_bytes[0]["image"] == "0000.nii.gz"


def test_what_is_no_base64_is_refused_and_not_guessed(ask):
    _, answer = ask([{"image_base64": "!!!!", **CENTER}])
    assert answer["predictions"][0]["code"] == "E_FORMAT"


@pytest.mark.parametrize("image", ["../model/model.json", "/etc/hostname"])
def test_no_path_leaves_the_root_that_the_environment_names(ask, image):
    _, answer = ask([{"image": image, **CENTER}])
    assert answer["predictions"][0]["code"] == "E_OUTSIDE_ROOT"


def test_name_beside_bytes_is_no_path(ask, logged):
    data = (logged[2] / "0000.nii.gz").read_bytes()
    record = {"image": "../../../etc/x.nii.gz", "image_base64": base64.b64encode(data).decode(), **CENTER}
    (row,) = ask([record])[1]["predictions"]
    assert row["status"] == "scored"


def test_configured_root_comes_before_the_environment(logged, monkeypatch, tmp_path):
    _, path, scans = logged
    monkeypatch.setenv("MALIGNANCY_MODEL_ROOT", str(tmp_path))
    model = mlflow.pyfunc.load_model(path, model_config={"root": str(scans)})
    assert model.predict(pd.DataFrame(records_of(scans)[:1]))["status"][0] == "scored"


def test_numbers_stay_numbers_for_programs(logged):
    _, path, scans = logged
    model = mlflow.pyfunc.load_model(path, model_config={"root": str(scans)})
    rows = model.predict(pd.DataFrame(records_of(scans)))
    numbers = np.asarray(rows["probability"], np.float64)
    assert list(np.isnan(numbers)) == [False, False, True, False]
    assert rows["seconds"].dtype == np.float64


@pytest.mark.slow
def test_mlflows_own_command_serves_the_model(logged, tmp_path):
    _, path, scans = logged
    with mlflow_serves(path, tmp_path, environment={"MALIGNANCY_MODEL_ROOT": str(scans)}) as client:
        answer = client.post("/invocations", json={"dataframe_records": records_of(scans)})
        rows = parse_json(answer.content)["predictions"]
    assert [row["status"] for row in rows] == ["scored", "scored", "rejected", "flagged"]
