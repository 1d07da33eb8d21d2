"""Signature of a case's files, by which a later run notices that they have changed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.remote import remote_look
from pipeline.cases.source_files import source_files
from pipeline.files import sha256_json


def input_signature(case: Case, covariates: Collection[str] = ()) -> str:
    """16 hex digits of size and modification time of the case's files, its part, centre, covariates and table fault.

    No file is opened except headers that name other files, so a million inputs are compared in seconds. A file that
    cannot be looked at has a signature too, which differs from that of the file itself.
    """
    table: list[object] = [case.center_mm, str(case.fault.code) if case.fault else None]
    table += [case.extra.get(name) for name in covariates]
    part = case.part if case.url is None else case.url.partition("#")[2]
    if part:
        table.append(["part", part])
    if case.url is not None:
        look: object = None if case.fault else remote_look(case.url)
        return sha256_json([look, *table])[:16]
    return sha256_json([[_look(path) for path in source_files(case)], *table])[:16]


def _look(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns]
