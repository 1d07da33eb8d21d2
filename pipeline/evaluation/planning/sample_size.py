"""Sample sizes by published criteria; every formula takes cases as independent.

Validation: Riley et al., 2021 (Statistics in Medicine 40:4230), for O/E, calibration slope, C-statistic (the AUROC) and
net benefit. Development: Riley et al., 2020 (BMJ 368:m441), which is about *regressions* of a known number of
parameters: here the calibrator and its covariates, never the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from pipeline.errors import UsageError
from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.intervals.delong import exponential_variance

Z = 1.96  # of the published formulas
_MOST_CASES = 100_000_000


@dataclass(frozen=True, eq=False)
class LogitDistribution:
    """Distribution of the logits of calibrated probabilities, as points with weights that add up to 1.

    Attributes:
        logits: shape (k,).
        weights: shape (k,).
    """

    logits: FloatArray
    weights: FloatArray

    @classmethod
    def normal(cls, mean: float, deviation: float) -> LogitDistribution:
        """One normal distribution over all cases."""
        grid = np.linspace(-9.0, 9.0, 4001)
        density = stats.norm.pdf(grid)
        return cls(mean + deviation * grid, density / density.sum())

    @classmethod
    def of_auroc(cls, auroc: float, prevalence: float) -> LogitDistribution:
        """Normal in each class with the same variance: the one such distribution that is calibrated.

        With d = sqrt(2) Phi^-1(AUROC) the variance is d squared, the means are d squared apart, and that of benign
        cases is logit(prevalence) - d^2 / 2.

        Args:
            auroc: in (0.5, 1).
            prevalence: share of malignant cases, in (0, 1).
        """
        separation = class_separation(auroc)
        variance = separation**2
        benign = float(special.logit(prevalence)) - variance / 2.0
        parts = [cls.normal(benign, separation), cls.normal(benign + variance, separation)]
        shares = (1.0 - prevalence, prevalence)
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([share * part.weights for share, part in zip(shares, parts, strict=True)]),
        )

    def information(self) -> FloatArray:
        """Information of one case on intercept and slope of its recalibration, where both are right: shape (2, 2)."""
        risk = special.expit(self.logits)
        design = np.stack([np.ones_like(self.logits), self.logits])
        return np.asarray((design * (self.weights * risk * (1.0 - risk))) @ design.T)

    def log_likelihood(self) -> float:
        """Expected log likelihood of one case."""
        risk = special.expit(self.logits)
        return float(-self.weights @ (special.entr(risk) + special.entr(1.0 - risk)))


def class_separation(auroc: float) -> float:
    """Distance of two normal distributions of variance 1 that have this AUROC.

    Raises:
        UsageError: when it is not in (0.5, 1).
    """
    if not 0.5 < auroc < 1.0:
        raise UsageError(f"auroc: {auroc:g} is not between 0.5 and 1; give the AUROC that is expected, as 0.85")
    return math.sqrt(2.0) * float(stats.norm.ppf(auroc))


def cases_for_observed_expected(error: float, prevalence: float) -> int:
    """Cases for a standard error of log(O/E).

    Args:
        error: standard error.
        prevalence: share of malignant cases, in (0, 1).
    """
    return math.ceil((1.0 - prevalence) / (prevalence * error**2))


def error_of_ratio(width: float) -> float:
    """Standard error of the logarithm of a ratio of 1 whose 95 % interval is so wide."""
    return math.asinh(width / 2.0) / Z


def cases_for_slope(error: float, distribution: LogitDistribution) -> int:
    """Cases for a standard error of the calibration slope, where calibration is right."""
    return math.ceil(float(np.linalg.inv(distribution.information())[1, 1]) / error**2)


def cases_for_auroc(error: float, auroc: float, prevalence: float) -> int:
    """Cases for a standard error of the AUROC.

    Source: Newcombe, 2006, as in Riley et al., 2021.
    """

    def too_wide(cases: int) -> bool:
        variance = exponential_variance(auroc, prevalence * cases, (1.0 - prevalence) * cases)
        return math.sqrt(variance) > error

    return smallest(lambda cases: not too_wide(cases), above=1, most=_MOST_CASES, what="sample size, in cases")


def cases_for_net_benefit(
    error: float, *, sensitivity: float, specificity: float, prevalence: float, threshold: float
) -> int:
    """Cases for a standard error of the net benefit in units of the prevalence (standardised net benefit).

    Args:
        error: standard error.
        sensitivity: at the threshold.
        specificity: at the threshold.
        prevalence: share of malignant cases, in (0, 1).
        threshold: probability from which on a case is called positive, in (0, 1).
    """
    false_alarm = 1.0 - specificity
    weight = (1.0 - prevalence) / prevalence * threshold / (1.0 - threshold)
    variance = (
        sensitivity * (1.0 - sensitivity) / prevalence
        + weight**2 * specificity * false_alarm / (1.0 - prevalence)
        + weight**2 * false_alarm**2 / (prevalence * (1.0 - prevalence))
    )
    return math.ceil(variance / error**2)


@dataclass(frozen=True)
class DevelopmentSize:
    """Cases needed to develop a regression, by criterion.

    Attributes:
        shrinkage: for an expected shrinkage of its slopes of at most 10 %.
        optimism: for an optimism of at most 0.05 in Nagelkerke's R squared.
        overall_risk: for the overall share of malignant cases to within 0.05.
    """

    shrinkage: int
    optimism: int
    overall_risk: int

    @property
    def cases(self) -> int:
        """Cases that satisfy all three criteria."""
        return max(self.shrinkage, self.optimism, self.overall_risk)


def cases_for_regression(
    parameters: int, *, r_squared: float, prevalence: float, shrinkage: float = 0.9, margin: float = 0.05
) -> DevelopmentSize:
    """Cases to fit a logistic regression on.

    Args:
        parameters: slopes that are estimated.
        r_squared: Cox and Snell's, that is expected; ``r_squared_of`` gives it for an AUROC.
        prevalence: share of malignant cases, in (0, 1).
        shrinkage: factor that slopes should need at least.
        margin: of optimism and of the overall risk.

    Raises:
        UsageError: when ``r_squared`` is beyond what the prevalence allows.

    Source: Riley et al., 2020, criteria 1 to 3 (of Riley et al., 2019, Statistics in Medicine 38:1276).
    """
    entropy = float(special.entr(prevalence) + special.entr(1.0 - prevalence))
    largest = 1.0 - math.exp(-2.0 * entropy)
    if not 0.0 < r_squared < min(largest, shrinkage):
        raise UsageError(
            f"r_squared: {r_squared:g} is not between 0 and {min(largest, shrinkage):.3g}, the most that a share of "
            f"{prevalence:g} malignant cases allows"
        )

    def cases(factor: float) -> int:
        return math.ceil(parameters / ((factor - 1.0) * math.log(1.0 - r_squared / factor)))

    return DevelopmentSize(
        shrinkage=cases(shrinkage),
        optimism=cases(r_squared / (r_squared + margin * largest)),
        overall_risk=math.ceil((Z / margin) ** 2 * prevalence * (1.0 - prevalence)),
    )


def r_squared_of(auroc: float, prevalence: float) -> float:
    """Cox and Snell's R squared of a calibrated model with this AUROC, normal in each class.

    Source: Riley et al., 2021 (Statistics in Medicine 40:859), which simulates what is integrated here.
    """
    entropy = float(special.entr(prevalence) + special.entr(1.0 - prevalence))
    gain = LogitDistribution.of_auroc(auroc, prevalence).log_likelihood() + entropy
    return 1.0 - math.exp(-2.0 * gain)


def smallest(enough: Callable[[int], bool], *, above: int, most: int, what: str) -> int:
    """Smallest number that is enough, by doubling and bisection; every larger number must be enough too.

    Args:
        enough: whether a number is.
        above: a number below the answer, for which ``enough`` is not called.
        most: where the search ends.
        what: is being sized, for the message.

    Raises:
        UsageError: when ``most`` is not enough.
    """
    low, high = above, max(2, 2 * above)
    while not enough(high):
        low, high = high, 2 * high
        if high > most:
            raise UsageError(f"{what}: more than {most:,} would be needed; ask for less precision")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
