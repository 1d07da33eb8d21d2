"""Judging what the networks of all folds say of cases that they have not seen, calibrated across the folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.cases.findings import finding_labels
from pipeline.config.experiment import Config
from pipeline.evaluation.covariates import fit_covariate_term
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.multilabel import evaluate_findings
from pipeline.evaluation.predictions import Predictions
from pipeline.workflow.cohort import Cohort, covariate_values
from pipeline.workflow.judging.calibrate import (
    calibrate_findings,
    fold_limits,
    of_mean,
    predictions_of,
    refer_zone,
    stack_logits,
    with_fold_limits,
)
from pipeline.workflow.judging.judge import Judgement, used_columns
from pipeline.workflow.judging.regressions import Comparison, compare, comparisons
from pipeline.workflow.learning.held_out import HeldOut


def judge_out_of_fold(parts: Sequence[Cohort], said: HeldOut, config: Config, *, prior_offset: float) -> Judgement:
    """Calibrate and judge the networks of all folds together (cross-fitting).

    The probability that judges a case comes from a calibrator (and covariates' weights) fitted on the cases of the
    other folds, and so do the threshold and the refer zone that decide it (``FOLD_COLUMNS`` of the predictions), so
    that nothing that is judged was fitted to it: one fold's networks are judged, and calibrated by one fold's. The
    model, whose logit is the mean of all folds', gets what is fitted on all cases for that mean.

    Args:
        parts: the same cases for each fold, its own being the test split.
        said: each case by the networks of its fold.
        config: the experiment.
        prior_offset: what class balancing added to the logits, on average.
    """
    usable, findings, logits = parts[0].usable, config.data.findings, said.logits
    cases = [case.case for case in usable]
    labels, values = finding_labels(cases, findings), covariate_values(usable, config)
    fold_of = np.empty(len(usable), int)
    limits = []
    adjusted, probabilities = logits.copy(), np.empty_like(logits)
    for fold, part in enumerate(parts):
        tested = np.array([case.split == "test" for case in part.usable])
        fold_of[tested] = fold
        term = fit_covariate_term(logits[~tested], labels[~tested], values[~tested], config.data.covariates)
        shifted = logits + term.logits(values)
        fits, points = calibrate_findings(shifted[~tested], labels[~tested], config, prior_offset=prior_offset)
        others = fits[0].calibrator.apply(shifted[~tested, 0])
        limits.append(fold_limits(labels[~tested, 0].astype(np.int64), others, points, config))
        adjusted[tested] = shifted[tested]
        probabilities[tested] = np.stack(
            [fit.calibrator.apply(column) for fit, column in zip(fits, shifted[tested].T, strict=True)], axis=1
        )
    means = of_mean(said, range(len(usable)), labels)
    steadied = stack_logits(means)
    term = fit_covariate_term(steadied, labels, values, config.data.covariates)
    final = steadied + term.logits(values)
    fits, points = calibrate_findings(final, labels, config, prior_offset=prior_offset)
    calibrated = np.stack([fit.calibrator.apply(column) for fit, column in zip(fits, final.T, strict=True)], axis=1)
    columns = used_columns(config, available=cases[0].extra)
    frames = []
    for split, at, chance in (("calibration", final, calibrated), ("test", adjusted, probabilities)):
        rows = predictions_of(cases, [split] * len(cases), at, chance, columns, seed=config.seed, findings=findings)
        # What fits the model's own calibrator is of no fold.
        of_rows = np.tile(fold_of, len(findings)) if split == "test" else np.nan
        rows = Predictions.from_frame(rows.frame.assign(fold=of_rows))
        frames.append((with_fold_limits(rows, limits) if split == "test" else rows).frame)
    predictions = Predictions.from_frame(pd.concat(frames, ignore_index=True))
    test = predictions.where(split="test")
    first = test.where(finding=findings[0])
    of_fold = [Predictions.from_frame(first.frame[first.frame["fold"] == fold]) for fold in range(len(parts))]
    return Judgement(
        calibrations=fits,
        covariates=term,
        means=means,
        operating_points=points,
        predictions=predictions,
        findings=evaluate_findings(test, points, resamples=config.evaluation.resamples, seed=config.seed),
        comparisons=pool_comparisons(
            [comparisons(part.usable, rows, config) for part, rows in zip(parts, of_fold, strict=True)],
            first,
            points[findings[0]],
            config,
        ),
        prevalence_at_calibration=float(labels[:, 0].mean()),
        refer_zone=refer_zone(labels[:, 0].astype(np.int64), calibrated[:, 0], config),
        fold_aurocs=tuple(auroc(rows.labels, rows.probabilities) for rows in of_fold),
    )


def pool_comparisons(
    of_folds: Sequence[Sequence[Comparison]], test: Predictions, point: OperatingPoint, config: Config
) -> tuple[Comparison, ...]:
    """Each regression's predictions of all folds, judged as one beside the model's, and decided at its thresholds."""
    thresholds = test.frame.set_index("case_id")["fold_threshold"]
    pooled = []
    for same in zip(*of_folds, strict=True):
        rows = pd.concat([other.predictions.frame.assign(fold=fold) for fold, other in enumerate(same)])
        rows = rows.set_index("case_id").loc[test.case_ids].reset_index()  # paired with the model's, case by case
        decided = Predictions.from_frame(rows.assign(fold_threshold=thresholds.loc[rows["case_id"]].to_numpy()))
        pooled.append(compare(same[0].name, same[0].columns, test, decided, point, config))
    return tuple(pooled)
