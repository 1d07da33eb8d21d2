"""File for an arriving object; on a full disk the object is refused, and the association goes on."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self


class IncomingFile:
    """File that pynetdicom writes an arriving object to, in place of its own temporary file.

    An error while writing is kept for the answer to the sender; the rest of the object is discarded, so that the
    association goes on.

    Args:
        folder: where the file is made.
        why_full: returns why nothing may be written, or None.

    Attributes:
        name: path of the file.
        problem: why the object cannot be kept; None while it can.
    """

    def __init__(self, folder: Path, why_full: Callable[[], str | None]) -> None:
        self.name = str(folder / f"{uuid.uuid4().hex}.part")
        self.problem = why_full()
        self._descriptor: int | None = None
        if self.problem is None:
            try:
                self._descriptor = os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                self._fail(error)

    @property
    def path(self) -> Path:
        """Of the file."""
        return Path(self.name)

    @property
    def file(self) -> Self:
        """The object that pynetdicom flushes; nothing is buffered here."""
        return self

    def flush(self) -> None:
        """Do nothing: each write has gone to the operating system."""

    def write(self, data: bytes) -> int:
        """Write all of the data, or note the error and discard the file."""
        view = memoryview(data)
        while view and self._descriptor is not None:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                self._fail(error)
        return len(data)

    def close(self) -> None:
        """Close the file; it stays on disk."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def discard(self) -> None:
        """Close and remove the file, unless it was moved away."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _fail(self, error: OSError) -> None:
        self.problem = os.strerror(error.errno or 0)
        with contextlib.suppress(OSError):
            self.discard()
