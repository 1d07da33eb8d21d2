"""``malignancy train --folds K``: every case is judged by the network that never saw its patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.cases.findings import finding_labels
from pipeline.cases.splits import split_around_fold
from pipeline.config.experiment import Config
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.multilabel import evaluate_findings
from pipeline.evaluation.operating_points import OperatingPoint
from pipeline.evaluation.predictions import Predictions
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.training.fit import Fitted
from pipeline.workflow.calibrate import fold_limits, operating_point_as_configured, refer_zone, with_fold_limits
from pipeline.workflow.cohort import Cohort
from pipeline.workflow.judge import Judgement
from pipeline.workflow.learn import fit_members, held_out_logits, learn, require_can_calibrate
from pipeline.workflow.out_of_fold import judge_out_of_fold, pool_comparisons, stack
from pipeline.workflow.run_folder import RunRecord, read_record


def learn_folds(
    cohort: Cohort,
    config: Config,
    folder: Path,
    run: TrackedRun,
    *,
    name: str,
    tags: Mapping[str, str],
    profile: bool = False,
) -> tuple[tuple[Fitted, ...], Judgement]:
    """Learn each fold in a tracked run of its own, below ``run``, and pool what they say of their test cases.

    Args:
        cohort: whose splits are folds.
        config: the experiment.
        folder: gets a folder of checkpoints a fold.
        run: the parent.
        name: of the parent; a child's adds the fold.
        tags: of each child.
        profile: print and track where the time of each fold goes.
    """
    parts = {fold: around_fold(cohort, fold, config) for fold in fold_names(cohort)}
    runs = _FoldRuns(run, config, folder, name, tags)
    if is_cross_fitted(config):
        return _learn_cross_fitted(cohort, parts, config, runs, profile=profile)
    outcomes: list[tuple[tuple[Fitted, ...], Judgement]] = []
    members = config.training.member_count
    each_fold = _without_refer_zone(config)  # a fold's calibration split may be too small for what all of them can do
    for fold, part in parts.items():
        with runs.open(fold) as child:
            after, total = len(outcomes) * members, len(parts) * members
            fitted, judgement = learn(part, each_fold, folder / fold, child, after=after, total=total, profile=profile)
            child.metrics(judgement.evaluation.metrics("test_") | judgement.findings.metrics("test_"))
        outcomes.append((fitted, judgement))
    networks = tuple(network for fitted, _ in outcomes for network in fitted)
    return networks, pool_judgements([judgement for _, judgement in outcomes], config)


def is_cross_fitted(config: Config) -> bool:
    """Whether each fold is calibrated on what the networks of the others say of their own cases.

    So no case is spent on validation or calibration: each trains all networks but one, and is judged by that one.
    """
    return config.training.member_count == 1 and config.training.early_stopping is None


def _learn_cross_fitted(
    cohort: Cohort, parts: Mapping[str, Cohort], config: Config, runs: _FoldRuns, *, profile: bool
) -> tuple[tuple[Fitted, ...], Judgement]:
    usable = cohort.usable
    require_can_calibrate(usable, range(len(usable)), config)
    logits = np.full((len(usable), len(config.data.findings)), np.nan)
    networks: list[Fitted] = []
    for fold, part in parts.items():
        with runs.open(fold) as child:
            (fitted,) = fit_members(
                part, config, runs.folder / fold, child, after=len(networks), total=len(parts), profile=profile
            )
            tested = np.array([case.split == "test" for case in part.usable])
            logits[tested] = held_out_logits([part], [fitted.network], config)[tested]
            labels = finding_labels([case.case for case in usable], config.data.findings)[tested, 0]
            child.metrics({"test_auroc": auroc(labels, logits[tested, 0])})
        networks.append(fitted)
    offset = float(np.mean([fitted.prior_offset for fitted in networks]))
    return tuple(networks), judge_out_of_fold(list(parts.values()), logits, config, prior_offset=offset)


@dataclass(frozen=True)
class _FoldRuns:
    """The tracked run of each fold, below that of the whole.

    Attributes:
        parent: the whole's.
        config: of the experiment.
        folder: gets a folder a fold, which remembers its run.
        name: of the parent; a fold's adds its own.
        tags: of each.
    """

    parent: TrackedRun
    config: Config
    folder: Path
    name: str
    tags: Mapping[str, str]

    @contextmanager
    def open(self, fold: str) -> Iterator[TrackedRun]:
        """A fold's run; the one that it had, where it is resumed."""
        nested = {**self.tags, "kind": "fold", "mlflow.parentRunId": self.parent.run_id}
        earlier = read_record(self.folder / fold)
        name = f"{self.name}, {fold}"
        with open_run(
            self.config.tracking, name=name, tags=nested, resume=earlier.run_id if earlier else None
        ) as child:
            RunRecord(child.run_id, name, {}, "").write(self.folder / fold)
            yield child


def _without_refer_zone(config: Config) -> Config:
    return config.model_copy(
        update={"operating_point": config.operating_point.model_copy(update={"refer_coverage": None})}
    )


def fold_names(cohort: Cohort) -> list[str]:
    """The folds of a cohort, in order."""
    return sorted({each.split for each in cohort.usable})


def around_fold(cohort: Cohort, fold: str, config: Config) -> Cohort:
    """The same cases with four splits, the fold being the test split; only training beside it where none other is used.

    Several members calibrate on what each leaves out. A single network that does not stop early watches nothing, and
    is calibrated on what the networks of the other folds say of their cases.
    """
    folds = [case.split for case in cohort.usable]
    if config.training.member_count > 1 or is_cross_fitted(config):
        names = ["test" if name == fold else "train" for name in folds]
    else:
        names = split_around_fold([case.case for case in cohort.usable], folds, fold, seed=config.data.split_seed)
    return replace(
        cohort, usable=tuple(replace(each, split=name) for each, name in zip(cohort.usable, names, strict=True))
    )


def _points(calibration: Predictions, config: Config) -> dict[str, OperatingPoint]:
    """By finding, on the cases where it is known."""
    known = {name: calibration.where(finding=name).labelled() for name in config.data.findings}
    return {
        name: operating_point_as_configured(each.labels, each.probabilities, config) for name, each in known.items()
    }


def pool_judgements(judgements: Sequence[Judgement], config: Config) -> Judgement:
    """One judgement of all test cases; each fold was calibrated before, so that probabilities may be pooled.

    Each finding's threshold is chosen on the calibration cases of all folds, each case once. What decides the test
    cases of a fold (``FOLD_COLUMNS`` of the predictions) is chosen on those of them that are not among these, by the
    fold's own networks where it calibrated on them, and else by those of another fold.
    """
    tests = [each.predictions.where(split="test") for each in judgements]
    of_folds = [each.predictions.where(split="calibration") for each in judgements]
    calibration = stack(of_folds, once=True)
    points = _points(calibration, config)
    first = config.data.findings[0]
    limits = []
    for fold, judged in enumerate(tests):
        others = stack([of_folds[fold], *of_folds[:fold], *of_folds[fold + 1 :]], once=True)
        others = Predictions(others.frame[~others.frame["case_id"].isin(judged.case_ids)].reset_index(drop=True))
        known = others.where(finding=first)
        limits.append(fold_limits(known.labels, known.probabilities, _points(others, config), config))
    test = with_fold_limits(stack(tests), limits)
    calibrated = calibration.where(finding=first)
    settings = config.evaluation
    return Judgement(
        calibrations=tuple(fits for judgement in judgements for fits in judgement.calibrations),
        covariates=tuple(term for each in judgements for term in each.covariates),
        operating_points=points,
        predictions=Predictions.from_frame(pd.concat([calibration.frame, test.frame], ignore_index=True)),
        findings=evaluate_findings(test, points, resamples=settings.resamples, seed=config.seed),
        comparisons=pool_comparisons(
            [judgement.comparisons for judgement in judgements], test.where(finding=first), points[first], config
        ),
        prevalence_at_calibration=float(calibrated.labels.mean()),
        refer_zone=refer_zone(calibrated.labels, calibrated.probabilities, config),
        fold_aurocs=tuple(
            auroc(part.labels, part.probabilities) for part in (each.of_first("test") for each in judgements)
        ),
    )
