"""Calibrate on one split, choose thresholds there, and evaluate on another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.cases.findings import finding_labels
from pipeline.config.experiment import Config
from pipeline.evaluation.calibration.ensemble_mean import MeanLogits
from pipeline.evaluation.calibration.fallback import CalibrationFit
from pipeline.evaluation.covariates import CovariateTerm, fit_covariate_term
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.multilabel import FindingsEvaluation, evaluate_findings
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.agreement import usual_reader_columns
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.usual_columns import RATING_SCALE, SUBGROUP_COLUMNS
from pipeline.workflow.cohort import Usable, covariate_values
from pipeline.workflow.judging.calibrate import (
    calibrate_findings,
    calibration_rows,
    of_mean,
    predictions_of,
    refer_zone,
    stack_logits,
)
from pipeline.workflow.judging.regressions import Comparison, comparisons
from pipeline.workflow.learning.held_out import HeldOut


@dataclass(frozen=True, eq=False)
class Judgement:
    """Results of calibration and evaluation of a trained model.

    Attributes:
        calibrations: one a finding, of all networks' mean logit, fitted on the calibration split.
        covariates: term added to every network's logits, fitted on the calibration split.
        means: one a finding, how the calibration logits were moved to those of the mean of all networks.
        operating_points: by finding, chosen on the calibration split.
        predictions: of the validation, calibration and test splits, all findings.
        findings: the test split's evaluation, finding by finding.
        comparisons: baseline first, then the oracle, where configured; of the first finding.
        prevalence_at_calibration: share of malignant cases in the calibration split.
        refer_zone: of the first finding, fitted on the calibration split, where configured.
        fold_aurocs: within each fold, when every case was judged by the network of its fold; of the first finding.
    """

    calibrations: tuple[CalibrationFit, ...]
    covariates: CovariateTerm
    means: tuple[MeanLogits, ...]
    operating_points: Mapping[str, OperatingPoint]
    predictions: Predictions
    findings: FindingsEvaluation
    comparisons: tuple[Comparison, ...]
    prevalence_at_calibration: float
    refer_zone: ReferZone | None = None
    fold_aurocs: tuple[float, ...] = ()

    @property
    def first_finding(self) -> str:
        """The label's name."""
        return next(iter(self.operating_points))

    @property
    def operating_point(self) -> OperatingPoint:
        """Of the first finding."""
        return self.operating_points[self.first_finding]

    @property
    def evaluation(self) -> Evaluation:
        """Of the first finding."""
        return self.findings.first

    @property
    def calibration(self) -> str:
        """How the first finding was calibrated, in a few words."""
        parts = [*self.covariates.describe(), self.calibrations[0].describe(), self.means[0].describe()]
        return "; ".join(part for part in parts if part)

    @property
    def calibration_notes(self) -> tuple[str, ...]:
        """Which findings have another calibrator than the configured one, and why; empty when none has."""
        named = len(self.operating_points) > 1
        return tuple(
            (f"{finding}: " if named else "") + f"{fit.describe()}, because {'; '.join(fit.reasons)}"
            for finding, fit in zip(self.operating_points, self.calibrations, strict=True)
            if fit.reasons
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether every finding has a calibrator; a model without one is not registered."""
        return all(fit.is_calibrated for fit in self.calibrations)

    def calibration_to_json(self) -> dict[str, dict[str, Any]]:
        """By finding: method asked for, method fitted and the reasons, and for which mean, for ``model.json``."""
        fitted = zip(self.operating_points, self.calibrations, self.means, strict=True)
        return {finding: {**fit.to_json(), "mean": mean.to_json()} for finding, fit, mean in fitted}

    def of_first(self, split: str) -> Predictions:
        """Predictions of one split and the first finding."""
        return self.predictions.where(split=split, finding=self.first_finding)


def used_columns(config: Config, *, available: Collection[str] = ()) -> list[str]:
    """Extra columns that evaluation uses, each once: the configured ones, and the usual ones that exist."""
    settings = config.evaluation
    usual = [name for name in (*SUBGROUP_COLUMNS, RATING_SCALE.column) if name in available]
    usual += settings.readers or usual_reader_columns(list(available))
    return list(dict.fromkeys([*settings.baseline_columns, *settings.oracle_columns, *settings.subgroups, *usual]))


def judge(usable: Sequence[Usable], held_out: HeldOut, config: Config, *, prior_offset: float) -> Judgement:
    """Add covariates, calibrate, choose thresholds, judge, and compare with regressions on the same cases.

    Args:
        usable: cases of all splits; those that trained the only network are used by the comparisons alone.
        held_out: of ``usable``, by networks that were not trained on them.
        config: the experiment.
        prior_offset: what class balancing added to the logits.
    """
    findings, cases = config.data.findings, [prepared.case for prepared in usable]
    splits = np.array([prepared.split for prepared in usable], dtype=object)
    labels = finding_labels(cases, findings)  # (N, F)
    rows = calibration_rows(usable)
    values = covariate_values(usable, config)
    means = of_mean(held_out, rows, labels[rows])
    logits = held_out.logits.copy()
    logits[rows] = stack_logits(means)
    term = fit_covariate_term(logits[rows], labels[rows], values[rows], config.data.covariates)
    logits = logits + term.logits(values)
    fits, points = calibrate_findings(logits[rows], labels[rows], config, prior_offset=prior_offset)
    splits[rows] = "calibration"  # also training cases that members left out
    judged = np.flatnonzero(splits != "train").tolist()
    pairs = zip(fits, logits[judged].T, strict=True)
    predictions = predictions_of(
        [cases[index] for index in judged],
        splits[judged].tolist(),
        logits[judged],
        np.stack([fit.calibrator.apply(column) for fit, column in pairs], axis=1),
        used_columns(config, available=cases[0].extra),
        seed=config.seed,
        findings=findings,
    )
    test = predictions.where(split="test")
    return Judgement(
        calibrations=fits,
        covariates=term,
        means=means,
        operating_points=points,
        predictions=predictions,
        findings=evaluate_findings(test, points, resamples=config.evaluation.resamples, seed=config.seed),
        comparisons=comparisons(usable, test.where(finding=findings[0]), config),
        prevalence_at_calibration=float(labels[rows, 0].mean()),
        refer_zone=refer_zone(labels[rows, 0].astype(np.int64), fits[0].calibrator.apply(logits[rows, 0]), config),
    )
