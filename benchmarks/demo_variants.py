#!/usr/bin/env python3
"""One sigmoid, several findings, an LSTM over slices and a softmax, on the same cases, splits and seed.

    malignancy demo-data demo/data
    python benchmarks/demo_variants.py data.manifest=demo/data/manifest.csv

Trains each shipped configuration of the demonstration once, judges it on the same test split, and prints a table:
ranking and calibration of malignancy, and what training and scoring cost on this machine (network and augmentation;
scans are prepared before); then each finding of the multi-label model in a row of its own. SIMULATED INTENSITIES.
Prints last one JSON line; ``ratio`` is the last row's AUROC over the first's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pipeline.cases.manifest import read_manifest
from pipeline.cases.splits import assign_splits
from pipeline.config.file import load_config
from pipeline.models.networks import predict_logits
from pipeline.training.tracker import NullTracker
from pipeline.workflow.cohort import prepare_cohort
from pipeline.workflow.learning.experiment import resolve_columns
from pipeline.workflow.learning.learn import fit_members, judge_members, member_parts
from pipeline.workflow.reporting.findings_text import findings_lines

CONFIGS = Path(__file__).parents[1] / "configs"
VARIANTS = {
    "binary": ("demo.yaml", ()),
    "multi-label": ("demo_multilabel.yaml", ()),
    "CNN-LSTM": ("demo_cnn_lstm.yaml", ()),
    "softmax": ("demo.yaml", ("network.head=softmax",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS), help="leave the others out")
    args = parser.parse_intermixed_args()
    columns = ("", "AUROC", "Brier", "ECE (null p95)", "macro AUROC", "training, cases/s", "scoring, ms/case")
    table = Table(*columns, title="demonstration, simulated intensities: test split")
    rows = {
        name: run(file, [*changes, *args.overrides]) for name, (file, changes) in VARIANTS.items() if name in args.only
    }
    for name, row in rows.items():
        table.add_row(name, *row["cells"])
    Console(width=140).print(table)
    for row in rows.values():
        print(*row["findings"], sep="\n")
    aurocs = [row["auroc"] for row in rows.values()]
    print(json.dumps({"ratio": aurocs[-1] / aurocs[0], **{name: row["auroc"] for name, row in rows.items()}}))


def run(file: str, overrides: list[str]) -> dict[str, object]:
    """Train one configuration and judge it."""
    config = load_config(CONFIGS / file, overrides)
    manifest = read_manifest(config.data.manifest, config.data.extra_columns)
    config = resolve_columns(config, manifest)
    splits = assign_splits(
        manifest, config.data.splits, seed=config.data.split_seed, joined=config.training.member_count > 1
    )
    cohort = prepare_cohort(manifest, splits.of, config)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        fitted = fit_members(member_parts(cohort, config), config, Path(folder), NullTracker())
        seconds = time.perf_counter() - started
    judgement = judge_members(cohort, fitted, config)
    parts = member_parts(cohort, config)
    seen = sum(each.epochs * len(part.training()) for each, part in zip(fitted, parts, strict=True))
    found = judgement.evaluation
    images = torch.from_numpy(np.stack([each.input.voxels for each in cohort.of("test")]))
    started = time.perf_counter()
    for each in fitted:
        predict_logits(each.network, images, batch_size=8)
    per_case = 1000 * (time.perf_counter() - started) / len(images)
    macro = judgement.findings.metrics("").get("macro_auroc") if len(config.data.findings) > 1 else None
    cells = [
        str(found["auroc"]),
        str(found["brier_score"]),
        f"{found.ece:.3f} ({found.null.p95:.3f})",
        "" if macro is None else f"{macro:.3f}, {len(config.data.findings)} findings",
        f"{seen / seconds:.0f}",
        f"{per_case:.1f}",
    ]
    return {"auroc": found["auroc"].estimate, "cells": cells, "findings": findings_lines(judgement.findings)}


if __name__ == "__main__":
    main()
