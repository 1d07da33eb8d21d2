"""The command ``listen``: what it refuses, and the files of its documentation."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import yaml
from tiny_models import write_model

from pipeline.cli import run
from pipeline.config.listening import ListenConfig
from pipeline.scoring.lock import exclusive

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


def write(folder, **changes) -> str:
    config = {
        "folder": "listen",
        "calling_ae_titles": ["CT1"],
        "destinations": [{"name": "web", "kind": "stow-rs", "url": "http://127.0.0.1:9"}],
        **changes,
    }
    path = folder / "listen.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_missing_configuration_is_wrong_usage(tmp_path, model, capsys):
    assert run(["listen", str(model), "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in one_line(capsys)


def test_missing_secret_is_named_before_anything_is_made(tmp_path, model, capsys, monkeypatch):
    monkeypatch.delenv("PACS_TOKEN", raising=False)
    web = {"name": "web", "kind": "stow-rs", "url": "http://127.0.0.1:9", "token_env": "PACS_TOKEN"}
    assert run(["listen", str(model), "--config", write(tmp_path, destinations=[web])]) == 2
    assert "web: environment variable PACS_TOKEN is not set" in one_line(capsys)
    assert not (tmp_path / "listen").exists()


def test_missing_certificate_is_wrong_usage(tmp_path, model, capsys):
    config = write(tmp_path, tls={"certificate": "a.pem", "key": "a.key"})
    assert run(["listen", str(model), "--config", config]) == 2
    assert "tls: certificate, key or ca cannot be used" in one_line(capsys)


def test_missing_package_is_named_with_the_extra(tmp_path, model, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynetdicom", None)
    assert run(["listen", str(model), "--config", write(tmp_path)]) == 2
    said = one_line(capsys)
    assert "malignancy listen needs pynetdicom; " in said
    assert "[dicom]" in said


def test_folder_of_another_listener_is_refused(tmp_path, model, capsys):
    config = write(tmp_path)
    (tmp_path / "listen").mkdir()
    with exclusive(tmp_path / "listen"):
        assert run(["listen", str(model), "--config", config]) == 2
    assert "is being written by process" in one_line(capsys)


@pytest.mark.slow
def test_taken_port_is_said_with_exit_code_3(tmp_path, model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = write(tmp_path, port=other.getsockname()[1])
        assert run(["listen", str(model), "--config", config]) == 3
    assert "choose another address or port" in one_line(capsys)


def test_configurations_of_the_page_can_be_used():
    text = (PAGES / "pacs.md").read_text(encoding="utf-8")
    first, *parts = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    for changes in ({}, *parts):
        ListenConfig.model_validate({**first, **changes})
    ListenConfig.model_validate(yaml.safe_load((PAGES / "pacs" / "listen.yaml").read_text()))
    services = yaml.safe_load((PAGES / "pacs" / "docker-compose.yaml").read_text())["services"]
    assert set(services) == {"orthanc", "malignancy"}
    assert json.loads((PAGES / "pacs" / "orthanc.json").read_text())["DicomWeb"]["Enable"]
    table = dict(re.findall(r"^\| `(\w+)`(?:, `\w+`)* \| (.*) \|$", text, re.MULTILINE))
    keys = set(re.findall(r"`(\w+)`", "".join(line.split(" | ")[0] for line in text.splitlines() if line[:3] == "| `")))
    assert set(ListenConfig.model_fields) - {"folder", "calling_ae_titles"} <= keys
    limits = yaml.safe_load(re.search(r"`(\{associations.*?\})`", table["limits"])[1])
    assert limits == ListenConfig.model_fields["limits"].default.model_dump()
    retry = yaml.safe_load(re.search(r"`(\{first_seconds.*?\})`", table["retry"])[1])
    assert retry == ListenConfig.model_fields["retry"].default.model_dump()
