"""docs/how-to/your-data.md: every command is run on the made folders, and prints what the page shows."""

import re

import pytest
from doc_commands import DOCS, commands, shows
from made_folders import MAKERS

from pipeline.cli import run

PAGE = list(commands(DOCS / "how-to" / "your-data.md"))
INITS = [(arguments, output) for arguments, output in PAGE if arguments[0] == "init"]


def without_numbers(text):
    """Figures of a training depend on the processor's last bits; the words around them do not."""
    return re.sub(r"(?<!\w)-?\d+(\.\d+)?", "#", re.sub(r"\s+", " ", text))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MALIGNANCY_PATIENT_SALT", "a long secret phrase of your own")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_every_made_folder_is_on_the_page():
    assert [arguments[1] for arguments, _ in INITS] == sorted(MAKERS, key=[each[0][1] for each in INITS].index)
    assert {arguments[1] for arguments, _ in INITS} == set(MAKERS)


@pytest.mark.parametrize("name", list(MAKERS))
def test_init_says_what_the_page_shows(name, here, capsys, write_made_folder):
    ((arguments, output),) = [(arguments, output) for arguments, output in INITS if arguments[1] == name]
    write_made_folder(name, here / name)
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert shows(output, printed), printed


@pytest.mark.slow
def test_the_whole_walk_says_what_the_page_shows(here, capsys, write_made_folder):
    walk = [(arguments, output) for arguments, output in PAGE if "forty_cases" in " ".join(arguments)]
    assert [arguments[0] for arguments, _ in walk] == ["init", "check", "train", "score"]
    write_made_folder("forty_cases", here / "forty_cases")
    for arguments, output in walk:
        assert run(arguments) == 0
        printed = capsys.readouterr().out
        assert shows(without_numbers(output), without_numbers(printed)), printed
