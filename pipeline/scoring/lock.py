"""One writer for an output folder: a lock that names its holder and that dies with it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.scoring.rows import now

NAME = ".lock"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs.

    The operating system lets go of it when its holder ends, however it ends, so a lock is never stale; the file stays
    and says who held it last. On network file systems that do not carry locks between machines (``nolock`` mounts)
    it guards one machine only.

    Raises:
        UsageError: when another process holds it, naming that process.
    """
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: is being written by {_holder(folder)}; wait for it, or choose another --out"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now()}).encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(folder: Path) -> str:
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
