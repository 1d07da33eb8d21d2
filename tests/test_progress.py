"""Progress: bars of 80 columns on a terminal, lines now and then elsewhere, nothing for what is done at once."""

import os
import pty
import re
import subprocess
import sys

import pytest

from pipeline import progress
from pipeline.progress import ProgressReport, duration, with_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_is_done_at_once_says_nothing(capsys):
    assert list(with_progress(range(1000), "scans read", total=1000)) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_a_line_every_few_seconds_with_the_time_left(clock, capsys):
    with ProgressReport("scans read", total=100) as report:
        for _ in range(30):
            clock[0] += 1.0
            report.advance("2 rejected")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scans read: 5 of 100, 2 rejected, 95 s left"
    assert len(lines) == 6


def test_without_a_total_the_pace_is_told(clock, capsys):
    with ProgressReport("scans looked at") as report:
        for _ in range(6):
            clock[0] += 2.0
            report.advance()
    assert capsys.readouterr().err.splitlines()[0] == "scans looked at: 3, 0.5 a second"


def test_what_was_done_before_does_not_flatter_the_pace(clock, capsys):
    with ProgressReport("scans scored", total=1000, done=900) as report:
        clock[0] += 10.0
        report.advance()
    assert capsys.readouterr().err == "scans scored: 901 of 1000, 16 min left\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (7140, "119 min"), (9000, "2 h 30 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_on_a_terminal_a_bar_of_80_columns_that_goes_away():
    code = (
        "import time\nfrom pipeline.progress import ProgressReport\n"
        "with ProgressReport('network 2 of 15, epoch', total=30) as report:\n"
        "    for n in range(30):\n"
        "        time.sleep(0.02)\n"
        "        report.advance('loss 0.431, validation AUROC 0.874, and more than a line of 80 columns holds')\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:  # the terminal closes with the process
            pass
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    lines = [line for line in re.split(r"[\r\n]", text) if line.strip()]
    assert any("network 2 of 15, epoch" in line and "loss 0.431" in line for line in lines)
    assert max(map(len, lines)) <= 80
