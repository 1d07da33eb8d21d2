"""From logits to a judged model: calibrate on one split, choose thresholds there, judge on another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.cases.case import Case
from pipeline.config import Config
from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.baselines import fit_baseline
from pipeline.evaluation.calibration import fit_calibrator
from pipeline.evaluation.calibrator import Calibrator
from pipeline.evaluation.certainty import RATING_COLUMN
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
        columns: what it is fitted on (training split).
        probabilities: its own, calibrated, one a test case, in the order of the predictions.
        evaluation: of its own calibrated probabilities.
        gain: the model's AUROC minus its AUROC, paired, by patient; None where too few patients define it.
    """

    name: str
    columns: tuple[str, ...]
    probabilities: LogitArray
    evaluation: Evaluation
    gain: Interval | None

    def describe(self) -> str:
        """What it is, in a line."""
        return f"logistic regression on {', '.join(self.columns)}"


@dataclass(frozen=True, eq=False)
class Judgement:
    """Everything that is known of a model after training.

    Attributes:
        calibrator: fitted on the calibration split.
        operating_point: chosen on the calibration split.
        predictions: of the validation, calibration and test splits.
        evaluation: of the test split.
        comparisons: baseline first, then the oracle, where configured.
    """

    calibrator: Calibrator
    operating_point: OperatingPoint
    predictions: Predictions
    evaluation: Evaluation
    comparisons: tuple[Comparison, ...]
    prevalence_at_calibration: float


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
        calibrator=calibrator,
        operating_point=point,
        predictions=predictions,
        evaluation=_evaluate(test, point, config),
        comparisons=tuple(
            _compare(name, columns, usable, test, config)
            for name, columns in (
                ("baseline", config.evaluation.baseline_columns),
                ("oracle", config.evaluation.oracle_columns),
            )
            if columns
        ),
        prevalence_at_calibration=float(labels[at].mean()),
    )


def _evaluate(test: Predictions, point: OperatingPoint, config: Config) -> Evaluation:
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
    return Comparison(
        name,
        tuple(columns),
        predictions.probabilities,
        _evaluate(predictions, point, config),
        _gain(test, predictions, config),
    )


def _gain(model: Predictions, other: Predictions, config: Config) -> Interval | None:
    try:
        return paired_auroc_difference(
            model.labels,
            model.logits,
            other.logits,
            model.patients,
            resamples=config.evaluation.resamples,
            rng=np.random.default_rng(config.seed),
        )
    except UndefinedMetricError:
        return None
