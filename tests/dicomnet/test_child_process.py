"""Processes beside the listener are started again when they die, also while they start."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from dicom_network import wait_until

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.child_process import ChildProcess, end_with, say
from pipeline.errors import UnfinishedError


def work(config, parent):
    """Die at the start as often as a file says, else live."""
    left = int((config.folder / "deaths").read_text())
    if left:
        (config.folder / "deaths").write_text(str(left - 1))
        os._exit(9)
    (config.folder / "pid").write_text(str(os.getpid()))
    say(parent, "ready")
    end_with(parent)


@pytest.fixture
def child(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.dicomnet.listening.child_process._PAUSE_SECONDS", 0.0)
    destination = {"name": "none", "kind": "stow-rs", "url": "http://127.0.0.1:9"}
    config = ListenConfig(folder=tmp_path, calling_ae_titles=["A"], destinations=[destination])
    process = ChildProcess("worker", work, config, Audit(tmp_path, "test"))
    (tmp_path / "deaths").write_text("0")
    yield process
    process.stop()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_killed_process_is_started_again_though_it_dies_while_it_starts(child, tmp_path):
    assert child.start() == "ready"
    first = int((tmp_path / "pid").read_text())
    (tmp_path / "deaths").write_text("2")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not child._process.is_alive())
    for _ in range(3):
        child.keep_alive()
    second = int((tmp_path / "pid").read_text())
    assert second != first
    assert is_alive(second)
    time.sleep(0.1)
    child.keep_alive()
    assert int((tmp_path / "pid").read_text()) == second


def test_process_that_never_starts_is_an_error(child, tmp_path):
    child.start()
    (tmp_path / "deaths").write_text("100")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not child._process.is_alive())
    for _ in range(4):
        child.keep_alive()
    with pytest.raises(UnfinishedError, match="the worker did not start"):
        child.keep_alive()


def test_process_ends_with_whoever_started_it(child, tmp_path):
    child.start()
    pid = int((tmp_path / "pid").read_text())
    child._connection.close()
    wait_until(lambda: not child._process.is_alive() or not is_alive(pid))
