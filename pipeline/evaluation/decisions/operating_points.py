"""Thresholds, with the rule that chose them and the cases they rest on. Chosen on the calibration split only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    as_labels,
    as_probabilities,
    require_both_classes,
)

Rule = Literal["sensitivity", "specificity", "youden", "cost"]
_WITH_TARGET = ("sensitivity", "specificity")


@dataclass(frozen=True)
class OperatingPoint:
    """A case is positive when its probability is at or above the threshold.

    Attributes:
        threshold: calibrated probability, in [0, 1].
        rule: how it was chosen.
        target: the sensitivity or specificity asked for; None for the other rules.
        cost_ratio: cost of a missed malignancy over that of a false alarm; None for the other rules.
        n_positive: malignant cases of the calibration split it rests on.
        n_negative: benign cases of the calibration split it rests on.
        sensitivity: reached on the calibration split.
        specificity: reached on the calibration split.
        confidence: probability with which the true sensitivity or specificity is at least ``target``; None where the
            calibration split alone reaches it.
    """

    threshold: float
    rule: Rule
    target: float | None
    cost_ratio: float | None
    n_positive: int
    n_negative: int
    sensitivity: float
    specificity: float
    confidence: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise CalibrationError(f"operating point: rule: {self.rule!r} is not one of {', '.join(get_args(Rule))}")
        for name in ("threshold", "sensitivity", "specificity"):
            _check_number(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("n_positive", "n_negative"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int):
                raise CalibrationError(
                    f"operating point: {name}: {getattr(self, name)!r} is not a whole number; the file is damaged"
                )
            _check_number(name, getattr(self, name), low=1.0, high=np.inf)
        if self.target is not None:
            _check_number("target", self.target, low=0.0, high=1.0)
        if self.confidence is not None:
            _check_number("confidence", self.confidence, low=0.0, high=1.0)
        if self.cost_ratio is not None:
            _check_number("cost_ratio", self.cost_ratio, low=0.0, high=np.inf)

    def decide(self, probabilities: npt.ArrayLike) -> BoolArray:
        """Whether each case is positive, the shape of ``probabilities``."""
        return np.asarray(np.asarray(probabilities, dtype=np.float64) >= self.threshold)

    def describe(self, *, positive: str = "malignant", negative: str = "benign") -> str:
        """One line: threshold, rule, what it rests on, and where the true sensitivity lies, in the classes' names."""
        sure = "" if self.confidence is None else f" with probability {self.confidence:g}"
        rules: dict[str, str] = {
            "sensitivity": f"at least {100 * (self.target or 0):g} % sensitivity{sure}",
            "specificity": f"at least {100 * (self.target or 0):g} % specificity{sure}",
            "youden": "largest Youden index",
            "cost": f"a miss costs {self.cost_ratio or 0:g} false alarms",
        }
        cases = f"{self.n_positive} {positive} and {self.n_negative} {negative} calibration cases"
        low, high = self.true_sensitivity()
        spread = f"true sensitivity {low:.2f} to {high:.2f}, 5th to 95th percentile"
        return f"probability ≥ {self.threshold:.3g} ({rules[self.rule]}, on {cases}; {spread})"

    def true_sensitivity(self) -> tuple[float, float]:
        """5th and 95th percentile of the sensitivity among all cases that the calibration cases were drawn from.

        Where rule ``sensitivity`` put the threshold on a malignant case, with m of n missed below it, the true
        sensitivity has a Beta(n - m, m + 1) distribution, whatever that of the probabilities. For the other rules the
        limits are Clopper and Pearson's, which take the threshold as given (that of the largest Youden index is
        chosen on the same cases, and its limits are a little too high). Cases are taken as independent: with several a
        patient the limits are further apart.

        Source: David & Nagaraja, 2003 (order statistics); Clopper & Pearson, 1934.
        """
        from scipy import stats

        detected = round(self.sensitivity * self.n_positive)
        missed = self.n_positive - detected
        low = float(stats.beta.ppf(0.05, detected, missed + 1)) if detected else 0.0
        if self.rule == "sensitivity" and detected:
            return low, float(stats.beta.ppf(0.95, detected, missed + 1))
        return low, float(stats.beta.ppf(0.95, detected + 1, missed)) if missed else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``confidence`` only if there is one; ``from_json`` gives back an equal one."""
        return {name: value for name, value in asdict(self).items() if name != "confidence" or value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OperatingPoint:
        """Read what ``to_json`` wrote, and nothing else.

        Raises:
            CalibrationError: when a key is missing or unknown, or a value is out of its range.
        """
        names = {field.name for field in fields(cls)} - {"confidence"}
        if not isinstance(value, Mapping) or set(value) - {"confidence"} != names:
            raise CalibrationError(
                f"operating point: expected an object with exactly {', '.join(sorted(names))}; "
                "train or recalibrate again"
            )
        return cls(**value)


def _check_number(name: str, value: object, *, low: float, high: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not np.isfinite(value)
        or not low <= value <= high
    ):
        raise CalibrationError(
            f"operating point: {name}: {value!r} is not a number in [{low:g}, {high:g}]; train or recalibrate again"
        )


def choose_operating_point(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    rule: Rule = "sensitivity",
    target: float | None = 0.95,
    cost_ratio: float | None = None,
    confidence: float | None = None,
) -> OperatingPoint:
    """Choose a threshold on the calibration split; the same for any order of the cases.

    ``sensitivity`` takes the largest threshold that reaches ``target``, ``specificity`` the smallest that does,
    ``youden`` the threshold of the largest sensitivity + specificity - 1 (of equals the smallest, which misses
    less). ``cost`` needs no search: where probabilities are calibrated, calling a case positive pays from
    1 / (1 + cost_ratio) on.

    A threshold that just reaches the target on the calibration split misses it on new cases in about half of all
    studies. With ``confidence`` the threshold is lower (for specificity higher): the one-sided tolerance bound, by
    order statistics and without
    assumptions on how probabilities are distributed, so that the true value is at least ``target`` with that
    probability. Cases are taken as independent; with several a patient the probability is smaller than asked for.

    Args:
        labels: 0 or 1, shape (n,), of the calibration split.
        probabilities: calibrated, in [0, 1], shape (n,).
        rule: see above.
        target: sensitivity or specificity asked for, in (0, 1]; not used by the other rules.
        cost_ratio: cost of a missed malignancy over that of a false alarm, above 0; for ``cost`` only.
        confidence: in (0, 1); for ``sensitivity`` and ``specificity`` only.

    Raises:
        CalibrationError: with one class only, an unknown rule, a target or ratio out of its range, or too few
            cases of the class for the tolerance bound.
        UndefinedMetricError: with a probability that is not in [0, 1].

    Source: Wilks, 1941 (distribution-free tolerance limits).
    """
    truth = as_labels(labels, error=CalibrationError)
    scores = as_probabilities(probabilities, truth)
    require_both_classes(truth, what="operating point", error=CalibrationError)
    _check_rule(rule, target, cost_ratio, confidence)
    threshold = _threshold(
        truth, scores, rule=rule, target=target or 0.0, cost_ratio=cost_ratio or 0.0, confidence=confidence
    )
    positive = scores >= threshold
    return OperatingPoint(
        threshold=threshold,
        rule=rule,
        target=target if rule in _WITH_TARGET else None,
        cost_ratio=cost_ratio if rule == "cost" else None,
        n_positive=int(truth.sum()),
        n_negative=int((truth == 0).sum()),
        sensitivity=float(positive[truth == 1].mean()),
        specificity=float((~positive[truth == 0]).mean()),
        confidence=confidence,
    )


def _check_rule(rule: Rule, target: float | None, cost_ratio: float | None, confidence: float | None) -> None:
    """Refuse a target, cost ratio or confidence that the rule cannot use."""
    if rule in _WITH_TARGET:
        if target is None or not 0.0 < target <= 1.0:
            raise CalibrationError(
                f"operating point: target: {target} is not in (0, 1], which rule {rule!r} needs; "
                "set operating_point.target"
            )
    elif rule == "cost" and (cost_ratio is None or not 0.0 < cost_ratio < np.inf):
        raise CalibrationError(
            f"operating point: cost_ratio: {cost_ratio} is not above 0, which rule 'cost' needs; "
            "set operating_point.cost_ratio"
        )
    if confidence is not None and rule not in _WITH_TARGET:
        raise CalibrationError(f"operating point: confidence: {confidence:g} is not for rule {rule!r}; leave it out")


def needed_cases(cases: int, *, target: float, confidence: float | None, what: str = "malignant") -> int:
    """How many of a class's calibration cases must lie on the right side of the threshold.

    Args:
        cases: of the class, in the calibration split.
        target: share of the class, in (0, 1].
        confidence: probability with which the true share is at least ``target``; None: that of these cases is.
        what: name of the class, for the error.

    Raises:
        CalibrationError: when all of them would not be enough, with the number that would.
    """
    if confidence is None:
        # Whole numbers of cases, so that 0.95 of 20 is 19 on every machine.
        return int(np.ceil(target * cases - 1e-9))
    if not 0.0 < confidence < 1.0:
        raise CalibrationError(f"operating point: confidence: {confidence:g} is not in (0, 1); or leave it out")
    if target >= 1.0:
        raise CalibrationError(
            f"operating point: target: no number of cases shows {target:g} with probability {confidence:g}; lower it"
        )
    from scipy import stats

    # With m on the wrong side, the true share is at least the target where Binomial(cases, 1 - target) is above m.
    wrong = int(stats.binom.ppf(1.0 - confidence, cases, 1.0 - target))
    while wrong >= 0 and stats.binom.sf(wrong, cases, 1.0 - target) < confidence:
        wrong -= 1
    if wrong < 0:
        least = int(np.ceil(np.log(1.0 - confidence) / np.log(target) - 1e-9))
        raise CalibrationError(
            f"operating point: {cases} {what} calibration cases cannot show {100 * target:g} % with probability "
            f"{confidence:g}; expected at least {least}; give more cases, or lower target or confidence"
        )
    return cases - wrong


def _threshold(
    labels: IntArray, scores: FloatArray, *, rule: Rule, target: float, cost_ratio: float, confidence: float | None
) -> float:
    if rule == "cost":
        return 1.0 / (1.0 + cost_ratio)
    candidates = np.unique(scores)
    malignant, benign = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    detected = malignant.size - np.searchsorted(malignant, candidates, side="left")
    cleared = np.searchsorted(benign, candidates, side="left")
    if rule == "sensitivity":
        needed = needed_cases(malignant.size, target=target, confidence=confidence)
        return float(candidates[detected >= needed].max())
    if rule == "specificity":
        needed = needed_cases(benign.size, target=target, confidence=confidence, what="benign")
        enough = candidates[cleared >= needed]
        if enough.size:
            return float(enough.min())
        if candidates[-1] < 1.0:
            return float(np.nextafter(candidates[-1], 1.0))
        raise CalibrationError(
            f"operating point: no threshold in [0, 1] reaches specificity {target:g}: "
            "a benign case has probability 1; lower the target"
        )
    if rule == "youden":
        # Sensitivity + specificity in whole numbers, so that equals are compared without rounding.
        return float(candidates[np.argmax(detected * benign.size + cleared * malignant.size)])
    raise CalibrationError(f"operating point: rule: {rule!r} is not one of {', '.join(get_args(Rule))}")
