"""From logits to a judged model: calibrate on one split, choose thresholds there, judge on another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.cases.findings import finding_labels
from pipeline.config import Config
from pipeline.config_inputs import MALIGNANT
from pipeline.errors import CalibrationError, UndefinedMetricError, UsageError
from pipeline.evaluation.baselines import fit_baseline
from pipeline.evaluation.calibration import fit_calibrator
from pipeline.evaluation.calibrator import Calibrator
from pipeline.evaluation.certainty import RATING_COLUMN
from pipeline.evaluation.conformal import ReferZone, fit_refer_zone
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals import Interval, paired_auroc_difference
from pipeline.evaluation.multilabel import FindingsEvaluation, evaluate_findings
from pipeline.evaluation.operating_points import OperatingPoint, choose_operating_point
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.subgroups import SUBGROUP_COLUMNS
from pipeline.jobs.cohort import Usable, extra_frame

LogitArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A regression on table columns beside the model, on the same test cases.

    Attributes:
        name: as printed.
        columns: what a regression is fitted on (training split).
        predictions: its own, calibrated, of the same cases in the same order.
        evaluation: of its own calibrated probabilities.
        gain: the model's AUROC minus its AUROC, paired, by patient; None where too few patients define it.
    """

    name: str
    columns: tuple[str, ...]
    predictions: Predictions
    evaluation: Evaluation
    gain: Interval | None

    def describe(self) -> str:
        """What it is, in a line."""
        return f"logistic regression on {', '.join(self.columns)}"


@dataclass(frozen=True, eq=False)
class Judgement:
    """Everything that is known of a model after training.

    Attributes:
        calibrators: fitted on the calibration split; for each network, one a finding.
        operating_points: by finding, chosen on the calibration split.
        predictions: of the validation, calibration and test splits, all findings.
        findings: the test split's evaluation, finding by finding.
        comparisons: baseline first, then the oracle, where configured; of the first finding.
        prevalence_at_calibration: share of malignant cases in the calibration split.
        refer_zone: of the first finding, fitted on the calibration split, where configured.
        fold_aurocs: within each fold, when every case was judged by the network of its fold; of the first finding.
    """

    calibrators: tuple[tuple[Calibrator, ...], ...]
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
        return "; ".join(dict.fromkeys(each[0].describe() for each in self.calibrators))

    def of_first(self, split: str) -> Predictions:
        """Predictions of one split and the first finding."""
        return self.predictions.where(split=split, finding=self.first_finding)


def require_refer_zone(labels: NDArray[np.int64], config: Config) -> None:
    """Refuse, before anything is trained, a refer zone that the calibration split is too small for.

    Args:
        labels: of the calibration split, shape (n,).
        config: the experiment.

    Raises:
        UsageError: with what is missing.
    """
    try:
        refer_zone(labels, np.full(labels.size, 0.5), config)  # whether there is one rests on the labels alone
    except CalibrationError as error:
        coverage = config.operating_point.refer_coverage
        raise UsageError(f"operating_point.refer_coverage: {coverage:g}: {error}, or set it to null") from None


def refer_zone(labels: NDArray[np.int64], probabilities: LogitArray, config: Config) -> ReferZone | None:
    """The zone in which cases go to a person, from the calibration split; None where none is configured."""
    coverage = config.operating_point.refer_coverage
    return None if coverage is None else fit_refer_zone(labels, probabilities, coverage=coverage)


def calibrate(
    logits: LogitArray, labels: NDArray[np.int64], config: Config, *, prior_offset: float
) -> tuple[Calibrator, OperatingPoint]:
    """Fit one finding's calibrator and choose its operating point, both on the calibration split."""
    settings = config.calibration
    offset = prior_offset if settings.prior_correction else 0.0
    calibrator = fit_calibrator(settings.method, logits, labels, prior_offset=offset)
    return calibrator, operating_point_as_configured(labels, calibrator.apply(logits), config)


def operating_point_as_configured(
    labels: NDArray[np.int64], probabilities: LogitArray, config: Config
) -> OperatingPoint:
    """Choose a threshold by the configured rule, from calibrated probabilities of calibration cases."""
    rule = config.operating_point
    return choose_operating_point(labels, probabilities, rule=rule.rule, target=rule.target, cost_ratio=rule.cost_ratio)


def calibrate_findings(
    logits: LogitArray, labels: LogitArray, config: Config, *, prior_offset: float
) -> tuple[tuple[Calibrator, ...], dict[str, OperatingPoint]]:
    """A calibrator for each finding, and operating points by finding, each on the cases where that finding is known.

    Args:
        logits: (N, F) of the calibration split.
        labels: (N, F), NaN where unknown.
        config: names the findings and how to calibrate.
        prior_offset: what class balancing added to the logits.

    Raises:
        CalibrationError: naming the finding, where there are several.
    """
    calibrators, points = [], {}
    for column, name in enumerate(config.data.findings):
        known = np.isfinite(labels[:, column])
        truth = labels[known, column].astype(np.int64)
        try:
            calibrator, points[name] = calibrate(logits[known, column], truth, config, prior_offset=prior_offset)
        except CalibrationError as error:
            if len(config.data.findings) == 1:
                raise
            raise CalibrationError(f"finding {name!r}: {error}") from None
        calibrators.append(calibrator)
    return tuple(calibrators), points


def predictions_of(
    cases: Sequence[Case],
    splits: Sequence[str],
    logits: LogitArray,
    probabilities: LogitArray,
    columns: Sequence[str],
    *,
    seed: int,
    findings: Sequence[str] = (MALIGNANT,),
) -> Predictions:
    """The waist of the design: one row a case and finding, with the columns that subgroups and baselines need.

    Args:
        cases: N cases.
        splits: of each case.
        logits: (N, F), or (N,) of a single finding.
        probabilities: of the same shape.
        columns: extra columns to keep.
        seed: of the training.
        findings: F names, the label's first.
    """
    logits, probabilities = (values.reshape(len(cases), len(findings)) for values in (logits, probabilities))
    labels, extra = finding_labels(cases, findings), extra_frame(cases, columns)
    frames = []
    for column, name in enumerate(findings):
        frame = pd.DataFrame(
            {
                "case_id": [case.case_id for case in cases],
                "patient_id": [case.patient_id for case in cases],
                "split": list(splits),
                "finding": name,
                "seed": seed,
                "label": labels[:, column],
                "logit": logits[:, column],
                "probability": probabilities[:, column],
            }
        )
        frames.append(pd.concat([frame, extra], axis=1))
    return Predictions.from_frame(pd.concat(frames, ignore_index=True))


def used_columns(config: Config, *, available: Collection[str] = ()) -> list[str]:
    """Extra columns that evaluation uses, each once: the configured ones, and the usual ones that there are."""
    settings = config.evaluation
    usual = [name for name in (*SUBGROUP_COLUMNS, RATING_COLUMN) if name in available]
    return list(dict.fromkeys([*settings.baseline_columns, *settings.oracle_columns, *settings.subgroups, *usual]))


def calibration_rows(usable: Sequence[Usable], config: Config) -> list[int]:
    """Which cases fit calibrator and thresholds: the calibration split, or for several members the training cases."""
    split = "train" if config.training.members > 1 else "calibration"
    return [index for index, each in enumerate(usable) if each.split == split]


def judge(usable: Sequence[Usable], logits: LogitArray, config: Config, *, prior_offset: float) -> Judgement:
    """Calibrate, choose thresholds, judge, and compare with regressions on the same cases.

    Args:
        usable: cases of all splits; what trained the only network only feeds the comparisons.
        logits: (N, F) of ``usable``, by networks that were not trained on them; NaN where there is none.
        config: the experiment.
        prior_offset: what class balancing added to the logits.
    """
    findings, cases = config.data.findings, [each.case for each in usable]
    splits = np.array([each.split for each in usable], dtype=object)
    labels = finding_labels(cases, findings)  # (N, F)
    at = calibration_rows(usable, config)
    calibrators, points = calibrate_findings(logits[at], labels[at], config, prior_offset=prior_offset)
    splits[at] = "calibration"  # also what members say of training cases that they left out
    held_out = np.flatnonzero(splits != "train").tolist()
    pairs = zip(calibrators, logits[held_out].T, strict=True)
    predictions = predictions_of(
        [cases[index] for index in held_out],
        splits[held_out].tolist(),
        logits[held_out],
        np.stack([calibrator.apply(column) for calibrator, column in pairs], axis=1),
        used_columns(config, available=cases[0].extra),
        seed=config.seed,
        findings=findings,
    )
    test = predictions.where(split="test")
    return Judgement(
        calibrators=(calibrators,) * config.training.members,
        operating_points=points,
        predictions=predictions,
        findings=evaluate_findings(test, points, resamples=config.evaluation.resamples, seed=config.seed),
        comparisons=tuple(
            _compare(name, columns, usable, test.where(finding=findings[0]), config)
            for name, columns in (
                ("baseline", config.evaluation.baseline_columns),
                ("oracle", config.evaluation.oracle_columns),
            )
            if columns
        ),
        prevalence_at_calibration=float(labels[at, 0].mean()),
        refer_zone=refer_zone(labels[at, 0].astype(np.int64), calibrators[0].apply(logits[at, 0]), config),
    )


def evaluate_as_configured(test: Predictions, point: OperatingPoint, config: Config) -> Evaluation:
    """Judge calibrated predictions with the configuration's number of resamples and seed."""
    return evaluate(test, operating_point=point, resamples=config.evaluation.resamples, seed=config.seed)


def _compare(
    name: str, columns: Sequence[str], usable: Sequence[Usable], test: Predictions, config: Config
) -> Comparison:
    """Fit a regression on the training split, calibrate it as the model was, judge it on the test split."""
    frame = extra_frame([each.case for each in usable], columns)
    splits = np.array([each.split for each in usable])
    labels = np.array([each.case.label for each in usable])
    baseline = fit_baseline(frame[splits == "train"], labels[splits == "train"], columns=columns)
    logits = baseline.logits(frame)
    at = calibration_rows(usable, config)  # for several members also what it was fitted on; it has a handful of numbers
    calibrator, point = calibrate(logits[at], labels[at], config, prior_offset=0.0)
    tested = np.flatnonzero(splits == "test").tolist()
    predictions = predictions_of(
        [usable[index].case for index in tested],
        ["test"] * len(tested),
        logits[tested],
        calibrator.apply(logits[tested]),
        (),
        seed=config.seed,
    )
    return compare(name, tuple(columns), test, predictions, point, config)


def compare(
    name: str,
    columns: tuple[str, ...],
    model: Predictions,
    other: Predictions,
    point: OperatingPoint,
    config: Config,
) -> Comparison:
    """Judge another's predictions of the same cases, and how much better the model ranks them."""
    evaluation = evaluate_as_configured(other, point, config)
    return Comparison(name, columns, other, evaluation, _gain(model, other, config))


def _gain(model: Predictions, other: Predictions, config: Config) -> Interval | None:
    try:
        return paired_auroc_difference(
            model.labels,
            model.probabilities,
            other.probabilities,
            model.patients,
            resamples=config.evaluation.resamples,
            rng=np.random.default_rng(config.seed),
        )
    except UndefinedMetricError:
        return None
