"""The gate's comparisons of a challenger with a reference: not inferior is shown, not shown, or refuted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import stats

from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.calibration.outcome import Verdict
from pipeline.evaluation.gate.decision import Condition
from pipeline.evaluation.gate.records import Contender, GateLook
from pipeline.evaluation.intervals.paired_difference import PairedDifference, paired_auroc, paired_proportion, weighted

POWER = 0.8  # of the numbers of patients that messages name, to show that an equal challenger is no worse


@dataclass(frozen=True)
class Claim:
    """Claim that the challenger is not inferior in one statistic.

    Attributes:
        name: of the condition.
        margin: by which it may be worse, above 0.
        compared: what is subtracted from what, in words; positive is better for the challenger.
        patients: how many patients it rests on, in words; a number first.
    """

    name: str
    margin: float
    compared: str
    patients: tuple[tuple[int, str], ...]

    def judge(self, difference: Callable[[], PairedDifference], look: GateLook) -> Condition:
        """The claim's condition, at the level of this look; what the cases do not define is not shown."""
        try:
            gain = difference()
        except UndefinedMetricError as error:
            return Condition.of(self.name, "not shown", f"cannot be judged: {error}; give more cases")
        interval = gain.interval(level=look.level)
        says = f"{self.compared}: {interval} at {100 * look.level:.4g} %"
        outcome = outcome_of(interval.lower, interval.upper, self.margin)
        if outcome == "shown":
            return Condition.of(self.name, outcome, f"{says}; not inferior: shown (all above -{self.margin:g})")
        if outcome == "refuted":
            return Condition.of(self.name, outcome, f"{says}; inferior: shown (all below -{self.margin:g})")
        worse = "it is worse, by how much is uncertain" if interval.upper < 0 else "too uncertain to say"
        finding = f"{says}; not inferior: not shown (the lower limit must lie above -{self.margin:g}; {worse})"
        return Condition.of(self.name, outcome, f"{finding}; {self._remedy(gain, look)}")

    def _remedy(self, gain: PairedDifference, look: GateLook) -> str:
        factor = times_as_many(gain.standard_error, margin=self.margin, alpha=look.first.alpha)
        wanted = " and ".join(
            f"{int(np.ceil(factor * count)):,} {who} (here {count:,})" for count, who in self.patients
        )
        return f"if the two are equal, about {wanted}, whom no look has seen, would show it with probability {POWER:g}"


def outcome_of(lower: float, upper: float, margin: float) -> Verdict:
    """Whether an interval of a difference shows or refutes "not worse by the margin"."""
    if lower > -margin:
        return "shown"
    return "refuted" if upper < -margin else "not shown"


def times_as_many(standard_error: float, *, margin: float, alpha: float, power: float = POWER) -> float:
    """Factor by which the number of patients must grow for an equal challenger to be shown no worse.

    The standard error falls with the root of the number of patients, and must be the margin over the sum of the two
    quantiles.
    """
    quantiles = float(stats.norm.ppf(1.0 - alpha) + stats.norm.ppf(power))
    return (quantiles * standard_error / margin) ** 2


def not_inferior(
    challenger: Contender,
    reference: Contender,
    *,
    policy: GatePolicy,
    at: GateLook,
    title: str = "champion",
) -> tuple[Condition, ...]:
    """AUROC, sensitivity, specificity and the share referred, each no worse than the reference's by the margin.

    Args:
        challenger: with labels.
        reference: the same cases in the same order.
        policy: the margins.
        at: which look it is, and so at which level.
        title: of the reference, as ``anchor``; the names of the conditions say it where it is not the champion.
    """
    than = "" if title == "champion" else f" than the {title}"
    less = f"challenger less {title}, paired"
    who = _who(challenger)
    ranking = Claim(f"AUROC not worse{than}", policy.auroc_margin, less, who)
    conditions = [ranking.judge(partial(auroc_difference, challenger, reference), at)]
    for subject, label, margin, members in (
        ("sensitivity", 1, policy.sensitivity_margin, who[:1]),
        ("specificity", 0, policy.specificity_margin, who[1:]),
    ):
        shares = [_share(_rightly(contender, label)) for contender in (challenger, reference)]
        compared = f"{shares[0]} against the {title}'s {shares[1]}, each at its own threshold; {less}"
        claim = Claim(f"{subject} not worse{than}", margin, compared, members)
        conditions.append(claim.judge(partial(_decision_difference, challenger, reference, label), at))
    shares = [_share(contender.referred) for contender in (challenger, reference)]
    compared = f"{shares[0]} against the {title}'s {shares[1]}; {title} less challenger, paired"
    claim = Claim(f"refers no more{than}", policy.referred_margin, compared, who)
    return (*conditions, _refers(claim, challenger, reference, at, policy.prevalence))


def auroc_difference(challenger: Contender, reference: Contender) -> PairedDifference:
    """The challenger's AUROC less the reference's, paired, by patient.

    Raises:
        UndefinedMetricError: with one class, or fewer than two patients of a class.
    """
    judged = challenger.predictions
    return paired_auroc(judged.labels, judged.probabilities, reference.predictions.probabilities, judged.patients)


def sensitivity_difference(challenger: Contender, reference: Contender) -> PairedDifference:
    """The challenger's sensitivity less the reference's, each at its own threshold, paired, by patient.

    Raises:
        UndefinedMetricError: with fewer than two patients with malignant cases.
    """
    return _decision_difference(challenger, reference, 1)


def _decision_difference(challenger: Contender, reference: Contender, label: int) -> PairedDifference:
    """Difference in right decisions: ranking and probabilities may be good, and the threshold useless."""
    patients = challenger.predictions.patients[challenger.predictions.labels == label]
    return paired_proportion(_rightly(challenger, label), _rightly(reference, label), patients)


def _rightly(contender: Contender, label: int) -> BoolArray:
    """Which of the cases with this label are decided rightly."""
    called: BoolArray = contender.positive[contender.predictions.labels == label]
    return called if label else ~called


def _refers(
    claim: Claim, challenger: Contender, reference: Contender, look: GateLook, prevalence: float | None
) -> Condition:
    """Fewer referred is better, so the challenger is what is subtracted."""
    if challenger.zone is None and reference.zone is None:
        return Condition.of(claim.name, "shown", "neither model has a refer zone")
    if prevalence is None:
        patients = challenger.predictions.patients
        return claim.judge(partial(paired_proportion, reference.referred, challenger.referred, patients), look)

    def difference() -> PairedDifference:
        labels = challenger.predictions.labels
        malignant, benign = (
            paired_proportion(
                reference.referred[labels == label],
                challenger.referred[labels == label],
                challenger.predictions.patients[labels == label],
            )
            for label in (1, 0)
        )
        return weighted(malignant, benign, share=prevalence)

    return replace(claim, compared=f"{claim.compared}, at a prevalence of {prevalence:g}").judge(difference, look)


def _who(contender: Contender) -> tuple[tuple[int, str], ...]:
    malignant, benign = contender.predictions.patients_by_class()
    return (malignant, "patients with malignant cases"), (benign, "patients with benign cases")


def _share(cases: BoolArray) -> str:
    return f"{cases.mean():.3f}" if cases.size else "none"
