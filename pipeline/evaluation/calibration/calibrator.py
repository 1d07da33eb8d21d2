"""The map from logit to probability, as plain numbers that can be applied, saved and read; `fit` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import FloatArray, as_scores

Method = Literal["temperature", "platt", "isotonic", "none"]
TEMPERATURE_LIMITS = (0.05, 20.0)
_NAMES: dict[str, set[str]] = {
    "temperature": {"temperature"},
    "platt": {"slope", "intercept"},
    "isotonic": {"logits", "probabilities"},
    "none": set(),
}
_JSON_KEYS = {"method", "parameters", "prior_offset"}


def sigmoid(logits: npt.ArrayLike) -> FloatArray:
    """Probability of a logit, ``1 / (1 + exp(-logit))``, without overflow at any finite logit.

    Args:
        logits: any shape.

    Returns:
        Values in [0, 1], float64, the same shape.
    """
    with np.errstate(over="ignore"):  # infinite, one over which is the 0 that it should be
        return np.asarray(1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64))), dtype=np.float64)


def logit(probabilities: npt.ArrayLike) -> FloatArray:
    """Log odds of a probability; the inverse of ``sigmoid``. Exactly 0 and 1 give -inf and +inf.

    Raises:
        CalibrationError: when a value is not in [0, 1].
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise CalibrationError("probabilities: hold a value outside [0, 1], which has no log odds; pass probabilities")
    from scipy import special

    return np.asarray(special.logit(values), dtype=np.float64)


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from logit to probability, as JSON numbers.

    Attributes:
        method: ``temperature`` (sigmoid of ``x / temperature``), ``platt`` (sigmoid of ``slope * x + intercept``),
            ``isotonic`` (a non-decreasing broken line through (``logits``, ``probabilities``)) or ``none``
            (sigmoid of ``x``); ``x`` is the logit less ``prior_offset``.
        parameters: the numbers named above.
        prior_offset: log odds added by class weights or a balanced sampler in training, taken off first.
    """

    method: Method
    parameters: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    prior_offset: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Calibrated probabilities, float64, the shape of ``logits``; never decreasing in the logit.

        Raises:
            CalibrationError: when a logit is not finite.
        """
        if self.method != "isotonic":
            return sigmoid(self.calibrated_logit(logits))
        knots, values = (np.asarray(self.parameters[name], dtype=np.float64) for name in ("logits", "probabilities"))
        shifted = as_scores(logits, name="logits", error=CalibrationError) - self.prior_offset
        # Interpolation may round above the right-hand knot by one unit; the bound keeps the line monotone.
        right = values[np.minimum(np.searchsorted(knots, shifted), knots.size - 1)]
        return np.minimum(np.interp(shifted, knots, values), right)

    def calibrated_logit(self, logits: npt.ArrayLike) -> FloatArray:
        """Log odds of the calibrated probability, the shape of ``logits``.

        Raises:
            CalibrationError: for isotonic, which has no logit of its own, and when a logit is not finite.
        """
        if self.method == "isotonic":
            raise CalibrationError(
                "isotonic calibration has no calibrated logit; use its probabilities, or fit temperature or platt"
            )
        shifted = as_scores(logits, name="logits", error=CalibrationError) - self.prior_offset
        if self.method == "temperature":
            return shifted / self._number("temperature")
        if self.method == "platt":
            return self._number("slope") * shifted + self._number("intercept")
        return shifted

    def describe(self) -> str:
        """One short line for rows, figures and reports, as ``temperature 1.37``."""
        offset = f", prior offset {self.prior_offset:.3g}" if self.prior_offset else ""
        if self.method == "temperature":
            return f"temperature {self._number('temperature'):.3g}{offset}"
        if self.method == "platt":
            return f"Platt, slope {self._number('slope'):.3g}, intercept {self._number('intercept'):.3g}{offset}"
        if self.method == "isotonic":
            return f"isotonic, {len(cast('tuple[float, ...]', self.parameters['logits']))} knots{offset}"
        return f"uncalibrated{offset}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal calibrator."""
        parameters = {
            name: list(value) if isinstance(value, tuple) else value for name, value in sorted(self.parameters.items())
        }
        return {"method": self.method, "parameters": parameters, "prior_offset": self.prior_offset}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibrator:
        """Read what ``to_json`` wrote, and nothing else.

        Raises:
            CalibrationError: when a key is missing or unknown, or a value is not a number it may be.
        """
        if not isinstance(value, Mapping) or set(value) != _JSON_KEYS or not isinstance(value["parameters"], Mapping):
            raise CalibrationError(
                f"calibrator: expected an object with exactly {', '.join(sorted(_JSON_KEYS))}; "
                "train or recalibrate again"
            )
        parameters = {
            str(name): tuple(_number(name, item) for item in number)
            if isinstance(number, list | tuple)
            else _number(name, number)
            for name, number in value["parameters"].items()
        }
        return cls(
            method=value["method"], parameters=parameters, prior_offset=_number("prior_offset", value["prior_offset"])
        )

    def _number(self, name: str) -> float:
        return cast("float", self.parameters[name])


def _number(name: object, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise CalibrationError(
            f"calibrator: {name}: {value!r} is not a finite number; the file is damaged; train or recalibrate again"
        )
    return float(value)


def _check(calibrator: Calibrator) -> None:
    method, parameters = calibrator.method, calibrator.parameters
    if not isinstance(method, str) or method not in _NAMES:
        raise CalibrationError(f"calibrator: method: {method!r} is not one of {', '.join(get_args(Method))}")
    if set(parameters) != _NAMES[method]:
        raise CalibrationError(
            f"calibrator: {method} needs exactly {sorted(_NAMES[method])}, found {sorted(parameters)}"
        )
    _number("prior_offset", calibrator.prior_offset)
    if method == "isotonic":
        _check_knots(parameters)
        return
    for name, value in parameters.items():
        _number(name, value)
    low, high = TEMPERATURE_LIMITS
    if method == "temperature" and not low <= calibrator._number("temperature") <= high:
        raise CalibrationError(
            f"calibrator: temperature: {parameters['temperature']} is outside [{low:g}, {high:g}]; "
            "train or recalibrate again"
        )
    if method == "platt" and calibrator._number("slope") <= 0.0:
        raise CalibrationError(
            f"calibrator: slope: {parameters['slope']} is not above 0, so it would turn the ranking round; recalibrate"
        )


def _check_knots(parameters: Mapping[str, float | tuple[float, ...]]) -> None:
    knots, values = parameters["logits"], parameters["probabilities"]
    if not isinstance(knots, tuple) or not isinstance(values, tuple) or not len(knots) == len(values) > 0:
        raise CalibrationError(
            "calibrator: isotonic needs as many logits as probabilities, and at least one; recalibrate"
        )
    for name, numbers in (("logits", knots), ("probabilities", values)):
        for number in numbers:
            _number(name, number)
        if any(left > right for left, right in pairwise(numbers)):
            raise CalibrationError(
                f"calibrator: isotonic {name} must not decrease; the file is damaged; train or recalibrate again"
            )
    if values[0] <= 0.0 or values[-1] >= 1.0:
        raise CalibrationError("calibrator: isotonic probabilities must lie strictly between 0 and 1; recalibrate")
