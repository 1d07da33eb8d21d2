"""The documentation site: it builds without a warning, and its reference pages hold all that the program has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.codes import Code
from pipeline.config.experiment import Config
from pipeline.config.file import load_training_config

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

pages = pytest.importorskip("reference_pages", reason="Sphinx is not installed: pip install -e '.[docs]'")


def test_every_configuration_key_has_a_row_with_a_meaning():
    text = pages.configuration_page()
    for prefix, section in pages.sections(Config):
        block = text.split(f"## {prefix or 'top level'}\n")[1].split("\n## ")[0]
        for name, field in section.model_fields.items():
            if not pages.is_section(field.annotation):
                assert field.description, f"{prefix}.{name} has no description"
                assert f"| `{name}` | " in block


def test_keys_of_shipped_configurations_stand_on_the_page():
    text = pages.configuration_page()
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        for name in load_training_config(file).model_dump()["training"]:
            assert f"| `{name}` |" in text or f"## training.{name}" in text


def test_defaults_and_types_are_written_as_in_a_file():
    text = pages.configuration_page()
    assert "| `max_epochs` | whole number | `30` |" in text
    assert "| `average_flips` | true or false | `false` |" in text
    assert "| `manifest` | path | *must be given* |" in text
    assert "| `folds` | whole number or `auto` or `null` | `null` |" in text


def test_every_code_has_cause_and_remedy():
    text = pages.codes_page()
    for code in Code:
        assert re.search(rf"^\| `{code}` \| .+ \| .+ \|$", text, re.MULTILINE)


def test_every_command_has_its_help():
    names = list(pages.command_names())
    assert ("train",) in names
    assert ("import", "lidc") in names
    text = pages.command_page()
    for words in names:
        assert f"Usage: malignancy {' '.join(words)} [OPTIONS]" in text


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    for page in (
        "reference/configuration.html",
        "tutorials/quickstart.html",
        "explanation/statistics/index.html",
        "how-to/your-data.html",
    ):
        assert page in index
        assert (tmp_path / "html" / page).exists()
