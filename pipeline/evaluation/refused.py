"""Sensitivity and specificity over all labelled cases, including those that could not be read.

A refused case has no probability, so the headline leaves it out, which favours a model that refuses hard cases. Two
extremes are therefore reported beside it: every refused case counts as a mistake (a missed malignant or a falsely
positive benign case), or every one counts as positive, because a person reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.intervals.clustered import proportion_interval
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions

NOT_KNOWN = "predictions hold the cases that were scored; how many were refused before is not known"


@dataclass(frozen=True)
class RefusedCases:
    """Labelled cases that could not be read.

    Attributes:
        labels: 0 or 1, one a case.
        patients: of each.
    """

    labels: Sequence[int] = ()
    patients: Sequence[str] = ()


@dataclass(frozen=True)
class DecisionRates:
    """Sensitivity and specificity under one reading of the refused cases."""

    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True)
class WithRefused:
    """The judged cases and the refused ones together.

    Attributes:
        cases: refused.
        malignant: refused malignant cases.
        patients: of the refused cases.
        read_alone: without the refused cases, as in the headline.
        as_mistakes: a refused malignant case is missed, and a refused benign one is a false alarm.
        as_positive: every refused case goes to a person, as the positive do.
    """

    cases: int
    malignant: int
    patients: int
    read_alone: DecisionRates
    as_mistakes: DecisionRates
    as_positive: DecisionRates

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """A line for the console."""
        if not self.cases:
            return "no labelled case was refused"
        return (
            f"{self.cases} labelled cases refused, {self.malignant} malignant: as mistakes, sensitivity "
            f"{self.as_mistakes.sensitivity} and specificity {self.as_mistakes.specificity}; as positive, sensitivity "
            f"{self.as_positive.sensitivity}"
        )


def with_refused(judged: Predictions, refused: RefusedCases | None, *, threshold: float) -> WithRefused | str:
    """Sensitivity and specificity with the refused cases, with intervals by patient over all cases.

    Args:
        judged: one row a case; unlabelled rows are left out.
        refused: of the same cohort; None where they are not known.
        threshold: of the operating point, for rows without one of their fold.

    Returns:
        A reason where the refused cases are not known, or a class has no case at all.
    """
    if refused is None:
        return NOT_KNOWN
    read = judged.labelled()
    positive = read.probabilities >= read.thresholds(threshold)
    malignant = np.asarray(refused.labels, dtype=np.int64) == 1
    labels = np.concatenate([read.labels == 1, malignant])
    patients = np.concatenate([read.patients, np.asarray(refused.patients, dtype=str)])
    try:
        return WithRefused(
            cases=malignant.size,
            malignant=int(malignant.sum()),
            patients=len(set(refused.patients)),
            read_alone=_decision_rates(read.labels == 1, positive, read.patients),
            as_mistakes=_decision_rates(labels, np.concatenate([positive, ~malignant]), patients),
            as_positive=_decision_rates(labels, np.concatenate([positive, np.ones_like(malignant)]), patients),
        )
    except UndefinedMetricError as error:
        return str(error)


def _decision_rates(malignant: BoolArray, positive: BoolArray, patients: npt.NDArray[np.str_]) -> DecisionRates:
    return DecisionRates(
        proportion_interval(positive[malignant], patients[malignant]),
        proportion_interval(~positive[~malignant], patients[~malignant]),
    )
