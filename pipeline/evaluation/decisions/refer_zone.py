"""The refer-to-human zone: class-conditional split conformal prediction, two quantiles of the calibration split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import BoolArray, FloatArray, as_labels, as_probabilities

if TYPE_CHECKING:  # scoring reads zones too, and only evaluating them needs pandas and SciPy
    from pipeline.evaluation.intervals.interval import Interval
    from pipeline.evaluation.predictions import Predictions

CASES_A_CLASS = 100
Decision = Literal["positive", "negative", "refer"]


@dataclass(frozen=True)
class ReferZone:
    """Which probabilities are left to a human.

    A case is malignant-like at or above ``malignant_from`` and benign-like at or below ``benign_to``; where it is both,
    or neither, it is referred. A malignant case is malignant-like with probability ``coverage`` at least, a benign one
    benign-like likewise, if new cases come from the same distribution as the calibration cases.

    Attributes:
        coverage: asked for, in (0, 1).
        malignant_from: probability.
        benign_to: probability.
        n_positive: malignant calibration cases.
        n_negative: benign calibration cases.
        attainable_positive: where the coverage of malignant cases lies with 95 % probability, over calibration splits.
        attainable_negative: likewise of benign cases.
    """

    coverage: float
    malignant_from: float
    benign_to: float
    n_positive: int
    n_negative: int
    attainable_positive: tuple[float, float]
    attainable_negative: tuple[float, float]

    def describe(self) -> str:
        """One line: the zone, what it promises, what it rests on."""
        low, high = sorted((self.malignant_from, self.benign_to))
        ranges = [
            f"{lower:.2f} and {upper:.2f}" for lower, upper in (self.attainable_positive, self.attainable_negative)
        ]
        return (
            f"probabilities from {low:.3g} to {high:.3g} are left to a human, so that {self.coverage:g} of each class "
            f"is not decided wrongly; from {self.n_positive} malignant and {self.n_negative} benign calibration cases, "
            f"this share lies between {ranges[0]} of the malignant and {ranges[1]} of the benign cases (95 % of "
            "calibration splits of independent cases)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"describes": self.describe()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReferZone:
        """Read what ``to_json`` wrote."""
        plain: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
        plain.pop("describes", None)
        return cls(**plain)


def decide(
    probabilities: npt.ArrayLike, *, threshold: npt.ArrayLike, zone: ReferZone | None = None
) -> npt.NDArray[np.str_]:
    """The ``decision`` of a score row, for each case, in score rows and reports alike.

    Without a zone the threshold decides. With one, a case is decided where zone and threshold agree, and referred
    otherwise.

    Args:
        probabilities: calibrated, any shape.
        threshold: a case is positive at or above it; one, or one a case.
        zone: of the model; None where it has none.

    Returns:
        ``positive``, ``negative`` or ``refer``, the shape of ``probabilities``.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if zone is None:
        return np.where(values >= np.asarray(threshold, dtype=np.float64), "positive", "negative")
    return _decide(values, threshold, zone.malignant_from, zone.benign_to)


def _decide(
    values: FloatArray, threshold: npt.ArrayLike, malignant_from: npt.ArrayLike, benign_to: npt.ArrayLike
) -> npt.NDArray[np.str_]:
    positive = values >= np.asarray(threshold, dtype=np.float64)
    malignant_like, benign_like = values >= np.asarray(malignant_from), values <= np.asarray(benign_to)
    agreed = (malignant_like != benign_like) & (malignant_like == positive)
    return np.where(agreed, np.where(positive, "positive", "negative"), "refer")


def fit_refer_zone(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, coverage: float = 0.9) -> ReferZone:
    """Fit on the calibration split.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        coverage: share of each class that its side must hold, in (0, 1).

    Raises:
        CalibrationError: with fewer than 100 cases of a class, or a coverage out of its range or not attainable.

    Source: Vovk, 2012 (Mondrian conformal prediction; the coverage's beta distribution).
    """
    truth = as_labels(labels, error=CalibrationError)
    values = as_probabilities(probabilities, truth)
    malignant, benign = np.sort(values[truth == 1]), np.sort(values[truth == 0])
    if min(malignant.size, benign.size) < CASES_A_CLASS:
        raise CalibrationError(
            f"refer zone: {malignant.size} malignant and {benign.size} benign calibration cases; expected at least "
            f"{CASES_A_CLASS} of each, or its promise would be too loose; give more calibration cases"
        )
    if not 0.0 < coverage < 1.0:
        raise CalibrationError(f"refer zone: coverage: {coverage} is not in (0, 1); ask for 0.9, for example")
    return ReferZone(
        coverage=coverage,
        malignant_from=-_quantile(np.sort(-malignant), coverage),
        benign_to=_quantile(benign, coverage),
        n_positive=int(malignant.size),
        n_negative=int(benign.size),
        attainable_positive=attainable_coverage(int(malignant.size), coverage),
        attainable_negative=attainable_coverage(int(benign.size), coverage),
    )


def _rank(cases: int, coverage: float) -> int:
    """Rank, from the smallest score, of the quantile that a new case lies at or below with this coverage."""
    rank = int(np.ceil((cases + 1) * coverage - 1e-9))
    if rank > cases:
        raise CalibrationError(
            f"refer zone: coverage {coverage:g} cannot be promised by {cases} cases of a class; ask for "
            f"{cases / (cases + 1):.3f} at most, or give more"
        )
    return rank


def _quantile(rising: FloatArray, coverage: float) -> float:
    return float(rising[_rank(rising.size, coverage) - 1])


def attainable_coverage(cases: int, coverage: float) -> tuple[float, float]:
    """Where the coverage lies in 95 % of calibration splits of so many independent cases of a class."""
    rank = _rank(cases, coverage)
    from scipy import stats

    spread = stats.beta(rank, cases + 1 - rank)
    return float(spread.ppf(0.025)), float(spread.ppf(0.975))


@dataclass(frozen=True)
class ReferResult:
    """Results of zone and threshold together on judged cases, decided as score rows are.

    Attributes:
        zone: as fitted.
        n_cases: judged.
        referred: share left to a human.
        error_of_rest: share of the others that are decided wrongly; None when all are referred.
        sensitivity_of_rest: share of the malignant ones among the others called positive; None when there is none.
        specificity_of_rest: share of the benign ones among the others called negative; None when there is none.
    """

    zone: ReferZone
    n_cases: int
    referred: Interval
    error_of_rest: Interval | None
    sensitivity_of_rest: Interval | None
    specificity_of_rest: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"zone": self.zone.to_json()}


def judge_refer_zone(zone: ReferZone, predictions: Predictions, *, threshold: float) -> ReferResult:
    """Share referred, and how right the decisions on the rest are, by patient.

    Args:
        zone: fitted on other cases.
        predictions: calibrated; unlabelled rows are left out. Where they are of folds, each is decided by the threshold
            and the limits of its fold.
        threshold: of the operating point that decides beside the zone.

    Raises:
        CalibrationError: when the cases of the other folds were too few for a fold's zone.
        UndefinedMetricError: without a labelled case.
    """
    from pipeline.evaluation.intervals.clustered import proportion_interval
    from pipeline.evaluation.predictions import FOLD_COLUMNS

    labelled = predictions.labelled()
    decisions = decide(labelled.probabilities, threshold=threshold, zone=zone)
    if labelled.decided_by_fold:
        limits = [labelled.frame[name].to_numpy(dtype=np.float64) for name in FOLD_COLUMNS[1:]]
        if np.isnan(limits).any():
            raise CalibrationError(
                f"refer zone: each fold is decided by the cases of the others, which are fewer than {CASES_A_CLASS} of "
                "a class; give more cases or folds"
            )
        decisions = _decide(labelled.probabilities, labelled.thresholds(threshold), *limits)
    malignant, patients = labelled.labels == 1, labelled.patients
    referred, positive = decisions == "refer", decisions == "positive"

    def share(right: BoolArray, among: BoolArray) -> Interval | None:
        return proportion_interval(right[among], patients[among]) if among.any() else None

    return ReferResult(
        zone=zone,
        n_cases=malignant.size,
        referred=proportion_interval(referred, patients),
        error_of_rest=share(positive != malignant, ~referred),
        sensitivity_of_rest=share(positive, ~referred & malignant),
        specificity_of_rest=share(~positive, ~referred & ~malignant),
    )
