"""A watched folder, whose DICOM files are stored like received objects."""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from pathlib import Path
from typing import Final

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.listener_folder import ListenerFolder
from pipeline.dicomnet.listening.reception import read_object_identity, refusal_reason, store_object
from pipeline.dicomnet.listening.space import Space
from pipeline.errors import CaseError

_FULL_SECONDS: Final = 30.0  # between two checks of a full disk
_Stamp = tuple[int, int]


class WatchedFolder:
    """Stores the files of a folder that have not changed for a while.

    A file is copied, synchronised and named before it is removed, if that is configured; after a kill in between it is
    stored again, which changes nothing. Links are not followed, and other files are left alone.

    Args:
        config: of the listener, with a watched folder.
        folder: of the listener.
        audit: of the listener.
    """

    def __init__(self, config: ListenConfig, folder: ListenerFolder, audit: Audit) -> None:
        assert config.watch is not None
        self._watch, self._folder, self._audit = config.watch, folder, audit
        self._space = Space(config.folder, config.limits)
        self._done: dict[str, _Stamp] = {}
        self._not_before = 0.0

    def step(self) -> None:
        """Store new files."""
        if time.monotonic() < self._not_before:
            return
        there = set()
        for path, stamp in self._files():
            there.add(path)
            if self._done.get(path) == stamp or time.time() - stamp[1] / 1e9 < self._watch.settle_seconds:
                continue
            problem = self._space.why_full()
            if problem is None:
                problem = self._take(Path(path))
            if problem is not None:
                self._audit("folder not read", reason=problem)
                self._not_before = time.monotonic() + _FULL_SECONDS
                return
            self._done[path] = stamp
        self._done = {path: stamp for path, stamp in self._done.items() if path in there}

    def _files(self) -> list[tuple[str, _Stamp]]:
        files: list[tuple[str, _Stamp]] = []
        for parent, folders, names in os.walk(self._watch.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = os.path.join(parent, name)
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    continue
                if not name.startswith(".") and stat.S_ISREG(status.st_mode):
                    files.append((path, (status.st_size, status.st_mtime_ns)))
        return files

    def _take(self, path: Path) -> str | None:
        """Store one file; returns why it has to wait, or None."""
        copy = self._folder.receiving / f"{uuid.uuid4().hex}.part"
        try:
            identity = read_object_identity(path)
            if identity is None:
                self._audit("file left", reason="its header lacks a UID, or holds an invalid one")
                return None
            shutil.copyfile(path, copy)
            outcome = store_object(self._folder, copy, identity)
            self._audit("file taken in", outcome=outcome.value)
            if self._watch.remove:
                path.unlink()
        except CaseError as error:
            self._audit("file left", reason=refusal_reason(error))
        except OSError as error:
            return os.strerror(error.errno or 0)
        finally:
            copy.unlink(missing_ok=True)
        return None
