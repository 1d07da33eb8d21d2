"""Fit calibrators, which map logits to probabilities, on the calibration split.

Fitting and applying are different verbs: ``fit_…`` returns a frozen ``Calibrator`` of plain numbers, and a
``Calibrator`` can only be applied. scikit-learn is imported where something is fitted, so that a scoring worker
does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import numpy.typing as npt

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import FloatArray, IntArray, as_labels, as_scores, require_both_classes
from pipeline.evaluation.calibration.calibrator import TEMPERATURE_LIMITS, Calibrator, Method
from pipeline.evaluation.calibration.logistic import fit_line, separated

_ISOTONIC_GRID = 8  # steps to a standard deviation of the logits


def fit_calibrator(
    method: Method, logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0
) -> Calibrator:
    """Fit the named calibrator on the calibration split.

    Args:
        method: ``temperature``, ``platt``, ``isotonic`` or ``none``.
        logits: uncalibrated, shape (n,).
        labels: 0 or 1, shape (n,).
        prior_offset: log odds that weighting or balanced sampling added in training (``log`` of the weight of
            a malignant case over that of a benign one).

    Raises:
        CalibrationError: as the single ``fit_…`` functions; also for an unknown method.
    """
    fits: dict[str, Callable[..., Calibrator]] = {
        "temperature": fit_temperature,
        "platt": fit_platt,
        "isotonic": fit_isotonic,
    }
    if method == "none":
        return Calibrator(method="none", prior_offset=float(prior_offset))
    if method not in fits:
        raise CalibrationError(f"calibration method: {method!r} is not one of {', '.join(get_args(Method))}")
    return fits[method](logits, labels, prior_offset=prior_offset)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0) -> Calibrator:
    """Fit one temperature by minimising the log loss; the ranking, and so the AUROC, does not change.

    Args:
        logits: uncalibrated, shape (n,).
        labels: 0 or 1, shape (n,).
        prior_offset: taken off the logits first.

    Raises:
        CalibrationError: with one class only, a logit that is not finite, or a temperature outside [0.05, 20].

    Source: Guo et al., 2017; scikit-learn's ``CalibratedClassifierCV(method="temperature")``.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    shifted, targets = checked_logits(logits, labels, prior_offset, "temperature")
    # A classifier whose decision function is its input: the logit is what is calibrated.
    identity = LogisticRegression()
    identity.classes_, identity.coef_, identity.intercept_ = np.array([0, 1]), np.ones((1, 1)), np.zeros(1)
    cases = np.arange(targets.size)
    # The base is frozen, so folds would only forbid classes of fewer than five cases.
    calibrated = CalibratedClassifierCV(FrozenEstimator(identity), method="temperature", cv=[(cases, cases)])
    calibrated.fit(shifted[:, None], targets)
    beta = float(calibrated.calibrated_classifiers_[0].calibrators[0].beta_)
    # scikit-learn's two logits are (-x, x): the odds are exp(2 * beta * x).
    temperature = 0.5 / beta
    low, high = TEMPERATURE_LIMITS
    if not low <= temperature <= high:
        if temperature > high:
            cause = "the logits do not rank malignant above benign; look at labels and training"
        elif separated(shifted, targets):
            cause = "the logits separate the classes perfectly; add cases, or set calibration.method to 'isotonic'"
        else:
            cause = "the logits hardly differ between cases; train longer, or set calibration.method to 'platt'"
        raise CalibrationError(
            f"temperature: {temperature:.3g} is outside [{low:g}, {high:g}] "
            f"on {targets.size} cases ({int(targets.sum())} malignant): {cause}"
        )
    return Calibrator(method="temperature", parameters={"temperature": temperature}, prior_offset=float(prior_offset))


def fit_platt(logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0) -> Calibrator:
    """Fit slope and intercept by unpenalised logistic regression of the label on the logit.

    Args:
        logits: uncalibrated, shape (n,).
        labels: 0 or 1, shape (n,).
        prior_offset: taken off the logits first.

    Raises:
        CalibrationError: with one class only, a logit that is not finite, perfectly separated classes, or a slope
            that is not positive (the network ranks backwards).

    Source: Platt, 1999; scikit-learn's ``LogisticRegression``.
    """
    shifted, targets = checked_logits(logits, labels, prior_offset, "Platt")
    if separated(shifted, targets):
        raise CalibrationError(
            f"Platt: the logits separate all {targets.size} cases perfectly, so no finite slope fits; "
            "add calibration cases, or set calibration.method to 'isotonic'"
        )
    if not np.ptp(shifted) > 0.0:
        raise CalibrationError(
            f"Platt: all {targets.size} logits are equal, so no slope fits; "
            "the network has learned nothing: look at its training"
        )
    line = fit_line(shifted, targets)
    if line.slope <= 0.0:
        raise CalibrationError(
            f"Platt: slope {line.slope:.3g} on {targets.size} cases is not positive: "
            "the network ranks malignant below benign; look at labels and training"
        )
    parameters = {"slope": line.slope, "intercept": line.intercept}
    return Calibrator(method="platt", parameters=parameters, prior_offset=float(prior_offset))


def fit_isotonic(logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0) -> Calibrator:
    """Fit a non-decreasing line from logit to probability, clipped to [1/(n+2), (n+1)/(n+2)].

    Logits are first rounded to an eighth of their standard deviation.

    Args:
        logits: uncalibrated, shape (n,).
        labels: 0 or 1, shape (n,).
        prior_offset: taken off the logits first.

    Raises:
        CalibrationError: with one class only, a logit that is not finite, or a fit that is flat (no ranking).

    Source: Zadrozny & Elkan, 2002; scikit-learn's ``IsotonicRegression``.
    """
    from sklearn.isotonic import IsotonicRegression

    shifted, targets = checked_logits(logits, labels, prior_offset, "isotonic")
    count = targets.size
    model = IsotonicRegression(
        y_min=1.0 / (count + 2), y_max=(count + 1.0) / (count + 2), increasing=True, out_of_bounds="clip"
    )
    # Two nearly equal logits would make a step so steep that the last bits of a logit, which batch size and threads
    # change, would move the probability by more than 1e-6. Between the points of a grid the line is less steep.
    grid = float(shifted.std()) / _ISOTONIC_GRID
    model.fit(np.round(shifted / grid) * grid if grid else shifted, targets)
    knots, values = (
        tuple(float(number) for number in numbers) for numbers in (model.X_thresholds_, model.y_thresholds_)
    )
    if values[0] == values[-1]:
        raise CalibrationError(
            f"isotonic: the fit on {count} cases is flat: "
            "the logits do not rank malignant above benign; look at labels and training"
        )
    return Calibrator(
        method="isotonic", parameters={"logits": knots, "probabilities": values}, prior_offset=float(prior_offset)
    )


def checked_logits(
    logits: npt.ArrayLike, labels: npt.ArrayLike, prior_offset: float, what: str
) -> tuple[FloatArray, IntArray]:
    """Logits less the prior offset, and labels; both classes must be there.

    Raises:
        CalibrationError: naming ``what`` is being fitted.
    """
    targets = as_labels(labels, error=CalibrationError)
    shifted = as_scores(logits, targets, name="logits", error=CalibrationError) - prior_offset
    require_both_classes(targets, what=what, error=CalibrationError)
    return shifted, targets
