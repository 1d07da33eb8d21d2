"""A scoring run in the tracking store: counts, throughput, drift. No case, patient or path is in it."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.config.experiment import Tracking
from pipeline.errors import PipelineError
from pipeline.tracking.runs import open_run

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


def record_scoring(summary: Mapping[str, Any]) -> str | None:
    """Log a finished scoring run; None when the store cannot be reached, because the rows are what counts.

    Args:
        summary: as written to ``summary.json``.

    Returns:
        The MLflow run id.
    """
    tags = {name: str(summary[name]) for name in _TAGS if summary[name]} | {"kind": "scoring"}
    tags["drift_alerts"] = ", ".join(summary["drift_alerts"]) or "none"
    name = f"score {summary['model']} {summary['ended_at'][:16]}"
    try:
        with open_run(Tracking(experiment=_EXPERIMENT), name=name, tags=tags) as run:
            run.metrics({name: float(summary[name]) for name in _METRICS})
            run.metrics({f"code_{code}": float(count) for code, count in summary["codes"].items()})
            run.metrics({f"drift_{name}": float(value) for name, value in summary["drift"].items()})
            run.figure(_figure(summary), "drift.png")
            return run.run_id
    except (PipelineError, OSError) as error:
        print(f"this run is not in the tracking store: {error}", file=sys.stderr)
        return None


def _figure(summary: Mapping[str, Any]) -> bytes:
    """Histogram of the probabilities beside the drift of each measure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = np.array(summary["probability_histogram"])
    edges = np.linspace(0, 1, len(counts) + 1)
    left.bar(edges[:-1], counts, width=edges[1], align="edge", color="0.5", edgecolor="white")
    left.set(xlabel="probability of malignancy", ylabel="cases", title=summary["model"], xlim=(0, 1))
    drift = summary["drift"]
    right.barh(
        list(drift), list(drift.values()), color=["C3" if name in summary["drift_alerts"] else "0.5" for name in drift]
    )
    right.set(xlabel="population stability index against the model's own cases")
    if not drift:
        right.text(0.5, 0.5, "fewer than 100 cases, or no reference", ha="center", transform=right.transAxes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
