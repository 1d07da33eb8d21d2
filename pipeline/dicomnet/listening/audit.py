"""Audit log of a listener: a JSON line for each event, without any attribute of a patient or study."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_LONGEST: Final = 200  # characters of a text from another machine


class Audit:
    """Appends lines to ``DATE.jsonl``; several processes may do so at once.

    A line is one write to a file opened for appending, so that lines of several processes do not mix. On a full disk
    the line is lost, and the event is handled.

    Args:
        folder: exists.
        process: name of the writing process.
    """

    def __init__(self, folder: Path, process: str) -> None:
        self._folder, self._process = folder, process
        self._lock = threading.Lock()

    def __call__(self, event: str, /, **details: str | int | float | None) -> None:
        """Write a line.

        Args:
            event: in a few words.
            details: digests, counts, names of the configuration, and the name of the program on the other side.
        """
        now = datetime.now(UTC)
        shown = {name: _shortened(value) for name, value in details.items() if value is not None}
        line = json.dumps(
            {"at": now.isoformat(timespec="milliseconds"), "process": self._process, "event": event, **shown},
            allow_nan=False,
        )
        path = self._folder / f"{now:%Y-%m-%d}.jsonl"
        with self._lock:
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except OSError:
                return
            try:
                os.write(handle, f"{line}\n".encode())
            except OSError:
                return
            finally:
                os.close(handle)


def _shortened(value: str | int | float) -> str | int | float:
    return value[:_LONGEST] if isinstance(value, str) else value
