"""What is said where an optional package is missing, and that the extras that are named exist."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.extras import require_extra

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "absent_one", None)
    message = (
        "a job needs absent_one, absent_two; in the clone, run: .venv/bin/pip install -c constraints.txt -e '.[dicom]'"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        require_extra("dicom", "a job", "json", "absent_one", "absent_two")


def test_nothing_is_said_where_everything_is_there():
    require_extra("dicom", "a job", "json", "pathlib")


def test_every_extra_that_code_or_docs_name_exists():
    files = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    pattern = r"(?:(?:require_extra|install_hint)\(\s*['\"]|-e '\.\[)(\w+)"
    named = {extra for path in files for extra in re.findall(pattern, path.read_text())}
    assert named >= {"dicom", "serve", "s3", "ray", "onnx", "openvino", "search"}
    assert named <= set(EXTRAS)
