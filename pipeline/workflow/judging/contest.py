"""Challenger, champion and anchor on the cases of a manifest that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest
from pipeline.cases.plan import CaseCount
from pipeline.config.experiment import Tracking
from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import ModelError, UsageError
from pipeline.evaluation.gate import conditions
from pipeline.evaluation.gate.decision import Condition
from pipeline.evaluation.gate.records import Anchored, Answers, Contender, GateLook, LockedCases, Parity
from pipeline.tracking import looks, promotion
from pipeline.tracking.registry import CHAMPION, RegisteredVersion
from pipeline.tracking.runs import TrackedRun
from pipeline.tracking.store import experiment_id, open_store
from pipeline.workflow.judging.comparison import LoadedVersion, contender, load_version
from pipeline.workflow.judging.labelled_cases import (
    Scored,
    doubted_patients,
    manifest_record,
    score_labelled,
    seen_cases,
    seen_images,
    subgroup_columns,
)
from pipeline.workflow.learning.experiment import labelled_cases

_PARITY_CASES = 8  # scored again through the registered MLflow model


@dataclass(frozen=True, eq=False)
class Matchup:
    """The models that are compared, and their cases.

    Attributes:
        challenger: the version that would become champion.
        champion: the present one.
        anchor: the fixed model, which may be one of the two; or, in words, why there is none.
        manifest: the locked cases.
        unseen: labelled cases of patients whom none of the models has seen.
        counts: of the cases.
    """

    challenger: LoadedVersion
    champion: LoadedVersion
    anchor: LoadedVersion | str
    manifest: Manifest
    unseen: tuple[Case, ...]
    counts: LockedCases

    @property
    def models(self) -> tuple[LoadedVersion, ...]:
        """Challenger, champion, and the anchor where it is a third."""
        return _distinct(self.challenger, self.champion, self.anchor)

    @property
    def patients(self) -> set[str]:
        """Ids of the patients to be judged on."""
        return {str(case.patient_id) for case in self.unseen}


@dataclass(frozen=True, eq=False)
class Contest:
    """Answers of the models, and conditions of the gate."""

    challenger: Contender
    champion: Contender
    anchored: Anchored | None
    at: GateLook
    conditions: tuple[Condition, ...]


def match_up(model_name: str, manifest: Manifest, config: Tracking) -> Matchup:
    """Find and load the models, and the cases that none has seen.

    Raises:
        UsageError: when the version is the champion already.
        ModelError: when a version does not exist.
    """
    store = open_store(config)
    version = promotion.find_version(store, model_name)
    holder = promotion.find_version(store, f"models:/{version.name}@{CHAMPION}")
    if holder.version == version.version:
        raise UsageError(f"{version}: is the champion already; name another version, as models:/{version.name}/VERSION")
    challenger, champion = (load_version(candidate, config) for candidate in (version, holder))
    anchor = _anchor(promotion.find_anchor(store, version.name), (challenger, champion), config)
    models = _distinct(challenger, champion, anchor)
    cases = labelled_cases(manifest)
    seen = [seen_cases(candidate.model.description, cases) for candidate in models]
    unseen = tuple(case for case in cases if case.case_id not in set.union(*seen))
    doubts = [doubted_patients(candidate.model.description, cases) for candidate in models]
    patients = CaseCount.of(unseen)
    counts = LockedCases(
        labelled=len(cases),
        seen_by_challenger=len(seen[0]),
        seen_by_champion=len(seen[1]),
        seen_by_anchor=len(seen[2]) if len(seen) > 2 else 0,
        unseen=len(unseen),
        patients_malignant=patients.malignant_patients,
        patients_benign=patients.benign_patients,
        doubt=next(filter(None, doubts), None),
    )
    return Matchup(challenger, champion, anchor, manifest, unseen, counts)


def _anchor(anchor: RegisteredVersion | str, others: Sequence[LoadedVersion], config: Tracking) -> LoadedVersion | str:
    """The anchor, loaded where it is a model of its own; or why there is none."""
    if isinstance(anchor, str):
        return anchor
    same = [candidate for candidate in others if candidate.version.version == anchor.version]
    if same:
        return same[0]
    try:
        return load_version(anchor, config)
    except ModelError as error:
        return f"{anchor}, the anchor, cannot be loaded ({error})"


def _distinct(
    challenger: LoadedVersion, champion: LoadedVersion, anchor: LoadedVersion | str
) -> tuple[LoadedVersion, ...]:
    if isinstance(anchor, str) or anchor in (challenger, champion):
        return challenger, champion
    return challenger, champion, anchor


def next_look(
    matchup: Matchup, run: TrackedRun, config: Tracking, policy: GatePolicy, *, images: Sequence[str] = ()
) -> GateLook:
    """Number of this look at these patients or their images."""
    earlier = looks.earlier_looks(
        run.store,
        experiment_id(run.store, config),
        matchup.challenger.version.name,
        patients=matchup.patients,
        images=images,
        besides=run.run_id,
    )
    return GateLook(earlier.count + 1, policy.alpha, len(earlier.patients))


def hold_contest(matchup: Matchup, run: TrackedRun, config: Tracking, policy: GatePolicy) -> Contest:
    """Score the cases with every model, count the look, compare.

    Raises:
        UsageError: when the cases that can be scored have not both classes.
    """
    root, manifest = matchup.manifest.root, matchup.manifest
    models = matchup.models
    answers = [score_labelled(version.model, matchup.unseen, root=root) for version in models]
    both = [row for row, (mine, other) in enumerate(zip(*answers[:2], strict=True)) if mine.usable and other.usable]
    if len({answers[0][row].case.label for row in both}) < 2:
        raise UsageError(
            f"{manifest.path}: of {len(matchup.unseen)} cases that no model has seen, {len(both)} can be scored "
            "by both, without both classes among them; `malignancy check` says why the others are rejected"
        )
    columns = subgroup_columns(manifest, *(version.model.description for version in models[:2]))
    images = [answer.row.image_sha256 for answer in answers[0] if answer.row.image_sha256]
    looks.mark_look(run, matchup.challenger.version.name, patients=matchup.patients, images=images)
    at = next_look(matchup, run, config, policy, images=images)
    known = [seen_images(version.model.description, scored) for version, scored in zip(models, answers, strict=True)]
    challenger, champion = (
        contender([scored[row] for row in both], columns, version.model, prevalence=policy.prevalence)
        for version, scored in zip(models[:2], answers[:2], strict=True)
    )
    anchored = _anchored(models, answers, both, challenger) if len(models) > 2 else None
    held = conditions.contest(
        challenger,
        champion,
        anchored=anchored,
        answers=Answers(
            lost=sum(other.usable and not mine.usable for mine, other in zip(*answers[:2], strict=True)),
            known_images=len(set.union(*known)),
            parity=_parity(matchup.challenger, [answers[0][row] for row in both], root),
        ),
        policy=policy,
        at=at,
        columns=columns,
    )
    return Contest(challenger, champion, anchored, at, held)


def _anchored(
    models: Sequence[LoadedVersion], answers: Sequence[Sequence[Scored]], both: Sequence[int], challenger: Contender
) -> Anchored:
    """Challenger and anchor on those of the compared cases that the anchor can score."""
    usable = np.array([answers[2][row].usable for row in both])
    scored = [answers[2][row] for row, can in zip(both, usable, strict=True) if can]
    pair = (challenger.part(usable), contender(scored, (), models[2].model)) if scored else None
    return Anchored(pair, lost=len(both) - len(scored), cases=len(both))


def _parity(candidate: LoadedVersion, scored: Sequence[Scored], root: Path) -> Parity:
    """The command's probabilities beside the registered MLflow model's, on a few cases over the whole range."""
    ordered = sorted(scored, key=lambda scored_case: scored_case.row.probability or 0.0)
    places = np.unique(np.linspace(0, len(ordered) - 1, _PARITY_CASES).astype(int))
    chosen = [ordered[place] for place in places]
    try:
        answered = promotion.registered_probabilities(
            candidate.version,
            pd.DataFrame([manifest_record(scored_case.case, candidate.model.description) for scored_case in chosen]),
            root=root,
        )
    except ModelError as error:
        return Parity(None, str(error))
    if not np.isfinite(answered).all():
        return Parity(None, "the registered MLflow model rejects cases that the command scores")
    expected = np.array([scored_case.row.probability for scored_case in chosen], dtype=np.float64)
    return Parity(float(np.abs(answered - expected).max()))
