"""Retention: remove scans, and results that have been delivered everywhere, after the configured time."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Final

from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.listener_folder import EVALUATED, RECORD, ListenerFolder, ResultName

_DAY_SECONDS: Final = 86_400.0


def forget_old(folder: ListenerFolder, audit: Audit, *, days: float, now: float | None = None) -> int:
    """Remove the scans of finished studies, and the objects of results that were delivered.

    A study is kept while one of its results waits in the outbox or lies among the errors, and a study that was not
    evaluated yet is kept whatever its age. Of a delivered result the record stays, which holds no patient's data: it
    keeps a series that is sent again from being reported twice.

    Args:
        folder: of the listener.
        audit: of the listener.
        days: since the last change.
        now: seconds since 1970; the present by default.

    Returns:
        How many studies and results were removed.
    """
    limit = (time.time() if now is None else now) - days * _DAY_SECONDS
    names = (ResultName.parse(path.name) for place in (folder.outbox, folder.errors) for path in place.iterdir())
    needed = {name.series.study for name in names if name is not None}
    removed = 0
    for study in [path for path in folder.received.iterdir() if path.name not in needed]:
        away = folder.receiving / f"{study.name}.old"
        with folder.taking_in(removing=True):
            if not (study / EVALUATED).exists() or _last_change(study) >= limit:
                continue
            os.replace(study, away)  # at once, so that a partly removed study is not taken for a complete one
        shutil.rmtree(away, ignore_errors=True)
        audit("study removed", study=study.name)
        removed += 1
    for result in list(folder.archive.iterdir()):
        record = result / RECORD
        objects = list(result.glob("*.dcm"))
        if objects and record.exists() and record.stat().st_mtime < limit:
            for path in objects:
                path.unlink()
            removed += 1
    for path in list(folder.audit.iterdir()):
        if path.stat().st_mtime < limit:
            path.unlink()
    return removed


def _last_change(study: Path) -> float:
    return max(path.stat().st_mtime for path in (study, *study.iterdir()))
