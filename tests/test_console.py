"""What is printed is text, whatever it came from and wherever it goes."""

import io
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from rich.table import Table
from tiny_models import write_model, write_scans

from pipeline.cli import run
from pipeline.console import PlainStream, plain_output, printable, table_text

TITLE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj"


def test_controls_are_shown_as_their_codes_and_other_text_stays():
    assert printable(TITLE) == r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj"
    assert printable("a\tb\nLäsion ≥ 3 mm, 病变\r\0\x7f") == "a\tb\nLäsion ≥ 3 mm, 病变\\r\0\x7f".replace(
        "\\r\0\x7f", r"\x0d\x00\x7f"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_stream_that_lacks_a_character_shows_its_code(encoding):
    raw = io.BytesIO()
    stream = PlainStream(io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    print("≥ é \udcff\x1b", file=stream, flush=True)
    shown = {"ascii": r"\u2265 \xe9", "latin-1": r"\u2265 é", "utf-8": "≥ é"}[encoding]
    assert raw.getvalue().decode(encoding) == shown + r" \udcff\x1b" + "\n"


def test_output_is_wrapped_once_and_given_back(capsys):
    before = sys.stdout, sys.stderr
    with plain_output(), plain_output():
        print("\x1b[31m")
        print("\x1b[31m", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("\\x1b[31m\n", "\\x1b[31m\n")


def test_markup_in_a_table_is_text(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table("[red]x", ":smile:", title="[bold]title")
    table.add_row("[link=http://a.example]b[/link]", "[/]")
    text = table_text(table, width=80)
    for name in ("[red]x", ":smile:", "[bold]title", "[link=http://a.example]b[/link]", "[/]"):
        assert name in text
    assert "\x1b" not in text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 1)
    (tmp_path / "scans" / f"a{TITLE}.nii.gz").write_bytes(b"")
    (tmp_path / "scans" / "a\nforged line.nii.gz").write_bytes(b"")
    return tmp_path / "scans"


def test_names_of_files_reach_no_terminal(folder, capsys):
    assert run(["check", str(folder)]) == 1
    assert run(["check", f"{folder}/nothing{TITLE}"]) == 2
    assert run(["score", "model", f"{folder}/nothing\nhere.csv", "--out", "out"]) == 2
    printed = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)
    assert printed.count(r"\x1b]0;owned\x07") == 2
    assert r"a\nforged line.nii.gz  rejected  E_EMPTY_FILE" in printed
    assert r"nothing\nhere.csv: E_NOT_FOUND" in printed


@pytest.mark.parametrize(
    "settings", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_a_terminal_without_utf8_ends_no_command(folder, tmp_path, settings):
    (folder / "Läsion ≥.nii.gz").write_bytes(b"")
    with open(os.fsencode(folder) + b"/\xff.nii.gz", "wb"):
        pass
    environment = {**os.environ, **settings}
    command = [sys.executable, "-m", "pipeline", "check", str(folder), "--json", "check.json"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"E_EMPTY_FILE" in done.stdout
    assert b"5 cases: 1 ok" in done.stdout


def test_a_name_that_is_not_utf8_is_a_row(folder, tmp_path, capsys):
    with open(os.fsencode(folder) + b"/\xff.nii.gz", "wb"):
        pass
    model = write_model(tmp_path / "model")
    assert run(["score", str(model), str(folder), "--out", "out", "--no-track", "--workers", "1"]) == 1
    assert pq.read_metadata("out/scores.parquet").num_rows == 4
    assert "\nforged line" not in capsys.readouterr().out
