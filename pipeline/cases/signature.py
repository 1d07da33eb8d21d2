"""What an input looked like from outside, so that a later run notices that it has changed."""

from __future__ import annotations

from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.remote import remote_look
from pipeline.files import sha256_json


def input_signature(case: Case) -> str:
    """16 hex digits of size and modification time of the case's files, its lesion centre and the table's fault.

    No file is opened: a million inputs are compared in seconds. A file that cannot be looked at has a signature too,
    another one than when it is back.
    """
    fault = str(case.fault.code) if case.fault else None
    if case.url is not None:
        look: object = None if case.fault else remote_look(case.url)
        return sha256_json([look, case.center_mm, fault])[:16]
    try:
        paths = case.files or (sorted(case.path.iterdir()) if case.path.is_dir() else [case.path])
    except (OSError, ValueError):  # what is wrong with the path is for the reader to say
        paths = []
    return sha256_json([[_look(path) for path in paths], case.center_mm, fault])[:16]


def _look(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
