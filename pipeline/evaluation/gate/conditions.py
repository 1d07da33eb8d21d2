"""The promotion gate: conditions under which a challenger may replace the champion.

There are two stages. ``admission`` needs no label, so it uses up no look at the locked cases; only when it holds does
``contest`` compare the two models on the same cases. A condition that cannot be judged does not hold, because the
burden of proof is the challenger's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import UsageError
from pipeline.evaluation.calibration.outcome import CalibrationOutcome
from pipeline.evaluation.gate.decision import Condition
from pipeline.evaluation.gate.noninferiority import auroc_difference, not_inferior
from pipeline.evaluation.gate.power import power_condition
from pipeline.evaluation.gate.records import (
    Anchored,
    Answers,
    Contender,
    GateLook,
    LockedCases,
    Parity,
    Standing,
    same_cases,
)
from pipeline.evaluation.gate.subgroups import no_collapse
from pipeline.evaluation.intervals.interval import Interval


def admission(
    challenger: Standing,
    champion: Standing,
    cases: LockedCases,
    *,
    anchor: Standing | str,
    policy: GatePolicy,
    at: GateLook,
) -> tuple[Condition, ...]:
    """What must hold before the locked cases are looked at.

    Args:
        challenger: the model that would become champion.
        champion: the present one.
        cases: that the models may be compared on.
        anchor: the fixed model that every challenger is compared with, which may be the champion itself; or, in
            words, why there is none.
        policy: the limits.
        at: which look at these patients it would be.
    """
    envelope = Condition(
        "acceptance envelope",
        challenger.has_envelope,
        "present" if challenger.has_envelope else "the challenger has none, so it would score anything; train it again",
    )
    told_apart = Condition(
        "patients are recognised", cases.doubt is None, cases.doubt or "by their ids, in whatever spelling"
    )
    return (
        *same_question(challenger, champion),
        envelope,
        _anchor(challenger, champion, anchor),
        told_apart,
        _enough(cases, policy),
        power_condition(policy, at, cases, references=1 if anchor in (challenger, champion) else 2),
    )


def _anchor(challenger: Standing, champion: Standing, anchor: Standing | str) -> Condition:
    """Whether the challenger can be compared with the anchor."""
    remedy = "a person may name another: `malignancy anchor MODEL --reason TEXT`"
    if isinstance(anchor, str):
        return Condition("anchor", holds=False, finding=f"{anchor}; {remedy}")
    if anchor in (challenger, champion):
        who = "champion" if anchor == champion else "challenger"
        return Condition("anchor", holds=True, finding=f"{anchor.name}, the {who}, is the anchor itself")
    differences = [
        condition.name.removeprefix("same ") for condition in same_question(challenger, anchor) if not condition.holds
    ]
    if differences:
        finding = f"{anchor.name} cannot judge the challenger: it has another {', '.join(differences)}; {remedy}"
        return Condition("anchor", holds=False, finding=finding)
    return Condition("anchor", holds=True, finding=f"{anchor.name}, compared with as well")


def same_question(challenger: Standing, champion: Standing) -> tuple[Condition, ...]:
    """Conditions under which the results of both are comparable: label, intensities, input."""
    return tuple(
        _same(subject, getattr(challenger, key), getattr(champion, key))
        for subject, key in (
            ("label source", "label_source"),
            ("intensities", "intensities"),
            ("input contract", "input_contract"),
        )
    )


def _same(subject: str, challenger: str, champion: str) -> Condition:
    if challenger == champion:
        return Condition(f"same {subject}", holds=True, finding=challenger)
    finding = (
        f"the challenger's is {challenger!r}, the champion's {champion!r}: their results do not answer the same "
        "question; register the challenger under a name of its own"
    )
    return Condition(f"same {subject}", holds=False, finding=finding)


def _enough(cases: LockedCases, policy: GatePolicy) -> Condition:
    left = (
        f"{cases.labelled} labelled cases; {cases.seen_by_challenger} of patients in the challenger's, "
        f"{cases.seen_by_champion} in the champion's and {cases.seen_by_anchor} in another anchor's training, "
        "validation or calibration data left out; "
        f"{cases.unseen} left, of {cases.patients_malignant} patients with malignant and {cases.patients_benign} with "
        "benign cases"
    )
    holds = min(cases.patients_malignant, cases.patients_benign) >= policy.patients_a_class
    remedy = "" if holds else f", below {policy.patients_a_class} of each; give patients that no model has seen"
    return Condition("enough unseen patients", holds=holds, finding=left + remedy)


def contest(
    challenger: Contender,
    champion: Contender,
    *,
    anchored: Anchored | None,
    answers: Answers,
    policy: GatePolicy,
    at: GateLook,
    columns: Sequence[str],
) -> tuple[Condition, ...]:
    """Compare the challenger with the champion, and with the anchor, on the same cases.

    Args:
        challenger: with labels.
        champion: the same cases in the same order.
        anchored: challenger and anchor; None where the champion is the anchor.
        answers: results of scoring beside the probabilities.
        policy: the limits.
        at: which look it is.
        columns: subgroup columns of the predictions.

    Raises:
        UsageError: when two models did not judge the same cases.
    """
    pairs = [(challenger, champion)]
    if anchored is not None and anchored.pair is not None:
        pairs.append(anchored.pair)
    if not all(same_cases(*pair) for pair in pairs):
        raise UsageError("gate: the two models were not judged on the same cases in the same order; score them again")
    return (
        _parity(answers.parity, policy),
        _coverage(answers.lost, len(challenger.predictions), policy),
        _images(answers.known_images),
        *not_inferior(challenger, champion, policy=policy, at=at),
        *([] if anchored is None else _against_anchor(anchored, policy=policy, at=at)),
        _calibration(
            *((contender.calibration or contender.evaluation).calibration for contender in (challenger, champion))
        ),
        no_collapse(challenger, champion, columns, policy=policy),
    )


def _against_anchor(anchored: Anchored, *, policy: GatePolicy, at: GateLook) -> tuple[Condition, ...]:
    """The same comparisons with the anchor, and whether the anchor could score their cases."""
    finding = f"it refuses {anchored.lost} of {anchored.cases} compared cases (limit {100 * policy.lost_share:g} %)"
    holds = anchored.lost <= policy.lost_share * anchored.cases
    if not holds:
        finding += "; a person may name another: `malignancy anchor MODEL --reason TEXT`"
    scores = Condition("anchor scores the cases", holds=holds, finding=finding)
    if anchored.pair is None:
        return (scores,)
    return (scores, *not_inferior(*anchored.pair, policy=policy, at=at, title="anchor"))


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


def auroc_gain(challenger: Contender, champion: Contender) -> Interval:
    """The challenger's AUROC less the champion's, paired, by patient, with a 95 % interval.

    Raises:
        UndefinedMetricError: with one class, or fewer than two patients of a class.
    """
    return auroc_difference(challenger, champion).interval()


def _calibration(challenger: CalibrationOutcome, champion: CalibrationOutcome) -> Condition:
    """Whether the challenger is calibrated on these cases, or at least in no more doubt than the champion.

    A study that is too small to show calibration would refuse every model if it had to be shown. So the condition fails
    when calibration is refuted, and when it is in doubt while the champion's, on the same cases, is not.
    """
    name = "calibration"
    if challenger.verdict == "shown":
        return Condition(name, holds=True, finding=str(challenger))
    remedy = "`malignancy recalibrate` refits it on local cases"
    if challenger.verdict == "refuted":
        return Condition(name, holds=False, finding=f"{challenger}; {remedy}")
    worse = [title for title in challenger.in_doubt if title not in champion.in_doubt]
    if worse:
        doubt = f"in doubt by its {' and '.join(worse)}, where the champion is not"
        return Condition(name, holds=False, finding=f"{challenger}; {doubt}; {remedy}")
    return Condition(name, holds=True, finding=f"{challenger}; no worse than the champion's ({champion.verdict})")
