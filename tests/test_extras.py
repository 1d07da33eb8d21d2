"""What is said where an optional package is missing, and that the extras that are named exist."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.extras import install_hint, require_extra

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
    named = {
        extra
        for path in files
        for extra in re.findall(
            r"(?:require_extra|install_hint)\(\s*['\"](\w+)['\"]|-e '\.\[(\w+)\]'", path.read_text()
        )
        for extra in extra
        if extra
    }
    assert named >= {"dicom", "serve", "s3", "ray", "onnx", "openvino", "search"}
    assert named <= set(EXTRAS)


@pytest.mark.parametrize("extra", ["dicom", "serve"])
def test_the_command_has_what_it_needs_in_a_clone(extra):
    assert (ROOT / "constraints.txt").is_file()
    assert install_hint(extra).endswith(f"'.[{extra}]'")
