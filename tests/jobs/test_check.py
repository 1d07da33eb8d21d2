"""``malignancy check``: what it writes."""

import json

import pytest
from tiny_models import write_manifest, write_scans

from pipeline.cli import run


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 2)
    return write_manifest(tmp_path / "scans")


@pytest.mark.parametrize("name", ["scans/manifest.csv", "scans", "mine.json"])
def test_json_replaces_what_a_check_wrote_and_nothing_else(manifest, capsys, name, tmp_path):
    for _ in range(2):
        assert run(["check", str(manifest), "--json", "check.json"]) == 1  # it has no labels
    assert len(json.loads((tmp_path / "check.json").read_text())["cases"]) == 2
    (tmp_path / "mine.json").write_text('{"cases": "precious"}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(["check", str(manifest), "--json", name]) == 2
    assert f"--json {name}: exists, and no check wrote it; name another file" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
