"""What may be asked for: paths and URLs under the same rules, on servers that answer and that do not."""

import http.server
import os
import socket
import threading
import time
from collections import Counter
from functools import partial
from typing import ClassVar

import pytest
from bucket import bucket_url
from tiny_models import PREPROCESSING, write_manifest, write_model, write_scans

from pipeline.cases import inputs as inputs_module
from pipeline.cases.inputs import Arrived, read_inputs
from pipeline.cases.prepare import prepare_case
from pipeline.cases.signature import input_signature
from pipeline.cli import run
from pipeline.errors import CaseError, Code, UnfinishedError, UsageError
from pipeline.imaging.preprocess import ModelInput

# Files by URL


@pytest.fixture
def linked(tmp_path):
    """A manifest with one scan in its folder, and one that a link takes out of it."""
    write_scans(tmp_path / "scans", 1)
    write_scans(tmp_path / "secret", 1)
    (tmp_path / "scans" / "link.nii.gz").symlink_to(tmp_path / "secret" / "0000.nii.gz")
    return write_manifest(tmp_path / "scans")


@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_a_link_out_of_the_folder_is_refused_whatever_the_manifest_is_called_by(linked, prefix):
    inputs = read_inputs(f"{prefix}{linked}")
    outcomes = {
        case.case_id: prepare_case(case, PREPROCESSING, modality="CT", root=inputs.root) for case in inputs.cases()
    }
    assert isinstance(outcomes["0000.nii.gz"], ModelInput)
    assert isinstance(outcomes["link.nii.gz"], CaseError)
    assert outcomes["link.nii.gz"].code is Code.E_OUTSIDE_ROOT
    (found,) = (case for case in read_inputs(f"{prefix}{linked.parent}").cases() if case.case_id == "link.nii.gz")
    assert found.fault is not None
    assert found.fault.code is Code.E_OUTSIDE_ROOT


@pytest.mark.parametrize("chain", ["simplecache::file://", "filecache::local://"])
def test_a_chain_of_protocols_is_no_way_round(linked, chain):
    with pytest.raises(UsageError, match="a chain of protocols that ends on this machine"):
        read_inputs(f"{chain}{linked}")


# Web servers


class Server(http.server.SimpleHTTPRequestHandler):
    """Counts what is asked for; answers with ``status`` when that is set."""

    asked: ClassVar[Counter] = Counter()
    status = None

    def send_head(self):
        """Begin the answer to GET and HEAD."""
        self.asked[f"{self.command} {self.path}"] += 1
        if self.status is not None:
            self.send_error(self.status)
            return None
        return super().send_head()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Server, "asked", Counter())
    write_scans(tmp_path / "scans", 3)
    write_manifest(tmp_path / "scans")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path / "scans")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_each_scan_of_a_web_server_is_fetched_once_and_its_change_is_noticed(site, tmp_path, capsys):
    model = write_model(tmp_path / "model")
    command = ["score", str(model), f"{site}/manifest.csv", "--out", "out", "--no-track", "--workers", "1"]
    assert run(command) == 0
    fetched = {name: count for name, count in Server.asked.items() if name.startswith("GET")}
    assert fetched == dict.fromkeys(["GET /manifest.csv", *(f"GET /000{n}.nii.gz" for n in range(3))], 1)
    Server.asked.clear()
    assert run(command) == 0
    assert [name for name in Server.asked if name.startswith("GET")] == ["GET /manifest.csv"]
    os.utime(tmp_path / "scans" / "0001.nii.gz", (1e9, 1e9))
    assert run(command) == 2
    assert "1 inputs have changed since they were scored (first: 0001.nii.gz)" in capsys.readouterr().err


def test_one_scan_by_url_is_fetched_once(site):
    (case,) = read_inputs(f"{site}/0000.nii.gz").cases()
    prepare_case(case, PREPROCESSING, modality="CT", root=None)
    assert Server.asked["GET /0000.nii.gz"] == 1


@pytest.mark.parametrize("path", ["/manifest.csv", "/0000.nii.gz", "/nothing", ""])
@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (503, 3, "cannot be reached (the server says 503)"),
        (403, 2, "may not be read with these credentials"),
        (404, 2, "no such manifest"),
    ],
)
def test_a_server_that_refuses_is_one_line(site, monkeypatch, capsys, path, status, code, says):
    monkeypatch.setattr(Server, "status", status)
    assert run(["score", "model", f"{site}{path}", "--out", "out"]) == code
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("path", ["/manifest.csv", "/0000.nii.gz", ""])
def test_a_server_that_is_not_there_is_not_the_disks_fault(path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}{path}"
        assert run(["score", "model", url, "--out", "out"]) == 3
    error = capsys.readouterr().err
    assert f"malignancy: {url}: cannot be reached (Connection refused); check the address" in error
    assert len(error.splitlines()) == 1


def test_a_server_that_goes_away_fails_the_row_and_not_the_case(site, monkeypatch, tmp_path):
    cases = list(read_inputs(f"{site}/manifest.csv").cases())
    monkeypatch.setattr(Server, "status", 503)
    with pytest.raises(UnfinishedError, match="cannot be reached"):
        prepare_case(cases[0], PREPROCESSING, modality="CT", root=None)
    monkeypatch.setattr(Server, "status", 404)
    outcome = prepare_case(cases[0], PREPROCESSING, modality="CT", root=None)
    assert isinstance(outcome, CaseError)
    assert outcome.code is Code.E_NOT_FOUND


def test_the_look_of_a_scan_behind_a_url_is_part_of_its_signature(tmp_path):
    write_scans(tmp_path / "scans", 1)
    (case,) = read_inputs(bucket_url(tmp_path / "scans" / "0000.nii.gz")).cases()
    before = input_signature(case)
    os.utime(tmp_path / "scans" / "0000.nii.gz", (1e9, 1e9))
    assert input_signature(case) != before


# Scans that are still arriving


@pytest.mark.parametrize(
    ("modified", "arrived", "age"),
    [
        (-10, -5, 10),  # seconds from now
        (1e9, -5, 5),  # a camera's clock in the next century
        (2, 2, -2),  # a file server a little ahead
        (1e9, 1e9, float("inf")),
    ],
)
def test_how_long_a_file_has_been_still(modified, arrived, age):
    now = 2e9
    assert inputs_module._age(now + modified, now + arrived, now) == age


def test_a_time_in_the_future_does_not_wait_for_that_time(tmp_path):
    cases = write_scans(tmp_path, 2)
    os.utime(cases[0].path, (time.time() + 1e8,) * 2)
    arrived = Arrived(1000)
    assert list(arrived(cases)) == []
    assert arrived.waiting == 2
    time.sleep(0.2)
    assert [case.case_id for case in Arrived(0.15)(cases)] == ["0000.nii.gz", "0001.nii.gz"]
