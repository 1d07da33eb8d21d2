"""A store that was moved or copied with its folder: recorded artifact locations follow the database.

MLflow records absolute locations. After a move they name a folder that is gone (and that the next training would make
again); after a copy they name the original's. A location is rewritten when the same end of its path exists beside the
database and holds files of runs or models that the database knows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from pipeline.tracking.sqlite_file import BUSY_SECONDS

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_FILE = "file://"


def follow_moved_artifacts(path: Path) -> list[tuple[Path, Path]]:
    """Rewrite recorded locations of a SQLite store whose folder was moved or copied, in one transaction.

    Args:
        path: of the database.

    Returns:
        From which folder to which folder; empty when everything lies where it is recorded.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database:
        moves = list(_moves(database, path.parent))
        if moves:
            with database:
                for old, new in moves:
                    _rewrite(database, old, new)
        return moves


def _moves(database: sqlite3.Connection, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The folders that the database once lay in, as its experiments' locations tell, each with the present one."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {table for table, _ in _COLUMNS} <= tables:
        return  # not migrated yet, so without artifacts of ours
    moved: set[Path] = set()
    for number, location in database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
        recorded = _local(location)
        if recorded is None or any(recorded.is_relative_to(old) for old in moved):
            continue
        if recorded.is_relative_to(folder) and recorded.is_dir():
            continue
        present = _same_end(recorded, folder)
        if present is None or _is_same(recorded, present) or not _holds(database, number, present):
            continue
        old = recorded.parents[len(present.relative_to(folder).parts) - 1]
        moved.add(old)
        yield old, folder


def _local(location: str | None) -> Path | None:
    """The path of a location on this machine's disk; None for another kind."""
    if location and location.startswith(_FILE + "/"):
        return Path(unquote(location.removeprefix(_FILE)))
    return Path(location) if location and location.startswith("/") else None


def _same_end(recorded: Path, folder: Path) -> Path | None:
    """Path in ``folder`` of the longest end of a recorded path that exists there."""
    parts = recorded.parts[1:]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end.is_dir()), None)


def _is_same(first: Path, second: Path) -> bool:
    return first.exists() and first.samefile(second)


def _holds(database: sqlite3.Connection, experiment: int, folder: Path) -> bool:
    """Whether a folder holds files of a run or a model of the experiment: their ids are found in no other store."""
    runs = database.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,))
    models = database.execute("SELECT model_id FROM logged_models WHERE experiment_id = ?", (experiment,))
    names = {name for (name,) in runs} | {name for (name,) in models}
    inside = {entry.name for place in (folder, folder / "models") if place.is_dir() for entry in place.iterdir()}
    return not names.isdisjoint(inside)


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> None:
    for table, column in _COLUMNS:
        for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # names of the list above
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (after, len(before) + 1, before, len(before) + 1, before + "/"),
            )
