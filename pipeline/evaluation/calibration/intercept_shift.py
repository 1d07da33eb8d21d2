"""Local recalibration: shift a calibrator's intercept; the ranking stays.

Source: Steyerberg, Clinical Prediction Models, chapter 20 (updating the intercept); Elkan, 2001 (prevalence).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import as_labels, require_both_classes
from pipeline.evaluation.calibration.calibrator import Calibrator, logit, sigmoid

_FURTHEST = 30.0  # log odds; a model that needs a larger shift predicts something else


def shift_intercept(calibrator: Calibrator, shift: float) -> Calibrator:
    """The same calibrator with ``shift`` added to its log odds.

    A temperature becomes a Platt calibrator, because a temperature cannot hold an intercept; an isotonic one has its
    knots moved, so that between two knots the shift holds approximately.

    Raises:
        CalibrationError: when the shift moves a probability to 0 or 1.
    """
    if calibrator.method == "isotonic":
        values = np.asarray(calibrator.parameters["probabilities"], dtype=np.float64)
        moved = tuple(float(value) for value in sigmoid(logit(values) + shift))
        return Calibrator(
            "isotonic", {"logits": calibrator.parameters["logits"], "probabilities": moved}, calibrator.prior_offset
        )
    at_zero, at_one = calibrator.calibrated_logit(np.array([0.0, 1.0]) + calibrator.prior_offset)
    parameters = {"slope": float(at_one - at_zero), "intercept": float(at_zero) + shift}
    return Calibrator("platt", parameters, calibrator.prior_offset)


def fit_intercept_shift(calibrator: Calibrator, logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The shift of the log odds at which as many malignant cases are expected as there are.

    For all but isotonic calibrators this is the maximum likelihood estimate with the slope left as it is.

    Args:
        calibrator: the model's.
        logits: uncalibrated, of local cases, shape (n,).
        labels: 0 or 1, shape (n,).

    Raises:
        CalibrationError: with one class, or when no shift within 30 log odds is enough.
    """
    truth = as_labels(labels, error=CalibrationError)
    require_both_classes(truth, what="recalibration", error=CalibrationError)

    def excess(shift: float) -> float:
        return float(shift_intercept(calibrator, shift).apply(logits).sum() - truth.sum())

    if excess(-_FURTHEST) > 0.0 or excess(_FURTHEST) < 0.0:
        raise CalibrationError(
            f"recalibration: no shift within {_FURTHEST:g} log odds makes {int(truth.sum())} of {truth.size} cases "
            "malignant; the model does not fit these cases at all"
        )
    return float(optimize.brentq(excess, -_FURTHEST, _FURTHEST, xtol=1e-12))
