"""The server from start to end: golden scans, tokens, dying workers, killed servers, and its exit codes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import httpx
import psutil
import pytest
from serving import MIDDLE, serve, wait_until_ready
from shared_data import ROOT

from pipeline.cli import run
from pipeline.errors import UsageError
from pipeline.files import parse_json
from pipeline.jobs.serve import serve as serve_job
from pipeline.service.guard import is_loopback
from pipeline.service.settings import TOKEN_VARIABLE, ServiceSettings
from pipeline.service.spool import upload_folder

TOKEN = "correct-horse-battery-staple"


def score(client, scan):
    return client.post("/v1/score", files={"file": (scan.path.name, scan.path.read_bytes())}, data=MIDDLE)


def workers_of(server) -> list[psutil.Process]:
    """The scoring workers: children of the fork server, which is a child of the command."""
    children = psutil.Process(server.process.pid).children()
    return [worker for child in children for worker in child.children()]


def test_model_page_metrics_and_health(client, scans, tiny_model):
    description = json.loads((tiny_model / "model.json").read_text())
    about = parse_json(client.get("/v1/model").content)
    assert about["model_digest"] == description["digests"]["model"]
    assert about["label"]["source"] == "made up"
    assert about["input_contract"] == description["input_contract"]
    assert about["thresholds"]["malignant"] == description["operating_points"][0]["threshold"]
    assert about["prevalence_at_calibration"] == [0.5]
    assert parse_json(client.get("/v2/health/live").content) == {"live": True}
    assert parse_json(client.get("/v2/health/ready").content) == {"ready": True, "workers": 2}
    before = counted(client, 'malignancy_cases_total{code="",status="scored"}')
    assert score(client, scans[0]).status_code == 200
    assert counted(client, 'malignancy_cases_total{code="",status="scored"}') == before + 1
    assert counted(client, "malignancy_upload_bytes") == 0
    assert counted(client, 'malignancy_request_seconds_count{route="/v1/score"}') > 0


def counted(client, name) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_pages_that_are_not_there_are_strict_json_too(client):
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/score", 405), ("PUT", "/v1/model", 405)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert parse_json(answer.content)["error"]["reason"]


def test_openapi_describes_the_request_and_a_page_shows_it_without_scripts(client):
    paths = parse_json(client.get("/openapi.json").content)["paths"]
    body = paths["/v1/score"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/octet-stream", "application/zip"} <= set(body)
    assert {"200", "400", "413", "422", "503"} <= set(paths["/v1/score"]["post"]["responses"])
    page = client.get("/docs").text
    assert "/v1/score" in page
    assert "center_x_mm" in page
    assert "<script" not in page
    assert "http" not in page.replace("http://127.0.0.1", "")  # a hospital's network has no way out


def test_other_host_names_are_refused(served):
    with served.client(headers={"Host": "attacker.example"}) as client:
        assert client.get("/v1/model").status_code == 421


@pytest.mark.slow
def test_killed_workers_cost_no_request(tiny_model, tmp_path, scans):
    with serve(tiny_model, tmp_path) as server, server.client() as client:
        wait_until_ready(client)
        expected = [parse_json(score(client, scan).content)["rows"][0]["probability"] for scan in scans]
        stop = threading.Event()

        def kill():
            while not stop.wait(0.7):
                for worker in workers_of(server)[:1]:
                    with contextlib.suppress(psutil.Error):
                        worker.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for turn in range(20):
                answer = score(client, scans[turn % 4])
                while answer.status_code == 503:  # both were dead: the model is being loaded
                    wait_until_ready(client)
                    answer = score(client, scans[turn % 4])
                content = parse_json(answer.content)
                (row,) = content["rows"]
                # A scan whose worker was killed twice is a failed row, by the local engine's rule.
                assert row["probability"] in (expected[turn % 4], None)
                assert (answer.status_code, row["code"]) in ((200, ""), (500, "E_INTERNAL"))
        finally:
            stop.set()
            killer.join()


@pytest.mark.slow
def test_drifted_golden_scan_ends_the_server_before_it_is_ready(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    golden = tmp_path / "model" / "golden" / "golden.json"
    content = json.loads(golden.read_text())
    content["member_probabilities"] = [[[0.987]] for _ in content["scans"]]
    golden.write_text(json.dumps(content))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "serve", "model", "--port", "0", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "golden scans before the first scan: a probability differs" in done.stderr


def test_sigterm_ends_with_0_and_leaves_nothing(tiny_model, tmp_path):
    with serve(tiny_model, tmp_path) as server:
        with server.client() as client:
            wait_until_ready(client)
            assert list(tmp_path.glob("malignancy-serve-*"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert not list(tmp_path.glob("malignancy-serve-*"))


def test_uploads_of_a_killed_server_are_removed_by_the_next(tmp_path):
    left = tmp_path / "malignancy-serve-killed"
    left.mkdir()
    (left / "lock").touch()
    (left / "00000001").mkdir()
    with upload_folder(tmp_path) as running, upload_folder(tmp_path) as second:
        assert not left.exists()
        assert running.exists()  # its lock is held
        assert second != running
    assert not list(tmp_path.iterdir())


def test_token_is_asked_for_where_there_is_one(tiny_model, tmp_path, scans):
    with serve(tiny_model, tmp_path, environment={TOKEN_VARIABLE: TOKEN}) as server:
        with server.client() as client:
            wait_until_ready(client)  # an orchestrator has no token
            for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
                for path in ("/v1/model", "/metrics", "/openapi.json", "/v1/nothing"):
                    answer = client.get(path, headers=headers)
                    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            answer = client.post("/v1/score", files={"file": b"x"}, headers={"Authorization": "Bearer é".encode()})
            assert answer.status_code == 401
        with server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            assert score(client, scans[0]).status_code == 200
        assert TOKEN not in server.log.read_text()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.org"])
def test_other_machines_need_a_token(host, tiny_model, monkeypatch, capsys):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert run(["serve", str(tiny_model), "--host", host, "--port", "0"]) == 2
    assert f"set {TOKEN_VARIABLE} to a secret" in capsys.readouterr().err
    assert not is_loopback(host)


def test_token_that_can_be_guessed_is_refused(tiny_model, monkeypatch, capsys):
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert run(["serve", str(tiny_model), "--host", "0.0.0.0", "--port", "0"]) == 2
    captured = capsys.readouterr()
    assert "expected at least 16 printable" in captured.err
    assert "secret" not in captured.err.replace("a secret", "")


def test_port_in_use_and_missing_model_are_one_line(served, tiny_model, capsys, tmp_path):
    assert run(["serve", str(tiny_model), "--port", str(served.address[1])]) == 2
    assert "Address already in use; choose another address" in capsys.readouterr().err
    assert run(["serve", str(tmp_path / "nothing")]) == 2
    assert "holds no model.json" in capsys.readouterr().err


def test_missing_extra_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else find(name))
    with pytest.raises(UsageError, match=r"malignancy serve needs fastapi; .*\[serve\]"):
        serve_job("model", ServiceSettings(), on_start=print)


@pytest.mark.slow
def test_tls_is_spoken_with_a_certificate(tiny_model, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out certificate.pem"
    subprocess.run([openssl, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    options = ["--certificate", str(tmp_path / "certificate.pem"), "--key", str(tmp_path / "key.pem")]
    with serve(tiny_model, tmp_path / "server", *options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with server.client(verify=False) as client:  # made for this test
            assert client.get("/v2/health/live").status_code == 200
        with pytest.raises(httpx.TransportError, match=r"disconnected|reset"):
            httpx.get(server.url.replace("https", "http") + "/v2/health/live", trust_env=False)
