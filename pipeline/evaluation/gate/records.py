"""Inputs of the promotion gate: facts about the models and the cases."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.decisions.refer_zone import ReferZone, decide
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation


@dataclass(frozen=True)
class Standing:
    """Facts about a model that the gate needs beside its probabilities.

    Attributes:
        name: as shown, with version.
        label_source: whose opinion or which test the label is.
        intensities: ``real`` or ``simulated``.
        input_contract: what a case must be.
        has_envelope: whether it refuses inputs unlike its training cases.
    """

    name: str
    label_source: str
    intensities: str
    input_contract: str
    has_envelope: bool


@dataclass(frozen=True)
class LockedCases:
    """Cases that may be judged on: patients that one of the models has seen are left out.

    Attributes:
        labelled: labelled cases given.
        seen_by_challenger: of them, cases of patients in the challenger's training, validation or calibration data.
        seen_by_champion: likewise the champion's; a case may count in both.
        unseen: cases left.
        patients_malignant: patients with a malignant case left.
        patients_benign: patients with a benign case left.
        doubt: why patients who seem new may not be, if there is a reason.
        seen_by_anchor: likewise the anchor's; 0 where the champion is the anchor.
    """

    labelled: int
    seen_by_challenger: int
    seen_by_champion: int
    unseen: int
    patients_malignant: int
    patients_benign: int
    doubt: str | None = None
    seen_by_anchor: int = 0


@dataclass(frozen=True, eq=False)
class Contender:
    """A model's predictions for the cases that are compared.

    Attributes:
        predictions: one row a case.
        evaluation: of them, at the model's own operating point.
        zone: in which it refers cases; None where it has none.
        calibration: evaluation of the probabilities restated for the share of malignant cases among these cases; None
            where they are judged as they are.
    """

    predictions: Predictions
    evaluation: Evaluation
    zone: ReferZone | None = None
    calibration: Evaluation | None = None

    @property
    def positive(self) -> BoolArray:
        """Which cases it calls positive at its own threshold, a refer zone aside, shape (n,)."""
        return np.asarray(self.predictions.probabilities >= self._thresholds)

    @property
    def referred(self) -> BoolArray:
        """Which cases it leaves to a human, by the rule of score rows, shape (n,)."""
        decisions = decide(self.predictions.probabilities, threshold=self._thresholds, zone=self.zone)
        return np.asarray(decisions == "refer")

    @property
    def _thresholds(self) -> npt.NDArray[np.float64]:
        return self.predictions.thresholds(self.evaluation.operating_point.threshold)

    def part(self, members: BoolArray) -> Contender:
        """The same model on some of the cases; its evaluation stays that of all."""
        return replace(self, predictions=self.predictions.rows(members))


@dataclass(frozen=True)
class Parity:
    """Largest difference between the registered MLflow model and the command on the same cases.

    Attributes:
        gap: largest difference of a probability; None where it could not be measured.
        fault: why it could not; blank where it could.
    """

    gap: float | None
    fault: str = ""


@dataclass(frozen=True)
class Answers:
    """Results of scoring the cases beside their probabilities.

    Attributes:
        lost: cases that the champion scored and the challenger did not.
        known_images: cases of patients who seem new, with images that one of the models was fitted on.
        parity: of the challenger.
    """

    lost: int
    known_images: int
    parity: Parity


@dataclass(frozen=True, eq=False)
class Anchored:
    """Challenger and anchor on the compared cases that the anchor scored too.

    Attributes:
        pair: challenger and anchor, on the same cases in the same order; None where the anchor scored none.
        lost: compared cases that it could not score.
        cases: compared cases.
    """

    pair: tuple[Contender, Contender] | None
    lost: int
    cases: int


@dataclass(frozen=True)
class GateLook:
    """Number of this look at these patients, and the share of the error rate that it may spend.

    Look number k spends ``total`` times 6 / (pi k)^2. These add up to ``total``, however many looks there are: by the
    union bound the chance that any of them promotes a model worse by a margin is ``total`` at most, however the looks
    overlap, as long as challengers are made with no knowledge of earlier looks beyond their refusal.

    Attributes:
        number: 1 for the first.
        total: chance over all looks, in (0, 1).
        shared: of the patients to be judged, how many were in an earlier look.

    Source: Tian & Ramdas, 2021 (alpha-spending over tests that come one after another).
    """

    number: int
    total: float
    shared: int = 0

    @property
    def alpha(self) -> float:
        """The risk that this look spends, one-sided, in (0, 1)."""
        return self.total * 6.0 / (np.pi * self.number) ** 2

    @property
    def level(self) -> float:
        """Confidence level of two-sided intervals whose each limit errs with probability ``alpha``."""
        return 1.0 - 2.0 * self.alpha

    @property
    def first(self) -> GateLook:
        """A first look, at patients who have not been looked at before."""
        return GateLook(1, self.total)


def same_cases(first: Contender, second: Contender) -> bool:
    """Whether two models were judged on the same cases in the same order."""
    return bool(np.array_equal(first.predictions.case_ids, second.predictions.case_ids))
