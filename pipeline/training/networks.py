"""The networks of one training: fitted one after the other, or on a CPU several at a time.

Threads that share an operation wait for each other, and on a busy machine they wait long. Networks with one thread each
do not: on a busy machine they finish several times sooner, and on an idle machine about as soon as one after the other.
``benchmarks/threads.py`` measures both.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from pipeline.config.experiment import Config
from pipeline.errors import UnfinishedError
from pipeline.progress import ProgressReport
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.fit import Fitted, fit, planned_epochs
from pipeline.training.frozen import fit_frozen
from pipeline.training.network_process import start
from pipeline.training.processes import processes, uses_gpu
from pipeline.training.progress import EVERY_SECONDS, NetworkPlace
from pipeline.training.tracker import Tracker

# Each process imports torch, Lightning and MONAI first: below about so many cases times epochs, an idle machine loses.
_WORTH_PROCESSES = 100_000
_MOST_SHARED_BYTES = 2**31  # inputs are written once for all processes; larger ones stay where they are


@dataclass(frozen=True, eq=False)
class NetworkTask:
    """One network to be fitted; see `pipeline.training.fit.fit`.

    Attributes:
        train: fits the weights.
        validation: chooses the epoch; None where the last one is taken.
        config: with the network's own seed.
        folder: of its checkpoints.
        tracker: receives each epoch's metrics.
    """

    train: CaseTensors
    validation: CaseTensors | None
    config: Config
    folder: Path
    tracker: Tracker


def fit_networks(tasks: Sequence[NetworkTask], *, profile: bool = False) -> tuple[Fitted, ...]:
    """Fit every network, in order, several at a time where that is sooner.

    Args:
        tasks: one or more, of one experiment.
        profile: print and track where the time goes; then one after the other.

    Raises:
        UnfinishedError: as `fit`; or when a process ends before its network is fitted.
    """
    if tasks[0].config.training.mode == "frozen_features":
        return fit_frozen(tasks)
    at_once = 1 if profile else networks_at_once(tasks)
    if at_once > 1:
        return _fit_at_once(tasks, at_once)
    return tuple(
        fit(
            task.train,
            task.validation,
            task.config,
            folder=task.folder,
            tracker=task.tracker,
            place=NetworkPlace(number, len(tasks)),
            profile=profile,
        )
        for number, task in enumerate(tasks, start=1)
    )


def networks_at_once(tasks: Sequence[NetworkTask]) -> int:
    """How many networks are fitted at a time: one on a GPU and for short trainings, else up to one a thread."""
    settings = tasks[0].config.training
    if uses_gpu(settings) or processes().count > 1 or settings.networks_at_once == 1:
        return 1
    work = sum(len(task.train) * _epochs(task) for task in tasks)
    if settings.networks_at_once is None and (work < _WORTH_PROCESSES or _bytes(tasks) > _MOST_SHARED_BYTES):
        return 1
    return min(len(tasks), torch.get_num_threads(), settings.networks_at_once or len(tasks))


def _fit_at_once(tasks: Sequence[NetworkTask], at_once: int) -> tuple[Fitted, ...]:
    threads = max(1, torch.get_num_threads() // at_once)
    with tempfile.TemporaryDirectory(prefix="malignancy-networks-") as folder:
        lines = [Path(folder) / f"{number}.jsonl" for number in range(len(tasks))]
        jobs = [
            delayed(_fit_here)(task.train, task.validation, task.config, task.folder, path, threads)
            for task, path in zip(_sharing_inputs(tasks), lines, strict=True)
        ]
        setting = parallel_config(
            "loky", inner_max_num_threads=threads, initializer=start, initargs=(os.getpid(),), temp_folder=folder
        )
        with setting, _telling(tasks, lines, f"{len(tasks)} networks, {at_once} at a time, epoch"):
            try:
                return tuple(Parallel(at_once)(jobs))
            except BrokenProcessPool as error:
                raise UnfinishedError(
                    "a process that fitted a network ended before it was done; look at the machine's memory, set "
                    "training.networks_at_once to fewer, and continue with --resume"
                ) from error
            finally:
                get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _fit_here(
    train: CaseTensors, validation: CaseTensors | None, config: Config, folder: Path, lines: Path, threads: int
) -> Fitted:
    """Fit a network in a process of its own."""
    torch.set_num_threads(threads)
    with LinesTracker(lines) as tracker:
        return fit(train, validation, config, folder=folder, tracker=tracker)


class LinesTracker:
    """Writes metrics as lines of JSON, which the parent process reads.

    Args:
        path: of the file, which is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> LinesTracker:
        self._file = self._path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Write one line."""
        self._file.write(json.dumps({"values": dict(values), "step": step}) + "\n")
        self._file.flush()


@contextmanager
def _telling(tasks: Sequence[NetworkTask], paths: Sequence[Path], what: str) -> Iterator[None]:
    """Pass the metrics that the processes write to each task's tracker, and show progress."""
    ended = threading.Event()
    epochs = sum(_epochs(task) for task in tasks)

    def tell() -> None:
        read = [0] * len(paths)
        with ProgressReport(what, total=epochs, every_seconds=EVERY_SECONDS) as report:
            while True:
                over = ended.wait(1.0)
                for number, path in enumerate(paths):
                    text = path.read_bytes()[read[number] :] if path.exists() else b""
                    lines = text[: text.rfind(b"\n") + 1]
                    read[number] += len(lines)
                    for line in map(json.loads, lines.splitlines()):
                        tasks[number].tracker.metrics(line["values"], step=line["step"])
                        loss = line["values"].get("train_loss")
                        report.advance("" if loss is None else f"loss {loss:.3f}")
                if over:
                    return

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _sharing_inputs(tasks: Sequence[NetworkTask]) -> list[NetworkTask]:
    """The same tasks with their inputs in one array, which joblib writes once for all processes to map."""
    places: dict[int, int] = {}
    rows: list[np.ndarray] = []
    for row in _rows(tasks):
        if id(row) not in places:
            places[id(row)] = len(rows)
            rows.append(row)
    stacked = np.stack(rows)

    def moved(cases: CaseTensors) -> CaseTensors:
        assert isinstance(cases.images, ImageRows)
        return replace(cases, images=ImageRows(stacked, [places[id(row)] for row in cases.images.rows]))

    return [
        replace(task, train=moved(task.train), validation=task.validation and moved(task.validation)) for task in tasks
    ]


def _epochs(task: NetworkTask) -> int:
    settings = task.config.training
    batches = math.ceil(len(task.train) / settings.batch_size)
    return planned_epochs(math.ceil(batches / settings.accumulate_batches), settings)


def _rows(tasks: Sequence[NetworkTask]) -> Iterator[np.ndarray]:
    for task in tasks:
        for cases in (task.train, task.validation):
            if cases is not None and isinstance(cases.images, ImageRows):
                yield from cases.images.rows


def _bytes(tasks: Sequence[NetworkTask]) -> int:
    """Size of all tasks' inputs, each counted once."""
    return sum({id(row): row.nbytes for row in _rows(tasks)}.values())
