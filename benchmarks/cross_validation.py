#!/usr/bin/env python3
"""Accuracy and calibration over patient-grouped folds and seeds, beside a regression on table columns.

    python benchmarks/cross_validation.py configs/demo.yaml --folds 5 --seeds 0 1 2
    python benchmarks/cross_validation.py configs/lidc_slices.yaml data.manifest=PATH --folds 5 --seeds 0
    python benchmarks/cross_validation.py configs/lidc_slices.yaml network.width=48 --within 0 --folds 4 --seeds 0

Each fold is the test split once, as in ``malignancy train --folds``. Of the other folds, one eighth of the patients is
the validation split (stops training, picks the epoch), one eighth the calibration split (fits the calibrator), the rest
trains; with ``training.members`` all of them train, and calibrate where a member leaves them out. The calibrated
out-of-fold probabilities of a seed are judged as one set; intervals are over patients. With several seeds, the mean of
their log odds is judged too, as the ensemble that it is. ``--beside DIR`` names the ``--out`` of another configuration
over the same folds: the mean log odds of both models is judged, seed by seed. Nothing is chosen on a test fold.
``--within N`` is for choosing: the cases are then those that fold N leaves to training, divided anew.
Prints a table and last one JSON line; ``ratio`` is the mean AUROC over the baseline's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tokenize
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit

from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.splits import assign_folds
from pipeline.config.experiment import Config
from pipeline.config.file import load_config
from pipeline.evaluation.intervals.paired_difference import paired_auroc
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.predictions import Predictions, read_predictions, write_predictions
from pipeline.training.fit import Fitted
from pipeline.training.tracker import NullTracker
from pipeline.workflow.cohort import Cohort, prepare_cohort
from pipeline.workflow.judging.calibrate import evaluate_as_configured
from pipeline.workflow.judging.judge import Judgement
from pipeline.workflow.judging.regressions import Comparison, compare_with_regression
from pipeline.workflow.learning.experiment import resolve_columns, settle_plan
from pipeline.workflow.learning.folds import fold_names, fold_parts, judge_folds
from pipeline.workflow.learning.learn import fit_members
from pipeline.workflow.reporting.findings_text import findings_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=None, help="folder for each seed's out-of-fold predictions.parquet")
    parser.add_argument("--beside", type=Path, default=None, help="another run's --out: judge the mean with it too")
    parser.add_argument("--processes", type=int, default=1, help="folds trained at a time; they share the cores")
    parser.add_argument(
        "--within", type=int, choices=range(5), default=None, help="without the patients of this one of five folds"
    )
    parser.add_argument(
        "--also", default=None, help="AUROC of a part of the cases too, by evaluation.subgroups, as 'n_readers >= 3'"
    )
    args = parser.parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    manifest = read_manifest(config.data.manifest, config.data.extra_columns)
    manifest.require_usable()
    config = resolve_columns(config, manifest)
    if args.within is not None:
        manifest = leave_out_fold(manifest, args.within, seed=config.data.split_seed)
    if args.also:
        require_also(args.also, config.evaluation.subgroups)
    config = settle_plan(config, manifest, folds=args.folds)
    splits = assign_folds(manifest, args.folds, seed=config.data.split_seed)
    cohort = prepare_cohort(manifest, splits.of, config)
    folds = {usable.case.case_id: usable.split for usable in cohort.usable}
    others = {seed: read_other(args.beside, seed, folds) for seed in args.seeds} if args.beside else {}
    configs = [config.model_copy(update={"seed": seed}) for seed in args.seeds]
    judged = {f"seed {each.seed}": run_seed(cohort, each, args.out, args.processes) for each in configs}
    report(judged, config, cohort, args.also)
    for judgement, (seed, other) in zip(judged.values(), others.items(), strict=False):
        report_mean(Console(width=200), f"seed {seed} and {args.beside}", [judgement], config, [other])


def require_also(part: str, columns: Sequence[str]) -> None:
    """Refuse, before hours of training, a part of the cases by a column that the predictions will not have."""
    try:
        pd.DataFrame(columns=list(columns), dtype=float).query(part)
    except (pd.errors.UndefinedVariableError, SyntaxError, ValueError, tokenize.TokenError) as error:
        named = ", ".join(columns) or "none"
        raise SystemExit(f"--also {part!r}: {error}; it may ask for evaluation.subgroups ({named})") from None


def leave_out_fold(manifest: Manifest, fold: int, *, seed: int) -> Manifest:
    """The cases that one of five folds leaves to training, which a choice may look at before that fold is reported."""
    outer = assign_folds(manifest, 5, seed=seed).of
    kept = tuple(case for case in manifest.cases if outer.get(case.case_id, f"fold-{fold}") != f"fold-{fold}")
    return replace(manifest, cases=kept)


def run_seed(cohort: Cohort, config: Config, out: Path | None, processes: int) -> Judgement:
    """Train every fold with one seed and judge the pooled out-of-fold probabilities."""
    folds, threads = fold_names(cohort), max(1, torch.get_num_threads() // processes)
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        learnt = dict(zip(folds, pool.map(run_fold, repeat(cohort), folds, repeat(config)), strict=True))
    pooled = judge_folds(cohort, learnt, config)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(pooled.predictions, out / f"predictions-seed{config.seed}.parquet")
    return pooled


def run_fold(cohort: Cohort, fold: str, config: Config) -> tuple[Fitted, ...]:
    """Train on all folds but one."""
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit_members(fold_parts(cohort, fold, config), config, Path(folder), NullTracker())
    print(f"seed {config.seed} {fold}: trained", flush=True)
    return fitted


def report(judged: Mapping[str, Judgement], config: Config, cohort: Cohort, also: str | None) -> None:
    """Print the table and the JSON line."""
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    first = next(iter(judged.values()))
    size = f"{first.evaluation.n_patients} patients, {first.evaluation.n_cases} cases"
    table = Table(
        *("", "AUROC pooled", "mean of folds (range)", "Brier", "slope", "intercept", "ECE (null p95)", "holds"),
        title=f"{config.name}{simulated}: {len(first.fold_aurocs)} folds, {size}, "
        f"{first.evaluation.n_positive} malignant, {len(cohort.rejected)} rejected",
    )
    for name, judgement in judged.items():
        table.add_row(name, *row(judgement))
    console = Console(width=200)
    console.print(table)
    for judgement in judged.values():
        console.print(*findings_lines(judgement.findings), sep="\n")
    for baseline in first.comparisons:
        found = baseline.evaluation
        console.print(f"{baseline.name} ({baseline.describe()}): AUROC {found['auroc']}, Brier {found['brier_score']}")
        for name, judgement in judged.items():
            (same,) = (each for each in judgement.comparisons if each.name == baseline.name)
            console.print(f"  {name}: AUROC gain of the model, paired by patient: {same.gain}")
    if len(judged) > 1:
        report_mean(console, f"the {len(judged)} seeds", list(judged.values()), config)
    if also:
        for name, judgement in judged.items():
            part = judgement.of_first("test").frame.query(also)
            console.print(f"{name}, {also}: AUROC {auroc_of(Predictions.from_frame(part)):.3f}, {len(part)} cases")
    print(json.dumps(figures(list(judged.values()))))


def row(judgement: Judgement) -> list[str]:
    """The cells of one seed."""
    found, aurocs = judgement.evaluation, judgement.fold_aurocs
    return [
        str(found["auroc"]),
        f"{np.mean(aurocs):.3f} ({min(aurocs):.3f} to {max(aurocs):.3f})",
        str(found["brier_score"]),
        str(found["calibration_slope"]),
        str(found["calibration_intercept"]),
        f"{found.ece:.3f} ({found.null.p95:.3f})",
        str(found.calibration),
    ]


def read_other(folder: Path, seed: int, folds: Mapping[str, str]) -> pd.DataFrame:
    """Out-of-fold rows of another configuration, which must have been judged on the same folds."""
    path = folder / f"predictions-seed{seed}.parquet"
    if not path.is_file():
        raise SystemExit(f"--beside: {path} is missing; run the other configuration with --out {folder} --seeds {seed}")
    tests = read_predictions(path).frame.query("split == 'test'").sort_values("case_id")
    there = dict(zip(tests["case_id"], tests["fold"], strict=True))
    pairs = {(folds.get(case), there.get(case)) for case in {*folds, *there}}
    if (
        any(None in pair for pair in pairs)
        or len(pairs) > len({*folds.values()})
        or len(pairs) > len({*there.values()})
    ):
        raise SystemExit(
            f"--beside: {path} was judged on other cases or folds; give both runs the same data and data.split_seed"
        )
    return tests


def report_mean(
    console: Console,
    name: str,
    judgements: Sequence[Judgement],
    config: Config,
    others: Sequence[pd.DataFrame] = (),
) -> None:
    """The mean of several models' log odds, judged on the same cases."""
    own = [judgement.of_first("test").frame.sort_values("case_id") for judgement in judgements]
    tests = [*own, *others]
    odds = np.mean([logit(test["probability"].to_numpy()) for test in tests], axis=0)
    mean = Predictions.from_frame(own[0].assign(logit=odds, probability=expit(odds), seed=None))
    found = evaluate_as_configured(mean, judgements[0].operating_point, config)
    console.print(f"mean of {name}: AUROC {found['auroc']}, Brier {found['brier_score']}")
    console.print(
        f"  slope {found['calibration_slope']}, intercept {found['calibration_intercept']}, "
        f"ECE {found.ece:.3f} ({found.null.p95:.3f}), calibration {found.calibration}"
    )
    for comparison in judgements[0].comparisons:
        ordered = Predictions.from_frame(comparison.predictions.frame.sort_values("case_id"))
        gain = compare_with_regression(
            comparison.name, comparison.columns, mean, ordered, judgements[0].operating_point, config
        ).gain
        console.print(f"  gain over the {comparison.name}: {gain}")
    for other in tests if others else ():
        labels, patients = own[0]["label"].to_numpy(), own[0]["patient_id"].to_numpy()
        gain = paired_auroc(labels, mean.probabilities, other["probability"].to_numpy(), patients).interval()
        console.print(f"  gain over one of them (AUROC {auroc(labels, other['probability'].to_numpy()):.4f}): {gain}")


def auroc_of(predictions: Predictions) -> float:
    return auroc(predictions.labels, predictions.probabilities)


def figures(judgements: Sequence[Judgement]) -> dict[str, object]:
    """What the JSON line holds."""
    aurocs = [judgement.evaluation["auroc"].estimate for judgement in judgements]
    baselines: list[Comparison] = [each for each in judgements[0].comparisons if each.name == "baseline"]
    return {
        "ratio": float(np.mean(aurocs) / baselines[0].evaluation["auroc"].estimate) if baselines else None,
        "auroc": aurocs,
        "brier_score": [judgement.evaluation["brier_score"].estimate for judgement in judgements],
        "ece": [judgement.evaluation.ece for judgement in judgements],
        "calibration": [judgement.evaluation.calibration.verdict for judgement in judgements],
        "gain": {
            each.name: [same.gain.to_json() for judgement in judgements for same in judgement.comparisons
                        if same.name == each.name and same.gain is not None]
            for each in judgements[0].comparisons
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
