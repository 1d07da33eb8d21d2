"""What an input looked like from outside, so that a later run notices that it has changed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.remote import remote_look
from pipeline.files import sha256_json


def input_signature(case: Case, covariates: Collection[str] = ()) -> str:
    """16 hex digits of size and modification time of the case's files, lesion centre, covariates and table fault.

    No file is opened: a million inputs are compared in seconds. A file that cannot be looked at has a signature too,
    another one than when it is back.
    """
    table = [case.center_mm, str(case.fault.code) if case.fault else None]
    table += [case.extra.get(name) for name in covariates]
    if case.url is not None:
        look: object = None if case.fault else remote_look(case.url)
        return sha256_json([look, *table])[:16]
    try:
        paths = case.files or (sorted(case.path.iterdir()) if case.path.is_dir() else [case.path])
    except (OSError, ValueError):  # what is wrong with the path is for the reader to say
        paths = []
    return sha256_json([[_look(path) for path in paths], *table])[:16]


def _look(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
