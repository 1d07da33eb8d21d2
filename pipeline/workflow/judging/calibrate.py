"""Calibrator, thresholds and refer zone as configured, from the cases that calibrate; and predictions as rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.cases.findings import finding_labels
from pipeline.config.experiment import Config
from pipeline.config.inputs import MALIGNANT
from pipeline.errors import CalibrationError, UsageError
from pipeline.evaluation.calibration.ensemble_mean import MeanLogits, as_mean_of
from pipeline.evaluation.calibration.fallback import CalibrationFit, fit_with_fallback
from pipeline.evaluation.decisions.operating_points import OperatingPoint, choose_operating_point, needed_cases
from pipeline.evaluation.decisions.refer_zone import ReferZone, fit_refer_zone
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import FOLD_COLUMNS, Predictions
from pipeline.evaluation.results import Evaluation
from pipeline.workflow.cohort import Usable, extra_frame
from pipeline.workflow.learning.held_out import HeldOut

LogitArray = NDArray[np.float64]


def require_refer_zone(labels: NDArray[np.int64], config: Config) -> None:
    """Refuse, before anything is trained, a refer zone that the calibration split is too small for.

    Args:
        labels: of the calibration split, shape (n,).
        config: the experiment.

    Raises:
        UsageError: with what is missing.
    """
    try:
        refer_zone(labels, np.full(labels.size, 0.5), config)  # only the number of labels matters
    except CalibrationError as error:
        coverage = config.operating_point.refer_coverage
        raise UsageError(f"operating_point.refer_coverage: {coverage:g}: {error}, or set it to null") from None


def require_operating_point(labels: NDArray[np.int64], config: Config) -> None:
    """Refuse, before anything is trained, a confidence that the calibration split is too small for.

    Args:
        labels: of the calibration split, shape (n,).
        config: the experiment.

    Raises:
        UsageError: with the number of cases that would be enough.
    """
    settings = config.operating_point
    if settings.confidence is None or settings.target is None:
        return
    class_name = "malignant" if settings.rule == "sensitivity" else "benign"
    cases = int((labels == (class_name == "malignant")).sum())
    try:
        needed_cases(cases, target=settings.target, confidence=settings.confidence, what=class_name)
    except CalibrationError as error:
        raise UsageError(f"operating_point.confidence: {settings.confidence:g}: {error}, or set it to null") from None


def refer_zone(labels: NDArray[np.int64], probabilities: LogitArray, config: Config) -> ReferZone | None:
    """The zone in which cases go to a person, from the calibration split; None where none is configured."""
    coverage = config.operating_point.refer_coverage
    return None if coverage is None else fit_refer_zone(labels, probabilities, coverage=coverage)


def fold_limits(
    labels: NDArray[np.int64], probabilities: LogitArray, points: Mapping[str, OperatingPoint], config: Config
) -> pd.DataFrame:
    """Thresholds and limits of one fold, chosen without its cases: ``FOLD_COLUMNS``, one row a finding.

    Args:
        labels: of the first finding, of cases of other folds, shape (n,).
        probabilities: calibrated, of the same cases, shape (n,).
        points: of each finding, chosen on the same cases.
        config: says which coverage the refer zone, which is the first finding's, is to have; 0.9 where none decides.

    Returns:
        NaN for the zone where the cases are too few for one, and for the findings that have none.
    """
    limits = pd.DataFrame(np.nan, index=list(points), columns=list(FOLD_COLUMNS))
    limits["fold_threshold"] = [point.threshold for point in points.values()]
    try:
        zone = fit_refer_zone(labels, probabilities, coverage=config.operating_point.refer_coverage or 0.9)
    except CalibrationError:
        return limits
    limits.loc[next(iter(points)), ["fold_malignant_from", "fold_benign_to"]] = (zone.malignant_from, zone.benign_to)
    return limits


def with_fold_limits(test: Predictions, limits: Sequence[pd.DataFrame]) -> Predictions:
    """Test cases of all folds, each with the thresholds and limits of its fold.

    Args:
        test: with the number of the fold in every row.
        limits: of each fold, as ``fold_limits`` gives them.
    """
    columns = pd.concat(dict(enumerate(limits)), names=["fold", "finding"])
    of_rows = pd.MultiIndex.from_arrays([test.frame["fold"].astype(int), test.frame["finding"]])
    values = columns.loc[of_rows].reset_index(drop=True)
    return Predictions.from_frame(pd.concat([test.frame.reset_index(drop=True), values], axis=1))


def calibrate(
    logits: LogitArray, labels: NDArray[np.int64], config: Config, *, prior_offset: float
) -> tuple[CalibrationFit, OperatingPoint]:
    """Fit one finding's calibrator, or the next best one for so few cases, and choose its operating point."""
    settings = config.calibration
    offset = prior_offset if settings.prior_correction else 0.0
    fit = fit_with_fallback(settings.method, logits, labels, prior_offset=offset)
    return fit, operating_point_as_configured(labels, fit.calibrator.apply(logits), config)


def operating_point_as_configured(
    labels: NDArray[np.int64], probabilities: LogitArray, config: Config
) -> OperatingPoint:
    """Choose a threshold by the configured rule, from calibrated probabilities of calibration cases.

    A specificity that no threshold reaches, because a benign case has probability 1, is replaced by the largest Youden
    index, and a confidence with too few cases by the target on these cases, so that a finished training is not lost;
    the operating point names its rule.
    """
    rule = config.operating_point
    try:
        return choose_operating_point(
            labels,
            probabilities,
            rule=rule.rule,
            target=rule.target,
            cost_ratio=rule.cost_ratio,
            confidence=rule.confidence,
        )
    except CalibrationError as error:
        if rule.confidence is not None:
            print(f"{error}; the threshold that reaches the target on these cases is taken instead", file=sys.stderr)
            plain = rule.model_copy(update={"confidence": None})
            return operating_point_as_configured(
                labels, probabilities, config.model_copy(update={"operating_point": plain})
            )
        print(f"{error}; the threshold with the largest Youden index is taken instead", file=sys.stderr)
        return choose_operating_point(labels, probabilities, rule="youden")


def calibrate_findings(
    logits: LogitArray, labels: LogitArray, config: Config, *, prior_offset: float
) -> tuple[tuple[CalibrationFit, ...], dict[str, OperatingPoint]]:
    """A calibrator for each finding, and operating points by finding, each on the cases where that finding is known.

    Args:
        logits: (N, F) of the calibration split.
        labels: (N, F), NaN where unknown.
        config: names the findings and how to calibrate.
        prior_offset: what class balancing added to the logits.
    """
    fits, points = [], {}
    for column, name in enumerate(config.data.findings):
        known = np.isfinite(labels[:, column])
        truth = labels[known, column].astype(np.int64)
        fit, points[name] = calibrate(logits[known, column], truth, config, prior_offset=prior_offset)
        fits.append(fit)
    return tuple(fits), points


def of_mean(held_out: HeldOut, rows: Sequence[int], labels: LogitArray) -> tuple[MeanLogits, ...]:
    """Logits of the calibration cases, moved to where the mean of all networks would lie, finding by finding.

    Args:
        held_out: by networks that had left the cases out, single ones.
        rows: M places of those that calibrate.
        labels: (M, F) of them, NaN where unknown; those cases keep their logits.
    """
    means = []
    for column, truth in enumerate(labels.T):
        logits, known = held_out.logits[list(rows), column], np.isfinite(truth)
        mean = as_mean_of(held_out.networks, logits[known], truth[known].astype(np.int64), held_out.pairs[:, :, column])
        logits[known] = mean.logits
        means.append(replace(mean, logits=logits))
    return tuple(means)


def stack_logits(means: Sequence[MeanLogits]) -> LogitArray:
    """Logits (M, F) of all findings."""
    return np.stack([mean.logits for mean in means], axis=1)


def predictions_of(
    cases: Sequence[Case],
    splits: Sequence[str],
    logits: LogitArray,
    probabilities: LogitArray,
    columns: Sequence[str],
    *,
    seed: int,
    findings: Sequence[str] = (MALIGNANT,),
) -> Predictions:
    """Predictions: one row a case and finding, with the columns that subgroups and baselines need.

    Args:
        cases: N cases.
        splits: of each case.
        logits: (N, F), or (N,) of a single finding.
        probabilities: of the same shape.
        columns: extra columns to keep.
        seed: of the training.
        findings: F names, the label's first.
    """
    logits, probabilities = (values.reshape(len(cases), len(findings)) for values in (logits, probabilities))
    labels, extra = finding_labels(cases, findings), extra_frame(cases, columns)
    frames = []
    for column, name in enumerate(findings):
        frame = pd.DataFrame(
            {
                "case_id": [case.case_id for case in cases],
                "patient_id": [case.patient_id for case in cases],
                "split": list(splits),
                "finding": name,
                "seed": seed,
                "label": labels[:, column],
                "logit": logits[:, column],
                "probability": probabilities[:, column],
            }
        )
        frames.append(pd.concat([frame, extra], axis=1))
    return Predictions.from_frame(pd.concat(frames, ignore_index=True))


def calibration_rows(usable: Sequence[Usable]) -> list[int]:
    """Cases that fit calibrator and thresholds: the calibration split; without one, the training cases.

    Several members are calibrated on the cases that each leaves out, and folds on the out-of-fold logits.
    """
    split = "calibration" if any(case.split == "calibration" for case in usable) else "train"
    return [index for index, prepared in enumerate(usable) if prepared.split == split]


def evaluate_as_configured(test: Predictions, point: OperatingPoint, config: Config) -> Evaluation:
    """Judge calibrated predictions with the configuration's number of resamples and seed."""
    return evaluate(test, operating_point=point, resamples=config.evaluation.resamples, seed=config.seed)
