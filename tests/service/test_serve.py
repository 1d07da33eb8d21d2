"""``malignancy serve`` as its clients see it."""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import MIDDLE

from pipeline.files import parse_json
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


def upload(path):
    return {"file": (path.name, path.read_bytes())}


@pytest.fixture(scope="module")
def expected(tiny_model, scans):
    return list(score_cases(Scorer(load_model(tiny_model)), scans))


def test_one_upload_gets_its_score_row(client, scans, expected):
    answer = client.post("/v1/score", files=upload(scans[0].path), data={**MIDDLE, "case_id": "007"})
    assert answer.status_code == 200
    (row,) = parse_json(answer.content)["rows"]
    assert row["case_id"] == "007"
    assert row["status"] == "scored"
    assert row["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
    assert row["decision"] == expected[0].decision
    assert row["image_sha256"] == expected[0].image_sha256


def test_raw_body_and_zip_are_the_same_scan(client, scans, expected):
    data = scans[1].path.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.nii.gz", data)
    for body, kind in ((data, "application/octet-stream"), (packed.getvalue(), "application/zip")):
        answer = client.post("/v1/score", content=body, params=MIDDLE, headers={"Content-Type": kind})
        (row,) = parse_json(answer.content)["rows"]
        assert (row["status"], row["warnings"]) == ("scored", "")
        assert row["probability"] == pytest.approx(expected[1].probability, abs=1e-6)


def test_several_lesions_get_a_row_each(client, scans, expected):
    middle = {"center_x_mm": 0, "center_y_mm": 0.0, "center_z_mm": "0", "coordinate_system": "RAS"}
    lesions = [middle, {**middle, "center_x_mm": 500}]
    answer = client.post("/v1/score", files=upload(scans[0].path), data={"lesions": json.dumps(lesions)})
    assert answer.status_code == 200
    first, second = parse_json(answer.content)["rows"]
    assert (first["case_id"], second["case_id"]) == ("upload#1", "upload#2")
    assert first["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
    assert (second["code"], second["probability"]) == ("E_ROI_OUTSIDE", None)


def test_damaged_scan_is_422_with_its_code(client, scans):
    answer = client.post("/v1/score", files={"file": ("scan.nii.gz", scans[0].path.read_bytes()[:-9])}, data=MIDDLE)
    assert answer.status_code == 422
    content = parse_json(answer.content)
    assert content["error"]["code"] == "E_TRUNCATED"
    (row,) = content["rows"]
    assert (row["status"], row["probability"], row["decision"]) == ("rejected", None, None)


def test_scan_without_a_centre_is_told_so(client, scans):
    answer = client.post("/v1/score", files=upload(scans[0].path))
    assert answer.status_code == 422
    assert parse_json(answer.content)["error"]["code"] == "E_CENTER_MISSING"


def test_clients_at_once_get_the_row_of_their_own_scan(client, served, scans, expected):
    """Each with a scan and an id of its own, more of them than workers."""

    def ask(number):
        with served.client() as own:
            data = {**MIDDLE, "case_id": f"case {number}"}
            answers = [own.post("/v1/score", files=upload(scans[number % 4].path), data=data) for _ in range(5)]
        return [parse_json(answer.content)["rows"][0] for answer in answers]

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(ask, range(12)))
    for number, rows in enumerate(answers):
        for row in rows:
            assert row["case_id"] == f"case {number}"
            assert row["image_sha256"] == expected[number % 4].image_sha256
            assert row["probability"] == pytest.approx(expected[number % 4].probability, abs=1e-6)
