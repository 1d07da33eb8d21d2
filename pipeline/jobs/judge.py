"""From logits to a judged model: calibrate on one split, choose thresholds there, judge on another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.config import Config
from pipeline.errors import CalibrationError, UndefinedMetricError, UsageError
from pipeline.evaluation.baselines import fit_baseline
from pipeline.evaluation.calibration import fit_calibrator
from pipeline.evaluation.calibrator import Calibrator
from pipeline.evaluation.certainty import RATING_COLUMN
from pipeline.evaluation.conformal import ReferZone, fit_refer_zone
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals import Interval, paired_auroc_difference
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


def describe_calibrators(calibrators: Sequence[Calibrator]) -> str:
    """What was fitted, in a few words; one a network."""
    return "; ".join(dict.fromkeys(calibrator.describe() for calibrator in calibrators))


@dataclass(frozen=True, eq=False)
class Judgement:
    """Everything that is known of a model after training.

    Attributes:
        calibrators: fitted on the calibration split; one a network.
        operating_point: chosen on the calibration split.
        predictions: of the validation, calibration and test splits.
        evaluation: of the test split.
        comparisons: baseline first, then the oracle, where configured.
        prevalence_at_calibration: share of malignant cases in the calibration split.
        refer_zone: fitted on the calibration split, where configured.
        fold_aurocs: within each fold, when every case was judged by the network of its fold.
    """

    calibrators: tuple[Calibrator, ...]
    operating_point: OperatingPoint
    predictions: Predictions
    evaluation: Evaluation
    comparisons: tuple[Comparison, ...]
    prevalence_at_calibration: float
    refer_zone: ReferZone | None = None
    fold_aurocs: tuple[float, ...] = ()


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
    """Fit the calibrator and choose the operating point, both on the calibration split."""
    settings = config.calibration
    offset = prior_offset if settings.prior_correction else 0.0
    calibrator = fit_calibrator(settings.method, logits, labels, prior_offset=offset)
    rule = config.operating_point
    point = choose_operating_point(
        labels, calibrator.apply(logits), rule=rule.rule, target=rule.target, cost_ratio=rule.cost_ratio
    )
    return calibrator, point


def predictions_of(
    cases: Sequence[Case],
    splits: Sequence[str],
    logits: LogitArray,
    probabilities: LogitArray,
    columns: Sequence[str],
    *,
    seed: int,
) -> Predictions:
    """The waist of the design: one row a case, with the columns that subgroups and baselines need."""
    frame = pd.DataFrame(
        {
            "case_id": [case.case_id for case in cases],
            "patient_id": [case.patient_id for case in cases],
            "split": list(splits),
            "seed": seed,
            "label": [case.label for case in cases],
            "logit": logits,
            "probability": probabilities,
        }
    )
    return Predictions.from_frame(pd.concat([frame, extra_frame(cases, columns)], axis=1))


def used_columns(config: Config, *, available: Collection[str] = ()) -> list[str]:
    """Extra columns that evaluation uses, each once: the configured ones, and the usual ones that there are."""
    settings = config.evaluation
    usual = [name for name in (*SUBGROUP_COLUMNS, RATING_COLUMN) if name in available]
    return list(dict.fromkeys([*settings.baseline_columns, *settings.oracle_columns, *settings.subgroups, *usual]))


def judge(usable: Sequence[Usable], logits: LogitArray, config: Config, *, prior_offset: float) -> Judgement:
    """Calibrate, choose thresholds, judge, and compare with regressions on the same cases.

    Args:
        usable: cases of the validation, calibration and test splits; training cases only feed the comparisons.
        logits: (N,) of ``usable``; NaN for training cases, which nothing here looks at.
        config: the experiment.
        prior_offset: what class balancing added to the logits.
    """
    splits = np.array([each.split for each in usable])
    labels = np.array([each.case.label for each in usable])
    at = splits == "calibration"
    calibrator, point = calibrate(logits[at], labels[at], config, prior_offset=prior_offset)
    held_out = np.flatnonzero(splits != "train").tolist()
    predictions = predictions_of(
        [usable[index].case for index in held_out],
        [usable[index].split for index in held_out],
        logits[held_out],
        calibrator.apply(logits[held_out]),
        used_columns(config, available=usable[0].case.extra),
        seed=config.seed,
    )
    test = predictions.where(split="test")
    return Judgement(
        calibrators=(calibrator,),
        operating_point=point,
        predictions=predictions,
        evaluation=evaluate_as_configured(test, point, config),
        comparisons=tuple(
            _compare(name, columns, usable, test, config)
            for name, columns in (
                ("baseline", config.evaluation.baseline_columns),
                ("oracle", config.evaluation.oracle_columns),
            )
            if columns
        ),
        prevalence_at_calibration=float(labels[at].mean()),
        refer_zone=refer_zone(labels[at], calibrator.apply(logits[at]), config),
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
    calibrator, point = calibrate(
        logits[splits == "calibration"], labels[splits == "calibration"], config, prior_offset=0.0
    )
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
