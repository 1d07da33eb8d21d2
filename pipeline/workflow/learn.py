"""From a cohort to networks and what is known of them: fit, calibrate, judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.cases.findings import finding_labels
from pipeline.cases.splits import leave_out_parts
from pipeline.config.experiment import Config
from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.covariates import require_covariates_vary
from pipeline.models.networks import predict_logits
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.fit import Fitted, fit
from pipeline.training.progress import NetworkPlace
from pipeline.training.tracker import PrefixTracker, Tracker
from pipeline.workflow.calibrate import calibration_rows, require_operating_point, require_refer_zone
from pipeline.workflow.cohort import Cohort, Usable, auxiliary_targets, covariate_values, soft_targets
from pipeline.workflow.judge import Judgement, judge


def learn(
    cohort: Cohort,
    config: Config,
    folder: Path,
    tracker: Tracker,
    *,
    after: int = 0,
    total: int | None = None,
    profile: bool = False,
) -> tuple[tuple[Fitted, ...], Judgement]:
    """Fit one network or the configured members, calibrate them, and judge them together on the test cases.

    The arguments are those of `fit_members`.
    """
    require_can_calibrate(cohort.usable, calibration_rows(cohort.usable), config)
    fitted = fit_members(cohort, config, folder, tracker, after=after, total=total, profile=profile)
    return fitted, judge_members(cohort, fitted, config)


def require_can_calibrate(usable: Sequence[Usable], at: Iterable[int], config: Config) -> None:
    """Refuse, before anything is trained, what the cases that calibrate cannot bear: zone, confidence, covariate.

    Args:
        usable: all cases.
        at: places of those that calibrate.
        config: the experiment.

    Raises:
        UsageError: with what is missing.
    """
    cases = [usable[index] for index in at]
    labels = np.array([case.case.label for case in cases])
    require_refer_zone(labels, config)
    require_operating_point(labels, config)
    require_covariates_vary(covariate_values(cases, config), config.data.covariates)


def judge_members(cohort: Cohort, fitted: Sequence[Fitted], config: Config) -> Judgement:
    """Calibrate the networks together and judge them on the test cases."""
    logits = held_out_logits(member_parts(cohort, config), [each.network for each in fitted], config)
    # Members' offsets differ by what the parts left out differ in; the calibrator takes one off all of them.
    offset = float(np.mean([each.prior_offset for each in fitted]))
    return judge(cohort.usable, logits, config, prior_offset=offset)


def member_parts(cohort: Cohort, config: Config) -> list[Cohort]:
    """The cohort as each member sees it: itself for one, else with another part of the training cases left out."""
    members = config.training.member_count
    if members == 1:
        return [cohort]
    cases, splits = zip(*((each.case, each.split) for each in cohort.usable), strict=True)
    return [
        replace(
            cohort, usable=tuple(replace(each, split=name) for each, name in zip(cohort.usable, names, strict=True))
        )
        for names in leave_out_parts(cases, splits, members, seed=config.data.split_seed)
    ]


def fit_members(
    cohort: Cohort,
    config: Config,
    folder: Path,
    tracker: Tracker,
    *,
    after: int = 0,
    total: int | None = None,
    profile: bool = False,
) -> tuple[Fitted, ...]:
    """Fit a network on the training cases, or each member on those that it does not leave out.

    What a member leaves out calibrates and is not looked at in training: its last weights are kept.

    Args:
        cohort: the cases.
        config: the experiment.
        folder: gets the checkpoints.
        tracker: is told each epoch.
        after: how many networks of the training, of earlier folds, are fitted already.
        total: how many it has; by default this call's.
        profile: print and track where the time goes.
    """
    parts = member_parts(cohort, config)
    total = total or len(parts)
    if len(parts) == 1:
        validation = case_tensors(cohort, "validation", config) if cohort.of("validation") else None
        place = NetworkPlace(after + 1, total)
        return (_fit(cohort, validation, config, folder, tracker, place=place, profile=profile),)
    fitted = []
    for member, part in enumerate(parts, start=1):
        seed = int(np.random.SeedSequence((config.seed, member)).generate_state(1)[0])
        name = f"member_{member}"
        fitted.append(
            _fit(
                part,
                None,
                config.model_copy(update={"seed": seed}),
                folder / name,
                PrefixTracker(tracker, f"{name}/"),
                place=NetworkPlace(after + member, total),
                profile=profile,
            )
        )
    return tuple(fitted)


def _fit(
    cohort: Cohort,
    validation: CaseTensors | None,
    config: Config,
    folder: Path,
    tracker: Tracker,
    *,
    place: NetworkPlace,
    profile: bool,
) -> Fitted:
    train = case_tensors(cohort, "train", config)
    return fit(train, validation, config, folder=folder, tracker=tracker, place=place, profile=profile)


def case_tensors(cohort: Cohort, split: str, config: Config) -> CaseTensors:
    """Inputs, hard labels (N, F) and the targets of the loss of one split's cases."""
    usable = cohort.training() if split == "train" else cohort.of(split)
    cases = [each.case for each in usable]
    labels = finding_labels(cases, config.data.findings)
    targets = labels.copy()
    if config.training.soft_labels:
        soft = np.array(soft_targets(cases, config.training.soft_labels))
        targets[:, 0] = np.where(np.isfinite(labels[:, 0]), soft, np.nan)
    columns = config.training.auxiliary if split == "train" else None
    auxiliary = auxiliary_targets(cases, columns) if columns else None
    inputs = ImageRows([each.input.voxels for each in usable])
    ids = [case.case_id for case in cases]
    return CaseTensors.from_arrays(inputs, labels, ids, targets=targets, auxiliary=auxiliary)


def held_out_logits(parts: Sequence[Cohort], networks: Sequence[nn.Module], config: Config) -> FloatArray:
    """Logits (N, F) of all usable cases by networks that were not trained on them; NaN where there is none.

    A test case has the mean logit of all networks, as in scoring; any other that of the one that left it out.
    """
    usable, size = parts[0].usable, config.training.batch_size
    images = ImageRows([each.input.voxels for each in usable])

    def predict(network: nn.Module, rows: list[int]) -> FloatArray:
        batches = [images[places] for places in torch.split(torch.tensor(rows), size)]
        return np.concatenate([predict_logits(network, batch, batch_size=size).numpy() for batch in batches])

    logits = np.full((len(usable), len(config.data.findings)), np.nan)
    for part, network in zip(parts, networks, strict=True):
        rows = [index for index, case in enumerate(part.usable) if case.split not in ("train", "test")]
        if rows:
            logits[rows] = predict(network, rows)
    tested = [index for index, each in enumerate(usable) if each.split == "test"]
    logits[tested] = np.mean([predict(network, tested) for network in networks], axis=0)
    return logits
