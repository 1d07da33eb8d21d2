"""The pool that is asked at any time: every future is answered, with a row or with the reason why there is none."""

from __future__ import annotations

import json
import queue
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from tiny_models import write_model, write_scans

from pipeline.errors import ModelError, UnfinishedError
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.engines.live_pool import LivePool
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.model_description import read_description
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("live") / "model")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("live_scans"), 6)


def pool_of(model, **settings) -> LivePool:
    identity = Ensemble.of([read_description(model)]).identity("eager")
    settings = {"workers": 2, "timeout_seconds": 60.0, "most_waiting": 32, **settings}
    return LivePool(ScorerSetup((model,)), identity, **settings)


def test_every_future_has_the_row_of_its_own_case(model, cases):
    expected = {row.case_id: row.probability for row in score_cases(Scorer(load_model(model)), cases)}
    damaged = replace(cases[0], case_id="gone", path=cases[0].path.with_name("gone.nii.gz"))
    with closing(pool_of(model)) as pool:
        futures = [*pool.submit(cases[:2]), *pool.submit([damaged]), *pool.submit(cases[2:])]
        rows = [future.result(60) for future in futures]
        assert pool.unanswered == 0
        assert pool.ready_workers > 0
    assert [row.case_id for row in rows] == [case.case_id for case in (*cases[:2], damaged, *cases[2:])]
    assert (rows[2].status, rows[2].code) == ("rejected", "E_NOT_FOUND")
    for row in (*rows[:2], *rows[3:]):
        assert row.probability == pytest.approx(expected[row.case_id], abs=1e-6)


def test_more_cases_than_may_wait_are_refused_all_or_none(model, cases):
    with closing(pool_of(model, workers=1, most_waiting=3)) as pool:
        with pytest.raises(queue.Full):
            pool.submit(cases)
        assert pool.unanswered == 0
        assert not pool.has_room(4)
        assert len([future.result(60) for future in pool.submit(cases[:3])]) == 3


def test_cancelled_case_is_not_scored(model, cases):
    with closing(pool_of(model, workers=1)) as pool:
        futures = pool.submit(cases)
        assert futures[-1].cancel()  # the only worker is still loading the model
        assert [future.result(60).status for future in futures[:-1]] == ["scored"] * 5
        assert pool.unanswered == 0


def test_closed_pool_answers_what_is_left(model, cases):
    pool = pool_of(model, workers=1)
    futures = pool.submit(cases)
    pool.close()
    assert all(future.done() for future in futures)
    assert isinstance(futures[-1].exception(), UnfinishedError)
    with pytest.raises(UnfinishedError, match="is ending"):
        pool.submit(cases)
    assert pool.ready_workers == 0


def test_model_that_cannot_be_loaded_ends_the_pool_with_its_error(model, cases, tmp_path):
    golden = write_model(tmp_path / "model") / "golden" / "golden.json"
    content = json.loads(golden.read_text())
    golden.write_text(json.dumps({**content, "member_probabilities": []}))
    ended = threading.Event()
    with closing(pool_of(tmp_path / "model", workers=1)) as pool:
        (future,) = pool.submit(cases[:1])
        pool.on_fault(ended.set)
        with pytest.raises(ModelError, match=r"golden\.json"):
            future.result(60)
        assert ended.wait(10)
        assert isinstance(pool.fault, ModelError)
        late = threading.Event()
        pool.on_fault(late.set)
        assert late.is_set()
