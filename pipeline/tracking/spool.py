"""Metrics that no dead server loses and no slow one holds up: written to disk first, sent by a thread, replayed later.

Each run has one file while it lives, locked by its process. A file whose lock is free belongs to a process that ended:
whoever opens the store next sends it again (MLflow keeps equal measurements once) and closes its run.
"""

from __future__ import annotations

import fcntl
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Metric

PATIENCE_SECONDS = 5.0  # how long the end of a run waits for a server that does not answer
_RETRY_SECONDS = 1.0
_BATCH = 900  # MLflow takes 1,000 metrics at once


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


class Spool:
    """The measurements of one run: on disk at once, at the server as soon as it takes them.

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
        self._write({"run_id": run_id, "uri": store.uri})
        self._waiting: queue.Queue[Measurement | None] = queue.Queue()  # None ends the thread
        self._sent = threading.Condition()
        self._unsent = 0
        # A thread that hangs in a request must not keep the process from ending: its numbers are on disk.
        threading.Thread(target=self._send_all, name=f"spool-{run_id[:8]}", daemon=True).start()

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Take measurements, from any thread; never waits for the server."""
        stamp = int(time.time() * 1000)
        with self._sent:
            for name, value in values.items():
                self._write({"metric": [name, float(value), stamp, step]})
                self._unsent += 1
                self._waiting.put(Measurement(name, float(value), stamp, step))

    def close(self, status: str, *, patience_seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait a little for the server, then leave the rest, and how the run ended, to the next opening of the store.

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
        self._file.close()

    def forget(self) -> None:
        """Remove the file: the store has everything."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _send_all(self) -> None:
        from mlflow.exceptions import MlflowException

        batch: list[Measurement] = []
        ending = False
        while not ending or batch:
            taken = _take(self._waiting, block=not batch)
            ending = ending or None in taken
            batch += [each for each in taken if each is not None]
            try:
                if batch:
                    _send(self._store, self._run_id, batch[:_BATCH])
            except (MlflowException, OSError):
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
    found = [waiting.get()] if block else []
    while True:
        try:
            found.append(waiting.get_nowait())
        except queue.Empty:
            return found


def _send(store: Store, run_id: str, measurements: Sequence[Measurement]) -> None:
    store.client.log_batch(run_id, metrics=[each.to_metric() for each in measurements])


def replay(folder: Path, store: Store) -> int:
    """Send what ended processes left for this store, and close their runs; KILLED where none said how it ended.

    Returns:
        How many runs were completed. A file that cannot be sent now stays for the next time.
    """
    return sum(_replay_file(path, store) for path in sorted(folder.glob("*.jsonl")))


def _replay_file(path: Path, store: Store) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        with open(path, "r+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records = list(_whole_records(handle.read()))
            if not records or records[0].get("uri") != store.uri:
                return False  # just being made, or another store's
            run_id = str(records[0]["run_id"])
            left = [Measurement(*each["metric"]) for each in records if "metric" in each]
            for start in range(0, len(left), _BATCH):
                _send(store, run_id, left[start : start + _BATCH])
            status = next((str(each["status"]) for each in records if "status" in each), "KILLED")
            if store.client.get_run(run_id).info.status == "RUNNING":
                store.client.set_terminated(run_id, status)
            path.unlink()
            return True
    except (BlockingIOError, FileNotFoundError):
        return False  # its process lives, or another one was first
    except (MlflowException, OSError):
        return False
    except (ValueError, TypeError, AttributeError, KeyError):
        return False  # another program's file: it stays


def _whole_records(text: str) -> Iterator[dict[str, Any]]:
    """Lines that were written whole: a killed process may leave half a last one."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)  # NaN is a measurement too: of a training that diverged
