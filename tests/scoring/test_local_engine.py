"""The local engine: one row for each case, in order, whatever its workers go through."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_models import cases_of, write_model, write_scans

from pipeline.cases.case import Case
from pipeline.errors import ModelError, UnfinishedError
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.engines.local import _peek, score_in_processes
from pipeline.scoring.engines.worker_server import start_server
from pipeline.scoring.engines.workers import ScorerSetup, Worker
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("scans"), 30)


@pytest.fixture(scope="module")
def expected(model, cases):
    return list(score_cases(Scorer(load_model(model)), cases))


def engine(model, cases, **options):
    setup = ScorerSetup((model,))
    return score_in_processes(setup, cases, setup.build().identity, **options)


def workers_of_this_process() -> set[int]:
    """Process ids of the forkserver's children: workers are nobody else's grandchildren."""
    ours = psutil.Process()
    found = {child.pid: child for child in ours.children(recursive=True)}
    return {pid for pid, child in found.items() if child.is_running() and child.ppid() in found}


def same(rows, expected):
    assert [row.case_id for row in rows] == [row.case_id for row in expected]
    assert [(row.status, row.code) for row in rows] == [(row.status, row.code) for row in expected]
    ours, theirs = (
        [np.nan if row.probability is None else row.probability for row in each] for each in (rows, expected)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (2, 8), (3, 64)])
def test_any_number_of_workers_and_any_batch_give_the_rows_of_a_plain_loop(model, cases, expected, workers, batch_size):
    same(list(engine(model, cases, workers=workers, batch_size=batch_size)), expected)


def test_a_hanging_scan_is_cut_off_and_costs_its_own_row(model, cases, expected, tmp_path):
    # A pipe is refused by the reader; a file system that does not answer cannot be had here. So a reader that hangs.
    hanging = Case(case_id="hangs", image="hangs", path=HangingPath(), center_mm=(0.0, 0.0, 0.0))
    rows = list(engine(model, [*cases[:5], hanging, *cases[5:]], workers=2, batch_size=4, timeout_seconds=1.5))
    assert (rows[5].status, rows[5].code) == ("rejected", "E_TIMEOUT")
    assert rows[5].seconds >= 1.5
    same(rows[:5] + rows[6:], expected)


def test_a_scan_that_kills_its_reader_is_tried_twice_and_fails_alone(model, cases, expected, tmp_path):
    counter = tmp_path / "deaths"
    deadly = Case(case_id="kills", image="kills", path=DeadlyPath(str(counter)), center_mm=(0.0, 0.0, 0.0))
    rows = list(engine(model, [*cases[:9], deadly, *cases[9:]], workers=2, batch_size=8))
    assert (rows[9].status, rows[9].code) == ("failed", "E_INTERNAL")
    assert "died twice (signal 9)" in rows[9].reason
    assert counter.read_text() == "xx"
    same(rows[:9] + rows[10:], expected)


def test_a_killed_worker_loses_and_repeats_nothing(model, cases, expected):
    stop = threading.Event()

    def reap():
        rng = np.random.default_rng(0)
        for _ in range(6):
            if stop.wait(rng.uniform(0.3, 0.8)):
                return
            if workers := sorted(workers_of_this_process()):
                os.kill(int(rng.choice(workers)), signal.SIGKILL)

    thread = threading.Thread(target=reap)
    thread.start()
    many = [Case(**{**vars(case), "case_id": f"{turn}-{case.case_id}"}) for turn in range(20) for case in cases]
    rows = list(engine(model, many, workers=2, batch_size=4))
    stop.set()
    thread.join()
    assert [row.case_id for row in rows] == [case.case_id for case in many]
    failed = sum(row.status == "failed" for row in rows)
    assert failed <= 1  # only a case whose worker was killed twice
    scored = [
        (row.probability, expected[number % 30].probability) for number, row in enumerate(rows) if row.probability
    ]
    np.testing.assert_allclose(*np.array(scored).T, atol=1e-6)


def test_a_model_that_does_not_load_ends_the_run_with_its_reason(model, cases, tmp_path):
    setup = ScorerSetup((model,))
    identity = setup.build().identity
    with pytest.raises(ModelError, match=r"nowhere: holds no model.json; give a model directory"):
        list(score_in_processes(ScorerSetup((tmp_path / "nowhere",)), cases, identity, workers=1))


def test_a_model_that_vanishes_under_a_running_batch_leaves_it_unfinished(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    cases = write_scans(tmp_path / "scans", 2)
    deadly = Case(case_id="kills", image="kills", path=DeadlyPath(str(tmp_path / "deaths")), center_mm=(0.0, 0.0, 0.0))
    waiting = Case(case_id="waits", image="waits", path=WaitingPath(str(tmp_path / "go")), center_mm=(0.0, 0.0, 0.0))
    rows = engine(tmp_path / "model", [cases[0], waiting, deadly, cases[1]], workers=1, batch_size=1)
    assert next(rows).status == "scored"
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "go").touch()
    with pytest.raises(UnfinishedError, match=r"a worker cannot start: ModelError: .*holds no model.json"):
        list(rows)


@pytest.mark.parametrize(("count", "batch_size", "started"), [(1, 8, 1), (2, 8, 2), (5, 8, 3), (30, 8, 3)])
def test_no_more_workers_start_than_there_is_work(model, cases, expected, monkeypatch, count, batch_size, started):
    counted = []
    start = Worker.start.__func__
    monkeypatch.setattr(Worker, "start", classmethod(lambda cls, setup: counted.append(1) or start(cls, setup)))
    same(list(engine(model, cases[:count], workers=3, batch_size=batch_size)), expected[:count])
    assert len(counted) == started


def test_few_scans_are_spread_over_the_workers(model, cases, monkeypatch):
    given = []
    give = Worker.give
    monkeypatch.setattr(Worker, "give", lambda worker, job: given.append(len(job.cases)) or give(worker, job))
    list(engine(model, cases[:5], workers=2, batch_size=8))
    assert given == [3, 2]


def test_a_slow_listing_is_not_waited_for(cases, monkeypatch):
    assert _peek(iter(cases), 10) == (cases[:10], False)
    assert _peek(iter(cases[:10]), 11) == (cases[:10], True)
    monkeypatch.setattr("pipeline.scoring.engines.local._PEEK_SECONDS", -1.0)
    assert _peek(iter(cases), 10) == (cases[:1], False)


def test_changed_weights_under_golden_scans_end_the_run(model, cases, tmp_path):
    import json

    shutil.copytree(model, tmp_path / "model")
    path = tmp_path / "model" / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    golden["member_probabilities"][0][0][0] += 2e-4  # first member, scan and finding
    path.write_text(json.dumps(golden))
    with pytest.raises(UnfinishedError, match=r"golden scans before the first scan: .* 0\.0002 .*limit 0\.0001"):
        list(engine(tmp_path / "model", cases, workers=1))


def test_leaving_early_ends_the_workers(model, cases):
    before = workers_of_this_process()
    rows = engine(model, cases, workers=2, batch_size=2)
    next(rows)
    assert len(workers_of_this_process() - before) == 2
    rows.close()
    deadline = time.monotonic() + 30
    while workers_of_this_process() - before:
        assert time.monotonic() < deadline


def test_vanished_scans_are_rows_too(model, tmp_path):
    cases = write_scans(tmp_path / "scans", 3)
    cases[1].path.unlink()
    rows = list(engine(model, cases, workers=2))
    assert [row.code for row in rows] == ["", "E_NOT_FOUND", ""]
    assert cases_of(tmp_path / "scans")


class HangingPath:
    """Stands for a path whose file never answers."""

    def is_dir(self):
        time.sleep(600)


class WaitingPath:
    """Stands for a file that is there once another one is."""

    def __init__(self, other: str) -> None:
        self.other = other

    def is_dir(self):
        while not Path(self.other).exists():
            time.sleep(0.02)
        raise FileNotFoundError(self.other)


class DeadlyPath:
    """Stands for a file that takes its reader's process with it."""

    def __init__(self, counter: str) -> None:
        self.counter = counter

    def is_dir(self):
        with open(self.counter, "a") as handle:
            handle.write("x")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_fork_server_that_has_just_died_is_started_again(model, cases, expected, monkeypatch):
    from multiprocessing import forkserver

    start_server()
    server = forkserver._forkserver
    os.kill(server._forkserver_pid, signal.SIGKILL)
    os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOWAIT)
    unnoticed, ensure_running = iter([None, None]), type(server).ensure_running
    monkeypatch.setattr(
        type(server), "ensure_running", lambda self: next(unnoticed, 0) is None or ensure_running(self)
    )  # as if it died between the look and the connection
    monkeypatch.setattr(forkserver, "ensure_running", server.ensure_running)
    same(list(engine(model, cases[:3], workers=1)), expected[:3])
