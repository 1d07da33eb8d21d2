"""Expected width of the intervals on a test split of so many patients, before anything is trained.

A patient's cases are alike, so that n cases are worth n / (1 + (m - 1) r) independent ones, where m is the size of a
patient's group that a case is in on average, and r the correlation of two cases of a patient (the design effect; Kish,
1965). Logits are taken as calibrated and normal in each class, with the AUROC that is expected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.intervals.clustered import wilson_limits
from pipeline.evaluation.intervals.delong import exponential_variance
from pipeline.evaluation.intervals.interval import Interval, normal_quantile, t_quantile
from pipeline.evaluation.planning.sample_size import LogitDistribution, class_separation, error_of_ratio, smallest

# Half-widths to aim at: Riley et al. (2021) take widths of 0.1 for the AUROC and 0.2 for slope and O/E.
TARGETS = {
    "auroc": 0.05,
    "sensitivity": 0.05,
    "specificity": 0.05,
    "calibration_slope": 0.1,
    "calibration_intercept": 0.2,
    "observed_expected": 0.1,
}
_POWER = 0.80
_MOST_PATIENTS = 10_000_000


@dataclass(frozen=True)
class Assumed:
    """Performance that is assumed of the model to be trained.

    Attributes:
        auroc: in (0.5, 1).
        sensitivity: at the operating point, in (0, 1).
        alike: correlation of two cases of a patient, in [0, 1].
    """

    auroc: float = 0.85
    sensitivity: float = 0.95
    alike: float = 0.3

    def __post_init__(self) -> None:
        class_separation(self.auroc)
        if not 0.0 < self.sensitivity < 1.0:
            raise UsageError(f"sensitivity: {self.sensitivity:g} is not between 0 and 1; give 0.95, for example")
        if not 0.0 <= self.alike <= 1.0:
            raise UsageError(f"alike: {self.alike:g} is not in [0, 1]; give the correlation of a patient's cases")

    @property
    def specificity(self) -> float:
        """At the threshold that has the sensitivity."""
        return float(stats.norm.cdf(class_separation(self.auroc) - stats.norm.ppf(self.sensitivity)))


@dataclass(frozen=True)
class JudgedSize:
    """Size of a set of judged cases. Numbers need not be whole, so that a set can be scaled.

    Attributes:
        patients: all of them.
        malignant_patients: patients with a malignant case.
        benign_patients: patients with a benign case.
        cases: independent cases that all are worth.
        malignant: independent cases that the malignant ones are worth.
        benign: independent cases that the benign ones are worth.
        prevalence: share of malignant cases.
    """

    patients: float
    malignant_patients: float
    benign_patients: float
    cases: float
    malignant: float
    benign: float
    prevalence: float

    @classmethod
    def of(cls, patients: Sequence[str], labels: Sequence[int], *, alike: float) -> JudgedSize:
        """Size of labelled cases.

        Args:
            patients: patient of each case.
            labels: 0 or 1 of each case.
            alike: correlation of two cases of a patient.

        Raises:
            UndefinedMetricError: when a class is missing.
        """
        both, malignant, benign = (
            Counter(patient for patient, label in zip(patients, labels, strict=True) if label in chosen)
            for chosen in ((0, 1), (1,), (0,))
        )
        if not malignant or not benign:
            raise UndefinedMetricError("the judged cases are all of one class; label cases of the other")
        return cls(
            patients=len(both),
            malignant_patients=len(malignant),
            benign_patients=len(benign),
            cases=effective_cases(list(both.values()), alike=alike),
            malignant=effective_cases(list(malignant.values()), alike=alike),
            benign=effective_cases(list(benign.values()), alike=alike),
            prevalence=sum(labels) / len(labels),
        )

    def scaled(self, factor: float) -> JudgedSize:
        """So many times as many patients of the same kind."""
        counts = {name: factor * getattr(self, name) for name in self.__dataclass_fields__ if name != "prevalence"}
        return replace(self, **counts)


def effective_cases(sizes: Sequence[int], *, alike: float) -> float:
    """Effective number of independent cases of clustered ones.

    Args:
        sizes: cases of each patient.
        alike: correlation of two cases of a patient.
    """
    counts = np.asarray(sizes, dtype=np.float64)
    mean_size = float((counts**2).sum() / counts.sum())  # size of a patient's group, averaged over cases
    return float(counts.sum()) / (1.0 + (mean_size - 1.0) * alike)


def expected_intervals(size: JudgedSize, assumed: Assumed) -> dict[str, Interval]:
    """Expected interval of each statistic, for the assumed model on so many cases.

    Forms are those of ``evaluate``: AUROC on the logit scale, shares by Wilson, slope and intercept symmetric, O/E on
    the log scale; Student's t by the patients of the smaller class, or of all.

    Source: Newcombe, 2006 (AUROC); Riley et al., 2021 (slope, intercept, O/E).
    """
    area = assumed.auroc
    rarer = t_quantile(min(size.malignant_patients, size.benign_patients) - 1.0)
    reach = rarer * math.sqrt(exponential_variance(area, size.malignant, size.benign)) / (area * (1.0 - area))
    lower, upper = special.expit(special.logit(area) + np.array([-reach, reach]))
    information = LogitDistribution.of_auroc(area, size.prevalence).information()
    overall = t_quantile(size.patients - 1.0)
    slope = overall * math.sqrt(float(np.linalg.inv(information)[1, 1]) / size.cases)
    intercept = overall / math.sqrt(float(information[0, 0]) * size.cases)
    # Given calibration, the variance of observed less expected is the sum of p (1 - p) over the cases.
    ratio = math.exp(overall * math.sqrt(float(information[0, 0]) / size.cases) / size.prevalence)
    return {
        "auroc": Interval(area, float(lower), float(upper)),
        "sensitivity": _wilson(assumed.sensitivity, size.malignant),
        "specificity": _wilson(assumed.specificity, size.benign),
        "calibration_slope": Interval(1.0, 1.0 - slope, 1.0 + slope),
        "calibration_intercept": Interval(0.0, -intercept, intercept),
        "observed_expected": Interval(1.0, 1.0 / ratio, ratio),
    }


def half_width(interval: Interval) -> float:
    """Half of the distance between the limits."""
    return (interval.upper - interval.lower) / 2.0


def patients_needed(size: JudgedSize, assumed: Assumed, name: str, target: float) -> int:
    """Number of patients of the same kind for which a statistic's half-width reaches a target.

    Raises:
        UsageError: when ten million are not enough.
    """

    def enough(patients: int) -> bool:
        return half_width(expected_intervals(size.scaled(patients / size.patients), assumed)[name]) <= target

    return smallest(enough, above=0, most=_MOST_PATIENTS, what=f"{name}: ±{target:g}, in patients")


def detectable_gaps(size: JudgedSize, assumed: Assumed, *, share: float) -> dict[str, float]:
    """Smallest gap between a subgroup and the others that would be found in 80 % of studies, at 5 %.

    Args:
        size: of all judged cases.
        assumed: the same in both groups but for the gap.
        share: of the patients that are in the subgroup, in (0, 1); each class alike.

    Returns:
        By ``auroc``, ``sensitivity`` and ``specificity``; 1 or more: none could be shown.
    """
    parts = [size.scaled(share), size.scaled(1.0 - share)]
    reach = normal_quantile() + float(stats.norm.ppf(_POWER))
    variances = {
        "auroc": [exponential_variance(assumed.auroc, part.malignant, part.benign) for part in parts],
        "sensitivity": [assumed.sensitivity * (1.0 - assumed.sensitivity) / part.malignant for part in parts],
        "specificity": [assumed.specificity * (1.0 - assumed.specificity) / part.benign for part in parts],
    }
    return {name: reach * math.sqrt(sum(values)) for name, values in variances.items()}


def riley_cases(assumed: Assumed, prevalence: float) -> dict[str, int]:
    """Independent cases that Riley et al. (2021) would ask of an external validation, by criterion.

    Widths are theirs: 0.2 for O/E, slope and standardised net benefit, 0.1 for the AUROC. Net benefit is judged at the
    threshold that has the assumed sensitivity.
    """
    from pipeline.evaluation.planning import sample_size

    distribution = LogitDistribution.of_auroc(assumed.auroc, prevalence)
    separation = class_separation(assumed.auroc)
    benign_mean = float(special.logit(prevalence)) - separation**2 / 2.0
    cut = benign_mean + separation**2 - separation * float(stats.norm.ppf(assumed.sensitivity))
    return {
        "observed_expected": sample_size.cases_for_observed_expected(error_of_ratio(0.2), prevalence),
        "calibration_slope": sample_size.cases_for_slope(0.1 / sample_size.Z, distribution),
        "auroc": sample_size.cases_for_auroc(0.05 / sample_size.Z, assumed.auroc, prevalence),
        "net_benefit": sample_size.cases_for_net_benefit(
            0.1 / sample_size.Z,
            sensitivity=assumed.sensitivity,
            specificity=assumed.specificity,
            prevalence=prevalence,
            threshold=float(special.expit(cut)),
        ),
    }


def _wilson(share: float, cases: float) -> Interval:
    return Interval(share, *wilson_limits(share, cases))
