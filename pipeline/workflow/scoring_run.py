"""Shared by the commands that write rows into an output folder: options, engine, and feeding the sink."""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs
from pipeline.errors import ModelError, UnfinishedError, UsageError
from pipeline.progress import ProgressReport
from pipeline.scoring.backends import Backend
from pipeline.scoring.engines.local import score_in_processes
from pipeline.scoring.engines.workers import WorkerSetup
from pipeline.scoring.model_description import JSON_NAME
from pipeline.scoring.row_tables import SinkRowT
from pipeline.scoring.rows import STATUSES, ModelIdentity
from pipeline.scoring.sink import Sink
from pipeline.workflow.learning.resumption import Resumption

_TOO_EARLY = 50  # rows below which the failure rate is not checked


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How to score.

    Attributes:
        engine: ``local`` processes, or ``ray``.
        workers: processes or Ray actors; one per core by default.
        batch_size: cases that go through the network together.
        backend: how the networks are run.
        timeout_seconds: that one scan may take to be read.
        restart: set aside the rows that the output folder holds.
        rescore_changed: score inputs again that have changed since they were scored, instead of refusing.
        max_failure_rate: share of rejected and failed rows, of at least 50 of this run, at which it stops, exit code 3.
        min_age_seconds: files younger than this are left for a later run.
        drift_alert: population stability index, less what chance adds to it, from which a clear shift is an alert.
        lesions: annotation files or folders that lesion centres are taken from.
        find: detector whose candidates are scored, in whole scans; None scores the cases that the input names.
        track: log the run to MLflow.
    """

    engine: Literal["local", "ray"] = "local"
    workers: int | None = None
    batch_size: int = 8
    backend: Backend = "eager"
    timeout_seconds: float = 300.0
    restart: bool = False
    rescore_changed: bool = False
    max_failure_rate: float = 1.0
    min_age_seconds: float = 0.0
    drift_alert: float = 0.1
    lesions: tuple[Path, ...] = ()
    find: str | None = None
    track: bool = True


def require_no_other_use(out: Path) -> None:
    """Refuse an output folder that is a file, or a model directory.

    Raises:
        UsageError: naming it.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"--out {out}: is not a folder; name one that exists or can be made")
    if (out / JSON_NAME).exists():
        raise UsageError(f"--out {out}: is a model directory; name another folder")


def require_unchanged(before: Resumption, out: Path, options: ScoreOptions) -> None:
    """Refuse to go on where inputs have changed since an earlier run, unless they may be scored again.

    Raises:
        UsageError: with how many, and the way out.
    """
    if before.changed and not options.rescore_changed:
        raise UsageError(
            f"{out}: {len(before.changed)} inputs have changed since they were scored (first: {min(before.changed)}"
            "); --rescore-changed scores them again, --restart everything"
        )


@contextmanager
def saying_what_a_full_disk_keeps(out: Path) -> Iterator[None]:
    """Turn a full disk into an error that lists what is kept.

    Raises:
        UnfinishedError: for it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UnfinishedError(
            f"{out}: the disk is full; rows committed before are kept: free some space and run the same command again"
        ) from error


def engine_rows(
    setup: WorkerSetup[SinkRowT], cases: Iterator[Case], identity: ModelIdentity, options: ScoreOptions
) -> Generator[SinkRowT, None, None]:
    """The rows of cases, from the engine that the options name; workers start with the first case.

    Args:
        setup: what the workers do.
        cases: to be scored.
        identity: of the rows of cases that no worker answers for.
        options: engine, workers, batch and time.
    """
    first = next(cases, None)
    if first is None:  # with nothing left to do, no worker is started
        return
    engine: Callable[..., Iterator[SinkRowT]] = score_in_processes
    if options.engine == "ray":
        from pipeline.scoring.engines.ray_engine import score_on_ray as engine
    yield from engine(
        setup,
        itertools.chain((first,), cases),
        identity,
        batch_size=options.batch_size,
        workers=options.workers,
        timeout_seconds=options.timeout_seconds,
    )


def collect(
    rows: Generator[SinkRowT, None, None],
    sink: Sink[SinkRowT],
    inputs: Inputs,
    options: ScoreOptions,
    *,
    what: str = "scans scored",
) -> Counter[str]:
    """Hand the rows to the sink, show progress, and stop when too many rows fail.

    Args:
        rows: of the engine; always closed at the end.
        sink: of the output folder.
        inputs: whose cases they are.
        options: from which share of failures the run stops.
        what: is done, as the progress says it.

    Returns:
        New rows by status.

    Raises:
        UnfinishedError: when it stops.
    """
    statuses: Counter[str] = Counter()
    earlier = sum(done.kept for done in sink.finished.values())
    try:
        with ProgressReport(what, total=inputs.total, done=earlier) as report:
            for row in rows:
                sink.append(row)
                statuses[row.status] += 1
                done = statuses.total()
                report.advance(", ".join(f"{statuses[name]} {name}" for name in STATUSES if statuses[name]))
                unscored = statuses["rejected"] + statuses["failed"]
                if done >= _TOO_EARLY and unscored / done > options.max_failure_rate:
                    raise UnfinishedError(
                        f"{unscored} of {done} cases were not scored, above --max-failure-rate "
                        f"{options.max_failure_rate:g} (last: {row.code}); look at the rows in {sink.folder}/parts"
                    )
    except (ModelError, UsageError):  # faults of the model that only a worker finds
        sink.forget_empty()
        raise
    finally:
        rows.close()  # its workers end before the lock is released
        sink.commit()
    return statuses
