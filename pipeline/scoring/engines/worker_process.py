"""Main function of a scoring worker: load the model, score golden scans, answer jobs until there are no more."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

import torch

from pipeline.errors import ModelError, UsageError
from pipeline.scoring.engines.workers import Job, Message, WorkerSetup
from pipeline.scoring.golden import golden_drift  # noqa: F401  # imported by a setup: once here likewise


def run_worker(connection: Connection, setup: WorkerSetup[Any]) -> None:
    """Run one worker until it receives None or its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that collects the rows
    torch.set_num_threads(setup.threads)
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the other side is dead
        try:
            work = setup.build(device="cpu")
            connection.send(Message("ready", drift=setup.drift(work)))
        except (ModelError, UsageError) as error:
            connection.send(Message("broken", error=error))
            return
        except Exception as error:  # noqa: BLE001  # the other side must be able to report any fault
            connection.send(Message("broken", reason=f"{type(error).__name__}: {error}".splitlines()[0]))
            return
        while (job := jobs.get()) is not None:
            prepared = []
            for case in job.cases:
                connection.send(Message("case"))
                prepared.append(work.prepare(case))
            connection.send(Message("network"))
            connection.send(Message("done", work.score(prepared) if setup.device == "cpu" else prepared))
        connection.send(Message("bye", drift=setup.drift(work)))


def _listen(connection: Connection, jobs: queue.SimpleQueue[Job | None]) -> None:
    """Take jobs off the pipe at once, so that sending one never blocks; end the worker when the sender ends."""
    try:
        while (job := connection.recv()) is not None:
            jobs.put(job)
        jobs.put(None)
    except (EOFError, OSError):
        os._exit(1)  # the other side is dead: also when the main thread hangs in a scan
