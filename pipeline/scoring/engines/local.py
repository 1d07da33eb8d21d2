"""The local engine: processes read and score, rows come out in the order of the cases, and no scan stops the batch.

A scan that takes too long is ended (``E_TIMEOUT``). When a worker dies, the scan that it held is tried once more,
alone, and is ``failed`` when that worker dies too; the worker's other cases start again in another worker. Memory does
not grow with the number of cases.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NoReturn

from pipeline.cases.case import Case
from pipeline.errors import Code, UnfinishedError
from pipeline.machine import usable_cores
from pipeline.scoring.engines.workers import Job, Message, RowT, Worker, WorkerSetup
from pipeline.scoring.golden_limits import require_no_drift
from pipeline.scoring.rows import ModelIdentity

_WINDOW = 4096  # cases that may be finished while an earlier one is not: rows, a few hundred bytes each
_PEEK_SECONDS = 1.0  # that a listing may take to find out whether there are few cases
_LIVES = 2  # workers that may die with a case before it is failed


def score_in_processes(
    setup: WorkerSetup[RowT],
    cases: Iterable[Case],
    identity: ModelIdentity,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    timeout_seconds: float = 300.0,
) -> Iterator[RowT]:
    """Score cases, or search them as the setup says; one row for each, in order.

    Args:
        setup: what every worker does, and builds that from.
        cases: may be endless; only those being scored are held.
        identity: of the rows of cases that no worker answers for.
        batch_size: cases that go through the network together; fewer where every worker would not get a batch.
        workers: processes at most, one per core by default; no more are started than there are batches.
        timeout_seconds: that one scan may take to be read.

    Raises:
        ModelError: when the model cannot be loaded.
        UsageError: when it cannot be used so.
        UnfinishedError: when workers cannot be started, or a golden scan's probability has drifted.
    """
    workers = workers or usable_cores()
    with closing(WorkerPool(setup, identity, workers=workers, timeout_seconds=timeout_seconds)) as pool:
        cases = iter(cases)
        first, complete = _peek(cases, workers * batch_size)
        if complete:
            batch_size = math.ceil(len(first) / workers) or 1
        yield from pool.score(itertools.chain(first, cases), batch_size)
        pool.final_check()


def _peek(cases: Iterator[Case], most: int) -> tuple[list[Case], bool]:
    """The first cases, and whether they are all; a slow listing is not waited for."""
    first: list[Case] = []
    end = time.monotonic() + _PEEK_SECONDS
    for case in cases:
        first.append(case)
        if len(first) >= most or time.monotonic() > end:
            return first, False
    return first, True


class WorkerPool(Generic[RowT]):
    """A pool of workers with their jobs and rows; it can score several times with the same processes.

    Args:
        setup: what every worker does, and builds that from.
        identity: of the rows of cases that no worker answers for.
        workers: how many processes at most; one is started when there is a job and no other is free.
        timeout_seconds: that one scan may take to be read.
        ahead: jobs that a worker holds: with 2 it is never idle, with 1 no job waits behind a slow scan.
    """

    def __init__(
        self,
        setup: WorkerSetup[RowT],
        identity: ModelIdentity,
        *,
        workers: int,
        timeout_seconds: float,
        ahead: int = 2,
    ) -> None:
        self._setup, self._identity, self._timeout = setup, identity, timeout_seconds
        self._most_workers, self._ahead = workers, ahead
        self._workers: list[Worker] = []
        self._again: deque[Job] = deque()  # jobs of dead workers, before anything new
        self._deaths: Counter[int] = Counter()
        self._rows: dict[int, RowT] = {}
        self._never_ready, self._was_ready = 0, False
        on_device = setup.device != "cpu"
        self._work = setup.build() if on_device else None
        self._check_device("before the first scan")
        self._device = ThreadPoolExecutor(1) if on_device else None  # scores one job while the next arrives
        self._on_device: deque[tuple[Job, Future[Any]]] = deque()

    def score(self, cases: Iterable[Case], batch_size: int) -> Iterator[RowT]:
        """One row for each case, in order."""
        new = _jobs(cases, batch_size)
        taken, answered = 0, 0  # cases taken from the input; rows handed out
        exhausted = False
        while True:
            while not exhausted and taken - answered < _WINDOW and self.has_room():
                job = self._again.popleft() if self._again else next(new, None)
                if job is None:
                    exhausted = True
                    break
                taken = max(taken, job.numbers[-1] + 1)
                self.give(job)
            self.give_again()
            while answered in self._rows:
                yield self._rows.pop(answered)
                self._deaths.pop(answered, None)
                answered += 1
            if exhausted and answered == taken:
                return
            self.attend()

    def start(self) -> None:
        """Start every worker now, so that golden scans are scored before there is work."""
        while len(self._workers) < self._most_workers:
            self._workers.append(Worker.start(self._setup))

    @property
    def ready_workers(self) -> int:
        """Workers that have loaded the model and scored its golden scans rightly."""
        return sum(worker.ready for worker in self._workers)

    def has_room(self) -> bool:
        """Whether a worker would take a job now, those of dead workers first."""
        return len(self._workers) < self._most_workers or any(
            len(worker.jobs) < self._ahead for worker in self._workers
        )

    def give_again(self) -> None:
        """Hand the jobs of dead workers to others, as far as these have room."""
        while self._again and self.has_room():
            self.give(self._again.popleft())

    def take(self) -> dict[int, RowT]:
        """Rows that are finished, by their number, in any order; each is given once."""
        rows, self._rows = self._rows, {}
        for number in rows:
            self._deaths.pop(number, None)
        return rows

    def give(self, job: Job) -> None:
        """Hand a job to a worker without one, to a new one, or to the one with the fewest."""
        worker = min(self._workers, key=lambda candidate: len(candidate.jobs), default=None)
        if worker is None or (worker.jobs and len(self._workers) < self._most_workers):
            worker = Worker.start(self._setup)
            self._workers.append(worker)
        worker.give(job)

    def attend(self, *wake: Connection) -> None:
        """Wait for messages of workers, timeouts or ends of workers, and handle them.

        Args:
            wake: end the waiting when they can be read; they are left unread.

        Raises:
            ModelError: when the model cannot be loaded.
            UnfinishedError: when workers cannot be started, or a golden scan's probability has drifted.
        """
        if self._collect_from_device():  # rows to hand out, while the workers may have no more messages
            return
        deadline = min(map(self._deadline, self._workers), default=math.inf)
        patience = 0.05 if self._on_device else min(max(deadline - time.monotonic(), 0.0), 60.0)
        heard = wait([*(worker.connection for worker in self._workers), *wake], timeout=patience)
        for worker in [candidate for candidate in self._workers if candidate.connection in heard]:
            self._hear(worker)
        for worker in [candidate for candidate in self._workers if time.monotonic() > self._deadline(candidate)]:
            self._replace(worker, late=True)

    def _hear(self, worker: Worker) -> None:
        message = worker.hear()
        if message is None:
            self._replace(worker, late=False)
        elif message.kind == "ready":
            self._never_ready, self._was_ready = 0, True
            require_no_drift(message.drift, backend=self._setup.backend, when="before the first scan")
        elif message.kind == "broken":
            self._raise(message)
        elif message.kind == "done":
            job = worker.jobs.popleft()
            if self._device is not None and self._work is not None:
                self._on_device.append((job, self._device.submit(self._work.score, message.answer)))
            else:
                self._rows.update(zip(job.numbers, message.answer, strict=True))

    def _raise(self, message: Message) -> NoReturn:
        """The error of a worker that cannot start: the model's fault, unless the model has been loaded before."""
        if message.error is not None and not self._was_ready:
            raise message.error
        reason = message.reason or f"{type(message.error).__name__}: {message.error}"
        raise UnfinishedError(f"a worker cannot start: {reason}")

    def _collect_from_device(self) -> bool:
        before = len(self._on_device)
        while self._on_device and (self._on_device[0][1].done() or len(self._on_device) > len(self._workers)):
            job, rows = self._on_device.popleft()
            self._rows.update(zip(job.numbers, rows.result(), strict=True))
        return len(self._on_device) < before

    def _deadline(self, worker: Worker) -> float:
        """When a silent worker is ended: after the time of one scan, or in the network that of all its scans."""
        if not worker.jobs or not worker.ready:
            return worker.since + 10 * max(self._timeout, 60.0) if worker.jobs else float("inf")
        share = 1 if worker.place is not None else len(worker.jobs[0].cases) + 1
        return worker.since + self._timeout * share

    def _replace(self, worker: Worker, *, late: bool) -> None:
        """End a worker, decide about its present job, and start another."""
        exit_code = worker.kill()
        seconds = time.monotonic() - worker.since
        if not worker.ready:
            self._never_ready += 1
            if self._never_ready > 2 * len(self._workers):
                raise UnfinishedError(
                    f"workers end before they have loaded the model (exit code {exit_code}); "
                    "check memory, and that the model loads: malignancy check INPUT --model MODEL"
                )
        elif worker.jobs:
            self._blame(worker.jobs.popleft(), worker.place, exit_code, seconds=seconds if late else None)
        self._again.extend(worker.jobs)
        self._workers[self._workers.index(worker)] = Worker.start(self._setup)

    def _blame(self, job: Job, place: int | None, exit_code: int, *, seconds: float | None) -> None:
        """Count a worker's end against its present case; the other cases of its job start again."""
        if place is None and len(job.cases) > 1:  # in the network: it is unknown which case it was
            self._again.extend(Job((number,), (case,)) for number, case in zip(job.numbers, job.cases, strict=True))
            return
        place = place or 0
        number, case = job.numbers[place], job.cases[place]
        others = Job(job.numbers[:place] + job.numbers[place + 1 :], job.cases[:place] + job.cases[place + 1 :])
        if others.cases:
            self._again.append(others)
        self._deaths[number] += 1
        if seconds is not None:
            reason = f"was not read in {self._timeout:g} s; look at the file, or raise --timeout"
            self._rows[number] = self._setup.refusal(
                case, self._identity, status="rejected", code=Code.E_TIMEOUT, reason=reason, seconds=seconds
            )
        elif self._deaths[number] >= _LIVES:
            cause = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
            reason = f"the process that read it died twice ({cause}); look at the file, or at the machine's memory"
            self._rows[number] = self._setup.refusal(
                case, self._identity, status="failed", code=Code.E_INTERNAL, reason=reason
            )
        else:
            self._again.append(Job((number,), (case,)))

    def final_check(self) -> None:
        """Let every worker score its golden scans once more, all at the same time.

        Raises:
            UnfinishedError: when a probability has drifted.
        """
        ready = [worker for worker in self._workers if worker.ready]
        for worker in ready:
            worker.finish()
        self._check_device("after the last scan")
        for worker in ready:
            while (message := worker.hear()) is not None:
                if message.kind == "bye":
                    require_no_drift(message.drift, backend=self._setup.backend, when="after the last scan")
                    break

    def _check_device(self, when: str) -> None:
        """Score the golden scans where the networks run; workers check the reading, on the CPU."""
        if self._work is not None:
            require_no_drift(self._setup.drift(self._work), backend=self._setup.backend, when=when)

    def close(self) -> None:
        """Kill the remaining workers."""
        if self._device is not None:
            self._device.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.process.kill()
            worker.kill()


def _jobs(cases: Iterable[Case], batch_size: int) -> Iterator[Job]:
    numbered = enumerate(cases)
    while batch := list(itertools.islice(numbered, batch_size)):
        yield Job(tuple(number for number, _ in batch), tuple(case for _, case in batch))
