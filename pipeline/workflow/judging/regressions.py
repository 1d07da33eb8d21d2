"""Regressions to compare the model with: on columns of the manifest, and on simple measures of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.experiment import Config, EvaluationSettings
from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.baselines import fit_baseline, on_scale
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.intervals.bootstrap import paired_auroc_difference
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation
from pipeline.imaging.image_measures import MEASURES, image_measures
from pipeline.workflow.cohort import Usable, extra_frame
from pipeline.workflow.judging.calibrate import calibrate, calibration_rows, evaluate_as_configured, predictions_of


@dataclass(frozen=True, eq=False)
class Comparison:
    """A regression on table columns beside the model, on the same test cases.

    Attributes:
        name: as printed.
        columns: what a regression is fitted on (training split), as ``log diameter_mm`` for a logarithm.
        predictions: its own, calibrated, of the same cases in the same order.
        evaluation: of its own calibrated probabilities.
        gain: the model's AUROC minus its AUROC, paired, by patient; None where too few patients define it.
    """

    name: str
    columns: tuple[str, ...]
    predictions: Predictions
    evaluation: Evaluation
    gain: Interval | None

    @property
    def read(self) -> str:
        """Its columns, as shown."""
        return f"{len(MEASURES)} measures of the image" if self.columns == MEASURES else ", ".join(self.columns)

    def describe(self) -> str:
        """What it is, in a line."""
        return f"logistic regression on {self.read}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        gain = None if self.gain is None else self.gain.to_json()
        return {"is": self.describe(), "evaluation": self.evaluation.to_json(), "gain": gain}


def comparisons(usable: Sequence[Usable], test: Predictions, config: Config) -> tuple[Comparison, ...]:
    """Every regression that is asked for, judged on the model's test cases.

    Args:
        usable: cases of all splits.
        test: the model's predictions of the first finding on the test split.
        config: the experiment.
    """
    return tuple(
        _compare(name, columns, table, usable, test, config) for name, columns, table in _regressions(usable, config)
    )


def require_regressions(usable: Sequence[Usable], config: Config) -> None:
    """Fit the regressions on columns once before anything is trained, so that a column of text is not found after it.

    Raises:
        UsageError: naming the column.
    """
    training = [case for case in usable if case.split == "train"]
    labels = np.array([case.case.label for case in training])
    for name, columns, table in _regressions(
        training, config.model_copy(update={"evaluation": _columns_alone(config)})
    ):
        try:
            fit_baseline(table, labels, columns=columns, log_columns=_log_columns(config))
        except UsageError as error:
            raise UsageError(f"evaluation.{name}_columns: {error}") from None


def _columns_alone(config: Config) -> EvaluationSettings:
    return config.evaluation.model_copy(update={"image_baseline": False})


def _log_columns(config: Config) -> list[str]:
    """Covariates that the model uses the logarithm of: a regression beside it gets them on the same scale."""
    return [name for name, scale in config.data.covariates.items() if scale == "log"]


def _regressions(usable: Sequence[Usable], config: Config) -> Iterator[tuple[str, tuple[str, ...], pd.DataFrame]]:
    """Name, columns and table of each regression that is asked for beside the model."""
    settings = config.evaluation
    for name, columns in (("baseline", settings.baseline_columns), ("oracle", settings.oracle_columns)):
        if columns:
            yield name, columns, extra_frame([prepared.case for prepared in usable], columns)
    if settings.image_baseline:
        spacing = config.preprocessing.spacing_mm or (1.0,) * config.preprocessing.dimensions  # else in voxels
        measures = [image_measures(prepared.input.voxels, spacing) for prepared in usable]
        yield "image_baseline", MEASURES, pd.DataFrame(measures)


def _compare(
    name: str,
    columns: tuple[str, ...],
    frame: pd.DataFrame,
    usable: Sequence[Usable],
    test: Predictions,
    config: Config,
) -> Comparison:
    """Fit a regression on the training split, calibrate it as the model was, judge it on the test split."""
    splits = np.array([prepared.split for prepared in usable])
    labels = np.array([prepared.case.label for prepared in usable])
    baseline = fit_baseline(
        frame[splits == "train"], labels[splits == "train"], columns=columns, log_columns=_log_columns(config)
    )
    logits = baseline.logits(frame)
    rows = calibration_rows(usable)  # for several members it was fitted on them too; it has few parameters
    fit, point = calibrate(logits[rows], labels[rows], config, prior_offset=0.0)
    tested = np.flatnonzero(splits == "test").tolist()
    predictions = predictions_of(
        [usable[index].case for index in tested],
        ["test"] * len(tested),
        logits[tested],
        fit.calibrator.apply(logits[tested]),
        (),
        seed=config.seed,
    )
    return compare_with_regression(name, on_scale(columns, _log_columns(config)), test, predictions, point, config)


def compare_with_regression(
    name: str,
    columns: tuple[str, ...],
    model: Predictions,
    other: Predictions,
    point: OperatingPoint,
    config: Config,
) -> Comparison:
    """Evaluate another model's predictions of the same cases, and the model's gain in AUROC.

    Raises:
        ValueError: when the two are not of the same cases in the same order, which a paired difference rests on.
    """
    if not np.array_equal(model.case_ids, other.case_ids):
        raise ValueError(f"{name}: its predictions are not of the model's cases in the same order")
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
