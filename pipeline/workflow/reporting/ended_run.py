"""Parts of the summaries that scoring and searching share: inputs, model, throughput, earlier rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.cases.inputs import Inputs
from pipeline.scoring.rows import ModelIdentity, now
from pipeline.scoring.sink import Counts


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run into an output folder that has come to its end.

    Attributes:
        inputs: of the run.
        identity: of the model, or of the detector.
        counts: rows of the whole output, earlier runs into it included.
        new: rows of this run by status.
        waiting: inputs whose files were too young.
        gone: committed rows whose inputs are no longer named.
        started_at: of this run.
        seconds: of this run.
    """

    inputs: Inputs
    identity: ModelIdentity
    counts: Counts
    new: Mapping[str, int]
    waiting: int
    gone: int
    started_at: str
    seconds: float


def run_to_json(run: EndedRun) -> dict[str, Any]:
    """Keys of ``summary.json`` about the run as such."""
    new = sum(run.new.values())
    return {
        "scored_by_this_run": new,
        "waiting_for_arrival": run.waiting,
        "no_longer_in_input": run.gone,
        "skipped_files": dict(run.inputs.skipped),
        "repeated_rows": run.inputs.repeated_rows,
        "input": run.inputs.source,
        "input_digest": run.inputs.digest,
        "seconds": round(run.seconds, 3),
        "scans_per_second": round(new / run.seconds, 2),
        "started_at": run.started_at,
        "ended_at": now(),
        "model": run.identity.model,
        "model_digest": run.identity.model_digest,
        "preprocessing_digest": run.identity.preprocessing_digest,
    }


def earlier_and_later(run: EndedRun, inputs: str) -> Iterator[str]:
    """Lines about rows of earlier runs and inputs left for later ones.

    Args:
        run: that ended.
        inputs: word for them, in the plural.
    """
    earlier = run.counts.total - sum(run.new.values())
    if earlier > 0:
        yield f"  {earlier} of them were kept from an earlier run into this folder"
    if run.waiting:
        yield f"  {run.waiting} more are still arriving, left for the next run"
    if run.gone:
        handling = "left out of the tables" if run.inputs.digest else "kept as they were"
        yield f"  {run.gone} {inputs} of an earlier run are no longer in the input: {handling}"
