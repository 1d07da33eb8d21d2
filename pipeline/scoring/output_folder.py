"""Names in an output folder that are this program's; it never takes over or removes other files.

OUT/.lock                       who writes, or wrote last
OUT/parts/                      committed rows; ``run.json`` in it marks the folder as this program's
OUT/parts-before-*/             rows that ``--restart`` set aside
OUT/scores.parquet, ...         results
.NAME.<12 hex digits>.tmp       a file that a killed run was writing
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import temporary_pattern

LOCK, PARTS, RUN = ".lock", "parts", "run.json"
_RESULTS = r"(?:scores|scans|candidates)\.(?:parquet|csv)|candidates\.yaml|summary\.(?:txt|json)|superseded\.json"
_PART = re.compile(r"\d{6,}\.parquet")
_RECORD = re.compile(r"\d{6,}\.json")
_OLD_TEMPORARY = re.compile(temporary_pattern(_RESULTS))
_OLD_TEMPORARY_PART = re.compile(temporary_pattern(r"run\.json|\d{6,}\.parquet|\d{6,}\.json"))


def require_own(folder: Path) -> None:
    """Refuse a folder that holds files and was not made by this program; nothing in it is touched.

    Raises:
        UsageError: naming the first file that is not this program's.
    """
    if (folder / PARTS / RUN).is_file() or any(folder.glob(f"{PARTS}-before-*/{RUN}")):
        return
    for path in _content(folder):
        if not _OLD_TEMPORARY_PART.fullmatch(path.name):
            raise UsageError(
                f"--out {folder}: holds {path.relative_to(folder)} and no {PARTS}/{RUN}, so scoring did not make it; "
                "name a new folder"
            )


def _content(folder: Path) -> Iterator[Path]:
    """Names that an output folder does not hold before its ``run.json`` is written."""
    for path in sorted(folder.iterdir()):
        if path.name == PARTS and path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())
        elif path.name not in (LOCK, "lost+found"):  # the second is the root of a file system
            yield path


def part_files(parts: Path) -> list[Path]:
    """Rows, committed or not, in order."""
    return sorted((path for path in parts.iterdir() if _PART.fullmatch(path.name)), key=_number)


def record_files(parts: Path) -> list[Path]:
    """Commit records, in order."""
    return sorted((path for path in parts.iterdir() if _RECORD.fullmatch(path.name)), key=_number)


def remove_temporaries(folder: Path) -> None:
    """Remove unfinished files of a killed run; the lock is held, so no other process writes now."""
    for place, pattern in ((folder, _OLD_TEMPORARY), (folder / PARTS, _OLD_TEMPORARY_PART)):
        for path in place.iterdir():
            if pattern.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
                path.unlink()


def _number(path: Path) -> int:
    return int(path.stem)
