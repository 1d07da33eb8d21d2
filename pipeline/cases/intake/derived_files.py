"""Folders that hold several files of one subject under the same names: the scan, and what was computed from it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.cases.intake.names import plain
from pipeline.cases.intake.scans import SurveyedScan
from pipeline.cases.tables.table import most_common
from pipeline.errors import UsageError

_DATE = re.compile(r"\d{4,}")
_BIDS_SUFFIX = re.compile(r"sub-[A-Za-z0-9]+(?:_[A-Za-z0-9]+-[A-Za-z0-9]+)*_([A-Za-z0-9]+)")
_LEAST_FOLDERS = 3  # that hold the same names; fewer may be coincidence
# Names under which programs keep the scan as it was acquired, the likeliest first.
_ACQUIRED = ("t1", "t1w", "orig", "image", "img", "ct", "scan", "volume", "mri", "nu", "t2", "t2w", "flair")


def one_kind_of_file(scans: Sequence[SurveyedScan]) -> tuple[list[SurveyedScan], list[SurveyedScan], str | None]:
    """Keep one of the files that stand beside each other, on one grid and under the same names, in many folders.

    Returns:
        The scans that are kept, those that are not, and a line that says so.

    Raises:
        UsageError: when no name says which of them is the scan.
    """
    _require_one_bids_suffix(scans)
    in_folder: dict[PurePosixPath, list[SurveyedScan]] = defaultdict(list)
    for scan in scans:
        if scan.files is None and not scan.is_flat:
            in_folder[PurePosixPath(scan.image).parent].append(scan)
    sets: dict[frozenset[str], list[list[SurveyedScan]]] = defaultdict(list)
    for group in in_folder.values():
        names = frozenset(_kind(scan) for scan in group)
        if len(names) > 1 and len({scan.shape for scan in group}) == 1:
            sets[names].append(group)
    left_out: list[SurveyedScan] = []
    lines = []
    for names, groups in sets.items():
        if len(groups) < _LEAST_FOLDERS:
            continue
        group = [scan for folder in groups for scan in folder]
        chosen = _acquired(names)
        left_out += [scan for scan in group if _kind(scan) != chosen]
        counts = {name: sum(_kind(scan) == name for scan in group) for name in sorted(names)}
        lines.append(
            f"files of the same names in many folders, {most_common(counts)}: {chosen} is taken [--files PATTERN]"
        )
    gone = {id(scan) for scan in left_out}
    return [scan for scan in scans if id(scan) not in gone], left_out, "; ".join(lines) or None


def _kind(scan: SurveyedScan) -> str:
    """The file's name, its dates and long numbers left out: scans of two visits are of one kind."""
    return _DATE.sub("*", PurePosixPath(scan.image).name)


def _require_one_bids_suffix(scans: Sequence[SurveyedScan]) -> None:
    """Refuse a BIDS dataset of several sequences, which may differ between the classes."""
    suffixes = Counter(
        match[1] for scan in scans if (match := _BIDS_SUFFIX.fullmatch(PurePosixPath(scan.image).name.split(".")[0]))
    )
    if len(suffixes) > 1:
        commonest = suffixes.most_common(1)[0][0]
        raise UsageError(
            f"the BIDS names hold several kinds of scan, {most_common(suffixes)}; say which is scored: "
            f"--files '**/*_{commonest}.*'"
        )


def _acquired(names: frozenset[str]) -> str:
    by_stem = {plain(name.split(".")[0]): name for name in names}
    for stem in _ACQUIRED:
        if stem in by_stem:
            return by_stem[stem]
    raise UsageError(
        f"many folders hold the files {', '.join(sorted(names))}: say which are the scans, as --files '**/{min(names)}'"
    )
