"""``malignancy train --folds K``: every case is judged by the network that never saw its patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.cases.findings import finding_labels
from pipeline.cases.splits import set_aside, split_around_fold
from pipeline.config.experiment import Config
from pipeline.evaluation.metrics import auroc
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.training.fit import Fitted
from pipeline.training.networks import fit_networks
from pipeline.workflow.cohort import Cohort
from pipeline.workflow.judging.judge import Judgement
from pipeline.workflow.learning.held_out import out_of_fold_logits
from pipeline.workflow.learning.learn import member_tasks, require_can_calibrate
from pipeline.workflow.learning.out_of_fold import judge_out_of_fold
from pipeline.workflow.learning.run_folder import RunRecord, read_record


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
    """Learn each fold in a tracked run of its own, below ``run``, and pool the predictions of their test cases.

    Args:
        cohort: whose splits are folds.
        config: the experiment.
        folder: gets a folder of checkpoints a fold.
        run: the parent.
        name: of the parent; a child's adds the fold.
        tags: of each child.
        profile: print and track where the time of each fold goes.
    """
    usable = cohort.usable
    require_can_calibrate(usable, range(len(usable)), config)
    labels = finding_labels([case.case for case in usable], config.data.findings)[:, 0]
    members = config.training.member_count
    parts = {fold: fold_parts(cohort, fold, config) for fold in fold_names(cohort)}
    runs = _FoldRuns(run, config, folder, name, tags)
    with ExitStack() as opened:  # all at once, because networks of several folds are fitted at a time
        children = {fold: opened.enter_context(runs.open(fold)) for fold in parts}
        tasks = [member_tasks(parts[fold], config, folder / fold, child) for fold, child in children.items()]
        fitted = fit_networks(list(chain.from_iterable(tasks)), profile=profile)
        of_fold = [fitted[start : start + members] for start in range(0, len(fitted), members)]
        learnt = dict(zip(parts, of_fold, strict=True))
        for fold, child in children.items():
            networks = [network.network for network in learnt[fold]]
            logits = out_of_fold_logits(parts[fold][:1], [networks], config).logits[:, 0]
            tested = np.isfinite(logits)
            child.metrics({"test_auroc": auroc(labels[tested], logits[tested])})
    return fitted, judge_folds(cohort, learnt, config)


def judge_folds(cohort: Cohort, learnt: Mapping[str, Sequence[Fitted]], config: Config) -> Judgement:
    """Judge all cases by the networks of their fold, which are given by its name."""
    parts_of_folds = [fold_parts(cohort, fold, config)[0] for fold in learnt]
    held_out = out_of_fold_logits(
        parts_of_folds, [[fitted.network for fitted in of_fold] for of_fold in learnt.values()], config
    )
    offset = float(np.mean([fitted.prior_offset for of_fold in learnt.values() for fitted in of_fold]))
    parts = [around_fold(cohort, fold, config) for fold in learnt]
    return judge_out_of_fold(parts, held_out, config, prior_offset=offset)


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
        """A fold's run; its earlier one, when the training is resumed."""
        nested = {**self.tags, "kind": "fold", "mlflow.parentRunId": self.parent.run_id}
        earlier = read_record(self.folder / fold)
        name = f"{self.name}, {fold}"
        with open_run(
            self.config.tracking, name=name, tags=nested, resume=earlier.run_id if earlier else None
        ) as child:
            RunRecord(child.run_id, name, {}, "").write(self.folder / fold)
            yield child


def fold_names(cohort: Cohort) -> list[str]:
    """The folds of a cohort, in order."""
    return sorted({prepared.split for prepared in cohort.usable})


def around_fold(cohort: Cohort, fold: str, config: Config) -> Cohort:
    """The same cases with the fold as test split, and the others' for training.

    No case is set apart for calibration, which uses the out-of-fold logits of the other folds. Only early stopping has
    a validation split of its own.
    """
    cases, folds = zip(*((prepared.case, prepared.split) for prepared in cohort.usable), strict=True)
    validated = config.training.early_stopping is not None
    return cohort.with_splits(split_around_fold(cases, folds, fold, validated=validated, seed=config.data.split_seed))


def fold_parts(cohort: Cohort, fold: str, config: Config) -> list[Cohort]:
    """The cohort as the networks of a fold see it: all alike, a few training cases being set aside (``set_aside``)."""
    part = around_fold(cohort, fold, config)
    cases, names = zip(*((prepared.case, prepared.split) for prepared in part.usable), strict=True)
    number = int(fold.rsplit("-", 1)[-1])
    aside = part.with_splits(set_aside(cases, names, seed=(config.data.split_seed, number)))
    return [aside] * config.training.member_count
