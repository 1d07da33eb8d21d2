#!/usr/bin/env python3
"""Accuracy and calibration over patient-grouped folds and seeds, beside a regression on table columns.

    python benchmarks/cross_validation.py configs/demo.yaml --folds 5 --seeds 0 1 2
    python benchmarks/cross_validation.py configs/lidc_slices.yaml --folds 5 --seeds 0 data.manifest=PATH

Each fold is the test split once. Of the other folds, one eighth of the patients is the validation split (stops
training, picks the epoch), one eighth the calibration split (fits the calibrator), the rest trains. The calibrated
out-of-fold probabilities of a seed are judged as one set; intervals are over patients. Nothing is chosen on a test
fold. Prints a table and last one JSON line; ``ratio`` is the mean AUROC over the baseline's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from pipeline.cases.manifest import read_manifest
from pipeline.cases.splits import patient_folds
from pipeline.config import Config
from pipeline.config_file import load_config
from pipeline.evaluation.baselines import fit_baseline
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals import Interval, paired_auroc_difference
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.predictions import Predictions, write_predictions
from pipeline.evaluation.results import Evaluation
from pipeline.jobs.cohort import Cohort, Usable, extra_frame, prepare_cohort, resolve_columns
from pipeline.jobs.judge import calibrate, predictions_of, used_columns
from pipeline.jobs.train import case_tensors, held_out_logits
from pipeline.training.fit import fit
from pipeline.training.tracker import NullTracker


@dataclass(frozen=True)
class Outcome:
    """The model and the regressions of one seed, judged on the same out-of-fold cases."""

    seed: int
    model: Evaluation
    fold_aurocs: tuple[float, ...]
    others: dict[str, Evaluation]
    gains: dict[str, Interval]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=None, help="folder for each seed's out-of-fold predictions.parquet")
    args = parser.parse_intermixed_args()
    config = load_config(args.config, args.overrides)
    manifest = read_manifest(config.data.manifest)
    manifest.require_usable()
    config = resolve_columns(config, manifest)
    labelled = [case for case in manifest.cases if case.label is not None]
    cohort = prepare_cohort(manifest, {case.case_id: "" for case in labelled}, config)
    folds = np.array(patient_folds([each.case for each in cohort.usable], args.folds, seed=config.data.split_seed))
    outcomes = [run_seed(cohort, folds, config.model_copy(update={"seed": seed}), args.out) for seed in args.seeds]
    report(outcomes, config, cohort, args.folds)


def run_seed(cohort: Cohort, folds: np.ndarray, config: Config, out: Path | None) -> Outcome:
    """Train every fold with one seed and judge the pooled out-of-fold probabilities."""
    model_parts, other_parts = [], {name: [] for name in regressions(config)}
    operating_point = None
    for fold in range(folds.max() + 1):
        split = replace(cohort, usable=with_splits(cohort.usable, folds, fold, config))
        predictions, operating_point = run_fold(split, config, fold)
        model_parts.append(predictions)
        for name, columns in regressions(config).items():
            other_parts[name].append(run_regression(split, columns, config, fold))
        pooled = auroc(predictions.labels, predictions.probabilities)
        print(f"seed {config.seed} fold {fold}: AUROC {pooled:.3f}", flush=True)
    model = pool(model_parts)
    others = {name: pool(parts) for name, parts in other_parts.items()}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(model, out / f"predictions-seed{config.seed}.parquet")
    rng = np.random.default_rng(config.seed)
    resamples = config.evaluation.resamples
    gains = {
        name: paired_auroc_difference(
            model.labels, model.probabilities, other.probabilities, model.patients, rng=rng, resamples=resamples
        )
        for name, other in others.items()
    }
    judged = {
        name: evaluate(other, operating_point=operating_point, resamples=resamples) for name, other in others.items()
    }
    aurocs = tuple(auroc(part.labels, part.probabilities) for part in model_parts)
    return Outcome(
        config.seed, evaluate(model, operating_point=operating_point, resamples=resamples), aurocs, judged, gains
    )


def with_splits(usable: tuple[Usable, ...], folds: np.ndarray, test: int, config: Config) -> tuple[Usable, ...]:
    """The same cases, split for one test fold."""
    rest = np.flatnonzero(folds != test)
    inner = patient_folds([usable[index].case for index in rest], 8, seed=config.data.split_seed)
    names = np.full(len(usable), "test", object)
    names[rest] = [{0: "validation", 1: "calibration"}.get(number, "train") for number in inner]
    return tuple(replace(each, split=str(name)) for each, name in zip(usable, names, strict=True))


def run_fold(cohort: Cohort, config: Config, fold: int) -> tuple[Predictions, object]:
    """Train, calibrate on the calibration split, predict the test fold."""
    tensors = {name: case_tensors(cohort, name, config) for name in ("train", "validation")}
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            tensors["train"], tensors["validation"], config, folder=Path(folder), tracker=NullTracker(), progress=False
        )
    logits = held_out_logits(cohort, fitted, config)
    return calibrated(cohort, logits, config, fold, prior_offset=fitted.prior_offset)


def run_regression(cohort: Cohort, columns: tuple[str, ...], config: Config, fold: int) -> Predictions:
    """The same protocol for a logistic regression on table columns."""
    frame = extra_frame([each.case for each in cohort.usable], columns)
    train = np.array([each.split == "train" for each in cohort.usable])
    labels = np.array([each.case.label for each in cohort.usable])
    baseline = fit_baseline(frame[train], labels[train], columns=columns)
    return calibrated(cohort, baseline.logits(frame), config, fold, prior_offset=0.0)[0]


def calibrated(
    cohort: Cohort, logits: np.ndarray, config: Config, fold: int, *, prior_offset: float
) -> tuple[Predictions, object]:
    """Calibrate on the calibration split and give the test fold's predictions, with the operating point."""
    splits = np.array([each.split for each in cohort.usable])
    labels = np.array([each.case.label for each in cohort.usable])
    at, test = splits == "calibration", np.flatnonzero(splits == "test")
    calibrator, point = calibrate(logits[at], labels[at], config, prior_offset=prior_offset)
    cases = [cohort.usable[index].case for index in test]
    probabilities = calibrator.apply(logits[test])
    columns = used_columns(config)
    found = predictions_of(cases, ["test"] * len(test), logits[test], probabilities, columns, seed=config.seed)
    return Predictions.from_frame(found.frame.assign(fold=fold)), point


def regressions(config: Config) -> dict[str, tuple[str, ...]]:
    settings = config.evaluation
    pairs = {"baseline": settings.baseline_columns, "oracle": settings.oracle_columns}
    return {name: tuple(columns) for name, columns in pairs.items() if columns}


def pool(parts: list[Predictions]) -> Predictions:
    return Predictions.from_frame(pd.concat([part.frame for part in parts], ignore_index=True))


def report(outcomes: list[Outcome], config: Config, cohort: Cohort, folds: int) -> None:
    """Print the table and the JSON line."""
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    first = outcomes[0].model
    table = Table(
        *(
            "seed",
            "AUROC pooled",
            "AUROC mean of folds (range)",
            "Brier",
            "slope",
            "intercept",
            "ECE (null p95)",
            "holds",
        ),
        title=f"{config.name}{simulated}: {folds} folds, {first.n_patients} patients, {first.n_cases} cases, "
        f"{first.n_positive} malignant, {len(cohort.rejected)} rejected",
    )
    for outcome in outcomes:
        model, aurocs = outcome.model, outcome.fold_aurocs
        table.add_row(
            str(outcome.seed),
            str(model["auroc"]),
            f"{np.mean(aurocs):.3f} ({min(aurocs):.3f} to {max(aurocs):.3f})",
            str(model["brier_score"]),
            str(model["calibration_slope"]),
            str(model["calibration_intercept"]),
            f"{model.ece:.3f} ({model.null.p95:.3f})",
            "yes" if model.calibration_holds else "; ".join(model.calibration_faults),
        )
    console = Console(width=200)
    console.print(table)
    for name, columns in regressions(config).items():
        other = outcomes[0].others[name]
        console.print(f"{name} ({', '.join(columns)}): AUROC {other['auroc']}, Brier {other['brier_score']}")
        for outcome in outcomes:
            console.print(f"  seed {outcome.seed}: AUROC gain of the model, paired by patient: {outcome.gains[name]}")
    aurocs = [outcome.model["auroc"].estimate for outcome in outcomes]
    console.print(f"AUROC over seeds: mean {np.mean(aurocs):.3f}, range {min(aurocs):.3f} to {max(aurocs):.3f}")
    baseline = outcomes[0].others.get("baseline")
    figures = {
        "ratio": None if baseline is None else float(np.mean(aurocs) / baseline["auroc"].estimate),
        "auroc": aurocs,
        "brier_score": [outcome.model["brier_score"].estimate for outcome in outcomes],
        "ece": [outcome.model.ece for outcome in outcomes],
        "calibration_holds": [outcome.model.calibration_holds for outcome in outcomes],
        "gain": {name: [outcome.gains[name].to_json() for outcome in outcomes] for name in regressions(config)},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
