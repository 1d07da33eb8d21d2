"""``malignancy score``: score every scan of an input, one row each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pipeline.cases.inputs import Arrived, Inputs, read_inputs
from pipeline.console import one_line
from pipeline.errors import UsageError
from pipeline.files import private_folder, read_json, write_json, write_text
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.lock import exclusive
from pipeline.scoring.model_description import ModelDescription
from pipeline.scoring.model_verification import verify_model
from pipeline.scoring.output_folder import require_own
from pipeline.scoring.rows import ScoreRow, ScoreTables, now
from pipeline.scoring.sink import RunHeader, Sink
from pipeline.tracking.registry import model_folders
from pipeline.tracking.scoring_runs import load_in_background, record_scoring
from pipeline.workflow.learning.resumption import compare_with_input
from pipeline.workflow.reporting.scoring_summary import ScoringRun, scoring_summary, summarise
from pipeline.workflow.scoring_run import ScoreOptions as ScoreOptions
from pipeline.workflow.scoring_run import (
    collect,
    engine_rows,
    require_no_other_use,
    require_unchanged,
    saying_what_a_full_disk_keeps,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoringResult:
    """Results of a scoring run in its output folder.

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
        """Score rows, one an input (with a detector, a candidate), those of earlier runs among them."""
        import pandas as pd

        return pd.read_parquet(self.folder / "scores.parquet")

    @property
    def scans(self) -> pd.DataFrame:
        """With a detector, one row a scan; see `pipeline.scoring.finding.scan_tables`."""
        import pandas as pd

        return pd.read_parquet(self.folder / "scans.parquet")


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
    if options.find is not None:
        return _found_and_scored(model_names, source, out, options)
    inputs = read_inputs(source)
    folders = model_folders(model_names)
    models = Ensemble.of([verify_model(folder) for folder in folders])
    setup = ScorerSetup.on_this_machine(folders, root=inputs.root, backend=options.backend, workers=options.workers)
    identity = models.identity(options.backend)
    header = RunHeader(identity, models.member_columns, inputs.source, models.threshold)
    require_no_other_use(out)
    inputs = _located(inputs, options.lesions, models.descriptions[0])
    private_folder(out)
    require_own(out)
    started, clock = now(), perf_counter()
    with exclusive(out), saying_what_a_full_disk_keeps(out):
        tables = ScoreTables(models.member_columns, models.finding_columns)
        sink = Sink(out, header, tables, restart=options.restart)
        before = compare_with_input(inputs, sink.finished, models.descriptions[0].covariates)
        require_unchanged(before, out, options)
        if options.track:
            load_in_background()
        arrived = Arrived(options.min_age_seconds)
        todo = before.unfinished(arrived(inputs.cases()))
        new = collect(engine_rows(setup, todo, identity, options), sink, inputs, options)
        # A table defines the cases; in a folder, scans may be moved away once they are scored.
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
        return _write_summary(run, sink, out, options)


def _write_summary(run: ScoringRun, sink: Sink[ScoreRow], out: Path, options: ScoreOptions) -> ScoringResult:
    """Write ``summary.txt`` and ``summary.json``, and record the run in the tracking store where that is asked for."""
    summary = summarise(run, sink.tables(), drift_alert=options.drift_alert)
    text = scoring_summary(run, summary, out)
    write_text(out / "summary.txt", text + "\n")
    write_json(out / "summary.json", summary)
    if options.track:
        summary |= {"mlflow_run": record_scoring(summary)}
        write_json(out / "summary.json", summary)
    return ScoringResult(out, summary, text)


def _found_and_scored(model_names: str, source: str, out: Path, options: ScoreOptions) -> ScoringResult:
    from pipeline.jobs.find import find

    result = find(str(options.find), source, out, options, classifiers=model_names)
    return ScoringResult(result.folder, result.summary, result.summary_text)


def _located(inputs: Inputs, sources: tuple[Path, ...], model: ModelDescription) -> Inputs:
    """The input with the lesion centres of annotations; prints a report on stderr."""
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
    """Earlier rows of lesions that are no longer marked, recorded for when their scan is moved away."""
    record = out / "superseded.json"
    try:
        is_continued = record.exists() and not options.restart
        known = _case_ids(read_json(record)) if is_continued else frozenset()
    except (OSError, ValueError):
        raise UsageError(f"{record}: is not what was written; restore it, or score again with --restart") from None
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
