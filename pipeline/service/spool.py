"""The temporary folder of uploads: bounded, private, and empty again when the requests are done."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.service.answers import BUSY, RequestError

_PREFIX, _LOCK = "malignancy-serve-", "lock"
_RETRY_SECONDS = 5


class UploadSpool:
    """The files of all requests, never more bytes than were granted.

    Args:
        folder: exists; only this process writes to it.
        most_bytes: of all files together.

    Attributes:
        used: bytes that requests hold now.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self.folder, self._most, self.used = folder, most_bytes, 0
        self._number = 0
        self._lock = threading.Lock()  # archives are unpacked in threads

    def request(self) -> RequestFolder:
        """A new folder for one request; whoever asks for it removes it."""
        self._number += 1
        path = self.folder / f"{self._number:08d}"
        with _room():
            path.mkdir(mode=0o700)
        return RequestFolder(path, self)

    def reserve(self, count: int) -> None:
        """Count bytes before they are written.

        Raises:
            RequestError: 503 when the spool is full.
        """
        with self._lock:
            if self.used + count > self._most:
                reason = f"the temporary folder holds {self.used} bytes of requests; ask again"
                raise RequestError(BUSY, reason, retry_seconds=_RETRY_SECONDS)
            self.used += count

    def release(self, count: int) -> None:
        """Give bytes back that were reserved."""
        with self._lock:
            self.used -= count


class RequestFolder:
    """The files of one request.

    Attributes:
        path: of the folder.
        bytes: written into it.
    """

    def __init__(self, path: Path, spool: UploadSpool) -> None:
        self.path, self.bytes, self._spool = path, 0, spool

    @contextmanager
    def new_file(self, name: str) -> Iterator[BinaryIO]:
        """A file to be written with `write`.

        Args:
            name: made by this program, never by a request.

        Raises:
            RequestError: 503 when the disk is full.
        """
        with _room(), open(self.path / name, "xb", buffering=0) as handle:
            yield handle

    def write(self, handle: BinaryIO, data: bytes | memoryview) -> None:
        """Write all of the bytes.

        Raises:
            RequestError: 503 when the spool or the disk is full.
        """
        self._spool.reserve(len(data))
        self.bytes += len(data)
        view = memoryview(data)
        with _room():
            while view:
                view = view[handle.write(view) or 0 :]

    def discard(self, path: Path) -> None:
        """Delete one file and give its bytes back."""
        size = path.stat().st_size
        path.unlink()
        self._spool.release(size)
        self.bytes -= size

    def remove(self) -> None:
        """Delete the files and give their bytes back."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._spool.release(self.bytes)
        self.bytes = 0


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
            raise
        reason = f"no room for the upload on this machine ({os.strerror(error.errno)}); ask again"
        raise RequestError(BUSY, reason, retry_seconds=_RETRY_SECONDS) from None


@contextmanager
def upload_folder(parent: Path | None) -> Iterator[Path]:
    """A private folder for a service's uploads, removed at the end; what killed services left is removed first.

    Args:
        parent: where it is made; the system's folder for temporary files by default.

    Raises:
        OSError: when it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_left_behind(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of by the operating system, however this process ends
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left_behind(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
