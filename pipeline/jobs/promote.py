"""``malignancy promote``, ``anchor`` and ``rollback``: choose the champion by the gate, and record the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.cases.manifest import read_manifest
from pipeline.config.experiment import Tracking
from pipeline.config.file import load_gate_policy
from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.gate import conditions
from pipeline.evaluation.gate.decision import Condition, GateDecision, decide_promotion, decision_text
from pipeline.evaluation.gate.power import POWER_NAME
from pipeline.evaluation.gate.records import GateLook
from pipeline.tracking import promotion
from pipeline.tracking.registry import RegisteredVersion
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.tracking.store import open_store
from pipeline.workflow.judging.comparison import LoadedVersion
from pipeline.workflow.judging.contest import Contest, Matchup, hold_contest, match_up, next_look
from pipeline.workflow.judging.labelled_cases import cases_digest
from pipeline.workflow.judging.table_truth import truth_differences
from pipeline.workflow.learning.experiment import labelled_cases
from pipeline.workflow.learning.record import headline

_PAGE = 3900  # characters of a decision, which leave room for the training's text on the version's page


@dataclass(frozen=True)
class PromoteOptions:
    """How to promote.

    Attributes:
        force: promote even if the gate refuses.
        reason: why; recorded.
        policy: file of the gate's limits; the defaults without one.
        prevalence: share of malignant cases where the models will be used; the policy's without one.
    """

    force: bool = False
    reason: str | None = None
    policy: Path | None = None
    prevalence: float | None = None


def promote(model_name: str, manifest_path: Path, options: PromoteOptions) -> GateDecision:
    """Ask the gate, write its decision to the model version, and move ``champion`` when it may move.

    Returns:
        The gate's decision; the version is champion when it says ``promoted``.

    Raises:
        UsageError: when force and reason do not come together, or the version is the champion already.
        ConfigError: when the policy has a fault.
        ModelError: when a version does not exist.
        TableError: when the manifest has a fault.
    """
    if options.force != bool(options.reason and options.reason.strip()):
        raise UsageError(
            "promote: --force and --reason TEXT belong together: a forced promotion needs a reason, which is recorded"
        )
    policy = _policy(options)
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    config = Tracking(experiment=promotion.GATE_EXPERIMENT)
    matchup = match_up(model_name, manifest, config)
    label = matchup.challenger.model.description.label
    differences = truth_differences(manifest.facts, label_source=label.source, intensities=label.intensities)
    if differences.intensities and not options.force:
        raise UsageError(
            f"{manifest.path}: {differences.intensities}; a gate on cases of another kind says nothing: give cases "
            "like the model's, or --force with a reason"
        )
    version = matchup.challenger.version
    tags = {"kind": "gate", "model_version": version.uri, "champion_version": matchup.champion.version.uri}
    tags |= {"training_run": version.run_id, "anchor_version": _anchor_text(matchup)}
    if differences.lines:
        tags["cases_differ"] = "; ".join(differences.lines)
    with open_run(config, name=f"gate: {version} on {manifest.path.name}", tags=tags) as run:
        at = next_look(matchup, run, config, policy)
        conditions = _admission(matchup, policy, at)
        _print(conditions)  # before anything is scored
        contest = None
        # A forced promotion looks despite low power; any other failed condition makes the look meaningless.
        if all(condition.holds or (options.force and condition.name == POWER_NAME) for condition in conditions):
            contest = hold_contest(matchup, run, config, policy)
            _print(contest.conditions)
            conditions = (*conditions, *contest.conditions)
        decision = decide_promotion(conditions, forced_because=options.reason)
        _record(run, matchup, decision, contest, policy=policy, at=contest.at if contest else at)
        if decision.promoted:
            promotion.move_champion(run.store, version, from_version=matchup.champion.version)
    print(*differences.lines, f"{version}: {decision.verdict}", sep="\n")
    return decision


def _policy(options: PromoteOptions) -> GatePolicy:
    policy = GatePolicy() if options.policy is None else load_gate_policy(options.policy)
    if options.prevalence is None:
        return policy
    if not 0.0 < options.prevalence < 1.0:
        raise UsageError(f"promote: --prevalence {options.prevalence:g} is not between 0 and 1")
    return policy.model_copy(update={"prevalence": options.prevalence})


def _admission(matchup: Matchup, policy: GatePolicy, at: GateLook) -> tuple[Condition, ...]:
    anchor = matchup.anchor
    return conditions.admission(
        matchup.challenger.standing(),
        matchup.champion.standing(),
        matchup.counts,
        anchor=anchor.standing() if isinstance(anchor, LoadedVersion) else anchor,
        policy=policy,
        at=at,
    )


def _anchor_text(matchup: Matchup) -> str:
    return matchup.anchor.version.uri if isinstance(matchup.anchor, LoadedVersion) else "none"


def anchor(model_name: str, *, reason: str) -> RegisteredVersion:
    """Make a version the anchor, which every challenger is compared with beside the champion.

    Returns:
        The version that is the anchor now.

    Raises:
        UsageError: when the reason is blank.
        ModelError: when there is no such version.
    """
    if not reason.strip():
        raise UsageError("anchor: --reason is blank; say why in words: the drift allowed so far is allowed once more")
    store = open_store(Tracking())
    version = promotion.find_version(store, model_name)
    promotion.set_anchor(store, version, reason=reason, at=_now())
    return version


def rollback(name: str) -> promotion.Rollback:
    """Give ``champion`` back to the version that the present one replaced.

    Returns:
        The version that is champion again, and the one that steps down.

    Raises:
        ModelError: when there is no such registered model.
        UsageError: when its champion replaced none.
    """
    return promotion.restore_champion(open_store(Tracking()), name, at=_now())


def _record(
    run: TrackedRun,
    matchup: Matchup,
    decision: GateDecision,
    contest: Contest | None,
    *,
    policy: GatePolicy,
    at: GateLook,
) -> None:
    """Write the decision to the gate's run and to the model version, and print the facts."""
    count = at.number if contest else at.number - 1
    shared = f"; {at.shared} of its {len(matchup.patients)} patients were in an earlier look" if at.shared else ""
    digest = cases_digest(labelled_cases(matchup.manifest))
    facts = {
        "champion at that time": str(matchup.champion.version),
        "anchor": _anchor_text(matchup),
        "judged on": f"{matchup.manifest.path.name}, labelled cases {digest[:16]}",
        "looks at these patients so far": f"{count}{'' if contest else ' (this decision needed none)'}{shared}",
        "risk of this look": f"{at.alpha:.2g} of {policy.alpha:g} over all looks at these patients",
        "policy": policy.describe(),
        "gate run": run.run_id,
        "decided at": _now(),
    }
    if contest is not None:
        run.metrics(_metrics(contest))
        run.json(_evaluations(contest), "evaluation.json")
        mine, other = (
            contender.evaluation.intervals.get("auroc") for contender in (contest.challenger, contest.champion)
        )
        facts["AUROC"] = f"challenger {mine or 'undefined'}, champion {other or 'undefined'}"
    run.text(decision_text(decision, facts=facts), "decision.md")
    text = decision_text(decision, facts=facts, most=_PAGE)
    record = {"facts": facts, "looks": count, "policy": policy.model_dump(mode="json")}
    run.json({**decision.to_json(), **record}, "decision.json")
    run.tags({"mlflow.note.content": text, "gate.verdict": decision.verdict})
    tags = {
        "gate.verdict": decision.verdict,
        "gate.reasons": decision.reasons,
        "gate.on": facts["judged on"],
        "gate.looks": str(count),
        "gate.anchor": facts["anchor"],
        "gate.policy": facts["policy"],
        "gate.run": run.run_id,
        "gate.at": facts["decided at"],
    }
    if decision.forced_because is not None:
        tags["gate.forced_because"] = decision.forced_because
    promotion.write_decision(run.store, matchup.challenger.version, tags=tags, text=text)
    for name, value in facts.items():
        print(f"{name}: {value}")


def _evaluations(contest: Contest) -> dict[str, Any]:
    """Evaluations of the compared models by name, also restated for the policy's prevalence, as JSON values."""
    judged = {"challenger": contest.challenger, "champion": contest.champion}
    if contest.anchored is not None and contest.anchored.pair is not None:
        judged["anchor"] = contest.anchored.pair[1]
    evaluations = {name: contender.evaluation.to_json() for name, contender in judged.items()}
    for name, contender in judged.items():
        if contender.calibration is not None:
            evaluations[f"{name}_at_prevalence"] = contender.calibration.to_json()
    return evaluations


def _print(conditions: Sequence[Condition]) -> None:
    for condition in conditions:
        print(f"{'holds ' if condition.holds else 'FAILED'}  {condition.name}: {condition.finding}", flush=True)


def _metrics(contest: Contest) -> dict[str, float]:
    metrics = headline(contest.challenger.evaluation, "challenger_") | headline(
        contest.champion.evaluation, "champion_"
    )
    try:
        gain = conditions.auroc_gain(contest.challenger, contest.champion)
    except UndefinedMetricError:
        return metrics
    return metrics | {"auroc_gain": gain.estimate, "auroc_gain_lower": gain.lower, "auroc_gain_upper": gain.upper}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
