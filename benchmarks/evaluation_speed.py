#!/usr/bin/env python3
"""How long judging takes: ``malignancy evaluate --predictions`` on a large file, and the bootstrap alone.

    python benchmarks/evaluation_speed.py [--rows 100000] [--cases 10000] [--resamples 2000] [--baseline-resamples 20]

The predictions are drawn from a seed: patients of one to four cases, a fifth of them in the calibration split and the
rest in the test split, with every subgroup column that the evaluation knows, readers' ratings, and no images. The
command is timed whole, as a user starts it, imports included; processor seconds stand beside, because other work on
the machine changes them little. The bootstrap (AUROC and average precision, by patient)
is timed against the ordinary way: resample patients and call scikit-learn, in a loop of fewer resamples, scaled.
Prints a table, and last one JSON line; ``ratio`` is how much faster the bootstrap is than that loop.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.evaluation.arrays import as_groups
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.intervals import resampling
from pipeline.evaluation.predictions import Predictions, write_predictions


def study(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Predictions of overconfident logits, clustered by patient, with subgroup columns."""
    sizes = rng.integers(1, 5, size=rows)
    patients = np.repeat(np.arange(rows), sizes)[:rows]
    logits = rng.normal(size=rows)[patients] + 2.0 * rng.normal(size=rows) - 0.7
    labels = (rng.random(rows) < sigmoid(logits)).astype(int)
    sites, ages = rng.integers(0, 6, rows)[patients], rng.normal(64, 11, rows)[patients]
    rating = np.clip(3.0 + np.where(labels == 1, 1, -1) * rng.choice([0.25, 0.75, 1.25, 1.75], rows), 1.0, 5.0)
    return pd.DataFrame(
        {
            "case_id": [f"case-{number}" for number in range(rows)],
            "patient_id": [f"patient-{number}" for number in patients],
            "split": np.where(patients % 5 == 0, "calibration", "test"),
            "label": labels,
            "logit": 1.3 * logits,
            "probability": sigmoid(logits),
            "site": [f"site {number}" for number in sites],
            "scanner": [f"scanner {number % 4}" for number in sites],
            "sex": np.where(patients % 2 == 0, "F", "M"),
            "age": np.round(ages),
            "diameter_mm": np.exp(rng.normal(2.3, 0.5, rows)),
            "mean_malignancy": rating,
        }
    )


def time_command(rows: int) -> dict[str, float]:
    """Seconds, processor seconds and peak MB of the whole command, and MB of its report."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "predictions.parquet", Path(folder) / "out"
        write_predictions(Predictions.from_frame(study(rows, np.random.default_rng(0))), path)
        command = [sys.executable, "-m", "pipeline", "evaluate", "--predictions", str(path), "--out", str(out)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "evaluate_seconds": seconds,
            "evaluate_cpu_seconds": used.ru_utime + used.ru_stime,
            "memory_mb": used.ru_maxrss / 1024,
            "report_mb": (out / "report.html").stat().st_size / 1e6,
        }


def time_bootstrap(cases: int, resamples: int) -> tuple[float, float]:
    """Seconds and processor seconds of the vectorised bootstrap of AUROC and average precision."""
    frame = study(cases, np.random.default_rng(1))
    start, used = time.perf_counter(), time.process_time()
    frame = frame.sort_values("probability")  # once, so that no resample has to
    labels = frame["label"].to_numpy()
    ranking = resampling.Ranking.of(labels, frame["probability"].to_numpy())
    statistics = {
        "auroc": resampling.auroc_statistic(ranking),
        "average_precision": resampling.average_precision_statistic(ranking),
    }
    groups = as_groups(frame["patient_id"], labels)
    resampling.replicates(groups, statistics, resamples=resamples, rng=np.random.default_rng(0))
    return time.perf_counter() - start, time.process_time() - used


def time_loop(cases: int, resamples: int, measured: int) -> float:
    """Seconds that as many resamples would take in a loop over scikit-learn's functions."""
    frame = study(cases, np.random.default_rng(1))
    labels, scores = frame["label"].to_numpy(), frame["probability"].to_numpy()
    members = list(frame.groupby("patient_id").indices.values())
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(measured):
        drawn = np.concatenate([members[number] for number in rng.integers(0, len(members), len(members))])
        roc_auc_score(labels[drawn], scores[drawn])
        average_precision_score(labels[drawn], scores[drawn])
    return (time.perf_counter() - start) / measured * resamples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=2_000)
    parser.add_argument("--baseline-resamples", type=int, default=20)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    found = time_command(args.rows)
    found["bootstrap_seconds"], found["bootstrap_cpu_seconds"] = time_bootstrap(args.cases, args.resamples)
    found["loop_seconds"] = time_loop(args.cases, args.resamples, args.baseline_resamples)
    print(f"| {cores} cores | seconds | processor seconds |")
    print("|---|---|---|")
    for title, name in (
        (f"`malignancy evaluate --predictions`, {args.rows:,} rows, statistics and report", "evaluate"),
        (f"{args.resamples:,} patient resamples of {args.cases:,} cases, AUROC and average precision", "bootstrap"),
    ):
        print(f"| {title} | {found[f'{name}_seconds']:.1f} | {found[f'{name}_cpu_seconds']:.1f} |")
    scaled = f"the same in a loop over scikit-learn ({args.baseline_resamples} measured, scaled)"
    print(f"| {scaled} | {found['loop_seconds']:.1f} | |")
    print(f"the command's peak memory: {found['memory_mb']:,.0f} MB; its report: {found['report_mb']:.2f} MB")
    ratio = found["loop_seconds"] / found["bootstrap_seconds"]
    figures = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({"ratio": round(ratio, 1), "cores": cores, "rows": args.rows, **figures}))


if __name__ == "__main__":
    main()
