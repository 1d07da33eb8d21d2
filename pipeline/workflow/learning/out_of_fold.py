"""Evaluate the out-of-fold predictions of the networks of all folds, calibrated across the folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
from pipeline.workflow.judging.regressions import Comparison, compare_with_regression, comparisons
from pipeline.workflow.learning.held_out import HeldOut


def judge_out_of_fold(parts: Sequence[Cohort], held_out: HeldOut, config: Config, *, prior_offset: float) -> Judgement:
    """Calibrate and judge the networks of all folds together (cross-fitting).

    The probability of a case comes from a calibrator (and covariates' weights) fitted on the cases of the other folds,
    and so do its threshold and refer zone (``FOLD_COLUMNS`` of the predictions), so that nothing was fitted to the
    cases that are evaluated. The model, whose logit is the mean of all folds', gets a calibrator, thresholds and zone
    fitted on all cases for that mean.

    Args:
        parts: the same cases for each fold, its own being the test split.
        held_out: each case by the networks of its fold.
        config: the experiment.
        prior_offset: what class balancing added to the logits, on average.
    """
    usable, findings, logits = parts[0].usable, config.data.findings, held_out.logits
    cases = [case.case for case in usable]
    labels, values = finding_labels(cases, findings), covariate_values(usable, config)
    crossed = _cross_fit(parts, logits, labels, values, config, prior_offset=prior_offset)
    means = of_mean(held_out, range(len(usable)), labels)
    steadied = stack_logits(means)
    term = fit_covariate_term(steadied, labels, values, config.data.covariates)
    final = steadied + term.logits(values)
    fits, points = calibrate_findings(final, labels, config, prior_offset=prior_offset)
    calibrated = np.stack([fit.calibrator.apply(column) for fit, column in zip(fits, final.T, strict=True)], axis=1)
    columns = used_columns(config, available=cases[0].extra)
    frames = []
    for split, at, chance in (
        ("calibration", final, calibrated),
        ("test", crossed.logits, crossed.probabilities),
    ):
        rows = predictions_of(cases, [split] * len(cases), at, chance, columns, seed=config.seed, findings=findings)
        # The model's own calibrator is fitted on the cases of all folds.
        of_rows = np.tile(crossed.fold, len(findings)) if split == "test" else np.nan
        rows = Predictions.from_frame(rows.frame.assign(fold=of_rows))
        frames.append((with_fold_limits(rows, crossed.limits) if split == "test" else rows).frame)
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


@dataclass(frozen=True, eq=False)
class _CrossFitted:
    """Cases as judged: by networks, covariates' weights and a calibrator that were fitted without them.

    Attributes:
        fold: number of each case's fold, (N,).
        logits: with the covariates' part, (N, F).
        probabilities: calibrated, (N, F).
        limits: of each fold, as ``fold_limits`` gives them.
    """

    fold: NDArray[np.int64]
    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    limits: list[pd.DataFrame]


def _cross_fit(
    parts: Sequence[Cohort],
    logits: NDArray[np.float64],
    labels: NDArray[np.float64],
    values: NDArray[np.float64],
    config: Config,
    *,
    prior_offset: float,
) -> _CrossFitted:
    """Fit covariates and calibrators on the cases of all folds but one, and apply them to that one, fold by fold."""
    folds, limits = np.empty(len(logits), np.int64), []
    adjusted, probabilities = logits.copy(), np.empty_like(logits)
    for fold, part in enumerate(parts):
        tested = np.array([case.split == "test" for case in part.usable])
        folds[tested] = fold
        term = fit_covariate_term(logits[~tested], labels[~tested], values[~tested], config.data.covariates)
        shifted = logits + term.logits(values)
        fits, points = calibrate_findings(shifted[~tested], labels[~tested], config, prior_offset=prior_offset)
        fitted_on = fits[0].calibrator.apply(shifted[~tested, 0])
        limits.append(fold_limits(labels[~tested, 0].astype(np.int64), fitted_on, points, config))
        adjusted[tested] = shifted[tested]
        probabilities[tested] = np.stack(
            [fit.calibrator.apply(column) for fit, column in zip(fits, shifted[tested].T, strict=True)], axis=1
        )
    return _CrossFitted(folds, adjusted, probabilities, limits)


def pool_comparisons(
    of_folds: Sequence[Sequence[Comparison]], test: Predictions, point: OperatingPoint, config: Config
) -> tuple[Comparison, ...]:
    """Each regression's out-of-fold predictions, evaluated beside the model's at the regression's thresholds."""
    thresholds = test.frame.set_index("case_id")["fold_threshold"]
    pooled = []
    for same in zip(*of_folds, strict=True):
        rows = pd.concat([other.predictions.frame.assign(fold=fold) for fold, other in enumerate(same)])
        rows = rows.set_index("case_id").loc[test.case_ids].reset_index()  # paired with the model's, case by case
        decided = Predictions.from_frame(rows.assign(fold_threshold=thresholds.loc[rows["case_id"]].to_numpy()))
        pooled.append(compare_with_regression(same[0].name, same[0].columns, test, decided, point, config))
    return tuple(pooled)
