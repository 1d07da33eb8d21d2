"""Evaluate a set of predictions: every statistic with its interval. Nothing is fitted to the evaluated cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation import metrics
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray
from pipeline.evaluation.calibration import error as calibration_error
from pipeline.evaluation.calibration.calibrator import Calibrator, sigmoid
from pipeline.evaluation.calibration.curve import CURVE_STATISTICS, calibration_distances, fit_calibration_curve
from pipeline.evaluation.calibration.saturation import saturation_caution
from pipeline.evaluation.decisions.decision_curve import net_benefit_interval
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.intervals.bootstrap import auroc_interval, average_precision_interval
from pipeline.evaluation.intervals.clustered import (
    calibration_intercept_interval,
    calibration_slope_interval,
    mean_interval,
    observed_expected_interval,
    proportion_caution,
    proportion_interval,
    scaled_brier_interval,
)
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.intervals.patient_labels import PatientLabels
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import CalibrationSummary, Evaluation

_AGREEMENT = 1e-6
_T = TypeVar("_T")


def evaluate(
    predictions: Predictions,
    *,
    operating_point: OperatingPoint,
    calibrator: Calibrator | None = None,
    resamples: int = 2000,
    seed: int = 0,
    null_draws: int = 1000,
) -> Evaluation:
    """Evaluate the probabilities of the labelled rows, one a case.

    Args:
        predictions: of one finding, with one row a case (choose a seed with ``where``); unlabelled rows are
            counted and left out.
        operating_point: threshold chosen on the calibration split; rows that have a threshold of their fold are decided
            at that one.
        calibrator: applied where the probability column is empty; where it is filled, it must agree to 1e-6.
        resamples: patient-level bootstrap samples (average precision).
        seed: of the bootstrap and of the null of the ECE.
        null_draws: label sets of the null of the ECE; half as many of the cumulative error's.

    Raises:
        UsageError: when no row is labelled, a case occurs twice, probabilities are missing without a calibrator
            or differ from it. Statistics that the cases do not define are listed in ``undefined`` instead.
    """
    labelled = predictions.labelled()
    _check_one_row_a_case(labelled)
    probabilities = _probabilities(labelled, calibrator)
    labels, patients, bins = labelled.labels, labelled.patients, default_bins(len(labelled))
    null_rng, bootstrap_rng, drift_rng, curve_rng = (np.random.default_rng([seed, stream]) for stream in (0, 1, 2, 4))
    thresholds = labelled.thresholds(operating_point.threshold)
    uncalibrated = sigmoid(labelled.logits)
    statistics = _statistics(labels, probabilities, patients, thresholds, resamples=resamples, rng=bootstrap_rng)
    intervals, undefined = settle(statistics | _uncalibrated_statistics(labels, uncalibrated, patients))
    distances, no_curve = _curve_distances(labels, probabilities, patients, rng=curve_rng)
    intervals, undefined = intervals | distances, undefined | no_curve
    cautions = _cautions(labels, probabilities, patients, thresholds)
    drawn = PatientLabels.of(labels, probabilities, patients)
    null, reason = attempt(
        lambda: calibration_error.ece_null(probabilities, drawn, bins=bins, rng=null_rng, draws=null_draws)
    )
    return Evaluation(
        n_cases=labels.size,
        n_patients=int(np.unique(patients).size),
        n_positive=int(labels.sum()),
        n_unlabelled=len(predictions) - len(labelled),
        intervals=intervals,
        undefined=undefined if reason is None else {**undefined, "ece": reason},
        cautions={name: caution for name, caution in cautions.items() if name in intervals},
        patients_unknown=labelled.patients_unknown,
        calibrated=_summary(labels, probabilities, bins=bins),
        uncalibrated=_summary(labels, uncalibrated, bins=bins),
        null=null,
        cumulative_null_p95=calibration_error.cumulative_null_p95(
            probabilities, drawn, rng=drift_rng, draws=null_draws // 2
        ),
        confusion=metrics.confusion(labels, probabilities, thresholds),
        operating_point=operating_point,
        fold_thresholds=(float(thresholds.min()), float(thresholds.max())) if labelled.decided_by_fold else None,
    )


def default_bins(n_cases: int) -> int:
    """Equal-mass bins for so many cases: one for 15, at least 5 and at most 15."""
    return min(15, max(5, n_cases // 15))


def _check_one_row_a_case(labelled: Predictions) -> None:
    if not len(labelled):
        raise UsageError("predictions: no labelled case to judge; expected labels 0 and 1; give labelled cases")
    findings = labelled.frame["finding"].unique()
    if len(findings) > 1:
        raise UsageError(f"predictions: hold {len(findings)} findings ({', '.join(findings)}); judge one at a time")
    twice = labelled.frame["case_id"].duplicated()
    if twice.any():
        case = labelled.frame["case_id"][int(np.argmax(twice))]
        raise UsageError(
            f"predictions: case {case} has several rows; expected one; choose one split, fold and seed first"
        )


def _probabilities(labelled: Predictions, calibrator: Calibrator | None) -> FloatArray:
    if calibrator is None:
        return labelled.probabilities
    applied = calibrator.apply(labelled.logits)
    recorded = labelled.frame["probability"].to_numpy(dtype=np.float64)
    known = ~np.isnan(recorded)
    if known.any() and float(np.abs(recorded - applied)[known].max()) > _AGREEMENT:
        gap = float(np.abs(recorded - applied)[known].max())
        raise UsageError(
            f"predictions: probabilities differ from the calibrator's by up to {gap:.2g}; expected at most "
            f"{_AGREEMENT:g}; judge the probabilities of this model, or leave the calibrator out"
        )
    return np.where(known, recorded, applied)


def _statistics(
    labels: IntArray,
    probabilities: FloatArray,
    patients: npt.NDArray[np.str_],
    thresholds: FloatArray,
    *,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, Callable[[], Interval]]:
    """Each statistic under its name, computed when called, so that an undefined one does not hide the others."""
    shares = _shares(labels == 1, probabilities >= thresholds)

    def share(name: str, title: str) -> Interval:
        right, among, empty = shares[name]
        if not among.any():
            raise UndefinedMetricError(f"{title}: {empty}, so it is undefined")
        return proportion_interval(right[among], patients[among])

    losses = metrics.case_log_losses(labels, probabilities)
    return {
        "auroc": lambda: auroc_interval(labels, probabilities, patients),
        "average_precision": lambda: average_precision_interval(
            labels, probabilities, patients, rng=rng, resamples=resamples
        ),
        "brier_score": lambda: mean_interval((probabilities - labels) ** 2, patients, largest=1.0),
        "scaled_brier_score": lambda: scaled_brier_interval(labels, probabilities, patients),
        "log_loss": lambda: mean_interval(losses, patients),
        "calibration_slope": lambda: calibration_slope_interval(labels, probabilities, patients),
        "calibration_intercept": lambda: calibration_intercept_interval(labels, probabilities, patients),
        "observed_expected": lambda: observed_expected_interval(labels, probabilities, patients),
        "sensitivity": lambda: share("sensitivity", "sensitivity"),
        "specificity": lambda: share("specificity", "specificity"),
        "ppv": lambda: share("ppv", "PPV"),
        "npv": lambda: share("npv", "NPV"),
        "net_benefit": lambda: net_benefit_interval(labels, probabilities, patients, threshold=thresholds),
    }


def _uncalibrated_statistics(
    labels: IntArray, uncalibrated: FloatArray, patients: npt.NDArray[np.str_]
) -> dict[str, Callable[[], Interval]]:
    """Losses of the bare sigmoid of the logit, under their names."""
    return {
        "brier_score_uncalibrated": lambda: mean_interval((uncalibrated - labels) ** 2, patients, largest=1.0),
        "log_loss_uncalibrated": lambda: mean_interval(metrics.case_log_losses(labels, uncalibrated), patients),
    }


def _shares(malignant: BoolArray, positive: BoolArray) -> dict[str, tuple[BoolArray, BoolArray, str]]:
    """For each share: the cases that are right, the cases it is a share of, and the message when those are none."""
    return {
        "sensitivity": (positive, malignant, "there is no malignant case"),
        "specificity": (~positive, ~malignant, "there is no benign case"),
        "ppv": (malignant, positive, "no case is called positive at this threshold"),
        "npv": (~malignant, ~positive, "no case is called negative at this threshold"),
    }


def _curve_distances(
    labels: IntArray, probabilities: FloatArray, patients: npt.NDArray[np.str_], *, rng: np.random.Generator
) -> tuple[dict[str, Interval], dict[str, str]]:
    """ICI, E50 and E90, or the reason why there is no curve, under each of their names."""
    curve, reason = attempt(lambda: fit_calibration_curve(labels, probabilities, patients, rng=rng))
    if curve is None:
        return {}, dict.fromkeys(CURVE_STATISTICS, reason or "")
    return calibration_distances(curve, probabilities), {}


def _cautions(
    labels: IntArray, probabilities: FloatArray, patients: npt.NDArray[np.str_], thresholds: FloatArray
) -> dict[str, str]:
    """Statistics to be read with caution, and why."""
    shares = _shares(labels == 1, probabilities >= thresholds)
    cautions = {
        name: proportion_caution(right[among], patients[among])
        for name, (right, among, _) in shares.items()
        if among.any()
    }
    cautions["calibration_slope"] = saturation_caution(labels, probabilities)
    return {name: caution for name, caution in cautions.items() if caution is not None}


def attempt(compute: Callable[[], _T]) -> tuple[_T | None, str | None]:
    """Return the result of ``compute`` and None, or None and the reason why it is undefined."""
    try:
        return compute(), None
    except UndefinedMetricError as error:
        return None, str(error)


def settle(statistics: Mapping[str, Callable[[], Interval]]) -> tuple[dict[str, Interval], dict[str, str]]:
    """Compute the statistics: the intervals of those that are defined, and the reasons why the others are not."""
    intervals, undefined = {}, {}
    for name, compute in statistics.items():
        interval, reason = attempt(compute)
        if interval is not None:
            intervals[name] = interval
        else:
            undefined[name] = reason or ""
    return intervals, undefined


def _summary(labels: IntArray, probabilities: FloatArray, *, bins: int) -> CalibrationSummary:
    ece, _ = attempt(lambda: calibration_error.expected_calibration_error(labels, probabilities, bins=bins))
    return CalibrationSummary(
        brier_score=metrics.brier_score(labels, probabilities),
        log_loss=metrics.log_loss(labels, probabilities),
        ece=ece,
        bins=bins,
        miscalibration=calibration_error.miscalibration(labels, probabilities),
        cumulative_error=calibration_error.cumulative_calibration_error(labels, probabilities),
    )
