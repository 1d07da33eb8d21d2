"""The default store, a SQLite file: its path, checks, and one migration under a lock."""

from __future__ import annotations

import errno
import fcntl
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.tracking.faults import StoreError

SQLITE = "sqlite:///"
_OPTIONS = re.compile(r"\?[\w.-]+=[^/?]*$")  # as in mlflow.db?timeout=30; any other "?" is part of a folder's name
_MAGIC = b"SQLite format 3\0"
LOCK_SECONDS = 120.0  # a cold machine migrates a new file in ten
BUSY_SECONDS = 5.0


def sqlite_path(uri: str) -> Path | None:
    """The file of a ``sqlite:///`` URI, absolute; None for another store and for a database in memory.

    What stands after ``sqlite:///`` is a path as the disk spells it. One that is escaped as in a URL (``%20``) is read
    as such where the folder of the spelled one does not exist and that of the other does.
    """
    text = _OPTIONS.sub("", uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or text in ("", ":memory:") or text.startswith("file:"):
        return None
    path, decoded = Path(text).absolute(), Path(unquote(text)).absolute()
    return decoded if decoded.parent.is_dir() and not path.parent.is_dir() else path


def sqlite_uri(uri: str) -> str:
    """The URI under which SQLAlchemy opens that very file, whatever characters its folders' names have."""
    path = sqlite_path(uri)
    if path is None:
        return uri
    options = _OPTIONS.search(uri)
    return f"{SQLITE}{quote(str(path))}{options.group() if options else ''}"


def require_sound(path: Path) -> None:
    """Check the file before MLflow opens it, which would retry for minutes.

    Raises:
        StoreError: when the path is not a SQLite file.
        OSError: when the file or its folder cannot be read.
        sqlite3.Error: when it is damaged, or locked for longer than five seconds.
    """
    if path.is_dir():
        raise StoreError(
            f"tracking store {path} is a folder; expected a SQLite file: name one, as {path / 'mlflow.db'}"
        )
    if not path.exists() or not path.stat().st_size:
        return
    with open(path, "rb") as handle:
        if handle.read(len(_MAGIC)) != _MAGIC:
            raise StoreError(
                f"tracking store {path} is not a SQLite database; restore the file, or name a new one in tracking.uri"
            )
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()


@contextmanager
def migration_lock(path: Path) -> Iterator[None]:
    """Hold a lock beside the file: cold clients that migrate it at the same time break it.

    Raises:
        StoreError: when another process holds it for two minutes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    try:
        handle = open(lock, "a")  # noqa: SIM115  # closed below; never emptied: it may be another program's
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        yield  # nobody migrates in a folder that cannot be written
        return
    with handle:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"tracking store {path}: another process has been opening it for {LOCK_SECONDS:g} s "
                        f"(it holds {lock.name}); wait for it, or end it"
                    ) from None
                time.sleep(0.05)
        yield
