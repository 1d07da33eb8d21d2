"""``malignancy promote`` and ``malignancy rollback``: who is champion, decided by the gate and written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.config.experiment import Tracking
from pipeline.errors import ModelError, UndefinedMetricError, UsageError
from pipeline.evaluation import gate
from pipeline.evaluation.decision import Condition, Decision, decide, decision_text
from pipeline.tracking import promotion
from pipeline.tracking.registry import CHAMPION
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.tracking.store import experiment_id, open_store
from pipeline.workflow.candidates import Candidate, contender, load_candidate
from pipeline.workflow.labelled import (
    Scored,
    cases_digest,
    doubted_patients,
    labelled_cases,
    manifest_record,
    patients_by_class,
    score_labelled,
    seen_cases,
    seen_images,
    subgroup_columns,
)
from pipeline.workflow.record import headline
from pipeline.workflow.table_truth import truth_differences

_PARITY_CASES = 8  # scored again through the registered MLflow model


@dataclass(frozen=True, eq=False)
class Pair:
    """Challenger and champion, and the cases that they are to be judged on."""

    challenger: Candidate
    champion: Candidate
    manifest: Manifest
    unseen: tuple[Case, ...]
    counts: gate.LockedCases


@dataclass(frozen=True, eq=False)
class Contest:
    """Both models' answers on the cases that both scored."""

    challenger: gate.Contender
    champion: gate.Contender
    conditions: tuple[Condition, ...]


def promote(model_name: str, manifest_path: Path, *, force: bool = False, reason: str | None = None) -> int:
    """Ask the gate, write its decision to the model version, and move ``champion`` when it may move.

    Returns:
        0 when the version became champion, 1 when the gate refused.

    Raises:
        UsageError: when force and reason do not come together, or the version is the champion already.
        ModelError: when a version does not exist.
        TableError: when the manifest has a fault.
    """
    if force != bool(reason and reason.strip()):
        raise UsageError(
            "promote: --force and --reason TEXT belong together: a forced promotion needs a reason, which is recorded"
        )
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    config = Tracking(experiment=promotion.GATE_EXPERIMENT)
    pair = _pair(model_name, manifest, config)
    label = pair.challenger.model.description.label
    differences = truth_differences(manifest.facts, label_source=label.source, intensities=label.intensities)
    if differences.intensities and not force:
        raise UsageError(
            f"{manifest.path}: {differences.intensities}; a gate on cases of another kind says nothing: give cases "
            "like the model's, or --force with a reason"
        )
    policy = gate.GatePolicy()
    version = pair.challenger.version
    tags = {"kind": "gate", "model_version": version.uri, "champion_version": pair.champion.version.uri}
    tags["training_run"] = version.run_id
    if differences.lines:
        tags["cases_differ"] = "; ".join(differences.lines)
    with open_run(config, name=f"gate: {version} on {manifest.path.name}", tags=tags) as run:
        conditions = gate.admission(pair.challenger.standing(), pair.champion.standing(), pair.counts, policy=policy)
        contest = None
        if all(each.holds for each in conditions):
            contest = _contest(pair, policy, run)
            conditions = (*conditions, *contest.conditions)
        decision = decide(conditions, forced_because=reason)
        _record(run, pair, decision, contest, config)
        if decision.promoted:
            promotion.move_champion(run.store, version, from_version=pair.champion.version)
    print(*differences.lines, f"{version}: {decision.verdict}", sep="\n")
    return int(not decision.promoted)


def rollback(name: str) -> None:
    """Give ``champion`` back to the version that the present one replaced.

    Raises:
        ModelError: when there is no such registered model.
        UsageError: when its champion replaced none.
    """
    store = open_store(Tracking())
    down, restored = promotion.restore_champion(store, name, at=_now())
    print(f"{restored} is champion again; {down} steps down")


def _pair(model_name: str, manifest: Manifest, config: Tracking) -> Pair:
    store = open_store(config)
    version = promotion.find_version(store, model_name)
    holder = promotion.find_version(store, f"models:/{version.name}@{CHAMPION}")
    if holder.version == version.version:
        raise UsageError(f"{version}: is the champion already; name another version, as models:/{version.name}/VERSION")
    challenger, champion = (load_candidate(each, config) for each in (version, holder))
    cases = labelled_cases(manifest)
    seen = [seen_cases(each.model.description, cases) for each in (challenger, champion)]
    unseen = tuple(case for case in cases if case.case_id not in seen[0] | seen[1])
    doubts = [doubted_patients(each.model.description, cases) for each in (challenger, champion)]
    malignant, benign = patients_by_class(unseen)
    counts = gate.LockedCases(
        labelled=len(cases),
        seen_by_challenger=len(seen[0]),
        seen_by_champion=len(seen[1]),
        unseen=len(unseen),
        patients_malignant=malignant,
        patients_benign=benign,
        doubt=doubts[0] or doubts[1],
    )
    return Pair(challenger, champion, manifest, unseen, counts)


def _contest(pair: Pair, policy: gate.GatePolicy, run: TrackedRun) -> Contest:
    """Score the cases with both models, count the look, compare."""
    root = pair.manifest.root
    answers = [score_labelled(each.model, pair.unseen, root=root) for each in (pair.challenger, pair.champion)]
    both = [(mine, other) for mine, other in zip(*answers, strict=True) if mine.usable and other.usable]
    lost = sum(other.usable and not mine.usable for mine, other in zip(*answers, strict=True))
    if len({mine.case.label for mine, _ in both}) < 2:
        raise UsageError(
            f"{pair.manifest.path}: of {len(pair.unseen)} cases that neither model has seen, {len(both)} can be scored "
            "by both, without both classes among them; `malignancy check` says why the others are rejected"
        )
    columns = subgroup_columns(pair.manifest, pair.challenger.model.description, pair.champion.model.description)
    promotion.mark_look(run, cases_digest(labelled_cases(pair.manifest)))
    challenger, champion = (
        contender(scored, columns, candidate.model.operating_point)
        for candidate, scored in zip((pair.challenger, pair.champion), zip(*both, strict=True), strict=True)
    )
    known_images = [
        seen_images(candidate.model.description, scored)
        for candidate, scored in zip((pair.challenger, pair.champion), answers, strict=True)
    ]
    conditions = gate.contest(
        challenger,
        champion,
        policy=policy,
        lost=lost,
        known_images=len(set.union(*known_images)),
        parity=_parity(pair.challenger, [mine for mine, _ in both], root),
        columns=columns,
    )
    return Contest(challenger, champion, conditions)


def _parity(candidate: Candidate, scored: Sequence[Scored], root: Path) -> gate.Parity:
    """The command's probabilities beside the registered MLflow model's, on a few cases over the whole range."""
    ordered = sorted(scored, key=lambda each: each.row.probability or 0.0)
    places = np.unique(np.linspace(0, len(ordered) - 1, _PARITY_CASES).astype(int))
    chosen = [ordered[place] for place in places]
    try:
        answered = promotion.registered_probabilities(
            candidate.version,
            pd.DataFrame([manifest_record(each.case, candidate.model.description) for each in chosen]),
            root=root,
        )
    except ModelError as error:
        return gate.Parity(None, str(error))
    if not np.isfinite(answered).all():
        return gate.Parity(None, "the registered MLflow model rejects cases that the command scores")
    expected = np.array([each.row.probability for each in chosen], dtype=np.float64)
    return gate.Parity(float(np.abs(answered - expected).max()))


def _record(run: TrackedRun, pair: Pair, decision: Decision, contest: Contest | None, config: Tracking) -> None:
    """Write the decision to the gate's run and to the model version, and print it."""
    digest = cases_digest(labelled_cases(pair.manifest))
    count = promotion.looks(run.store, experiment_id(run.store, config), digest)
    facts = {
        "champion at that time": str(pair.champion.version),
        "judged on": f"{pair.manifest.path.name}, labelled cases {digest[:16]}",
        "looks at these locked cases so far": f"{count}" + ("" if contest else " (this decision needed none)"),
        "gate run": run.run_id,
        "decided at": _now(),
    }
    if contest is not None:
        run.metrics(_metrics(contest))
        both = {
            "challenger": contest.challenger.evaluation.to_json(),
            "champion": contest.champion.evaluation.to_json(),
        }
        run.json(both, "evaluation.json")
        mine, other = (each.evaluation.intervals.get("auroc") for each in (contest.challenger, contest.champion))
        facts["AUROC"] = f"challenger {mine or 'undefined'}, champion {other or 'undefined'}"
    text = decision_text(decision, facts=facts)
    run.text(text, "decision.md")
    run.json({**decision.to_json(), "facts": facts, "looks": count}, "decision.json")
    run.tags({"mlflow.note.content": text, "gate.verdict": decision.verdict})
    tags = {
        "gate.verdict": decision.verdict,
        "gate.reasons": decision.reasons,
        "gate.on": facts["judged on"],
        "gate.looks": str(count),
        "gate.run": run.run_id,
        "gate.at": facts["decided at"],
    }
    if decision.forced_because is not None:
        tags["gate.forced_because"] = decision.forced_because
    promotion.write_decision(run.store, pair.challenger.version, tags=tags, text=text)
    _print(decision, facts)


def _print(decision: Decision, facts: dict[str, str]) -> None:
    for each in decision.conditions:
        print(f"{'holds ' if each.holds else 'FAILED'}  {each.name}: {each.finding}")
    for name, value in facts.items():
        print(f"{name}: {value}")


def _metrics(contest: Contest) -> dict[str, float]:
    found = headline(contest.challenger.evaluation, "challenger_") | headline(contest.champion.evaluation, "champion_")
    try:
        gain = gate.auroc_gain(contest.challenger, contest.champion)
    except UndefinedMetricError:
        return found
    return found | {"auroc_gain": gain.estimate, "auroc_gain_lower": gain.lower, "auroc_gain_upper": gain.upper}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
