"""``malignancy serve --find``: whole scans searched over HTTP, with the numbers of ``score --find``."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from chest_scans import write_chest
from dicom_writing import write_series
from serving import MIDDLE, serve, serve_when_ready, wait_until_ready
from small_detectors import save_small_detector
from tiny_models import PREPROCESSING, write_model

import pipeline
from pipeline.cases.case import Case
from pipeline.cli import run
from pipeline.errors import Code
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.files import parse_json
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.finding.detector_description import read_detector_description
from pipeline.scoring.finding.golden_detector import add_golden_scans
from pipeline.scoring.finding.live_search import LiveSearchSetup, WholeScan
from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.finding.scan_worker import FinderSetup
from pipeline.scoring.model_description import read_description

FIND = {"find": "true", "case_id": "ct"}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A scan, a classifier, and a detector whose scan probability was fitted with it."""
    folder = tmp_path_factory.mktemp("served_find")
    write_chest(folder / "ct.nii.gz", [((20.0, 10.0, 5.0), 8.0)])
    write_model(folder / "classifier")
    digest = read_description(folder / "classifier").digests.model
    fitted = ScanProbability(leak=0.05, weight=0.9, classifier_digest=digest)
    save_small_detector(folder / "detector", scan_probability=fitted)
    add_golden_scans(folder / "detector")
    return folder


@pytest.fixture(scope="module")
def finding(work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finding_server")
    with serve_when_ready(work / "classifier", folder, "--find", str(work / "detector")) as server:
        yield server


@pytest.fixture
def client(finding):
    with finding.client() as client:
        yield client
    assert finding.uploads() == []


def searched(client, path, **fields):
    return client.post("/v1/score", files={"file": (path.name, path.read_bytes())}, data={**FIND, **fields})


def test_a_searched_scan_has_what_the_command_gives(client, work):
    command = pipeline.score(
        work / "classifier", work / "ct.nii.gz", out=work / "out", find=work / "detector", workers=1, track=False
    )
    answer = searched(client, work / "ct.nii.gz")
    assert answer.status_code == 200
    content = parse_json(answer.content)
    scan, expected = content["scan"], command.scans.iloc[0]
    assert (scan["scan_id"], scan["status"], scan["code"], scan["candidates"]) == ("ct", "scored", "", 5)
    assert scan["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert scan["probability_reason"] is None
    for name in ("model", "model_digest", "classifier", "classifier_digest", "image_sha256"):
        assert scan[name] == expected[name], name
    assert [candidate["case_id"] for candidate in content["candidates"]] == [f"ct#{number}" for number in range(1, 6)]
    assert [row["case_id"] for row in content["rows"]] == [f"ct#{number}" for number in range(1, 6)]
    for ours, table in (
        (content["candidates"], pd.read_parquet(command.folder / "candidates.parquet")),
        (content["rows"], command.rows),
    ):
        frame = pd.DataFrame(ours)
        assert list(frame.columns) == list(table.columns)
        for name in table.columns:
            if name in ("probability", "logit") or name.startswith(("probability_", "center_", "diameter_")):
                np.testing.assert_allclose(frame[name], table[name], rtol=0, atol=1e-6, err_msg=name)
            elif name in ("status", "code", "decision", "model_digest", "coordinate_system"):
                assert list(frame[name]) == list(table[name]), name
    assert pd.DataFrame(content["rows"])["probability"].nunique() == 5


def test_a_zipped_series_with_a_missing_slice_is_422(client, tmp_path):
    write_series(tmp_path / "series", skip=(6,))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((tmp_path / "series").iterdir()):
            archive.write(path, path.name)
    headers = {"Content-Type": "application/zip"}
    answer = client.post("/v1/score", content=packed.getvalue(), params=FIND, headers=headers)
    assert answer.status_code == 422
    content = parse_json(answer.content)
    assert content["error"]["code"] == content["scan"]["code"] == "E_SLICE_GAP"


def test_a_scan_that_cannot_be_searched_is_422_with_its_code(client, tmp_path):
    write_chest(tmp_path / "few.nii.gz", [], spacing=(1.5, 1.5, 30.0))
    answer = searched(client, tmp_path / "few.nii.gz")
    assert answer.status_code == 422
    content = parse_json(answer.content)
    assert content["error"]["code"] == "E_SHAPE"
    assert "expected at least 10 slices" in content["error"]["reason"]
    assert (content["scan"]["status"], content["scan"]["candidates"], content["scan"]["probability"]) == (
        "rejected",
        None,
        None,
    )
    assert content["scan"]["probability_reason"] == "the scan was not searched; reason says why"
    assert content["candidates"] == content["rows"] == []


def test_lesions_with_a_centre_are_scored_beside_scans_that_are_searched(client, work):
    path = work / "ct.nii.gz"
    for data in (MIDDLE, {**MIDDLE, "find": "false"}):
        answer = client.post("/v1/score", files={"file": (path.name, path.read_bytes())}, data=data)
        assert answer.status_code == 200
        content = parse_json(answer.content)
        assert set(content) == {"rows", "notice"}
        assert content["rows"][0]["probability"] is not None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"center_x_mm": "1"}, "find and center_x_mm are both given"),
        ({"lesions": "[]"}, "find and lesions are both given"),
        ({"find": "perhaps"}, "find: expected true or false"),
    ],
)
def test_a_request_that_means_two_things_is_refused(client, work, fields, reason):
    answer = searched(client, work / "ct.nii.gz", **fields)
    assert answer.status_code == 400
    assert reason in parse_json(answer.content)["error"]["reason"]


def test_model_page_metrics_and_documents_name_the_detector(client, work):
    description = json.loads((work / "detector" / "model.json").read_text())
    detector = parse_json(client.get("/v1/model").content)["detector"]
    assert detector["model_digest"] == description["digests"]["model"]
    assert detector["classes"] == description["classes"]
    assert detector["lesions"]["source"] == "made for a test"
    assert detector["scan_probability"]["leak"] == 0.05
    searched(client, work / "ct.nii.gz")
    text = client.get("/metrics").text
    assert 'malignancy_scans_total{code="",status="scored"}' in text
    assert f'digest="{description["digests"]["model"]}"' in text
    answers = parse_json(client.get("/openapi.json").content)["paths"]["/v1/score"]["post"]["responses"]
    answer = answers["200"]["content"]["application/json"]["schema"]["properties"]
    content = parse_json(searched(client, work / "ct.nii.gz").content)
    assert set(answer) == set(content)
    assert set(answer["scan"]["properties"]) == set(content["scan"])
    assert set(answer["candidates"]["items"]["properties"]) == set(content["candidates"][0])


def test_without_a_fitted_probability_the_scan_says_why_it_has_none(work, tmp_path):
    save_small_detector(tmp_path / "detector")
    with (
        serve(work / "classifier", tmp_path / "server", "--find", str(tmp_path / "detector")) as server,
        server.client() as client,
    ):
        wait_until_ready(client)
        scan = parse_json(searched(client, work / "ct.nii.gz").content)["scan"]
    assert (scan["status"], scan["candidates"], scan["probability"]) == ("scored", 5, None)
    assert "none was fitted for this detector with this classifier" in scan["probability_reason"]


def test_a_case_that_no_worker_answers_for_has_a_row_of_its_kind(work):
    detector = read_detector_description(work / "detector").identity
    classifier = Ensemble.of([read_description(work / "classifier")]).identity("eager")
    setup = LiveSearchSetup(FinderSetup(work / "detector", detector, ScorerSetup((work / "classifier",))))
    lesion = Case(case_id="ct", image="ct.nii.gz", path=work / "ct.nii.gz")
    for case, model in ((lesion, classifier.model), (WholeScan.of(lesion), detector.model)):
        row = setup.refusal(case, classifier, status="failed", code=Code.E_INTERNAL, reason="died twice")
        named = row.detector if isinstance(row, ScanRow) else row
        assert (row.case_id, row.status, row.code, row.probability) == ("ct", "failed", "E_INTERNAL", None)
        assert named.model == model


def test_golden_scans_of_either_model_that_drifted_are_seen(work, tmp_path):
    shutil.copytree(work / "detector", tmp_path / "detector")
    golden = tmp_path / "detector" / "golden" / "golden.json"
    content = json.loads(golden.read_text())
    content["probabilities"] = (np.array(content["probabilities"]) * 0.5).tolist()
    golden.write_text(json.dumps(content))
    identity = read_detector_description(work / "detector").identity
    drifts = []
    for folder in (work / "detector", tmp_path / "detector"):
        setup = LiveSearchSetup(FinderSetup(folder, identity, ScorerSetup((work / "classifier",))))
        drifts.append(setup.drift(setup.build()))
    assert drifts[0] < 1e-6
    assert drifts[1] > 1e-3


def test_models_that_do_not_go_together_are_refused_in_one_line(work, tmp_path, capsys):
    assert run(["serve", str(work / "classifier"), "--find", str(work / "classifier"), "--port", "0"]) == 2
    assert "is a classifier, expected a detector" in capsys.readouterr().err
    write_model(tmp_path / "image", preprocessing=PREPROCESSING.model_copy(update={"region": "image"}))
    assert run(["serve", str(tmp_path / "image"), "--find", str(work / "detector"), "--port", "0"]) == 2
    assert "a detector finds lesions in volumes; name a 3D model of lesions" in capsys.readouterr().err
