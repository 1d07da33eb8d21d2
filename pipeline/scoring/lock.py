"""Lock of an output folder for one writer; it names its holder and ends with it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import parse_json
from pipeline.scoring.output_folder import LOCK
from pipeline.scoring.rows import now

_MOST_BYTES = 4096


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs.

    The operating system releases it when its holder ends, however it ends, so a lock is never stale; the file stays and
    names the last holder. On network file systems without locks between machines (``nolock`` mounts) it guards one
    machine only.

    Raises:
        UsageError: when another process holds it, naming that process, or when the file is not this program's.
    """
    path = folder / LOCK
    handle = _open(path)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: is being written by {_holder(handle)}; wait for it, or choose another --out"
            ) from None
        _require_own(handle, path)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now()}).encode(), 0)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Open the lock file, made when missing; a link is not followed, and a pipe is not waited for."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    else:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    raise UsageError(f"{path}: is a link, folder or device, expected the lock of this program; move it away")


def _require_own(handle: int, path: Path) -> None:
    """Record of the last holder; None for an empty file. Any other content is another program's."""
    if os.fstat(handle).st_size and _record(handle) is None:
        raise UsageError(f"{path}: is not a lock of this program; move it away, or choose another --out")


def _record(handle: int) -> dict[str, Any] | None:
    try:
        record = parse_json(os.pread(handle, _MOST_BYTES, 0))
    except ValueError:
        return None
    return record if isinstance(record, dict) and set(record) == {"host", "pid", "since"} else None


def _holder(handle: int) -> str:
    record = _record(handle)
    return (
        "another process" if record is None else f"process {record['pid']} on {record['host']} since {record['since']}"
    )
