"""Results between the scoring and their destinations: folders that are whole or absent, and move by one rename."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread

from pipeline.dicomnet.listening.listener_folder import RECORD, ListenerFolder, ResultName, SeriesKey
from pipeline.files import atomic_folder, read_json, sync_folder, write_json
from pipeline.imaging.dicom.file import quiet
from pipeline.scoring.rows import now

if TYPE_CHECKING:
    from pipeline.dicomnet.objects.result_objects import ResultObjects

_SENT, _REFUSED = "sent-", "refused-"


@dataclass(frozen=True)
class ResultRecord:
    """Record in a result's folder.

    Attributes:
        inputs: digest of the images and lesions that were scored.
        images: how many objects the series had.
        files: names of the result objects, in the order in which they are sent; the report is the last.
        replaces: number of the result that this one replaces; None for the first of a series.
        statuses: of the cases, in order.
        codes: of the cases, in order; blank where there is none.
        problem: why there are no objects; blank when there are.
        made_at: ISO 8601, UTC.
    """

    inputs: str
    images: int
    files: tuple[str, ...]
    replaces: int | None
    statuses: tuple[str, ...]
    codes: tuple[str, ...]
    problem: str
    made_at: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a result's folder.

        Raises:
            OSError: when it cannot be read.
            ValueError: when it is damaged.
        """
        value = read_json(folder / RECORD)
        if not isinstance(value, dict) or set(value) != set(cls.__dataclass_fields__):
            raise ValueError("is no record of a result")
        for name in ("files", "statuses", "codes"):
            value[name] = tuple(value[name])
        return cls(**value)


@dataclass(frozen=True)
class NewResult:
    """A result to keep.

    Attributes:
        series: that was scored.
        inputs: digest of the images and lesions that were scored.
        images: how many objects the series has.
        statuses, codes: of the cases, in order.
        objects: to be sent; None when none could be made.
        problem: why not.
    """

    series: SeriesKey
    inputs: str
    images: int
    statuses: Sequence[str] = ()
    codes: Sequence[str] = ()
    objects: ResultObjects | None = None
    problem: str = ""


class Outbox:
    """The results of a listener, in all of its folders.

    Args:
        folder: of the listener.
    """

    def __init__(self, folder: ListenerFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def latest(self) -> dict[SeriesKey, tuple[int, ResultRecord]]:
        """The number and record of each series' last result."""
        numbers: dict[SeriesKey, ResultName] = {}
        for place in self._folder.results:
            for name in _names_in(place):
                if name.series not in numbers or numbers[name.series].number < name.number:
                    numbers[name.series] = name
        return {key: (name.number, self._record(name)) for key, name in numbers.items()}

    def _record(self, name: ResultName) -> ResultRecord:
        return ResultRecord.read(self.find(name))

    def find(self, name: ResultName) -> Path:
        """The folder of a result.

        Raises:
            FileNotFoundError: when there is none.
        """
        for place in self._folder.results:
            if (place / str(name)).is_dir():
                return place / str(name)
        raise FileNotFoundError(str(name))

    def earlier_report(self, name: ResultName) -> list[Dataset]:
        """The report of a result, for the one that replaces it; none when it was never made, or is no longer kept."""
        folder = self.find(name)
        files = ResultRecord.read(folder).files
        if not files or not (folder / files[-1]).exists():
            return []
        with quiet():
            return [dcmread(folder / files[-1])]

    def commit(self, result: NewResult, *, number: int) -> ResultName:
        """Keep a result; from then on it is sent until every destination has it.

        Args:
            result: of a series.
            number: of the result, one above that of the result that it replaces.

        Raises:
            OSError: when the disk is full; nothing has the result's name then.
        """
        from pipeline.dicomnet.objects.result_objects import (
            write_results,  # imported here, because the sender does not need highdicom, which takes a second
        )

        name = ResultName(result.series, number)
        place = self._folder.errors if result.objects is None else self._folder.outbox
        with atomic_folder(place / str(name)) as temporary:
            files = () if result.objects is None else write_results(result.objects, temporary)
            record = ResultRecord(
                inputs=result.inputs,
                images=result.images,
                files=tuple(path.name for path in files),
                replaces=number - 1 if number > 1 else None,
                statuses=tuple(result.statuses),
                codes=tuple(result.codes),
                problem=result.problem,
                made_at=now(),
            )
            write_json(temporary / RECORD, asdict(record))
        return name

    def waiting(self, destination: str) -> list[ResultName]:
        """Results that a destination has neither accepted nor refused, the oldest first."""
        waiting = []
        for name in _names_in(self._folder.outbox):
            folder = self._folder.outbox / str(name)
            try:
                if not any((folder / f"{mark}{destination}").exists() for mark in (_SENT, _REFUSED)):
                    waiting.append(((folder / RECORD).stat().st_mtime_ns, name))
            except FileNotFoundError:  # moved meanwhile
                continue
        return [name for _, name in sorted(waiting)]

    def objects(self, name: ResultName) -> list[Path]:
        """Files of a result in the outbox, in the order in which they are sent."""
        folder = self._folder.outbox / str(name)
        return [folder / file for file in ResultRecord.read(folder).files]

    def mark(self, name: ResultName, destination: str, details: dict[str, Any], *, sent: bool) -> None:
        """Record durably that a destination has accepted a result, or refused it for good."""
        mark = f"{_SENT if sent else _REFUSED}{destination}"
        write_json(self._folder.outbox / str(name) / mark, {"at": now(), **details})

    def settle(self, name: ResultName, destinations: Sequence[str]) -> str | None:
        """Move a result away when every destination has accepted or refused it.

        Returns:
            The name of the folder that it went to; None when it stays.
        """
        folder = self._folder.outbox / str(name)
        with self._lock:
            refused = [(folder / f"{_REFUSED}{destination}").exists() for destination in destinations]
            sent = [(folder / f"{_SENT}{destination}").exists() for destination in destinations]
            if not folder.is_dir() or not all(map(any, zip(refused, sent, strict=True))):
                return None
            target = self._folder.errors if any(refused) else self._folder.archive
            os.replace(folder, target / str(name))
            sync_folder(target)
            sync_folder(self._folder.outbox)
            return target.name


def _names_in(place: Path) -> list[ResultName]:
    return [name for entry in os.listdir(place) if (name := ResultName.parse(entry)) is not None]
