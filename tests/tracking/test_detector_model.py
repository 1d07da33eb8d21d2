"""A detector as an MLflow model: the candidates of the command."""

from __future__ import annotations

import base64

import mlflow
import numpy as np
import pandas as pd
import pytest
from chest_scans import write_chest
from small_detectors import CLASSES, save_small_detector

import pipeline
from pipeline.config.experiment import Tracking
from pipeline.scoring.finding.finding_frames import finding_columns
from pipeline.tracking.registry import log_model
from pipeline.tracking.runs import open_run


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector_model")
    (folder / "scans").mkdir()
    write_chest(folder / "scans" / "a.nii.gz", [((20.0, 10.0, 5.0), 8.0)])
    write_chest(folder / "scans" / "few.nii.gz", [], spacing=(1.5, 1.5, 30.0))
    save_small_detector(folder / "detector")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with open_run(Tracking(experiment="detectors"), name="made for a test", tags={}) as run:
            uri = log_model(
                run,
                folder / "detector",
                input_example={"case_id": "scan", "image": "scan.nii.gz"},
                columns=finding_columns(CLASSES),
            )
        yield folder, mlflow.pyfunc.load_model(uri, model_config={"root": str(folder / "scans")}), uri


def test_the_mlflow_model_finds_the_candidates_of_the_command(work):
    folder, model, uri = work
    frame = model.predict(pd.DataFrame({"case_id": ["few", "a"], "image": ["few.nii.gz", "a.nii.gz"]}))
    assert list(frame.columns) == list(finding_columns(CLASSES))
    assert list(frame.scan_id) == ["few", *["a"] * 5]
    assert (frame.status[0], frame.code[0], frame.case_id[0]) == ("rejected", "E_SHAPE", None)
    found = pipeline.find(uri, folder / "scans" / "a.nii.gz", out="found", workers=1, track=False).candidates
    assert list(frame.case_id[1:]) == [f"a#{number}" for number in range(1, 6)]
    for column in found.select_dtypes("number"):
        np.testing.assert_allclose(frame[column][1:].astype(float), found[column], atol=1e-6, rtol=0)
    assert set(frame.model_digest) == set(found.model_digest)


def test_a_scan_may_come_as_bytes(work):
    folder, model, _ = work
    data = base64.b64encode((folder / "scans" / "a.nii.gz").read_bytes()).decode()
    frame = model.predict(pd.DataFrame({"case_id": ["sent"], "image_base64": [data]}))
    assert list(frame.scan_id) == ["sent"] * 5


def test_an_image_outside_the_root_is_refused(work):
    _, model, _ = work
    frame = model.predict(pd.DataFrame({"case_id": ["out"], "image": ["../detector/model.json"]}))
    assert list(frame.code) == ["E_OUTSIDE_ROOT"]
