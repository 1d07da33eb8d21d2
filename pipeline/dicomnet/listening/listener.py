"""The listener: its processes, and the loop in which it looks for work."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Final

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.child_process import ChildProcess
from pipeline.dicomnet.listening.listener_folder import ListenerFolder
from pipeline.dicomnet.listening.orthanc_source import OrthancSource
from pipeline.dicomnet.listening.outbox_sender import run_sender
from pipeline.dicomnet.listening.receiver import run_receiver
from pipeline.dicomnet.listening.retention import forget_old
from pipeline.dicomnet.listening.series_store import SeriesStore
from pipeline.dicomnet.listening.study_cases import LesionDetector
from pipeline.dicomnet.listening.study_scoring import ScoringChoices, StudyScoring
from pipeline.dicomnet.listening.watched_folder import WatchedFolder
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.errors import UnfinishedError
from pipeline.scoring.engines.local import WorkerPool
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.ensemble import Ensemble

_TURN_SECONDS: Final = 0.5
_RETENTION_SECONDS: Final = 3600.0
_FULL_SECONDS: Final = 30.0  # before a study is scored again whose result did not fit on the disk


class Listener:
    """Receives, scores and sends; this process scores, and supervises the two that receive and send.

    Args:
        config: whose folder is there, with its lock held.
        models: that score.
        setup: of the scoring workers.
        workers: scoring processes, at most.
        timeout_seconds: that one scan may take to be read.
        find: searches series that no annotation marks.
    """

    def __init__(
        self,
        config: ListenConfig,
        models: Ensemble,
        setup: ScorerSetup,
        *,
        workers: int,
        timeout_seconds: float,
        find: LesionDetector | None = None,
    ) -> None:
        self._config, self._models, self._setup = config, models, setup
        self._workers, self._timeout, self._find = workers, timeout_seconds, find
        self._folder = ListenerFolder(config.folder)
        self._audit = Audit(self._folder.audit, "listener")
        self._store = SeriesStore(self._folder, config.quiet_seconds)
        self._children = (
            ChildProcess("receiver", run_receiver, config, self._audit),
            ChildProcess("sender", run_sender, config, self._audit),
        )
        self._fault: Exception | None = None

    def run(self, ready: Callable[[int], None], stop: threading.Event, *, batch_size: int) -> None:
        """Work until ``stop`` is set, or SIGTERM or Ctrl-C comes.

        Args:
            ready: called with the port once objects are received.
            stop: ends it.
            batch_size: cases that go through the network together.

        Raises:
            UnfinishedError: when the port cannot be had, or nothing can be scored any more.
        """
        identity = self._models.identity(self._setup.backend)
        choices = ScoringChoices(
            models=self._models,
            reported=ReportedModel.of(self._models.descriptions, identity),
            find=self._find,
            report_unmarked=self._config.without_lesions == "report",
            captures=self._config.captures,
            batch_size=batch_size,
        )
        pool = WorkerPool(self._setup, identity, workers=self._workers, timeout_seconds=self._timeout)
        with closing(pool), _stopped_by_signals(stop):
            scoring = StudyScoring(self._folder, self._store, pool, choices, self._audit)
            try:
                self._start(ready, identity.model)
                helpers = [self._thread(self._look_after_children, stop), *self._intake(stop)]
                self._work(scoring, stop)
                stop.set()
                for helper in helpers:
                    helper.join(timeout=10)
            finally:
                stop.set()
                for child in self._children:
                    child.stop()
                self._audit("stopped")
        if self._fault is not None:
            raise self._fault

    def _start(self, ready: Callable[[int], None], model: str) -> None:
        receiver, sender = self._children
        for child in self._children:
            child.begin()
        started = receiver.first_word()
        sender.first_word()
        if started.problem:
            where = f"{self._config.address}:{self._config.port}"
            raise UnfinishedError(f"{where}: {started.problem}; choose another address or port")
        self._audit("started", model=model, port=started.port)
        ready(started.port)

    def _work(self, scoring: StudyScoring, stop: threading.Event) -> None:
        """Score studies that are complete, and remove old ones."""
        next_retention = 0.0
        while not stop.wait(_TURN_SECONDS):
            for files in self._store.due():
                if stop.is_set():
                    return
                if not scoring.score(files):
                    stop.wait(_FULL_SECONDS)
            if time.monotonic() >= next_retention:
                forget_old(self._folder, self._audit, days=self._config.limits.retention_days)
                next_retention = time.monotonic() + _RETENTION_SECONDS

    def _look_after_children(self) -> None:
        for child in self._children:
            child.keep_alive()

    def _intake(self, stop: threading.Event) -> list[threading.Thread]:
        """Threads for the other sources."""
        threads = []
        if self._config.watch is not None:
            watched = WatchedFolder(self._config, self._folder, Audit(self._folder.audit, "watch"))
            threads.append(self._thread(watched.step, stop))
        if self._config.orthanc is not None:
            source = OrthancSource(self._config, self._folder, self._store, self._audit)
            threads.append(self._thread(source.step, stop, seconds=self._config.orthanc.poll_seconds))
        return threads

    def _thread(
        self, step: Callable[[], None], stop: threading.Event, *, seconds: float = _TURN_SECONDS
    ) -> threading.Thread:
        """Call a step repeatedly; a fault in it ends the listener."""

        def run() -> None:
            try:
                while not stop.wait(seconds):
                    step()
            except Exception as error:  # noqa: BLE001  # raised again in the main thread
                if not stop.is_set():
                    self._fault = error
                    stop.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the listener with success, because nothing is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
