"""Fit networks on a cohort, calibrate and evaluate them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.cases.findings import finding_labels
from pipeline.cases.splits import leave_out_parts
from pipeline.config.experiment import Config
from pipeline.evaluation.covariates import require_covariates_vary
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.fit import Fitted
from pipeline.training.networks import NetworkTask, fit_networks
from pipeline.training.tracker import PrefixTracker, Tracker
from pipeline.workflow.cohort import Cohort, Usable, auxiliary_targets, covariate_values, soft_targets
from pipeline.workflow.judging.calibrate import calibration_rows, require_operating_point, require_refer_zone
from pipeline.workflow.judging.judge import Judgement, judge
from pipeline.workflow.learning.held_out import held_out_logits


def learn(
    cohort: Cohort,
    config: Config,
    folder: Path,
    tracker: Tracker,
    *,
    profile: bool = False,
) -> tuple[tuple[Fitted, ...], Judgement]:
    """Fit one network or the configured members, calibrate them, and judge them together on the test cases.

    The arguments are those of `fit_members`.
    """
    require_can_calibrate(cohort.usable, calibration_rows(cohort.usable), config)
    fitted = fit_members(member_parts(cohort, config), config, folder, tracker, profile=profile)
    return fitted, judge_members(cohort, fitted, config)


def require_can_calibrate(usable: Sequence[Usable], rows: Iterable[int], config: Config) -> None:
    """Refuse, before anything is trained, a refer zone, confidence or covariate that needs other calibration cases.

    Args:
        usable: all cases.
        rows: places of those that calibrate.
        config: the experiment.

    Raises:
        UsageError: with what is missing.
    """
    cases = [usable[index] for index in rows]
    labels = np.array([case.case.label for case in cases])
    require_refer_zone(labels, config)
    require_operating_point(labels, config)
    require_covariates_vary(covariate_values(cases, config), config.data.covariates)


def judge_members(cohort: Cohort, fitted: Sequence[Fitted], config: Config) -> Judgement:
    """Calibrate the networks together and judge them on the test cases."""
    held_out = held_out_logits(member_parts(cohort, config), [member.network for member in fitted], config)
    # Members' offsets differ a little because their training cases differ; the calibrator takes off one for all.
    offset = float(np.mean([member.prior_offset for member in fitted]))
    return judge(cohort.usable, held_out, config, prior_offset=offset)


def member_parts(cohort: Cohort, config: Config) -> list[Cohort]:
    """The cohort as each member sees it: itself for one, else with another part of the training cases left out."""
    members = config.training.member_count
    if members == 1:
        return [cohort]
    cases, splits = zip(*((prepared.case, prepared.split) for prepared in cohort.usable), strict=True)
    return [cohort.with_splits(names) for names in leave_out_parts(cases, splits, members, seed=config.data.split_seed)]


def fit_members(
    parts: Sequence[Cohort],
    config: Config,
    folder: Path,
    tracker: Tracker,
    *,
    profile: bool = False,
) -> tuple[Fitted, ...]:
    """Fit a network on the training cases of each part.

    The cases that one of several members leaves out are not used in its training: its last weights are kept.

    Args:
        parts: the cohort as each network sees it.
        config: the experiment.
        folder: gets the checkpoints.
        tracker: is told each epoch.
        profile: print and track where the time goes.
    """
    return fit_networks(member_tasks(parts, config, folder, tracker), profile=profile)


def member_tasks(parts: Sequence[Cohort], config: Config, folder: Path, tracker: Tracker) -> list[NetworkTask]:
    """Training cases, seed and checkpoint folder of each member; a single network has no member folder."""
    if len(parts) == 1:
        (cohort,) = parts
        validation = case_tensors(cohort, "validation", config) if cohort.of("validation") else None
        return [NetworkTask(case_tensors(cohort, "train", config), validation, config, folder, tracker)]
    tasks = []
    for member, part in enumerate(parts, start=1):
        seed = int(np.random.SeedSequence((config.seed, member)).generate_state(1)[0])
        name, of_member = f"member_{member}", config.model_copy(update={"seed": seed})
        train = case_tensors(part, "train", config)
        tasks.append(NetworkTask(train, None, of_member, folder / name, PrefixTracker(tracker, f"{name}/")))
    return tasks


def case_tensors(cohort: Cohort, split: str, config: Config) -> CaseTensors:
    """Inputs, hard labels (N, F) and the targets of the loss of one split's cases."""
    usable = cohort.training() if split == "train" else cohort.of(split)
    cases = [prepared.case for prepared in usable]
    labels = finding_labels(cases, config.data.findings)
    targets = labels.copy()
    if config.training.soft_labels:
        soft = np.array(soft_targets(cases, config.training.soft_labels))
        targets[:, 0] = np.where(np.isfinite(labels[:, 0]), soft, np.nan)
    columns = config.training.auxiliary if split == "train" else None
    auxiliary = auxiliary_targets(cases, columns) if columns else None
    inputs = ImageRows([prepared.input.voxels for prepared in usable])
    ids = [case.case_id for case in cases]
    patients = [str(case.patient_id) for case in cases]
    return CaseTensors.from_arrays(inputs, labels, ids, targets=targets, auxiliary=auxiliary, patients=patients)
