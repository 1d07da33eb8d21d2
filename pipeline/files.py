"""Atomic writes, reads that cannot hang, and digests of bytes and of JSON values.

Files may hold ids of patients, so they get mode 0600 and new folders 0700 unless the caller asks for the user's umask
(``private=False``, for model directories, which are passed on).
"""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_TEMPORARY = r"\.[0-9a-f]{12}\.tmp"
MOST_JSON_BYTES = 64 << 20  # a model.json of a hundred thousand patients has 6 MB
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def temporary_pattern(names: str) -> str:
    """Regular expression of the temporary names that `atomic_write` gives to files whose name fits ``names``."""
    return rf"\.(?:{names}){_TEMPORARY}"


def private_folder(path: Path) -> None:
    """Make a folder, and the folders above it, where they are missing; only this user may look into those made.

    A folder that exists keeps its permissions.
    """
    missing = itertools.takewhile(lambda folder: not folder.exists(), [path, *path.parents])
    for folder in reversed(list(missing)):
        try:
            folder.mkdir(mode=_PRIVATE_FOLDER)
        except FileExistsError:  # another process was first
            if not folder.is_dir():
                raise
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; POSIX needs this after a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path, *, private: bool = True, new: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    The file is synchronised to disk before it takes its final name, so neither a crash nor a full disk
    leaves a half-written file under that name, and a file that stood there before survives both.

    Args:
        path: of the file.
        private: only this user may read it; else what the umask allows.
        new: never replace anything under that name, also nothing that came there meanwhile.

    Raises:
        FileExistsError: with ``new``, when the name is taken; what stands there is untouched.
    """
    if new and os.path.lexists(path):
        raise _taken(path)
    temporary = _temporary(path)
    try:
        if private:  # from its first byte on
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE))
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        if new:
            _take_free_name(temporary, path)
        else:
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _take_free_name(temporary: Path, path: Path) -> None:
    """Give a file its final name unless that is taken; a hard link cannot replace anything."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:  # a file system without hard links
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise _taken(path) from None
        os.replace(temporary, path)


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(f"{path}: exists already and is not overwritten; move it away, or choose another name")


def require_free(path: Path) -> None:
    """Refuse a name for a new folder that is taken; a job asks before its work, and ``atomic_folder`` again after it.

    Raises:
        FileExistsError: when ``path`` exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not an empty folder; choose another name or remove it")


@contextmanager
def atomic_folder(path: Path, *, private: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without an error.

    Args:
        path: of the folder.
        private: only this user may look into it; else what the umask allows.

    Raises:
        FileExistsError: when ``path`` exists and is not an empty folder.
    """
    require_free(path)
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir(mode=_PRIVATE_FOLDER if private else 0o777)
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(folder, name), "rb+") as handle:
                    os.fsync(handle.fileno())
            sync_folder(Path(folder))
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str, *, private: bool = True, new: bool = False) -> None:
    """Write UTF-8 text, whole or not at all; the arguments are those of `atomic_write`."""
    with atomic_write(path, private=private, new=new) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, private: bool = True) -> None:
    """Write a JSON file, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", private=private)


_FORMULA = re.compile(r"[=+\-@\t\r].+", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a cell: it begins with ``= + - @``, tab or return, and is no number."""
    return _FORMULA.fullmatch(text) is not None and _NUMBER.fullmatch(text) is None


def neutral(text: str) -> str:
    """Text that no spreadsheet runs as a formula: a formula gets an apostrophe in front."""
    return f"'{text}" if is_formula(text) else text


def write_csv(
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    exact: Collection[str] = (),
    private: bool = True,
    new: bool = False,
) -> int:
    """Write a CSV table, whole or not at all, in which no cell is a spreadsheet's formula.

    Args:
        path: of the file.
        header: names of the columns.
        rows: cells in their order; None is blank.
        exact: columns that are read back as they are (ids, paths), so that a formula in them is refused, not changed.
        private: as of `atomic_write`.
        new: as of `atomic_write`.

    Returns:
        How many cells got an apostrophe.

    Raises:
        UsageError: when a cell of an exact column is a formula; nothing is written.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in (header, *rows)]
    for place, name in enumerate(header):
        formulas = sum(is_formula(row[place]) for row in texts[1:]) if name in exact else 0
        if formulas:
            raise UsageError(
                f"{path}: not written: column {name!r}: {formulas} of {len(texts) - 1} cells begin with = + - or @, "
                "which a spreadsheet runs as a formula, and are kept exactly; rename them where they come from"
            )
    with (
        atomic_write(path, private=private, new=new) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        csv.writer(handle, lineterminator="\n").writerows([neutral(text) for text in row] for row in texts)
    return sum(is_formula(text) for row in texts for text in row)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; unlike `open`, it never waits for the writer of a pipe.

    Raises:
        OSError: when it cannot be opened, or is a folder, pipe, socket or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is a folder, pipe or device, expected a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, most: int) -> bytes:
    """A regular file's bytes.

    Raises:
        OSError: when it cannot be read, or is a folder, pipe, socket or device.
        ValueError: when it is larger than ``most`` bytes, before anything is read.
    """
    with open_file(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if size > most:
            raise ValueError(f"has {size} bytes, expected at most {most}")
        return handle.read(most)


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON, without NaN and infinite numbers and without excessive nesting.

    Raises:
        ValueError: for anything else, in a few words.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON (line {error.lineno}: {error.msg})") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"holds {name}, expected finite numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"holds {text[:20]}, expected finite numbers")
    return number


def read_json(path: Path, *, most: int = MOST_JSON_BYTES) -> Any:
    """The value of a JSON file that this program wrote.

    Raises:
        OSError: when it cannot be read, or is a folder, pipe, socket or device.
        ValueError: when it is too large, not JSON, or holds NaN or an infinite number.
    """
    return parse_json(read_bytes(path, most=most))


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a regular file's bytes, read in blocks."""
    with open_file(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order and spacing."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
