"""Match rows of a table with scans: by path, by name, by a part of the name, or by an id of the DICOM header.

Ways are tried from the strictest to the loosest, and one way is used for the whole table, so that no single row is
matched by coincidence. Rows and scans that did not match are reported.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import PurePosixPath

from pipeline.cases.intake.names import fine_parts, parts, plain, same_id, same_number
from pipeline.cases.intake.words import ID_WORDS, PATIENT

_SUBJECT = re.compile(r"(?<![A-Za-z0-9])sub-[A-Za-z0-9]+")
_LEAST_SHARE = 0.5  # of the filled ids that a way must match to be taken
_MOST_ROWS = 10  # of one scan on average: more are the codes of a class, which happen to be numbers of scans


@dataclass(frozen=True)
class ScanNames:
    """Names that a table may use for a scan.

    Attributes:
        image: path relative to the folder, ``/`` between its parts.
        ids: of its DICOM header, by what they are (``patient``, ``study``, ``series``, ``accession``).
        copies: other paths at which the same bytes lie.
    """

    image: str
    ids: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The file's name without its suffixes, or a series folder's."""
        name = PurePosixPath(self.image.split("#")[0]).name
        return name.removesuffix(".gz").rsplit(".", 1)[0] if "." in name.removesuffix(".gz").strip(".") else name

    @property
    def subject(self) -> str:
        """``sub-01`` of a BIDS path; blank elsewhere."""
        subject = _SUBJECT.search(self.image)
        return subject[0] if subject else ""

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders above it, the nearest first."""
        return tuple(reversed(PurePosixPath(self.image.split("#")[0]).parts[:-1]))


@dataclass(frozen=True)
class Join:
    """Rows and their scans.

    Attributes:
        scans_of: for each row, places of its scans; empty where none fits.
        way: how they were matched, in a few words.
        doubt: an id that is a number, and two scans in whose names it stands at different places; None without one.
    """

    scans_of: tuple[tuple[int, ...], ...]
    way: str
    doubt: tuple[str, int, int] | None = None

    @property
    def matched_rows(self) -> int:
        """Rows with a scan."""
        return sum(bool(scans) for scans in self.scans_of)

    @property
    def matched_scans(self) -> set[int]:
        """Places of the scans that have a row."""
        return {scan for scans in self.scans_of for scan in scans}


def join_ids(ids: Sequence[str], scans: Sequence[ScanNames], *, name: str = "", named: bool = False) -> Join | None:
    """Match a column of ids to scans; None when no way matches half of the filled ids.

    Args:
        ids: one a row; blank ones match nothing.
        scans: all scans of the folder.
        name: of the column.
        named: whether the user named the column, so that one match is enough; else cells may be class codes.
    """
    filled = sum(bool(text.strip()) for text in ids)
    if not filled or not scans:
        return None
    best: Join | None = None
    by_part: list[tuple[_Way, Join]] = []
    named_at = [(place, image) for place, scan in enumerate(scans) for image in (scan.image, *scan.copies)]
    places = [place for place, _ in named_at]
    for way in _ways([ScanNames(image, scans[place].ids) for place, image in named_at]):
        join = _join(ids, way, places)
        distinct = {text for text, scan_numbers in zip(ids, join.scans_of, strict=True) if scan_numbers}
        few = len(distinct) < min(1 if named else 2, filled)
        if few or join.matched_rows > _MOST_ROWS * len(join.matched_scans):
            continue
        if way.is_part:
            by_part.append((way, join))
            continue
        if join.matched_rows == filled:
            return join
        if best is None or join.matched_rows > best.matched_rows:
            best = join
    part = _best_part(ids, name, by_part, filled)
    best = max(filter(None, (part, best)), key=lambda join: join.matched_rows, default=None)
    return best if best and best.matched_rows >= _LEAST_SHARE * filled else None


def _best_part(ids: Sequence[str], name: str, by_part: Sequence[tuple[_Way, Join]], filled: int) -> Join | None:
    """The part of the names that the ids are; None where no part fits half of them.

    A number may stand at several places of a name, as a patient's beside a day's: the one after a word of the column's
    name is meant, or after one that announces an id, as ``pat``; else two that fit are a doubt.
    """
    fitting = [(way, join) for way, join in by_part if join.matched_rows >= _LEAST_SHARE * filled]
    if not fitting:
        return None
    column_words = set(parts(name)) | (PATIENT if set(parts(name)) & PATIENT else set())
    for words in (column_words, PATIENT | ID_WORDS, None):
        meant = [(way, join) for way, join in fitting if words is None or way.after in words]
        if meant:
            break
    _, best = max(meant, key=lambda entry: entry[1].matched_rows)
    if all(_number_key(text).isdecimal() for text in ids if text.strip()):
        for _, join in meant:
            both = zip(best.scans_of, join.scans_of, strict=True)
            row = next(
                (row for row, (first, second) in enumerate(both) if first and second and not set(first) & set(second)),
                None,
            )
            if row is not None:
                return replace(best, doubt=(ids[row], best.scans_of[row][0], join.scans_of[row][0]))
    return best


@dataclass(frozen=True)
class _Way:
    """One way to match: the names of each scan, and the form in which ids are compared."""

    words: str
    keys: list[set[str]]
    key_of_id: Callable[[str], str]
    is_part: bool = False
    after: str = ""  # the part before it, in most names


def _ways(scans: Sequence[ScanNames]) -> Iterator[_Way]:
    """All ways, the strictest first."""
    yield _Way("path", [{scan.image, scan.image.split("#")[0]} for scan in scans], _posix)
    yield _Way("file name", [{PurePosixPath(scan.image).name, scan.stem} for scan in scans], _last)
    yield _Way("BIDS subject", [_keys(scan.subject) for scan in scans], str.strip)
    depth = max(len(scan.folders) for scan in scans)
    kinds = [kind for kind in ("patient", "accession", "study", "series") if any(scan.ids.get(kind) for scan in scans)]
    for loosely, key in ((False, str.strip), (True, same_id)):
        tail = ", but for case, separators and leading zeros" if loosely else ""
        if loosely:
            yield _Way(f"file name{tail}", [{same_id(scan.stem)} for scan in scans], same_id)
        for kind in kinds:
            words = f"{kind} id of the DICOM header{tail}"
            yield _Way(words, [_keys(key(scan.ids.get(kind, ""))) for scan in scans], key)
        for level in range(depth):
            folders = [_keys(key(scan.folders[level])) if level < len(scan.folders) else set() for scan in scans]
            yield _Way(f"folder name{tail}", folders, key)
    yield from _part_ways([scan.stem for scan in scans], "file name")
    for level in range(depth):
        names = [scan.folders[level] if level < len(scan.folders) else "" for scan in scans]
        yield from _part_ways(names, "folder name")
    yield _Way("words inside the file name", [_runs(scan.stem) for scan in scans], same_id)


def _part_ways(names: Sequence[str], name_kind: str) -> Iterator[_Way]:
    """Parts at one place in all names, counted from the front and from the end, as the 001 of ``Pat_001_Thorax``."""
    for split in (parts, fine_parts):
        split_names = [split(name) for name in names]
        longest = max(map(len, split_names), default=0)
        for place in [*range(longest), *range(-1, -longest - 1, -1)]:
            keys = [
                _keys(same_number(name[place])) if -len(name) <= place < len(name) else set() for name in split_names
            ]
            if len(set().union(*keys)) > 1:  # a part that is the same in all names distinguishes no scans
                before = [name[place - 1] for name in split_names if 0 < place < len(name) or -len(name) < place < 0]
                after = Counter(before).most_common(1)[0][0] if before else ""
                yield _Way(f"part of the {name_kind}", keys, _number_key, is_part=True, after=after)


def _runs(name: str) -> set[str]:
    """Every run of two parts and more, as an id of several words would be written."""
    words = fine_parts(name)
    end = len(words) + 1
    return {" ".join(words[first:last]) for first in range(end) for last in range(first + 2, end)}


def _join(ids: Sequence[str], way: _Way, places: Sequence[int]) -> Join:
    scans_of_key: dict[str, dict[int, None]] = defaultdict(dict)  # places in order, each once
    for place, keys in zip(places, way.keys, strict=True):
        for key in keys:
            scans_of_key[key][place] = None
    rows = [tuple(scans_of_key.get(way.key_of_id(text), ())) if text.strip() else () for text in ids]
    return Join(tuple(rows), way.words)


def _keys(text: str) -> set[str]:
    return {text} if text else set()


def _posix(text: str) -> str:
    return text.strip().replace("\\", "/").removeprefix("./")


def _last(text: str) -> str:
    return PurePosixPath(_posix(text)).name


def _number_key(text: str) -> str:
    return same_number(plain(text.strip()))


def near_misses(ids: Sequence[str], join: Join, scans: Sequence[ScanNames]) -> list[tuple[int, str]]:
    """Rows without a scan whose id is nearly a name among the scans without a row: row and that scan's path.

    Args:
        ids: as they were joined.
        join: its result.
        scans: all of them.
    """
    left = [scan for place, scan in enumerate(scans) if place not in join.matched_scans]
    by_name = {same_id(name): scan.image for scan in left for name in (scan.stem, *scan.folders[:1]) if same_id(name)}
    misses = []
    for row, (text, scans_of) in enumerate(zip(ids, join.scans_of, strict=True)):
        if text.strip() and not scans_of and (near := get_close_matches(same_id(text), by_name, n=1, cutoff=0.8)):
            misses.append((row, by_name[near[0]]))
    return misses
