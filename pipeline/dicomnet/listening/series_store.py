"""Find studies that have become quiet, and list the objects of their series."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.dicomnet.listening.listener_folder import EVALUATED, ListenerFolder, SeriesKey
from pipeline.files import read_json, sha256_json, write_json

_COMPLETE: Final = "complete"
_LEAST_QUIET_SECONDS: Final = (
    1.0  # also of a study that is called complete; a folder's time stamp is coarser than files
)


@dataclass(frozen=True)
class StudyFiles:
    """The objects of a study at one moment.

    Attributes:
        study: digest of its UID.
        series: names of the files of each series, by the series' digest.
    """

    study: str
    series: Mapping[str, tuple[str, ...]]

    @property
    def digest(self) -> str:
        """Digest of the names, which identify the contents: an accepted object never changes."""
        return sha256_json({name: list(files) for name, files in self.series.items()})


@dataclass
class _Seen:
    stamps: tuple[tuple[str, int], ...]
    digest: str
    since: float


class SeriesStore:
    """Watches the accepted objects.

    The quiet time of a study begins when its last object was seen, and again when the program starts, because nothing
    could arrive while it was down.

    Args:
        folder: of the listener.
        quiet_seconds: after which a study without a new object is due.
        clock: seconds that never go back.
    """

    def __init__(
        self, folder: ListenerFolder, quiet_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._quiet, self._clock = folder, quiet_seconds, clock
        self._seen: dict[str, _Seen] = {}
        self._done: dict[str, str] = {}

    def due(self) -> list[StudyFiles]:
        """Quiet studies with objects that were not evaluated yet."""
        due, there = [], set()
        for study in _folders_in(self._folder.received):
            there.add(study)
            seen = self._look(study)
            if self._evaluated(study) == seen.digest:
                continue
            complete = (self._folder.received / study / _COMPLETE).exists()
            quiet = min(self._quiet, _LEAST_QUIET_SECONDS) if complete else self._quiet
            if self._clock() - seen.since >= quiet:
                due.append((seen.since, study))
        for study in set(self._seen) - there:
            self._seen.pop(study)
            self._done.pop(study, None)
        return [self.files(study) for _, study in sorted(due)]

    def _look(self, study: str) -> _Seen:
        """Objects of a study, listed again when the time stamp of one of its folders has changed."""
        stamps = self._stamps(study)
        seen = self._seen.get(study)
        if seen is None or seen.stamps != stamps:
            digest = self.files(study).digest
            if seen is None or seen.digest != digest:
                seen = _Seen(stamps, digest, self._clock())
            else:
                seen.stamps = stamps
            self._seen[study] = seen
        return seen

    def files(self, study: str) -> StudyFiles:
        """The objects of a study as they are now."""
        root = self._folder.received / study
        series = {name: tuple(sorted(_objects_in(root / name))) for name in sorted(_folders_in(root))}
        return StudyFiles(study, {name: files for name, files in series.items() if files})

    def paths(self, files: StudyFiles, series: str) -> tuple[Path, ...]:
        """The objects of one series."""
        folder = self._folder.series_folder(SeriesKey(files.study, series))
        return tuple(folder / name for name in files.series[series])

    def unchanged(self, files: StudyFiles) -> bool:
        """Whether a study still holds the same objects."""
        return self.files(files.study).digest == files.digest

    def mark_evaluated(self, files: StudyFiles) -> None:
        """Record that every series of a study has its result, if it gets one."""
        root = self._folder.received / files.study
        if not root.is_dir():  # removed by retention
            return
        write_json(root / EVALUATED, {"files": files.digest})
        (root / _COMPLETE).unlink(missing_ok=True)
        self._done[files.study] = files.digest

    def mark_complete(self, study: str) -> bool:
        """Record that a study is complete; False when none of its objects is here."""
        root = self._folder.received / study
        if not root.is_dir():
            return False
        (root / _COMPLETE).touch(mode=0o600)
        return True

    def _stamps(self, study: str) -> tuple[tuple[str, int], ...]:
        root = self._folder.received / study
        stamps = []
        for name in _folders_in(root):
            try:
                stamps.append((name, (root / name).stat().st_mtime_ns))
            except FileNotFoundError:
                continue
        return tuple(sorted(stamps))

    def _evaluated(self, study: str) -> str | None:
        if study not in self._done:
            try:
                value = read_json(self._folder.received / study / EVALUATED)
            except (OSError, ValueError):
                return None  # evaluated again, which finds nothing new
            self._done[study] = str(value.get("files")) if isinstance(value, dict) else ""
        return self._done[study]


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _objects_in(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(".dcm")]
    except FileNotFoundError:
        return []
