"""A pool of workers that takes cases at any time and from any thread: each case gets a future of its row."""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic

from pipeline.cases.case import Case
from pipeline.errors import PipelineError, UnfinishedError
from pipeline.scoring.engines.local import WorkerPool
from pipeline.scoring.engines.workers import Job, RowT, WorkerSetup
from pipeline.scoring.rows import ModelIdentity


class LivePool(Generic[RowT]):
    """Scores cases as they come, with the workers, timeouts and golden scans of the local engine.

    Every case is a job of its own, so that no case waits for another one's slow scan, and every worker holds one job.
    A fault that ends the pool (a model that cannot be loaded, a golden scan whose probability has drifted, workers
    that cannot be started) ends every future with it.

    Args:
        setup: what every worker does, and builds that from.
        identity: of the rows of cases that no worker answers for.
        workers: processes; all are started at once.
        timeout_seconds: that one scan may take to be read.
        most_waiting: cases that may wait for a worker.

    Attributes:
        identity: of its rows.
        fault: why the pool has ended; None while it runs.
    """

    def __init__(
        self,
        setup: WorkerSetup[RowT],
        identity: ModelIdentity,
        *,
        workers: int,
        timeout_seconds: float,
        most_waiting: int,
    ) -> None:
        self._pool = WorkerPool(setup, identity, workers=workers, timeout_seconds=timeout_seconds, ahead=1)
        self.identity, self._most_waiting = identity, most_waiting
        self.fault: PipelineError | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of what follows
        self._waiting: deque[tuple[Case, Future[RowT]]] = deque()
        self._in_hand: dict[int, Future[RowT]] = {}
        self._closed = self._woken = False
        self._on_fault: Callable[[], None] = lambda: None
        self._awake, self._alarm = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
        self._thread.start()

    @property
    def ready_workers(self) -> int:
        """Workers that have loaded the model and scored its golden scans rightly; 0 once the pool has ended."""
        return 0 if self.fault or self._closed else self._pool.ready_workers

    @property
    def unanswered(self) -> int:
        """Cases that wait or are with a worker."""
        with self._lock:
            return len(self._waiting) + len(self._in_hand)

    def has_room(self, count: int = 1) -> bool:
        """Whether so many cases could be taken now."""
        with self._lock:
            return len(self._waiting) + count <= self._most_waiting

    def submit(self, cases: Sequence[Case]) -> list[Future[RowT]]:
        """Take cases, all or none; a future that is cancelled before a worker has its case costs nothing.

        Raises:
            queue.Full: when too many cases wait.
            PipelineError: the fault that has ended the pool.
        """
        futures: list[Future[RowT]] = [Future() for _ in cases]
        with self._lock:
            if self._closed:
                raise self.fault or UnfinishedError("the service is ending; ask again later")
            if len(self._waiting) + len(cases) > self._most_waiting:
                raise queue.Full
            self._waiting.extend(zip(cases, futures, strict=True))
        self._wake()
        return futures

    def on_fault(self, call: Callable[[], None]) -> None:
        """Register a callback for a fault that ends the pool; it may be called at once, or in the pool's own thread."""
        with self._lock:
            self._on_fault = call
            ended = self._closed
        if ended and self.fault:
            call()

    def close(self) -> None:
        """End the workers; futures that are left get an exception."""
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with self._lock:
            if not self._woken:  # one byte at most lies in the pipe, so that sending it never blocks
                self._woken = True
                self._alarm.send_bytes(b"!")

    def _run(self) -> None:
        try:
            self._pool.start()
            while not self._closed:
                self._hand_out()
                self._pool.attend(self._awake)
                self._sleep_again()
                for number, row in self._pool.take().items():
                    self._answer(number, row)
        except PipelineError as error:
            self.fault = error
        except Exception as error:  # noqa: BLE001  # waiting callers must get an exception, whatever the fault
            self.fault = UnfinishedError(f"{type(error).__name__} inside the pool; please report it")
        finally:
            self._pool.close()
            self._end()

    def _sleep_again(self) -> None:
        with self._lock:
            if self._woken:
                self._awake.recv_bytes()
                self._woken = False

    def _hand_out(self) -> None:
        self._pool.give_again()
        while self._pool.has_room():
            with self._lock:
                if not self._waiting:
                    return
                case, future = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                number = next(self._numbers)
                self._in_hand[number] = future
            self._pool.give(Job((number,), (case,)))

    def _answer(self, number: int, row: RowT) -> None:
        with self._lock:
            future = self._in_hand.pop(number)
        future.set_result(row)

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            left = [*self._in_hand.values(), *(future for _, future in self._waiting)]
            self._in_hand.clear()
            self._waiting.clear()
            on_fault = self._on_fault
        fault = self.fault or UnfinishedError("the service is ending; ask again later")
        for future in left:
            if future.running() or future.set_running_or_notify_cancel():
                future.set_exception(fault)
        if self.fault:
            on_fault()
