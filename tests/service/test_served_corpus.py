"""Damaged and odd scans over HTTP: the answer is the command's own row, as strict JSON, and never a server's fault."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from serving import serve_when_ready
from shared_data import shared
from tiny_models import write_model

from pipeline.cases.case import Case
from pipeline.config.inputs import Preprocessing
from pipeline.files import parse_json
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer

CENTER = {"center_x_mm": "-9.75", "center_y_mm": "4.5", "center_z_mm": "6.0", "coordinate_system": "RAS"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    preprocessing = Preprocessing(dimensions=3, region="lesion", size=(28, 28, 28), spacing_mm=(0.75, 0.75, 0.75))
    return write_model(tmp_path_factory.mktemp("corpus") / "model", preprocessing=preprocessing)


@pytest.fixture(scope="module")
def expected_row(model):
    """What the scorer itself says of a path."""
    scorer = Scorer(load_model(model))

    def score(path):
        case = Case(case_id="x", image="x", path=path, center_mm=(-9.75, 4.5, 6.0))
        (row,) = scorer.score([scorer.prepare(case)])
        return row

    return score


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with serve_when_ready(model, tmp_path_factory.mktemp("corpus_server")) as server:
        yield server


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def as_parts(path: Path) -> dict:
    return {"files": [("file", (file.name, file.read_bytes())) for file in files_of(path)], "data": CENTER}


def as_zip(path: Path) -> dict:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in files_of(path):
            archive.writestr(str(file.relative_to(path.parent)), file.read_bytes())
    return {"content": packed.getvalue(), "params": CENTER, "headers": {"Content-Type": "application/zip"}}


def require_same(answer, expected, path: Path) -> None:
    """The answer is strict JSON, with the expected row's status, code, warnings and probability."""
    content = parse_json(answer.content)
    assert answer.status_code == (200 if expected.probability is not None else 422), (path, content)
    (row,) = content["rows"]
    assert (row["status"], row["code"], row["warnings"]) == (expected.status, expected.code, expected.warnings), path
    assert expected.status != "failed", path
    if expected.probability is None:
        assert (row["probability"], row["decision"], row["logit"]) == (None, None, None), path
        assert content["error"] == {"code": row["code"], "reason": row["reason"]}
    else:
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-6), path


def scans() -> list[Path]:
    """Files and folders of both corpora that are one scan each."""
    corpus, odd = shared("bad_scans"), shared("odd_scans")
    cases = json.loads((corpus / "manifest.json").read_text())
    found = [corpus / case["path"] for case in cases if case["kind"] != "labels"]
    for path in sorted(odd.iterdir()):
        if path.name in ("pics", "foreign"):
            found += files_of(path)
        elif path.is_dir():
            found.append(path)
    return found


@pytest.mark.parametrize("body", [as_parts, as_zip])
def test_every_scan_gets_the_row_that_the_command_gives_it(server, expected_row, body):
    paths = scans()
    numbers = 0
    with server.client() as client:
        for path in paths:
            expected = expected_row(path)
            require_same(client.post("/v1/score", **body(path)), expected, path)
            numbers += expected.probability is not None
    assert server.uploads() == []
    assert 0 < numbers < len(paths)


def test_no_damaged_scan_of_the_corpus_gets_a_number(server):
    corpus = shared("bad_scans")
    with server.client() as client:
        for case in json.loads((corpus / "manifest.json").read_text()):
            if case["kind"] == "labels" or case["expect"] != "reject":
                continue
            content = parse_json(client.post("/v1/score", **as_parts(corpus / case["path"])).content)
            assert content["error"]["code"] == case["code"], case["id"]
            assert content["rows"][0]["probability"] is None, case["id"]


@pytest.mark.slow
def test_every_single_file_gets_a_row_or_a_code(server, expected_row):
    paths = [*files_of(shared("bad_scans")), *files_of(shared("odd_scans"))]
    paths = [path for path in paths if not path.name.startswith(".")]  # which no search takes for a scan
    with server.client() as client:
        for path in paths:
            require_same(client.post("/v1/score", **as_parts(path)), expected_row(path), path)
    assert len(paths) > 600


def test_planted_patient_data_is_in_no_answer_and_in_no_log(server):
    corpus = shared("bad_scans") / "dicom"
    with server.client() as client:
        for name in ("phi_canary", "path_in_patient_id", "two_patients"):
            for body in (as_parts, as_zip):
                assert b"CANARY" not in client.post("/v1/score", **body(corpus / name)).content
            named = [("file", ("CANARY^NAME.dcm", file.read_bytes())) for file in files_of(corpus / name)]
            client.post("/v1/score", files=named, data={**CENTER, "case_id": "CANARY"}, params={"part": "CANARY"})
        assert b"CANARY" not in client.get("/metrics").content
    assert "CANARY" not in server.log.read_text()
