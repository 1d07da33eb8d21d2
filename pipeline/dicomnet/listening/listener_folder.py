"""Folders of a listener on disk; every state is a place, and every step is one rename.

    FOLDER/.lock                                      who runs, or ran last
    FOLDER/.received.lock                             shared by who takes in, held alone by who removes
    FOLDER/receiving/                                 objects that are arriving; emptied at every start
    FOLDER/received/STUDY/SERIES/OBJECT.dcm           accepted: synchronised to disk before the sender was told so
    FOLDER/received/STUDY/evaluated.json              of which objects every result has been made
    FOLDER/outbox/STUDY-SERIES-NNNN/                  result number NNNN of a series: record.json and the objects
    FOLDER/outbox/STUDY-SERIES-NNNN/sent-DESTINATION  delivered there (refused-DESTINATION: refused there for good)
    FOLDER/archive/STUDY-SERIES-NNNN/                 delivered everywhere
    FOLDER/errors/STUDY-SERIES-NNNN/                  refused somewhere, or could not be made
    FOLDER/audit/DATE.jsonl                           what happened, a line each
    FOLDER/orthanc.json                               which changes of an Orthanc have been dealt with

After a kill at any moment, the files record what is left to do: an object counts when it has its name under
``received``; a series is to be scored when its files differ from those of its last result; a result counts when its
folder has its name under ``outbox``; it is to be sent to every destination without a mark in it. STUDY, SERIES and
OBJECT are digests of the UIDs, so that no name and no audit line holds an attribute of a study.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pipeline.errors import UsageError
from pipeline.files import private_folder, sha256_bytes, sync_folder

_DIGITS: Final = 20
_RESULT_NAME: Final = re.compile(rf"([0-9a-f]{{{_DIGITS}}})-([0-9a-f]{{{_DIGITS}}})-(\d{{4,}})")
_LOCK: Final = ".received.lock"
RECORD: Final = "record.json"
EVALUATED: Final = "evaluated.json"


def uid_digest(uid: str) -> str:
    """A name for a UID that does not reveal it.

    Example:
        >>> uid_digest("1.2.3")
        'c47f5b18b8a430e698b9'
    """
    return sha256_bytes(uid.encode())[:_DIGITS]


@dataclass(frozen=True, order=True)
class SeriesKey:
    """A series, by the digests of its study's and its own UID."""

    study: str
    series: str

    def __str__(self) -> str:
        return f"{self.study}-{self.series}"


@dataclass(frozen=True, order=True)
class ResultName:
    """A result, by its series and its number, from 1."""

    series: SeriesKey
    number: int

    def __str__(self) -> str:
        return f"{self.series}-{self.number:04d}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The result named by a folder's name; None for other names."""
        match = _RESULT_NAME.fullmatch(name)
        return None if match is None else cls(SeriesKey(match[1], match[2]), int(match[3]))


@dataclass(frozen=True)
class ListenerFolder:
    """The folders of a listener.

    Attributes:
        root: of them all.
    """

    root: Path

    @property
    def receiving(self) -> Path:
        """Objects that are arriving."""
        return self.root / "receiving"

    @property
    def received(self) -> Path:
        """Accepted objects."""
        return self.root / "received"

    @property
    def outbox(self) -> Path:
        """Results that are to be sent."""
        return self.root / "outbox"

    @property
    def archive(self) -> Path:
        """Results that were delivered everywhere."""
        return self.root / "archive"

    @property
    def errors(self) -> Path:
        """Results that a destination refused, or that could not be made."""
        return self.root / "errors"

    @property
    def audit(self) -> Path:
        """What happened."""
        return self.root / "audit"

    @property
    def results(self) -> tuple[Path, ...]:
        """Folders of results, in the order in which results move, so that a search meanwhile misses none."""
        return self.outbox, self.errors, self.archive

    def series_folder(self, series: SeriesKey) -> Path:
        """Where the objects of a series lie."""
        return self.received / series.study / series.series

    @contextmanager
    def taking_in(self, *, removing: bool = False) -> Iterator[None]:
        """Lock that keeps the removal of studies and the naming of objects apart.

        Args:
            removing: whether this is the removal; many may take in at a time.
        """
        handle = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if removing else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    def make(self) -> None:
        """Make what is missing, durably.

        Raises:
            UsageError: when the folder holds something else.
        """
        own = (self.receiving, self.received, self.outbox, self.archive, self.errors, self.audit)
        private_folder(self.root)
        if not self.received.is_dir():
            others = [path.name for path in self.root.iterdir() if path.name not in (".lock", _LOCK, "lost+found")]
            if any(name not in {path.name for path in own} for name in others):
                raise UsageError(
                    f"{self.root}: holds {min(others)} and no received/, so no listener made it; name a new folder"
                )
        for path in own:
            private_folder(path)
        sync_folder(self.root)

    def clear_unfinished(self) -> None:
        """Remove unfinished files of a killed run; no other process may be working."""
        unfinished = [*self.receiving.iterdir(), *(path for place in self.results for path in place.glob(".*.tmp"))]
        for path in unfinished:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
