"""``malignancy train --folds K``: every case is judged by the network that never saw its patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline.cases.splits import join_development, split_around_fold
from pipeline.config.experiment import Config
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.multilabel import evaluate_findings
from pipeline.evaluation.predictions import Predictions
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.training.fit import Fitted
from pipeline.workflow.calibrate import operating_point_as_configured, refer_zone
from pipeline.workflow.cohort import Cohort
from pipeline.workflow.compare import compare
from pipeline.workflow.judge import Judgement
from pipeline.workflow.learn import learn
from pipeline.workflow.run_folder import RunRecord, read_record


def learn_folds(
    cohort: Cohort,
    config: Config,
    folder: Path,
    run: TrackedRun,
    *,
    name: str,
    tags: Mapping[str, str],
    profile: bool = False,
) -> tuple[tuple[Fitted, ...], Judgement]:
    """Learn each fold in a tracked run of its own, below ``run``, and pool what they say of their test cases.

    Args:
        cohort: whose splits are folds.
        config: the experiment.
        folder: gets a folder of checkpoints a fold.
        run: the parent.
        name: of the parent; a child's adds the fold.
        tags: of each child.
        profile: print and track where the time of each fold goes.
    """
    outcomes = []
    each_fold = _without_refer_zone(config)  # a fold's calibration split may be too small for what all of them can do
    for fold in fold_names(cohort):
        nested = {**tags, "kind": "fold", "mlflow.parentRunId": run.run_id}
        earlier = read_record(folder / fold)  # of a run that is resumed
        with open_run(
            config.tracking, name=f"{name}, {fold}", tags=nested, resume=earlier.run_id if earlier else None
        ) as child:
            RunRecord(child.run_id, f"{name}, {fold}", {}, "").write(folder / fold)
            part = around_fold(cohort, fold, config)
            fitted, judgement = learn(part, each_fold, folder / fold, child, profile=profile)
            child.metrics(judgement.evaluation.metrics("test_") | judgement.findings.metrics("test_"))
        outcomes.append((fitted, judgement))
    networks = tuple(network for fitted, _ in outcomes for network in fitted)
    return networks, pool_judgements([judgement for _, judgement in outcomes], config)


def _without_refer_zone(config: Config) -> Config:
    return config.model_copy(
        update={"operating_point": config.operating_point.model_copy(update={"refer_coverage": None})}
    )


def fold_names(cohort: Cohort) -> list[str]:
    """The folds of a cohort, in order."""
    return sorted({each.split for each in cohort.usable})


def around_fold(cohort: Cohort, fold: str, config: Config) -> Cohort:
    """The same cases with four splits, the fold being the test split; for several members, only training beside it."""
    cases = [each.case for each in cohort.usable]
    names = split_around_fold(cases, [each.split for each in cohort.usable], fold, seed=config.data.split_seed)
    if config.training.member_count > 1:
        names = join_development(names)
    return replace(
        cohort, usable=tuple(replace(each, split=name) for each, name in zip(cohort.usable, names, strict=True))
    )


def pool_judgements(judgements: Sequence[Judgement], config: Config) -> Judgement:
    """One judgement of all test cases; each fold was calibrated before, so that probabilities may be pooled.

    Each finding's threshold is chosen on the calibration cases of all folds, each case once.
    """
    test = _stack([each.predictions.where(split="test") for each in judgements])
    calibration = _stack([each.predictions.where(split="calibration") for each in judgements], once=True)
    known = {name: calibration.where(finding=name).labelled() for name in config.data.findings}
    points = {
        name: operating_point_as_configured(each.labels, each.probabilities, config) for name, each in known.items()
    }
    first = config.data.findings[0]
    calibrated = calibration.where(finding=first)
    tests = [each.of_first("test") for each in judgements]
    settings = config.evaluation
    return Judgement(
        calibrations=tuple(fits for judgement in judgements for fits in judgement.calibrations),
        covariates=tuple(term for each in judgements for term in each.covariates),
        operating_points=points,
        predictions=Predictions.from_frame(pd.concat([calibration.frame, test.frame], ignore_index=True)),
        findings=evaluate_findings(test, points, resamples=settings.resamples, seed=config.seed),
        comparisons=tuple(
            compare(
                same[0].name,
                same[0].columns,
                test.where(finding=first),
                _stack([each.predictions for each in same]),
                points[first],
                config,
            )
            for same in zip(*(each.comparisons for each in judgements), strict=True)
        ),
        prevalence_at_calibration=float(calibrated.labels.mean()),
        refer_zone=refer_zone(calibrated.labels, calibrated.probabilities, config),
        fold_aurocs=tuple(auroc(part.labels, part.probabilities) for part in tests),
    )


def _stack(parts: Sequence[Predictions], *, once: bool = False) -> Predictions:
    """The folds' predictions, one below the other; optionally only the first of each case and finding."""
    frame = pd.concat([part.frame.assign(fold=fold) for fold, part in enumerate(parts)], ignore_index=True)
    return Predictions.from_frame(frame.drop_duplicates(["case_id", "finding"]) if once else frame)
