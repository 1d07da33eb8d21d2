"""``malignancy score``: every scan of an input becomes one row, whatever happens on the way."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from pipeline.cases.case import Case
from pipeline.cases.inputs import Arrived, Inputs, read_inputs
from pipeline.console import one_line
from pipeline.errors import ModelError, UnfinishedError, UsageError
from pipeline.files import private_folder, read_json, write_json, write_text
from pipeline.progress import ProgressReport
from pipeline.scoring.backends import Backend
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.local import score_in_processes
from pipeline.scoring.lock import exclusive
from pipeline.scoring.model_description import JSON_NAME, ModelDescription
from pipeline.scoring.model_verification import verify_model
from pipeline.scoring.output_folder import require_own
from pipeline.scoring.rows import STATUSES, ModelIdentity, ScoreRow, ScoreTables, now
from pipeline.scoring.sink import RunHeader, Sink
from pipeline.scoring.workers import ScorerSetup
from pipeline.tracking.registry import model_folders
from pipeline.tracking.scoring_runs import load_in_background, record_scoring
from pipeline.workflow.learning.resumption import compare_with_input
from pipeline.workflow.reporting.scoring_summary import ScoringRun, scoring_summary, summarise

if TYPE_CHECKING:
    import pandas as pd

_TOO_EARLY = 50  # rows before which a failure rate says nothing


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
    track: bool = True


@dataclass(frozen=True)
class ScoringResult:
    """What a scoring run left in its output folder.

    Attributes:
        folder: the output folder.
        summary: counts by status and code, throughput, drift: what ``summary.json`` holds.
        summary_text: the same in words, as the command prints it.
    """

    folder: Path
    summary: dict[str, Any]
    summary_text: str

    @property
    def rows(self) -> pd.DataFrame:
        """Score rows, one an input, those of earlier runs into the folder among them."""
        import pandas as pd

        return pd.read_parquet(self.folder / "scores.parquet")


def score(model_names: str, source: str, out: Path, options: ScoreOptions | None = None) -> ScoringResult:
    """Score an input into an output folder, going on where an earlier run into it ended.

    Args:
        model_names: one model, or several joined by commas as an ensemble.
        source: manifest, folder, scan or URL.
        out: output folder; made when missing.
        options: how; as the command does by default.

    Raises:
        UsageError: when the folder holds rows of another model or source, or inputs have changed.
        UnfinishedError: when too many cases failed, or golden scans drifted.
    """
    options = options or ScoreOptions()
    inputs = read_inputs(source)
    folders = model_folders(model_names)
    models = Ensemble.of([verify_model(folder) for folder in folders])
    setup = ScorerSetup.on_this_machine(folders, root=inputs.root, backend=options.backend, workers=options.workers)
    identity = models.identity(options.backend)
    header = RunHeader(identity, models.member_columns, inputs.source, models.threshold)
    _require_no_other_use(out)
    inputs = _located(inputs, options.lesions, models.descriptions[0])
    private_folder(out)
    require_own(out)
    started, clock = now(), perf_counter()
    with exclusive(out), _saying_what_a_full_disk_keeps(out):
        tables = ScoreTables(models.member_columns, models.finding_columns)
        sink = Sink(out, header, tables, restart=options.restart)
        before = compare_with_input(inputs, sink.finished, models.descriptions[0].covariates)
        if before.changed and not options.rescore_changed:
            raise UsageError(
                f"{out}: {len(before.changed)} inputs have changed since they were scored (first: {min(before.changed)}"
                "); --rescore-changed scores them again, --restart everything"
            )
        if options.track:
            load_in_background()
        arrived = Arrived(options.min_age_seconds)
        todo = before.unfinished(arrived(inputs.cases()))
        new = _collect(_rows(setup, todo, identity, options), sink, inputs, options)
        # A table says which cases there are; in a folder, scans are moved away once they are scored.
        left = before.gone if inputs.digest else _superseded(out, before.gone, inputs, options)
        sink.leave_out(left)
        counts = sink.finish()
        run = ScoringRun(
            inputs=inputs,
            descriptions=models.descriptions,
            identity=identity,
            counts=counts,
            new=new,
            waiting=arrived.waiting,
            gone=len(before.gone) if inputs.digest else len(before.gone - left),
            started_at=started,
            seconds=perf_counter() - clock,
        )
        summary = summarise(run, sink.tables(), drift_alert=options.drift_alert)
        text = scoring_summary(run, summary, out)
        write_text(out / "summary.txt", text + "\n")
        write_json(out / "summary.json", summary)
        if options.track:
            summary |= {"mlflow_run": record_scoring(summary)}
            write_json(out / "summary.json", summary)
    return ScoringResult(out, summary, text)


def _require_no_other_use(out: Path) -> None:
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"--out {out}: is not a folder; name one that exists or can be made")
    if (out / JSON_NAME).exists():
        raise UsageError(f"--out {out}: is a model directory; name another folder")


def _located(inputs: Inputs, sources: tuple[Path, ...], model: ModelDescription) -> Inputs:
    """The input with the lesion centres of annotations, and on stderr what was found."""
    if not sources:
        return inputs
    from pipeline.cases.lesions.locate import locate, located_inputs, require_lesion_model
    from pipeline.cases.lesions.report import report_lines

    require_lesion_model(model.name, model.preprocessing.region)
    located = locate(inputs, sources)
    for line in report_lines(located):
        print(one_line(line), file=sys.stderr)
    return located_inputs(inputs, located)


def _superseded(out: Path, gone: frozenset[str], inputs: Inputs, options: ScoreOptions) -> frozenset[str]:
    """Earlier rows of lesions that an annotation marks no more, remembered for when their scan is moved away."""
    record = out / "superseded.json"
    try:
        kept = record.exists() and not options.restart
        known = _case_ids(read_json(record)) if kept else frozenset()
    except (OSError, ValueError):
        raise UsageError(f"{record}: is not what was written; restore it, or score anew with --restart") from None
    if not options.lesions and not known:
        return frozenset()
    from pipeline.cases.lesions.locate import superseded

    left = (known & gone) | superseded(gone, inputs)
    if left != known:
        write_json(record, sorted(left))
    return left


def _case_ids(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(case_id, str) for case_id in value):
        raise ValueError("expected a list of texts")
    return frozenset(value)


@contextmanager
def _saying_what_a_full_disk_keeps(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UnfinishedError(
            f"{out}: the disk is full; rows committed before are kept: free some space and run the same command again"
        ) from error


def _rows(
    setup: ScorerSetup, cases: Iterator[Case], identity: ModelIdentity, options: ScoreOptions
) -> Generator[ScoreRow, None, None]:
    first = next(cases, None)
    if first is None:  # nothing left to do is said at once, without starting workers for it
        return
    engine: Callable[..., Iterator[ScoreRow]] = score_in_processes
    if options.engine == "ray":
        from pipeline.scoring.ray_engine import score_on_ray as engine
    yield from engine(
        setup,
        itertools.chain((first,), cases),
        identity,
        batch_size=options.batch_size,
        workers=options.workers,
        timeout_seconds=options.timeout_seconds,
    )


def _collect(
    rows: Generator[ScoreRow, None, None], sink: Sink[ScoreRow], inputs: Inputs, options: ScoreOptions
) -> Counter[str]:
    """Hand the rows to the sink, show how it goes, and stop when the night is clearly going wrong.

    Returns:
        New rows by status.
    """
    statuses: Counter[str] = Counter()
    kept = sum(done.kept for done in sink.finished.values())
    try:
        with ProgressReport("scans scored", total=inputs.total, done=kept) as report:
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
    except (ModelError, UsageError):  # what only a worker could find out about the model
        sink.forget_empty()
        raise
    finally:
        rows.close()  # its workers end before the lock is released
        sink.commit()
    return statuses
