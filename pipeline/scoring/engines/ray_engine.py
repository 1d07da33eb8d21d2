"""The Ray engine: the same workers and the same rows, on the machines of a Ray cluster.

Ray Data spreads blocks of cases over a pool of actors. Each actor keeps one worker process of the local engine, so a
scan that hangs or kills its reader costs one row here too, and never an actor. Only the process that started the run
writes rows: a block that Ray runs twice, because a node died, is written once.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.cases.case import Case
from pipeline.errors import UnfinishedError
from pipeline.extras import require_extra
from pipeline.machine import usable_cores
from pipeline.scoring.engines.local import WorkerPool
from pipeline.scoring.engines.workers import RowT, WorkerSetup
from pipeline.scoring.rows import ModelIdentity

_WINDOW = 20_000  # cases that are handed to Ray at a time: the listing is lazy, a Ray dataset is not
_BLOCK = 64  # cases of one task
# CPUs that an actor reserves. Actors that reserve whole ones leave none for Ray's own reading tasks, which then wait
# for ever. Ray does not count the worker process, which does the work.
_SHARE_OF_CPU = 0.5
_PATIENCE_SECONDS = 30.0  # for a cluster to answer; one that does takes about two
_ASK = "import os, ray; ray.init(address=os.environ['RAY_ADDRESS'], log_to_driver=False); ray.shutdown()"


def score_on_ray(
    setup: WorkerSetup[RowT],
    cases: Iterable[Case],
    identity: ModelIdentity,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    timeout_seconds: float = 300.0,
) -> Iterator[RowT]:
    """Score cases on the cluster at ``RAY_ADDRESS``, or on a local one; one row for each, in order.

    Args:
        setup: model directories and images must lie under the same paths on every node.
        cases: listed lazily.
        identity: of the rows of cases that no worker answers for.
        batch_size: cases that go through the network together.
        workers: how many actors; one per core of the cluster by default.
        timeout_seconds: that one scan may take to be read.

    Raises:
        UsageError: when Ray is not installed.
        UnfinishedError: when the cluster cannot be reached or gives up.
    """
    require_extra("ray", "engine ray", "ray")
    import ray

    started_here = not ray.is_initialized()
    _connect(ray)
    try:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        context = ray.data.DataContext.get_current()
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # not earlier: its import sets it up
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        remaining = iter(cases)
        while window := list(itertools.islice(remaining, _WINDOW)):
            yield from _score_window(ray, window, count, (setup, identity, batch_size, timeout_seconds))
    except ray.exceptions.RayError as error:
        raise UnfinishedError(
            f"the Ray cluster gave up ({type(error).__name__}); committed rows stay: run the same command again"
        ) from error
    finally:
        if started_here:
            ray.shutdown()


def _connect(ray: Any) -> None:
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        _require_cluster(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its log lines are of no use to this project's users
    cores = None if address else max(2, usable_cores())
    try:
        ray.init(address=address, num_cpus=cores, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UnfinishedError(
            f"RAY_ADDRESS {address}: cannot be reached ({type(error).__name__}); start the cluster, and set "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN where it asks for a token"
        ) from None


def _require_cluster(address: str) -> None:
    """Check that the cluster answers, from a process that can be ended: Ray's own client waits silently for minutes.

    Raises:
        UnfinishedError: when nothing answers in time, or not as a cluster does.
    """
    remedy = "start the cluster, or unset RAY_ADDRESS for one on this machine"
    try:
        process = subprocess.run(  # noqa: S603  # this interpreter, and fixed arguments
            [sys.executable, "-c", _ASK], capture_output=True, text=True, errors="replace", timeout=_PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UnfinishedError(
            f"RAY_ADDRESS {address}: no Ray cluster answers there (waited {_PATIENCE_SECONDS:g} s); {remedy}"
        ) from None
    if process.returncode:
        cause = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1].partition(":")[0]
        raise UnfinishedError(
            f"RAY_ADDRESS {address}: cannot be reached ({cause}); {remedy}, and set RAY_AUTH_MODE and RAY_AUTH_TOKEN "
            "where it asks for a token"
        )


def _score_window(ray: Any, window: list[Case], actors: int, arguments: tuple[Any, ...]) -> Iterator[Any]:
    blocks = math.ceil(len(window) / _BLOCK)
    scored = ray.data.from_items([{"case": case} for case in window], override_num_blocks=blocks).map_batches(
        _ScoringActor,
        fn_constructor_args=arguments,
        batch_size=_BLOCK,
        compute=ray.data.ActorPoolStrategy(size=min(actors, blocks)),
        num_cpus=_SHARE_OF_CPU,
    )
    for block in scored.iter_rows():
        yield block["row"]


class _ScoringActor:
    """Scores blocks of cases with one worker process, which lives as long as the actor."""

    def __init__(
        self, setup: WorkerSetup[Any], identity: ModelIdentity, batch_size: int, timeout_seconds: float
    ) -> None:
        self._batch_size = batch_size
        self._pool = WorkerPool(setup, identity, workers=1, timeout_seconds=timeout_seconds)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        return {"row": list(self._pool.score(block["case"].tolist(), self._batch_size))}
