"""The command, the MLflow model and the server say the same of the same cases."""

from __future__ import annotations

import base64
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from serving import MIDDLE
from tiny_models import write_manifest

import pipeline.tracking.registry
from pipeline.cli import run
from pipeline.files import parse_json


def test_command_mlflow_model_and_server_give_the_same_probability(client, scans, tiny_model, tmp_path):
    folder = scans[0].path.parent
    assert (
        run(["score", str(tiny_model), str(write_manifest(folder)), "--out", str(tmp_path / "out"), "--no-track"]) == 0
    )
    command = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    (folder / "manifest.csv").unlink()
    mlflow.pyfunc.save_model(
        tmp_path / "saved",
        python_model=str(Path(pipeline.tracking.registry.__file__).with_name("pyfunc.py")),
        artifacts={"model_directory": str(tiny_model)},
        pip_requirements=[],
        model_config={"root": "."},
    )
    center = {"center_x_mm": 0.0, "center_y_mm": 0.0, "center_z_mm": 0.0, "coordinate_system": "RAS"}
    records = [{**center, "image_base64": base64.b64encode(scan.path.read_bytes()).decode()} for scan in scans]
    model = mlflow.pyfunc.load_model(str(tmp_path / "saved")).predict(pd.DataFrame(records))
    answers = [
        client.post("/v1/score", files={"file": (scan.path.name, scan.path.read_bytes())}, data=MIDDLE)
        for scan in scans
    ]
    server = pd.DataFrame([parse_json(answer.content)["rows"][0] for answer in answers])
    for other in (model, server):
        np.testing.assert_allclose(other["probability"].astype(float), command["probability"], rtol=0, atol=1e-6)
        for name in ("status", "decision", "threshold", "model_digest", "preprocessing_digest", "image_sha256"):
            assert list(other[name]) == list(command[name]), name
    assert command["probability"].nunique() == len(scans)
