"""The promotion gate: may a challenger take the champion's place? Descriptions and predictions in, conditions out.

It asks twice. ``admission`` needs no label and so costs no look at the locked cases; only when it holds does
``contest`` compare the two models on the same cases. What cannot be judged does not hold: the burden of proof is the
challenger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.calibration_outcome import CalibrationOutcome
from pipeline.evaluation.clustered import mean_difference_interval, paired_proportion_interval
from pipeline.evaluation.decision import Condition
from pipeline.evaluation.intervals import Interval, paired_auroc_difference
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.subgroups import partition, too_few_patients, usual_edges


@dataclass(frozen=True)
class GatePolicy:
    """The limits of the gate.

    Attributes:
        auroc_margin: the lower limit of the paired difference in AUROC must lie above minus this.
        sensitivity_margin: likewise of the paired difference in sensitivity, each model at its own threshold.
        specificity_margin: likewise in specificity.
        patients_a_class: patients with malignant, and with benign, cases that neither model has seen, at least.
        lost_share: share of the cases that the challenger alone may refuse to score.
        parity: largest difference of a probability between the command and the registered MLflow model.
        subgroup_auroc_drop: an AUROC lower by this in a subgroup, with an interval below 0, is a collapse.
        subgroup_sensitivity_drop: likewise for the sensitivity at each model's own operating point.
    """

    auroc_margin: float = 0.05
    sensitivity_margin: float = 0.05
    specificity_margin: float = 0.05
    patients_a_class: int = 40
    lost_share: float = 0.02
    parity: float = 1e-6
    subgroup_auroc_drop: float = 0.10
    subgroup_sensitivity_drop: float = 0.15


@dataclass(frozen=True)
class Standing:
    """What the gate must know of a model besides its probabilities.

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
    """Who may be judged on, after leaving out patients that either model has seen.

    Attributes:
        labelled: labelled cases given.
        seen_by_challenger: of them, cases of patients in the challenger's training, validation or calibration data.
        seen_by_champion: likewise the champion's; a case may count in both.
        unseen: cases left.
        patients_malignant: patients with a malignant case left.
        patients_benign: patients with a benign case left.
        doubt: why patients who seem new may not be, if there is a reason.
    """

    labelled: int
    seen_by_challenger: int
    seen_by_champion: int
    unseen: int
    patients_malignant: int
    patients_benign: int
    doubt: str | None = None


@dataclass(frozen=True)
class Contender:
    """A model's answers on the cases that both models scored, in the same order."""

    predictions: Predictions
    evaluation: Evaluation


@dataclass(frozen=True)
class Parity:
    """How far the registered MLflow model is from the command on the same cases.

    Attributes:
        gap: largest difference of a probability; None where it could not be measured.
        fault: why it could not; blank where it could.
    """

    gap: float | None
    fault: str = ""


def admission(
    challenger: Standing, champion: Standing, cases: LockedCases, *, policy: GatePolicy
) -> tuple[Condition, ...]:
    """What must hold before the locked cases are looked at."""
    envelope = Condition(
        "acceptance envelope",
        challenger.has_envelope,
        "present" if challenger.has_envelope else "the challenger has none, so it would score anything; train it anew",
    )
    told_apart = Condition(
        "patients are recognised", cases.doubt is None, cases.doubt or "by their ids, in whatever spelling"
    )
    return (*same_question(challenger, champion), envelope, told_apart, _enough(cases, policy))


def same_question(challenger: Standing, champion: Standing) -> tuple[Condition, ...]:
    """What must hold for the results of the two to be comparable at all: label, intensities, input."""
    return tuple(
        _same(what, getattr(challenger, key), getattr(champion, key))
        for what, key in (
            ("label source", "label_source"),
            ("intensities", "intensities"),
            ("input contract", "input_contract"),
        )
    )


def _same(what: str, challenger: str, champion: str) -> Condition:
    if challenger == champion:
        return Condition(f"same {what}", holds=True, finding=challenger)
    finding = (
        f"the challenger's is {challenger!r}, the champion's {champion!r}: their results do not answer the same "
        "question; register the challenger under a name of its own"
    )
    return Condition(f"same {what}", holds=False, finding=finding)


def _enough(cases: LockedCases, policy: GatePolicy) -> Condition:
    left = (
        f"{cases.labelled} labelled cases; {cases.seen_by_challenger} of patients in the challenger's and "
        f"{cases.seen_by_champion} of patients in the champion's training, validation or calibration data left out; "
        f"{cases.unseen} left, of {cases.patients_malignant} patients with malignant and {cases.patients_benign} with "
        "benign cases"
    )
    holds = min(cases.patients_malignant, cases.patients_benign) >= policy.patients_a_class
    remedy = "" if holds else f", below {policy.patients_a_class} of each; give patients that neither model has seen"
    return Condition("enough unseen patients", holds=holds, finding=left + remedy)


def contest(
    challenger: Contender,
    champion: Contender,
    *,
    policy: GatePolicy,
    lost: int,
    known_images: int,
    parity: Parity,
    columns: Sequence[str],
    seed: int = 0,
) -> tuple[Condition, ...]:
    """Compare the two on the same cases.

    Args:
        challenger: with labels.
        champion: the same cases in the same order.
        policy: the limits.
        lost: cases that the champion scored and the challenger did not.
        known_images: cases of patients who seem new, with images that one of the two was fitted on.
        parity: of the challenger.
        columns: subgroup columns of the predictions.
        seed: of the bootstrap.

    Raises:
        UsageError: when the two did not judge the same cases.
    """
    if not np.array_equal(challenger.predictions.case_ids, champion.predictions.case_ids):
        raise UsageError("gate: the two models were not judged on the same cases in the same order; score them again")
    return (
        _parity(parity, policy),
        _coverage(lost, len(challenger.predictions), policy),
        _images(known_images),
        _not_inferior(challenger, champion, policy, seed=seed),
        _decides_no_worse("sensitivity", 1, challenger, champion, margin=policy.sensitivity_margin),
        _decides_no_worse("specificity", 0, challenger, champion, margin=policy.specificity_margin),
        _calibration(challenger.evaluation.calibration, champion.evaluation.calibration),
        _subgroups(challenger, champion, columns, policy, seed=seed),
    )


def _parity(parity: Parity, policy: GatePolicy) -> Condition:
    if parity.gap is None:
        return Condition(
            "parity", holds=False, finding=f"cannot be measured: {parity.fault}; train the challenger again"
        )
    finding = f"command and registered MLflow model differ by at most {parity.gap:.2g} (limit {policy.parity:g})"
    return Condition("parity", holds=parity.gap <= policy.parity, finding=finding)


def _coverage(lost: int, scored: int, policy: GatePolicy) -> Condition:
    share = lost / (lost + scored)
    holds = share <= policy.lost_share
    finding = f"the challenger refuses {lost} of {lost + scored} cases that the champion scores (limit"
    return Condition("cases scored", holds=holds, finding=f"{finding} {100 * policy.lost_share:g} %)")


def _images(known: int) -> Condition:
    finding = "none of the images is one that either model was fitted on"
    if known:
        finding = (
            f"{known} cases of patients who seem new have images that one of the models was fitted on; write the "
            "patients' ids as they were at training"
        )
    return Condition("images are new", holds=not known, finding=finding)


def auroc_gain(challenger: Contender, champion: Contender, *, seed: int = 0) -> Interval:
    """The challenger's AUROC less the champion's, paired, by patient.

    Raises:
        UndefinedMetricError: with one class, or too few patients of a class to resample.
    """
    mine = challenger.predictions
    return paired_auroc_difference(
        mine.labels,
        mine.probabilities,
        champion.predictions.probabilities,
        mine.patients,
        rng=np.random.default_rng(seed),
    )


def _not_inferior(challenger: Contender, champion: Contender, policy: GatePolicy, *, seed: int) -> Condition:
    name, margin = "AUROC not worse", policy.auroc_margin
    try:
        gain = auroc_gain(challenger, champion, seed=seed)
    except UndefinedMetricError as error:
        return Condition(name, holds=False, finding=f"cannot be judged: {error}")
    return _above_margin(name, gain, margin, "challenger less champion, paired")


def _decides_no_worse(what: str, label: int, challenger: Contender, champion: Contender, *, margin: float) -> Condition:
    """Whether the challenger decides the cases with one label right as often as the champion does.

    Each at its own threshold: a ranking and probabilities may be right, and the threshold useless.
    """
    name, labels = f"{what} not worse", challenger.predictions.labels
    members = labels == label
    mine, other = (_positive(each)[members] == (label == 1) for each in (challenger, champion))
    try:
        gain = paired_proportion_interval(mine, other, challenger.predictions.patients[members])
    except UndefinedMetricError as error:
        return Condition(name, holds=False, finding=f"cannot be judged: {error}; give more cases")
    shares = f"{mine.mean():.3f} against the champion's {other.mean():.3f}, each at its own threshold"
    return _above_margin(name, gain, margin, f"{shares}; challenger less champion, paired")


def _above_margin(name: str, gain: Interval, margin: float, compared: str) -> Condition:
    """Non-inferiority: the whole interval must lie above minus the margin."""
    holds = gain.lower > -margin
    finding = f"{compared}: {gain}; the lower limit must lie above -{margin:g}"
    if not holds:
        worse = gain.upper < 0
        finding += "; it is worse" if worse else "; too uncertain to say that it is not worse: give more cases"
    return Condition(name, holds=holds, finding=finding)


def _positive(contender: Contender) -> BoolArray:
    """Which cases a model calls positive at its own threshold, shape (n,)."""
    predictions = contender.predictions
    return predictions.probabilities >= predictions.thresholds(contender.evaluation.operating_point.threshold)


def _calibration(challenger: CalibrationOutcome, champion: CalibrationOutcome) -> Condition:
    """Whether these cases let the challenger's probabilities be believed, or at least no less than the champion's.

    Where a study is too small to show calibration, asking that it be shown would refuse every model. So it fails when
    it is refuted, and when it is in doubt and the champion, under the same luck of the sample, is not.
    """
    name = "calibration"
    if challenger.verdict == "shown":
        return Condition(name, holds=True, finding=str(challenger))
    remedy = "`malignancy recalibrate` refits it on local cases"
    if challenger.verdict == "refuted":
        return Condition(name, holds=False, finding=f"{challenger}; {remedy}")
    worse = [title for title in challenger.in_doubt if title not in champion.in_doubt]
    if worse:
        said = f"in doubt by its {' and '.join(worse)}, where the champion is not"
        return Condition(name, holds=False, finding=f"{challenger}; {said}; {remedy}")
    return Condition(name, holds=True, finding=f"{challenger}; no worse than the champion's ({champion.verdict})")


def _subgroups(
    challenger: Contender, champion: Contender, columns: Sequence[str], policy: GatePolicy, *, seed: int
) -> Condition:
    """No subgroup in which the challenger falls far, and credibly, behind the champion."""
    name = "no subgroup collapse"
    if not columns:
        finding = "cannot be judged: the manifest has no subgroup column; add one, as site, sex, age or diameter_mm"
        return Condition(name, holds=False, finding=finding)
    collapsed, judged, small = [], 0, 0
    for column in columns:
        values = challenger.predictions.extra[column]
        for value, members in partition(values, edges=usual_edges(values)).items():
            if too_few_patients(_part(challenger.predictions, members)):
                small += 1
                continue
            judged += 1
            collapsed += [
                f"{column} {value}: {drop}" for drop in _drops(challenger, champion, members, policy, seed=seed)
            ]
    counted = f"{judged} subgroups of {', '.join(columns)} judged, {small} too small to say"
    if not judged:
        return Condition(name, holds=False, finding=f"cannot be judged: {counted}; give more cases")
    return Condition(name, holds=not collapsed, finding="; ".join([*collapsed, counted]))


def _drops(
    challenger: Contender, champion: Contender, members: BoolArray, policy: GatePolicy, *, seed: int
) -> list[str]:
    """In words, what collapsed among some cases."""
    mine, other = (Contender(_part(each.predictions, members), each.evaluation) for each in (challenger, champion))
    found = []
    gain = auroc_gain(mine, other, seed=seed)
    if gain.estimate <= -policy.subgroup_auroc_drop and gain.upper < 0:
        found.append(f"AUROC falls, challenger less champion {gain}")
    malignant = mine.predictions.labels == 1
    positive = [_positive(each)[malignant].astype(np.float64) for each in (mine, other)]
    change = mean_difference_interval(positive[0] - positive[1], mine.predictions.patients[malignant])
    if change.estimate <= -policy.subgroup_sensitivity_drop and change.upper < 0:
        found.append(f"sensitivity falls, challenger less champion {change}")
    return found


def _part(predictions: Predictions, members: BoolArray) -> Predictions:
    return Predictions(predictions.frame[members].reset_index(drop=True))
