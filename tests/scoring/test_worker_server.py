"""When the server of the workers is started before anything else is imported, and what a Ctrl-C does to it."""

from __future__ import annotations

import os
import signal

import pytest

from pipeline.imaging import lean_imports
from pipeline.scoring.engines import worker_server


@pytest.fixture
def started(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(worker_server, "start_server", lambda: calls.append(1))
    return calls


@pytest.mark.parametrize(
    ("models", "source", "out", "restart", "expected"),
    [
        ("model", "scans", "new", False, True),
        ("model, model", "scans", "new", False, True),
        ("models:/malignancy@champion", "s3://bucket/scans", "new", False, True),
        ("model", "scans", "old", False, False),  # there may be nothing left to do
        ("model", "scans", "old", True, True),
        ("modle", "scans", "new", False, False),
        ("model,modle", "scans", "new", False, False),
        ("model", "snacs", "new", False, False),
    ],
)
def test_it_starts_early_where_names_say_that_there_is_work(
    tmp_path, monkeypatch, started, models, source, out, restart, expected
):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "scans", "old/parts"):
        (tmp_path / name).mkdir(parents=True)
    worker_server.start_server_early(models, source, tmp_path / out, restart=restart)
    assert bool(started) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("score model scans --out new", True),
        ("score model scans --no-track --out new --workers 1", True),
        ("score model scans --out old --restart", True),
        ("score model scans --out old", False),
        ("score model scans --out", False),  # the rest is for the parser: a mistake, or words in another order
        ("score model scans", False),
        ("score modle scans --out new", False),
        ("score --out new model scans", False),
        ("score model scans --out new --engine ray", False),
        ("score model scans --out new --help", False),
        ("score", False),
    ],
)
def test_it_starts_before_the_command_line_is_parsed_where_that_is_plain(
    tmp_path, monkeypatch, started, line, expected
):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "scans", "old/parts"):
        (tmp_path / name).mkdir(parents=True)
    worker_server.start_server_for(line.split())
    assert bool(started) == expected


def test_an_interrupt_while_it_starts_is_late_and_not_lost(monkeypatch):
    inherited = []

    def start():
        inherited.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(worker_server.forkserver, "ensure_running", start)
    with pytest.raises(KeyboardInterrupt):
        worker_server.start_server()
    assert signal.SIGINT in inherited[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("lean", [True, False])
def test_workers_are_lean_where_their_parent_is(monkeypatch, lean):
    modules = []
    monkeypatch.setattr(worker_server.forkserver, "set_forkserver_preload", modules.extend)
    monkeypatch.setattr(worker_server, "is_installed", lambda: lean)
    worker_server.context()
    assert modules == ["pipeline.scoring.engines.worker_preload" if lean else "pipeline.scoring.engines.worker_process"]
    assert not lean_imports.is_installed()
