"""Power of the gate for a number of patients, computed before it looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from pipeline.config.gate_policy import GatePolicy
from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.gate.decision import Condition
from pipeline.evaluation.gate.noninferiority import POWER
from pipeline.evaluation.gate.records import GateLook, LockedCases

POWER_NAME = "power"


@dataclass(frozen=True)
class Spread:
    """Variance of paired differences, times the number of patients, of two equal models with one case a patient.

    Both models' scores are taken as normal in each class, with equal variances (binormal), and as correlated there.

    Attributes:
        auroc: of the difference in AUROC; divided by the patients of either class and added up.
        sensitivity: of the difference in sensitivity, which is the share of malignant cases decided differently.
        specificity: likewise of benign cases.
    """

    auroc: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class Chances:
    """Probability that an equal challenger passes, by condition.

    Attributes:
        auroc: the condition on AUROC.
        sensitivity: that on sensitivity.
        specificity: that on specificity.
        references: models that it is compared with, 1 or 2.
    """

    auroc: float
    sensitivity: float
    specificity: float
    references: int = 1

    @property
    def together(self) -> float:
        """Probability of passing all conditions if they were independent; correlated as they are, a lower bound."""
        return (self.auroc * self.sensitivity * self.specificity) ** self.references


@lru_cache(maxsize=8)
def expected_spread(policy: GatePolicy) -> Spread:
    """The spread that follows from the AUROC, sensitivity and correlation that the policy assumes.

    With Phi(x) the share of benign cases that a malignant score x outranks, the variance of the difference of two such
    shares is twice their variance less their covariance; E[Phi(x) Phi(x')] is a bivariate normal probability.
    """
    apart = float(np.sqrt(2.0) * stats.norm.ppf(policy.expected_auroc))
    alike = policy.expected_correlation
    outranked = [_both_below(apart / np.sqrt(2.0), correlation / 2.0) for correlation in (1.0, alike)]
    specificity = float(stats.norm.cdf(apart - stats.norm.ppf(policy.expected_sensitivity)))
    return Spread(
        auroc=2.0 * (outranked[0] - outranked[1]),
        sensitivity=_decided_differently(policy.expected_sensitivity, alike),
        specificity=_decided_differently(specificity, alike),
    )


def _both_below(limit: float, correlation: float) -> float:
    """Probability that two standard normal values of this correlation both lie below a limit."""
    covariance = [[1.0, correlation], [correlation, 1.0]]
    return float(stats.multivariate_normal.cdf([limit, limit], mean=[0.0, 0.0], cov=covariance))


def _decided_differently(share: float, correlation: float) -> float:
    return 2.0 * (share - _both_below(float(stats.norm.ppf(share)), correlation))


def chances(policy: GatePolicy, look: GateLook, *, malignant: float, benign: float, references: int = 1) -> Chances:
    """Probability that an equal challenger passes, with so many unseen patients of each class."""
    errors, reaches = _errors(policy, look, malignant, benign)
    margins = np.array([policy.auroc_margin, policy.sensitivity_margin, policy.specificity_margin])
    auroc, sensitivity, specificity = stats.norm.cdf((margins - reaches) / errors)
    return Chances(float(auroc), float(sensitivity), float(specificity), references)


def _errors(policy: GatePolicy, look: GateLook, malignant: float, benign: float) -> tuple[FloatArray, FloatArray]:
    """Standard errors of the differences in AUROC, sensitivity and specificity, and distances to their lower limits.

    For shares, two patients are added, as the gate's interval does.
    """
    spread, patients = expected_spread(policy), np.array([malignant, benign])
    shares = np.array([spread.sensitivity, spread.specificity]) * patients
    ranking = np.sqrt(spread.auroc * (1.0 / patients).sum())
    errors = np.r_[ranking, np.sqrt(shares) / (patients + 2.0)]
    return errors, float(stats.norm.ppf(1.0 - look.alpha)) * np.r_[ranking, np.sqrt(shares + 1.0) / (patients + 2.0)]


def patients_to_pass(
    policy: GatePolicy, look: GateLook, *, malignant: int, benign: int, references: int = 1, power: float = POWER
) -> tuple[int, int]:
    """Approximate patients of each class for which an equal challenger passes every condition with this probability.

    The class that limits the power is raised first: the malignant by sensitivity, the benign by specificity.
    """
    counts = [float(max(count, policy.patients_a_class)) for count in (malignant, benign)]
    of_each_condition = power ** (1.0 / (3 * references))
    while True:
        chance = chances(policy, look, malignant=counts[0], benign=counts[1], references=references)
        if chance.together >= power:
            return int(np.ceil(counts[0])), int(np.ceil(counts[1]))
        short = [chance.sensitivity < of_each_condition, chance.specificity < of_each_condition]
        counts = [count * (1.02 if low or not any(short) else 1.0) for count, low in zip(counts, short, strict=True)]


def margins_within_reach(
    policy: GatePolicy, look: GateLook, *, malignant: int, benign: int, references: int = 1, power: float = POWER
) -> FloatArray:
    """Margins of AUROC, sensitivity and specificity that an equal challenger passes together with this probability."""
    errors, reaches = _errors(policy, look, malignant, benign)
    return np.asarray(reaches + stats.norm.ppf(power ** (1.0 / (3 * references))) * errors)


def power_condition(policy: GatePolicy, look: GateLook, cases: LockedCases, *, references: int) -> Condition:
    """Whether the power suffices for a look at these patients, which an underpowered look would waste.

    Args:
        policy: margins, assumptions, and the power that is asked for.
        look: which look it would be.
        cases: the available patients.
        references: models to be compared with, 1 or 2.
    """
    malignant, benign = cases.patients_malignant, cases.patients_benign
    if min(malignant, benign) < 2:
        return Condition(
            POWER_NAME, holds=policy.least_power == 0.0, finding="none, with fewer than 2 patients of a class"
        )
    chance = chances(policy, look, malignant=malignant, benign=benign, references=references)
    says = (
        f"look {look.number} at these patients, at a risk of {look.alpha:.2g}: an equal challenger would pass AUROC, "
        f"sensitivity and specificity with probability {chance.auroc:.2f}, {chance.sensitivity:.2f} and "
        f"{chance.specificity:.2f}, and all{' against champion and anchor' if references > 1 else ''} with at least "
        f"{chance.together:.2f} (assumed: AUROC {policy.expected_auroc:g}, "
        f"sensitivity {policy.expected_sensitivity:g}, scores correlated by {policy.expected_correlation:g})"
    )
    if chance.together >= policy.least_power:
        return Condition(POWER_NAME, holds=True, finding=says)
    power = policy.least_power
    wanted = patients_to_pass(
        policy, look.first, malignant=malignant, benign=benign, references=references, power=power
    )
    margins = margins_within_reach(policy, look, malignant=malignant, benign=benign, references=references, power=power)
    shown = ", ".join(f"{np.ceil(1000.0 * margin) / 1000.0:g}" for margin in margins)
    finding = (
        f"{says}; {power:g} is asked for, so no look is taken unless forced. It takes about {wanted[0]:,} patients "
        f"with malignant and {wanted[1]:,} with benign cases, whom no look has seen; or margins, stated beforehand in "
        f"a file for --policy, of {shown}; or least_power: 0 there, to look regardless"
    )
    return Condition(POWER_NAME, holds=False, finding=finding)
