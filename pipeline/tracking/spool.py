"""Send metrics without losing or waiting for them: written to disk first, sent by a thread, replayed later.

Each open run has one file, locked by its process. A file whose lock is free belongs to a process that ended: the next
process that opens the store sends it again (MLflow keeps equal measurements once) and closes its run.
"""

from __future__ import annotations

import fcntl
import json
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.files import atomic_write
from pipeline.redaction import redact
from pipeline.tracking.faults import store_faults
from pipeline.tracking.sqlite_file import sqlite_path
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Metric

PATIENCE_SECONDS = 5.0  # how long the end of a run waits for a server that does not answer
_RETRY_SECONDS = 1.0
_BATCH = 900  # MLflow takes 1,000 metrics at once
_SPOOLED = "spool_file"  # tag of a run that was made from a file


@dataclass(frozen=True)
class Measurement:
    """One named number of a run."""

    name: str
    value: float
    timestamp: int
    step: int

    def to_metric(self) -> Metric:
        """As MLflow takes it."""
        from mlflow.entities import Metric

        return Metric(self.name, self.value, self.timestamp, self.step)


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended, as a store is to show it.

    Attributes:
        experiment: its name.
        name: of the run.
        tags: of the run.
        metrics: its numbers.
        ended_at: milliseconds since 1970.
    """

    experiment: str
    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    ended_at: int


class MeasurementSpool:
    """Spool of the measurements of one run: written to disk at once, and sent as soon as the server takes them.

    Args:
        folder: of spool files; created.
        store: open.
        run_id: an open run.
    """

    def __init__(self, folder: Path, store: Store, run_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._store, self._run_id = store, run_id
        self.path = folder / f"{run_id}.jsonl"
        self._file = open(self.path, "x", encoding="utf-8")  # noqa: SIM115  # open as long as the run
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.is_whole = True
        self._write({"run_id": run_id, "uri": store.shown})
        self._waiting: queue.Queue[Measurement | None] = queue.Queue()  # None ends the thread
        self._sent = threading.Condition()
        self._unsent = 0
        # A daemon, because a thread that hangs in a request must not keep the process alive: its numbers are on disk.
        threading.Thread(target=self._send_all, name=f"spool-{run_id[:8]}", daemon=True).start()

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Take measurements, from any thread; never waits for the server."""
        identity = int(time.time() * 1000)
        with self._sent:
            for name, value in values.items():
                self._write({"metric": [name, float(value), identity, step]})
                self._unsent += 1
                self._waiting.put(Measurement(name, float(value), identity, step))

    def close(self, status: str, *, patience_seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait a little for the server, then leave the rest and the run's status to the next opening of the store.

        Returns:
            Whether everything was sent. If so the caller closes the run itself, and then calls ``forget``.
        """
        with self._sent:
            done = self._sent.wait_for(lambda: self._unsent == 0, timeout=patience_seconds)
        self._waiting.put(None)
        if not done:
            self.leave(status)
        return done

    def leave(self, status: str) -> None:
        """Keep the file for the next opening of the store, with how the run ended."""
        self._write({"status": status})
        self._close()

    def forget(self) -> None:
        """Remove the file: the store has everything."""
        self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        with suppress(OSError):  # on a full disk, closing cannot write the rest either
            self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        """Write a record; on a full disk the run goes on, and measurements go to the store alone."""
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            if self.is_whole:
                self.is_whole = False
                print(f"{self.path}: {error.strerror}; measurements go to the tracking store alone", file=sys.stderr)

    def _send_all(self) -> None:
        faults = store_faults()
        batch: list[Measurement] = []
        ending = False
        while not ending or batch:
            taken = _take(self._waiting, block=not batch)
            ending = ending or None in taken
            batch += [measurement for measurement in taken if measurement is not None]
            try:
                if batch:
                    _send(self._store, self._run_id, batch[:_BATCH])
            except faults:
                if ending:
                    return  # the file is left to the next opening of the store
                time.sleep(_RETRY_SECONDS)
                continue
            with self._sent:
                self._unsent -= len(batch[:_BATCH])
                self._sent.notify_all()
            batch = batch[_BATCH:]


def _take(waiting: queue.Queue[Measurement | None], *, block: bool) -> list[Measurement | None]:
    """Everything that waits; with ``block`` at least one."""
    measurements = [waiting.get()] if block else []
    while True:
        try:
            measurements.append(waiting.get_nowait())
        except queue.Empty:
            return measurements


def _send(store: Store, run_id: str, measurements: Sequence[Measurement]) -> None:
    store.client.log_batch(run_id, metrics=[measurement.to_metric() for measurement in measurements])


def leave_run(folder: Path, uri: str, run: FinishedRun) -> Path:
    """Keep a finished run for a store that cannot be opened now; the next opening creates it.

    Args:
        folder: of spool files; created.
        uri: of the store.
        run: to create.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.jsonl"
    header = {"uri": redact(uri), **{name: getattr(run, name) for name in ("experiment", "name", "tags", "ended_at")}}
    records: list[Mapping[str, Any]] = [header]
    records += [{"metric": [name, float(value), run.ended_at, 0]} for name, value in run.metrics.items()]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in [*records, {"status": "FINISHED"}]))
    return path


def replay(folder: Path, store: Store, experiment_id: Callable[[str], str]) -> int:
    """Send what ended processes left for this store, and close their runs; as KILLED where no status was written.

    Args:
        folder: of spool files.
        store: open.
        experiment_id: of an experiment's name, for runs that are to be made.

    Returns:
        How many runs were completed. A file that cannot be sent now stays for the next time.
    """
    return sum(_replay_file(path, store, experiment_id) for path in sorted(folder.glob("*.jsonl")))


def _replay_file(path: Path, store: Store, experiment_id: Callable[[str], str]) -> bool:
    try:
        with open(path, "r+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records = list(_whole_records(handle.read()))
            if not records or not _is_for(records[0], store):
                return False  # just being made, or another store's
            run_id = records[0].get("run_id") or _make_run(path.stem, records[0], store, experiment_id)
            left = [Measurement(*record["metric"]) for record in records if "metric" in record]
            for start in range(0, len(left), _BATCH):
                _send(store, run_id, left[start : start + _BATCH])
            status = next((str(record["status"]) for record in records if "status" in record), "KILLED")
            if store.client.get_run(run_id).info.status == "RUNNING":
                store.client.set_terminated(run_id, status, records[0].get("ended_at"))
            path.unlink()
            return True
    except (BlockingIOError, FileNotFoundError):
        return False  # its process lives, or another one was first
    except UsageError:
        return False  # its experiment was deleted
    except store_faults():
        return False
    except (ValueError, TypeError, AttributeError, KeyError):
        return False  # another program's file: it stays


def _is_for(header: Mapping[str, Any], store: Store) -> bool:
    """Whether a file was left for a store, or for the same SQLite file before its folder was moved."""
    uri = redact(str(header.get("uri")))
    if uri == store.shown:
        return True
    present, recorded = sqlite_path(store.uri), sqlite_path(uri)
    if (
        present is None
        or recorded is None
        or present.name != recorded.name
        or recorded.exists()
        or "run_id" not in header
    ):
        return False
    store.client.get_run(str(header["run_id"]))  # an id that no other store has
    return True


def _make_run(spool_id: str, header: Mapping[str, Any], store: Store, experiment_id: Callable[[str], str]) -> str:
    """The run that a store could not take when it ended; once, even when sending it was interrupted before."""
    experiment = experiment_id(str(header["experiment"]))
    made = store.client.search_runs([experiment], f"tags.`{_SPOOLED}` = '{spool_id}'", max_results=1)
    if made:
        return str(made[0].info.run_id)
    tags = {**header["tags"], _SPOOLED: spool_id}
    run = store.client.create_run(experiment, header["ended_at"], tags, str(header["name"]))
    return str(run.info.run_id)


def _whole_records(text: str) -> Iterator[dict[str, Any]]:
    """Lines that were written whole: a killed process may leave half a last one."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)  # NaN is a measurement too: of a training that diverged
