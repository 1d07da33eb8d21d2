"""The Ray engine: a cluster that is not there is said within seconds."""

import contextlib
import socket

import pytest

from pipeline.errors import UnfinishedError
from pipeline.scoring.engines import ray_engine

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")


@contextlib.contextmanager
def port(*, listening):
    """A port of this machine where nothing answers, or somebody who never says a word."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # Ray asks at the machine's own address, whatever it is told
        if listening:
            taken.listen()
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("listening", [False, True])
def test_a_cluster_that_does_not_answer_is_one_line_in_bounded_time(listening, monkeypatch):
    monkeypatch.setattr(ray_engine, "_PATIENCE_SECONDS", 4.0)
    with port(listening=listening) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(
            UnfinishedError, match=rf"RAY_ADDRESS {address}: no Ray cluster answers there \(waited 4 s\)"
        ):
            list(ray_engine.score_on_ray(None, iter([None]), None))
    assert not ray.is_initialized()


def test_an_address_that_is_none_is_one_line(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(UnfinishedError, match=r"RAY_ADDRESS nonsense: cannot be reached \(ValueError\)"):
        list(ray_engine.score_on_ray(None, iter([None]), None))
