"""README and pages name commands, options, targets, files and figures that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

reference = pytest.importorskip("reference_pages", reason="Sphinx is not installed: pip install -e '.[docs]'")

README = ROOT / "README.md"
WRITTEN_BY_HAND = subprocess.run(
    ["git", "ls-files", "README.md", "CONTRIBUTING.md", "docs/*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
).stdout.split()
PAGES = [ROOT / name for name in WRITTEN_BY_HAND] or [README, ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ |0 22 \* \* \* |\| `)?(?:\.venv/bin/)?malignancy ([a-z].*)$", re.MULTILINE)
FILE = re.compile(r"\b(?:pipeline|benchmarks|tests|tools|configs)/[\w/]+\.(?:py|yaml)\b")
INTERVAL = re.compile(r"\d\.\d+ \(-?\d\.\d+ to \d\.\d+\)")


def commands(text):
    """What follows ``malignancy`` in code blocks and in tables of commands, without comments."""
    lines = "\n".join(BLOCK.findall(text)) + "\n" + "\n".join(line for line in text.splitlines() if "| `malig" in line)
    return [re.split(r"\s#\s|` \|", command)[0] for command in COMMAND.findall(lines)]


@pytest.fixture(scope="module")
def help_of():
    return {" ".join(words): reference.help_text(words) for words in reference.command_names()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page, help_of):
    for command in commands(page.read_text(encoding="utf-8")):
        words = command.split()
        name = " ".join(words[:2]) if words[0] == "import" else words[0]
        assert name in help_of, command
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", command):
            assert re.search(rf"{option}\b", help_of[name]), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_repository_that_a_page_names_exist(page):
    missing = [name for name in FILE.findall(page.read_text(encoding="utf-8")) if not (ROOT / name).exists()]
    assert not missing


def test_own_scans_take_five_commands():
    section = README.read_text(encoding="utf-8").split("## Your own scans")[1].split("\n## ")[0]
    assert [command.split()[0] for command in commands(section)] == ["init", "check", "train", "ui", "score"]


def test_every_command_is_in_the_overview(help_of):
    named = commands((ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8"))
    assert {name for name in help_of if not any(command.startswith(name) for command in named)} == set()


def test_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "ui"} <= named <= targets


def test_figures_of_the_readme_are_those_of_the_results():
    results = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    table = README.read_text(encoding="utf-8").split("## Results")[1]
    intervals = INTERVAL.findall(table)
    assert len(intervals) >= 4
    assert [interval for interval in intervals if interval not in results] == []


def test_readme_can_be_read_in_minutes():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120
