"""Space of a listener: the limit of its configuration, and the free space of the disk."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Final

from pipeline.config.listening import ReceptionLimits

_LOOK_SECONDS: Final = 120.0  # between two walks through the folder; arriving bytes are counted in between
_GB: Final = 10**9


class Space:
    """Decides whether another object may be received.

    Args:
        folder: whose content is counted.
        limits: of the configuration.
    """

    def __init__(self, folder: Path, limits: ReceptionLimits) -> None:
        self._folder, self._limits = folder, limits
        self._lock = threading.Lock()
        self._used, self._looked_at = 0, -_LOOK_SECONDS

    def add(self, size: int) -> None:
        """Count bytes that have just arrived."""
        with self._lock:
            self._used += size

    def why_full(self) -> str | None:
        """Why nothing more may be received, in words; None while there is space."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at > _LOOK_SECONDS:
                self._used, self._looked_at = folder_size(self._folder), now
            used = self._used
        if used >= self._limits.quota_gb * _GB:
            return f"the folder has reached its quota of {self._limits.quota_gb:g} GB"
        if shutil.disk_usage(self._folder).free < self._limits.free_gb * _GB:
            return f"less than {self._limits.free_gb:g} GB are free on the disk"
        return None


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder and its subfolders; files that are moved or removed meanwhile may be missed."""
    size = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return size
