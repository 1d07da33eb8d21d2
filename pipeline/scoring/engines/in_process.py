"""Scoring inside this process, for evaluation and serving: threads prepare, batches go to the network, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.cases.case import Case
from pipeline.machine import usable_cores
from pipeline.scoring.rows import ScoreRow
from pipeline.scoring.scorer import Prepared, Scorer


def score_cases(
    scorer: Scorer, cases: Iterable[Case], *, batch_size: int = 16, workers: int | None = None
) -> Iterator[ScoreRow]:
    """Score cases one batch after the other; one row for each, in order.

    Args:
        scorer: with its model.
        cases: may be endless; only a few batches are held at a time.
        batch_size: inputs that go through the network together.
        workers: preparing threads; one per core by default.
    """
    workers = workers or usable_cores()
    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="score") as pool:
        try:
            for case in cases:
                waiting.append(pool.submit(scorer.prepare, case))
                if len(waiting) >= 2 * batch_size:
                    yield from _score_oldest(scorer, waiting, batch_size)
            while waiting:
                yield from _score_oldest(scorer, waiting, batch_size)
        finally:
            for future in waiting:
                future.cancel()


def _score_oldest(scorer: Scorer, waiting: deque[Future[Prepared]], batch_size: int) -> list[ScoreRow]:
    batch = [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
    return scorer.score(batch)
