"""Fit the configured calibrator, or a simpler one where there are too few or separable calibration cases.

A training must not fail because of its calibration cases. A method that cannot be fitted is replaced by the next of

1. the method asked for (temperature, Platt or isotonic);
2. Platt with a prior on its slope, from 5 cases of each class: log slope ~ Normal(0, 1), so that a slope of 1, which
   leaves the network's logits as they are, is the likeliest, and 0.14 to 7.1 has 95 % of the prior;
3. an intercept alone, from 2 cases of each class: the probabilities are right on average and keep the network's
   spread;
4. no calibration: the bare sigmoid, which no model should be registered with.

`CalibrationFit` records the method asked for, the method fitted and why, for every report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import FloatArray, IntArray, as_labels
from pipeline.evaluation.calibration.calibrator import Calibrator, Method
from pipeline.evaluation.calibration.fit import checked_logits, fit_calibrator

Rung = Literal["temperature", "platt", "isotonic", "platt_prior", "intercept", "none"]
CASES_FOR_A_SLOPE, CASES_FOR_AN_INTERCEPT = 5, 2  # of each class
_LOG_SLOPE_SD = 1.0
_NAMES: dict[Rung, str] = {
    "platt_prior": "with a prior on the slope",
    "intercept": "the intercept alone being fitted",
    "none": "the bare sigmoid of the logit",
}


@dataclass(frozen=True)
class CalibrationFit:
    """A calibrator, with the method asked for and why another one was fitted.

    Attributes:
        calibrator: to apply.
        asked: the configured method.
        used: the method that was fitted.
        reasons: why each earlier one was not, in order; empty when the configured one was.
    """

    calibrator: Calibrator
    asked: Method
    used: Rung
    reasons: tuple[str, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        """Whether any calibrator was fitted; without one no model should be registered."""
        return self.used != "none" or self.asked == "none"

    def describe(self) -> str:
        """The calibrator in a few words, and what it stands in for."""
        text = self.calibrator.describe()
        return f"{text} ({_NAMES[self.used]}, in place of {self.asked})" if self.reasons else text

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for ``model.json``."""
        return {"asked": self.asked, "used": self.used, "reasons": list(self.reasons)}


def fit_with_fallback(
    method: Method, logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0
) -> CalibrationFit:
    """Fit the method asked for, or the next one in the list that enough calibration cases are there for.

    Args:
        method: ``temperature``, ``platt``, ``isotonic`` or ``none``.
        logits: uncalibrated, shape (n,), of cases that the network was not trained on.
        labels: 0 or 1, shape (n,).
        prior_offset: log odds that class balancing added in training; taken off the logits first.

    Raises:
        CalibrationError: for an unknown method, or labels that are not 0 and 1; for no other reason.

    Example:
        >>> fit = fit_with_fallback("temperature", [-3, -2, -1, -1, -2, 1, 2, 3, 2, 1], [0] * 5 + [1] * 5)
        >>> fit.used
        'platt_prior'
        >>> fit.calibrator.apply([0.0]).round(2)
        array([0.5])
    """
    as_labels(labels, error=CalibrationError)
    if method == "none":
        return CalibrationFit(Calibrator("none", prior_offset=float(prior_offset)), method, "none")
    if method not in get_args(Method):
        raise CalibrationError(f"calibration method: {method!r} is not one of {', '.join(get_args(Method))}")
    rungs: list[tuple[Rung, Callable[[], Calibrator]]] = [
        (method, lambda: fit_calibrator(method, logits, labels, prior_offset=prior_offset)),
        ("platt_prior", lambda: fit_platt_with_prior(logits, labels, prior_offset=prior_offset)),
        ("intercept", lambda: fit_intercept(logits, labels, prior_offset=prior_offset)),
    ]
    reasons: list[str] = []
    for used, fit in rungs:
        try:
            return CalibrationFit(fit(), method, used, tuple(reasons))
        except CalibrationError as error:
            reasons.append(str(error))
    return CalibrationFit(Calibrator("none", prior_offset=float(prior_offset)), method, "none", tuple(reasons))


def fit_platt_with_prior(logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0) -> Calibrator:
    """Fit slope and intercept with log slope ~ Normal(0, 1): the largest posterior, with a flat prior on the intercept.

    The slope is positive and finite whatever the cases are: separable classes, or a network that ranks backwards, whose
    slope comes out small.

    Args:
        logits: uncalibrated, shape (n,).
        labels: 0 or 1, shape (n,).
        prior_offset: taken off the logits first.

    Raises:
        CalibrationError: with fewer than 5 cases of a class, a logit that is not finite, or equal logits.

    Source: Platt, 1999, with the prior in place of his smoothed targets.
    """
    from scipy.optimize import minimize

    shifted, targets = checked_logits(logits, labels, prior_offset, "Platt with a prior on the slope")
    _require_cases(targets, CASES_FOR_A_SLOPE, "Platt with a prior on the slope")
    if not np.ptp(shifted) > 0.0:
        raise CalibrationError(
            f"Platt with a prior on the slope: all {targets.size} logits are equal; the network has learned nothing"
        )
    center, signs = float(shifted.mean()), 2.0 * targets - 1.0

    def negative_log_posterior(parameters: FloatArray) -> tuple[float, FloatArray]:
        slope = np.exp(parameters[0])
        margins = signs * (slope * (shifted - center) + parameters[1])
        pull = signs * special.expit(-margins)
        gradient = np.array([parameters[0] / _LOG_SLOPE_SD**2 - slope * (pull * (shifted - center)).sum(), -pull.sum()])
        return float(np.logaddexp(0.0, -margins).sum() + 0.5 * (parameters[0] / _LOG_SLOPE_SD) ** 2), gradient

    begin = np.array([0.0, special.logit(targets.mean())])
    # Beyond a slope of exp(±12) the prior is 72 nats away: no data reach it, and exp cannot overflow.
    solution = minimize(negative_log_posterior, begin, jac=True, method="L-BFGS-B", bounds=[(-12, 12), (None, None)])
    slope = float(np.exp(solution.x[0]))
    parameters = {"slope": slope, "intercept": float(solution.x[1]) - slope * center}
    return Calibrator(method="platt", parameters=parameters, prior_offset=float(prior_offset))


def fit_intercept(logits: npt.ArrayLike, labels: npt.ArrayLike, *, prior_offset: float = 0.0) -> Calibrator:
    """Fit the intercept that makes the mean probability the share of malignant cases; the slope stays 1.

    Args:
        logits: uncalibrated, shape (n,).
        labels: 0 or 1, shape (n,).
        prior_offset: taken off the logits first.

    Raises:
        CalibrationError: with fewer than 2 cases of a class, or a logit that is not finite.
    """
    from scipy.optimize import brentq

    shifted, targets = checked_logits(logits, labels, prior_offset, "intercept")
    _require_cases(targets, CASES_FOR_AN_INTERCEPT, "intercept")
    aim, reach = float(special.logit(targets.mean())), 1.0
    low, high = aim - float(shifted.max()) - reach, aim - float(shifted.min()) + reach
    intercept = float(brentq(lambda value: special.expit(shifted + value).mean() - targets.mean(), low, high))
    return Calibrator(
        method="platt", parameters={"slope": 1.0, "intercept": intercept}, prior_offset=float(prior_offset)
    )


def _require_cases(labels: IntArray, least: int, what: str) -> None:
    malignant = int(labels.sum())
    benign = labels.size - malignant
    if min(malignant, benign) < least:
        raise CalibrationError(
            f"{what}: {malignant} malignant and {benign} benign calibration cases, expected at least {least} of each"
        )
