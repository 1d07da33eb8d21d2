"""A scoring run in the tracking store: counts, throughput, drift. No case, patient or path is in it."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from pipeline.config.experiment import Tracking
from pipeline.errors import PipelineError
from pipeline.machine import garbage_collection_paused
from pipeline.tracking.faults import store_reason
from pipeline.tracking.runs import open_run, spool_folder
from pipeline.tracking.spool import FinishedRun, leave_run
from pipeline.tracking.store import load_mlflow, tracking_uri

_EXPERIMENT = "malignancy-scoring"
_METRICS = (
    "cases",
    "scored",
    "flagged",
    "rejected",
    "failed",
    "scored_by_this_run",
    "unscored_share",
    "seconds",
    "scans_per_second",
)
_TAGS = ("model", "model_digest", "preprocessing_digest", "input_digest", "label_source", "intensities")


def load_in_background() -> threading.Thread:
    """Import what `record_scoring` needs in a thread, while the workers score; errors are left to that function."""
    thread = threading.Thread(target=_load, name="load MLflow")
    thread.start()
    return thread


def _load() -> None:
    with contextlib.suppress(ImportError):  # `record_scoring` raises it again and reports it
        load_mlflow()
        with garbage_collection_paused():
            import matplotlib.backends.backend_agg
            import matplotlib.figure  # noqa: F401


def record_scoring(summary: Mapping[str, Any], *, kind: Literal["scoring", "finding"] = "scoring") -> str | None:
    """Log a finished scoring run; None when the store cannot take it now, which must not fail the scoring.

    Such a record waits beside the artifacts, and is sent when the store is next opened.

    Args:
        summary: as written to ``summary.json``.
        kind: of the run; one of finding has no drift.

    Returns:
        The MLflow run id.
    """
    config = Tracking(experiment=_EXPERIMENT)
    tags = {name: str(summary[name]) for name in _TAGS if summary[name]} | {"kind": kind}
    if kind == "scoring":
        tags["drift_alerts"] = ", ".join(summary["drift_alerts"]) or "none"
        tags["drift"] = "; ".join(summary["drift_sentences"]) or "none"
    name = f"{'score' if kind == 'scoring' else 'find'} {summary['model']} {summary['ended_at'][:16]}"
    opened = False
    try:
        with open_run(config, name=name, tags=tags) as run:
            opened = True
            run.metrics(_metrics(summary))
            if kind == "scoring":
                run.figure(_figure(summary), "drift.png")
            return run.run_id
    except Exception as error:  # noqa: BLE001  # the rows are written, and a fault of tracking must not fail the run
        reason = error if isinstance(error, PipelineError) else store_reason(error)
        print(f"warning: the rows are written; this run is not in the tracking store yet: {reason}", file=sys.stderr)
    if not opened:
        _leave(config, FinishedRun(_EXPERIMENT, name, tags, _metrics(summary), int(time.time() * 1000)))
    return None


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(summary[name]) for name in _METRICS}
    values |= {f"code_{code}": float(count) for code, count in summary["codes"].items()}
    if "candidates" in summary:
        values |= {"candidates": float(summary["candidates"])}
    values |= {f"drift_{name}": float(value) for name, value in summary.get("drift", {}).items()}
    for name, test in summary.get("drift_tests", {}).items():
        values |= {f"drift_effect_{name}": float(test["effect"]), f"drift_p_{name}": float(test["p_adjusted"])}
    return values


def _leave(config: Tracking, run: FinishedRun) -> None:
    try:
        path = leave_run(spool_folder(config), tracking_uri(config), run)
    except OSError as error:
        print(f"warning: its record cannot be kept ({error}); summary.json has the same numbers", file=sys.stderr)
        return
    print(f"its record waits in {path} and is sent when the store is next opened", file=sys.stderr)


def _figure(summary: Mapping[str, Any]) -> bytes:
    """Histogram of the probabilities beside the drift of each measure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = np.array(summary["probability_histogram"])
    edges = np.linspace(0, 1, len(counts) + 1)
    left.bar(edges[:-1], counts, width=edges[1], align="edge", color="0.5", edgecolor="white")
    left.set(xlabel="probability of malignancy", ylabel="cases", title=summary["model"], xlim=(0, 1))
    tests = summary["drift_tests"]
    colours = ["C3" if test["alert"] else "0.5" for test in tests.values()]
    right.barh(list(tests), [test["index"] for test in tests.values()], color="none", edgecolor="0.5", height=0.8)
    right.barh(list(tests), [test["effect"] for test in tests.values()], color=colours, height=0.5)
    right.set(xlabel="population stability index against the model's own cases\n(filled: beyond chance; red: alert)")
    if not tests:
        right.text(0.5, 0.5, "too few cases or patients, or no reference", ha="center", transform=right.transAxes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
