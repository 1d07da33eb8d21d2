"""The files that a case is read from, so that a change of any of them is noticed."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.imaging.side_files import side_files


def source_files(case: Case) -> list[Path]:
    """All files of a case on this machine: its slices, a folder's files at any depth, or a file and its side files.

    Empty when a folder cannot be listed; the reader reports the fault of a path.
    """
    if case.files is not None:
        return list(case.files)
    try:
        if not case.path.is_dir():
            return [case.path, *side_files(case.path)]
        files = [Path(parent) / name for parent, _, names in os.walk(case.path, onerror=_raise) for name in names]
    except (OSError, ValueError):
        return []
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error
