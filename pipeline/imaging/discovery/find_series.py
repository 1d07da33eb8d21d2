"""The DICOM series of a searched tree, put together from all its folders.

Exporters spread one series over subfolders (by hundreds of files, by day, one folder a slice); archives keep copies.
All files of the tree with one SeriesInstanceUID are one series, so series are known when the whole tree has been
searched. Until then each file takes its name and a number in memory: 28 MB for 100,000 files, which take 26 s to
search on one core.

A file that may be a damaged slice refuses the series that it may belong to: the only one in its folder, or, in a folder
without any, the only one that is spread over its sister folders. With several the file's series is unknown.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.header import Identity
from pipeline.imaging.dicom.select import shortest_codes

Doubtful = tuple[Path, str, CaseError | None]  # a possible slice; its name in the counts otherwise; its error


@dataclass
class _Series:
    files: list[tuple[int, str]] = field(default_factory=list)  # number of the folder, name
    patients: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class SeriesFiles:
    """One series of a tree.

    Attributes:
        folder: the nearest that holds all its files.
        code: hex digits of the UID's SHA-256, eight or as many as tell it from the others of the folder.
        files: sorted.
        error: why it cannot be a case, when the search already knows.
        alone: no other series has files in the folder.
    """

    folder: Path
    code: str
    files: tuple[Path, ...]
    error: CaseError | None
    alone: bool


class SeriesCollector:
    """Collects slices, and files that may be slices, while a tree is searched."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._series: dict[str, _Series] = defaultdict(_Series)
        self._here: dict[int, set[str]] = {}  # series by folder
        self._lost: dict[int, list[CaseError]] = defaultdict(list)  # may-be slices by folder
        self._doubtful: list[tuple[int, Doubtful]] = []
        self._spread: dict[Path, set[str]] | None = None  # by folder, the series in two or more of its subfolders

    def enter(self, folder: Path) -> None:
        """Begin with the files of another folder."""
        self._folders.append(folder)

    @property
    def any_here(self) -> bool:
        """Whether the present folder holds files of a series."""
        return bool(self._here.get(len(self._folders) - 1))

    def add(self, name: str, identity: Identity) -> None:
        """A file of the present folder that belongs to a series."""
        number = len(self._folders) - 1
        series = self._series[identity.series]
        series.files.append((number, name))
        series.patients.add(identity.patient)
        self._here.setdefault(number, set()).add(identity.series)

    def lose(self, error: CaseError) -> None:
        """A file of the present folder that is a row with this error, and may be a slice of a series."""
        self._lost[len(self._folders) - 1].append(error)

    def doubt(self, file: Doubtful) -> None:
        """A file of a folder without slices: an input only if a series is spread over the folders beside it."""
        self._doubtful.append((len(self._folders) - 1, file))

    def settle(self, skipped: Counter[str]) -> list[CaseError]:
        """Decide about doubtful files once the tree has been seen: rows with an error, or counted as skipped."""
        rows = []
        for number, (path, word, closed) in self._doubtful:
            if self._owner(number) is None:
                skipped[word] += 1
            else:
                fault = closed or no_dicom(path)
                rows.append(fault)
                self._lost[number].append(fault)
        self._doubtful.clear()
        return rows

    def rows(self) -> Iterator[SeriesFiles]:
        """The series, in any order; files become paths as they are asked for."""
        lost: dict[str, list[CaseError]] = defaultdict(list)
        for number, errors in self._lost.items():
            owner = self._owner(number)
            if owner is not None:
                lost[owner] += errors
        folders = {uid: self._common(series) for uid, series in self._series.items()}
        by_folder: dict[Path, list[str]] = defaultdict(list)
        for uid, folder in folders.items():
            by_folder[folder].append(uid)
        shared = self._shared(set(by_folder))
        for folder, uids in by_folder.items():
            for uid, code in shortest_codes(uids).items():
                series = self._series[uid]
                files = tuple(sorted(self._folders[number] / name for number, name in series.files))
                fault = _fault(folder, len(series.patients), lost[uid])
                yield SeriesFiles(folder, code, files, fault, folder not in shared)

    def _common(self, series: _Series) -> Path:
        return Path(os.path.commonpath({self._folders[number] for number, _ in series.files}))

    def _shared(self, folders: set[Path]) -> set[Path]:
        """Those of the folders that hold, at any depth, files of more than one series."""
        within: dict[Path, set[str]] = defaultdict(set)
        for number, uids in self._here.items():
            for folder in (self._folders[number], *self._folders[number].parents):
                if folder in folders and len(within[folder]) < 2:
                    within[folder] |= uids
        return {folder for folder, uids in within.items() if len(uids) > 1}

    def _owner(self, number: int) -> str | None:
        """The only series that a damaged file of a folder can belong to."""
        series = self._here.get(number)
        if not series:
            if self._spread is None:
                self._spread = self._find_spread()
            series = self._spread.get(self._folders[number].parent, set())
        return next(iter(series)) if len(series) == 1 else None

    def _find_spread(self) -> dict[Path, set[str]]:
        spread: dict[Path, set[str]] = defaultdict(set)
        for uid, series in self._series.items():
            folders = Counter(self._folders[number].parent for number in {number for number, _ in series.files})
            for parent, count in folders.items():
                if count > 1:
                    spread[parent].add(uid)
        return spread


def _fault(folder: Path, patients: int, lost: list[CaseError]) -> CaseError | None:
    if patients > 1:
        return CaseError(Code.E_MIXED_PATIENT, folder, f"{patients} patient ids in one series; separate them")
    if lost:
        reason = f"{len(lost)} files beside its slices cannot be read (first: {lost[0].code}: {lost[0].reason})"
        return CaseError(Code.E_SLICE_UNREADABLE, folder, reason)
    return None


def no_dicom(path: Path) -> CaseError:
    """The error of a file that should be DICOM and is not."""
    try:
        if path.stat().st_size == 0:
            return CaseError(Code.E_EMPTY_FILE, path, "0 bytes; copy or export the file again")
        with path.open("rb"):
            pass
    except PermissionError:
        return CaseError(Code.E_PERMISSION, path, "not readable by this user; change the file's permissions")
    except OSError:
        return CaseError(Code.E_NOT_FOUND, path, "vanished during the search; search again")
    return CaseError(Code.E_FORMAT, path, "no DICM mark at byte 128, so not a DICOM file (Part 10); export it again")
