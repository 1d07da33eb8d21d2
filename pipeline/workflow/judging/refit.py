"""Refitting calibration intercepts and thresholds on local predictions, finding by finding; nothing is judged here."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from pipeline.config.inputs import MALIGNANT
from pipeline.errors import CalibrationError, UndefinedMetricError, UsageError
from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.calibration.intercept_shift import fit_intercept_shift, shift_intercept
from pipeline.evaluation.decisions.operating_points import OperatingPoint, choose_operating_point
from pipeline.evaluation.decisions.prevalence import prevalence_shift
from pipeline.evaluation.decisions.refer_zone import ReferZone, fit_refer_zone
from pipeline.evaluation.intervals.clustered import calibration_intercept_interval
from pipeline.evaluation.metrics import log_odds
from pipeline.evaluation.predictions import Predictions
from pipeline.scoring.model_directory import Model

PATIENTS_A_CLASS = 10  # with fewer, an intercept is mostly chance


@dataclass(frozen=True, eq=False)
class Refit:
    """Refit of one finding on local cases.

    Attributes:
        shift: added to the log odds.
        calibrators: of the members, shifted.
        operating_point: by the rule of the model's own, on the local cases.
        prevalence: that the new probabilities are calibrated at.
        before: calibration in the large before, with its interval, in words.
        refer_zone: of the label, refitted where the model has one and the local cases are enough for it.
    """

    shift: float
    calibrators: tuple[Calibrator, ...]
    operating_point: OperatingPoint
    prevalence: float
    before: str
    refer_zone: ReferZone | None = None


def refit_findings(model: Model, local: Predictions, *, prevalence: float | None = None) -> dict[str, Refit]:
    """The label's refit, and that of every other finding with enough patients of each class; by finding.

    Args:
        model: whose calibrators are shifted.
        local: its predictions of all findings; those with too few patients are left out.
        prevalence: of the label, to calibrate for; that of the local cases by default.
    """
    first, *others = model.findings
    refits = {first: refit_finding(model, local.where(finding=first), finding=first, prevalence=prevalence)}
    for name in others:
        known = local.where(finding=name).labelled()
        patients = [np.unique(known.patients[known.labels == value]).size for value in (0, 1)]
        if min(patients) >= PATIENTS_A_CLASS:
            refits[name] = refit_finding(model, known, finding=name)
    return refits


def refit_finding(
    model: Model, local: Predictions, *, finding: str = MALIGNANT, prevalence: float | None = None
) -> Refit:
    """Fit the shift and the threshold on local predictions.

    Args:
        model: whose calibrators are shifted.
        local: its labelled predictions of the finding.
        finding: one of the model's.
        prevalence: share of positive cases to calibrate for; that of the local cases by default.

    Raises:
        UsageError: for an ensemble with an isotonic member, whose probability no shift of its members moves exactly.
        CalibrationError: when no shift fits.
    """
    place = model.findings.index(finding)
    old, rule = [member.calibrators[place] for member in model.members], model.operating_points[place]
    if len(old) > 1 and any(calibrator.method == "isotonic" for calibrator in old):
        raise UsageError(
            "recalibrate: an ensemble with isotonic members cannot be shifted; train with temperature or platt"
        )
    # Of an ensemble, the shift moves the mean of calibrated logits, which is the log odds of its probability.
    single = old[0] if len(old) == 1 else Calibrator("none")
    logits = local.logits if len(old) == 1 else log_odds(local.probabilities)
    observed = float(local.labels.mean())
    wanted = prevalence if prevalence is not None else observed
    shift = fit_intercept_shift(single, logits, local.labels) + prevalence_shift(calibrated_at=observed, wanted=wanted)
    probabilities = shift_intercept(single, shift).apply(logits)
    return Refit(
        shift=shift,
        calibrators=tuple(shift_intercept(calibrator, shift) for calibrator in old),
        operating_point=choose_operating_point(
            local.labels,
            probabilities,
            rule=rule.rule,
            target=rule.target,
            cost_ratio=rule.cost_ratio,
            confidence=rule.confidence,
        ),
        prevalence=wanted,
        before=_in_the_large(local),
        refer_zone=_refit_zone(model.refer_zone, local, probabilities) if place == 0 else None,
    )


def _refit_zone(old: ReferZone | None, local: Predictions, probabilities: FloatArray) -> ReferZone | None:
    """The zone of the same coverage on local cases; the old one does not hold for shifted probabilities."""
    if old is None:
        return None
    try:
        return fit_refer_zone(local.labels, probabilities, coverage=old.coverage)
    except CalibrationError as error:
        print(f"the new version refers no case: {error}", file=sys.stderr)
        return None


def _in_the_large(local: Predictions) -> str:
    try:
        return str(calibration_intercept_interval(local.labels, local.probabilities, local.patients))
    except UndefinedMetricError as error:
        return f"undefined: {error}"
