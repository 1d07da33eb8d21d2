"""One scoring process as its parent sees it: its setup, its jobs and messages, its death; no torch.

The setup (`WorkerSetup`) decides what a worker does with a case: score a region of a scan, or search a whole scan.

A worker gets jobs over its own pipe and sends a message when it opens each case, so that the parent knows which scan a
silent or dead worker held. Workers share no lock and no queue, so killing one at any moment harms no other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pipeline.cases.case import Case
from pipeline.errors import Code, PipelineError
from pipeline.machine import may_have_gpu, usable_cores
from pipeline.scoring.backends import Backend
from pipeline.scoring.engines.worker_server import context, start_server
from pipeline.scoring.rows import ModelIdentity, ScoreRow, Status, refusal

if TYPE_CHECKING:
    from pipeline.scoring.scorer import Scorer

RowT = TypeVar("RowT")
RowT_co = TypeVar("RowT_co", covariant=True)


class CaseWork(Protocol[RowT_co]):
    """Processes cases in two steps, neither of which raises because of a case."""

    def prepare(self, case: Case) -> Any:
        """Read one case."""
        ...

    def score(self, batch: Sequence[Any]) -> Sequence[RowT_co]:
        """One row for each case that was prepared, in order."""
        ...


class WorkerSetup(Protocol[RowT_co]):
    """All that another process needs to do the same work; it can be pickled."""

    @property
    def backend(self) -> Backend:
        """How networks are run."""
        ...

    @property
    def device(self) -> str:
        """``cpu``, or ``cuda``: then the workers read scans and the networks run in the process that asked."""
        ...

    @property
    def threads(self) -> int:
        """Of PyTorch in each process."""
        ...

    def build(self, *, device: str | None = None) -> CaseWork[RowT_co]:
        """Load the models."""
        ...

    def drift(self, work: Any) -> float:
        """The largest change of a golden scan's probability, with what ``build`` returned."""
        ...

    def refusal(
        self, case: Case, identity: ModelIdentity, *, status: Status, code: Code, reason: str, seconds: float = 0.0
    ) -> RowT_co:
        """The row of a case that no worker answers for."""
        ...


@dataclass(frozen=True)
class ScorerSetup:
    """Everything that another process needs to build the same scorer.

    Attributes:
        folders: model directories, one, or several for an ensemble.
        root: folder that no image may leave.
        backend: how the networks are run.
        device: ``cpu``, or ``cuda``: then the workers read scans and the networks run in the process that asked.
        threads: of PyTorch in each process.
    """

    folders: tuple[Path, ...]
    root: Path | None = None
    backend: Backend = "eager"
    device: str = "cpu"
    threads: int = 1

    @classmethod
    def on_this_machine(
        cls, folders: Sequence[Path], *, root: Path | None, backend: Backend, workers: int | None
    ) -> ScorerSetup:
        """The setup for this machine: its GPU where the backend can use one, and its cores shared among workers.

        Args:
            folders: model directories.
            root: folder that no image may leave.
            backend: how the networks are run.
            workers: processes; None for one per core.
        """
        cores = usable_cores()
        on_gpu = backend not in ("onnx", "openvino") and _has_cuda()
        threads = max(1, cores // (workers or cores))
        return cls(tuple(folders), root, backend, "cuda" if on_gpu else "cpu", threads)

    def build(self, *, device: str | None = None) -> Scorer:
        """Load the models.

        Raises:
            ModelError: when one cannot be loaded.
            UsageError: when they make no ensemble.
        """
        from pipeline.scoring.model_directory import load_model
        from pipeline.scoring.scorer import Scorer

        models = [load_model(folder) for folder in self.folders]
        return Scorer(*models, root=self.root, device=device or self.device, backend=self.backend)

    def drift(self, work: Scorer) -> float:
        """The largest change of a golden scan's probability since its model was made.

        Raises:
            ModelError: when golden scans are damaged.
        """
        from pipeline.scoring.golden import golden_drift

        return golden_drift(work, self.folders)

    def refusal(
        self, case: Case, identity: ModelIdentity, *, status: Status, code: Code, reason: str, seconds: float = 0.0
    ) -> ScoreRow:
        """The row of a case that no worker answers for."""
        return refusal(case, identity, status=status, code=code, reason=reason, seconds=seconds)


def _has_cuda() -> bool:
    if not may_have_gpu():
        return False
    import torch  # not without a GPU: its import takes seconds, and the workers have their own

    return torch.cuda.is_available()


@dataclass(frozen=True)
class Job:
    """Cases that are read one after the other and go through the network together.

    Attributes:
        numbers: of the cases, in the order of the input.
        cases: as many.
    """

    numbers: tuple[int, ...]
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Message:
    """A message from a worker.

    Attributes:
        kind: ``ready`` (the model is loaded), ``broken`` (it cannot be), ``case`` (opens the next scan), ``network``
            (all scans of the job are read), ``done`` (the job's answer), ``bye`` (no more jobs).
        answer: of ``done``: rows, or prepared cases where the networks run elsewhere.
        drift: of ``ready`` and ``bye``: the largest change of a golden scan's probability.
        error: of ``broken``: what is wrong with the model or its use, as the parent would have raised it.
        reason: of ``broken``: any other fault, in one line.
    """

    kind: Literal["ready", "broken", "case", "network", "done", "bye"]
    answer: Sequence[Any] = ()
    drift: float = 0.0
    error: PipelineError | None = None
    reason: str = ""


def _serve(connection: Connection, setup: WorkerSetup[Any]) -> None:
    """Run a worker; its imports are not made in the process that starts it."""
    from pipeline.scoring.engines.worker_process import run_worker

    run_worker(connection, setup)


@dataclass(eq=False)
class Worker:
    """A running worker process, its jobs, and the time of its last message.

    Attributes:
        jobs: given and not answered; the first is the one in hand.
        place: of the case in hand within the first job; None before the first and in the network.
        since: time of its last message, in seconds of the monotonic clock.
        ready: whether it has loaded the model.
    """

    process: Any
    connection: Connection
    jobs: deque[Job] = field(default_factory=deque)
    place: int | None = None
    since: float = field(default_factory=time.monotonic)
    ready: bool = False

    @classmethod
    def start(cls, setup: WorkerSetup[Any]) -> Worker:
        """Start a process; it sends ``ready`` when it has loaded the model."""
        own_end, child_end = multiprocessing.Pipe()
        start_server()
        process = context().Process(target=_serve, args=(child_end, setup), daemon=True)
        try:
            process.start()
        except (ConnectionError, EOFError):  # the server died between the two calls; the next one starts another
            start_server()
            process = context().Process(target=_serve, args=(child_end, setup), daemon=True)
            process.start()
        child_end.close()  # so that its death ends the pipe
        return cls(process, own_end)

    def give(self, job: Job) -> None:
        """Send it another job; a worker that has just died is noticed when its answer is awaited."""
        if not self.jobs:
            self.since = time.monotonic()
        self.jobs.append(job)
        with contextlib.suppress(OSError):
            self.connection.send(job)

    def finish(self) -> None:
        """Ask it to score its golden scans again and end; one that has just died is noticed when it is read from."""
        with contextlib.suppress(OSError):
            self.connection.send(None)

    def hear(self) -> Message | None:
        """Its next message; None when it is dead."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.since = time.monotonic()
        if message.kind == "ready":
            self.ready = True
        elif message.kind == "case":
            self.place = 0 if self.place is None else self.place + 1
        else:
            self.place = None
        return message

    def kill(self) -> int:
        """End it and return its exit code: minus the signal's number where a signal ended it."""
        self.process.join(timeout=1)  # one that is dead already keeps the cause of its own death
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.connection.close()
        return int(self.process.exitcode or 0)
