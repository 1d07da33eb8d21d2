"""``malignancy score``: every scan of an input becomes one row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import track

from pipeline.cases.inputs import Inputs, read_inputs
from pipeline.config import Tracking
from pipeline.files import write_json, write_text
from pipeline.scoring.engine import score_cases
from pipeline.scoring.model_directory import Model, load_model
from pipeline.scoring.rows import ScoreRow, now, write_rows
from pipeline.scoring.scorer import Scorer
from pipeline.tracking.registry import model_folder

_SHOWN = 5  # rows printed at the end


def score(model_name: str, source: Path, out: Path, *, batch_size: int, workers: int | None) -> int:
    """Score an input and write its rows.

    Returns:
        0, or 1 when a case was rejected or failed.
    """
    inputs = read_inputs(source)
    model = load_model(model_folder(model_name, Tracking()))
    out.mkdir(parents=True, exist_ok=True)
    started, clock = now(), perf_counter()
    scorer = Scorer(model, root=inputs.root)
    console = Console(stderr=True)
    rows = list(
        track(
            score_cases(scorer, inputs.cases, batch_size=batch_size, workers=workers),
            description="scoring",
            total=len(inputs.cases),
            console=console,
            disable=not console.is_terminal,
        )
    )
    seconds = perf_counter() - clock
    write_rows(rows, out)
    summary = _summary(rows, inputs, model, started=started, seconds=seconds)
    write_json(out / "summary.json", summary)
    text = _summary_text(rows, summary, model, out)
    write_text(out / "summary.txt", text + "\n")
    print(text)
    return int(summary["rejected"] + summary["failed"] > 0)


def _summary(rows: list[ScoreRow], inputs: Inputs, model: Model, *, started: str, seconds: float) -> dict[str, Any]:
    statuses = Counter(row.status for row in rows)
    return {
        "cases": len(rows),
        **{status: statuses[status] for status in ("scored", "flagged", "rejected", "failed")},
        "codes": dict(sorted(Counter(row.code for row in rows if row.code).items())),
        "skipped_files": dict(inputs.skipped),
        "repeated_rows": inputs.repeated_rows,
        "seconds": round(seconds, 3),
        "scans_per_second": round(len(rows) / seconds, 2),
        "started_at": started,
        "ended_at": now(),
        "model": model.label,
        "model_digest": model.description.digests.model,
        "preprocessing_digest": model.description.digests.preprocessing,
        "label_source": model.description.label.source,
        "intensities": model.description.label.intensities,
    }


def _summary_text(rows: list[ScoreRow], summary: dict[str, Any], model: Model, out: Path) -> str:
    description = model.description
    counts = ", ".join(f"{summary[status]} {status}" for status in ("scored", "flagged", "rejected", "failed"))
    lines = [f"{summary['cases']} cases: {counts} ({summary['scans_per_second']} scans per second)"]
    lines += [f"  {code}: {count}" for code, count in summary["codes"].items()]
    lines.append(
        f"model {model.label}: probability of malignancy ({description.label.source}), "
        f"{model.members[0].calibrator.describe()}, {description.label.intensities} intensities"
    )
    for row in rows[:_SHOWN]:
        shown = f"{row.probability:.3f} {row.decision}" if row.probability is not None else row.code
        lines.append(f"  {row.case_id}: {shown} ({row.status})")
    lines.append(f"rows: {out / 'scores.parquet'}, {out / 'scores.csv'}")
    return "\n".join(lines)
