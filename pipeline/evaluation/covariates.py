"""Covariates of a case, as a lesion's diameter: a linear term added to the network's logit.

Like the calibrator, the term is fitted on cases that the network has not seen, so that the image gets the weight that
it deserves on new cases. The sum is a logit again, which is calibrated and judged like a network's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat

from pipeline.config.inputs import Scale, Section
from pipeline.errors import UsageError
from pipeline.evaluation.arrays import FloatArray

_LEAST_SLOPE = 0.1  # log odds of one standard deviation of the network's logit


class Covariate(Section):
    """One column's part of the term, as it stands in ``model.json``.

    Attributes:
        scale: on which the column is linear in the logit.
        mean: of the calibration cases, on that scale.
        deviation: their standard deviation, on that scale.
        weights: logits of each finding for one standard deviation more.
    """

    scale: Scale
    mean: FiniteFloat
    deviation: Annotated[FiniteFloat, Field(gt=0)]
    weights: tuple[FiniteFloat, ...]


@dataclass(frozen=True)
class CovariateTerm:
    """Term that columns add to the logits of a network's findings, as plain numbers; 0 without columns.

    Attributes:
        columns: in the order in which values are given.
    """

    columns: Mapping[str, Covariate] = field(default_factory=dict)

    def logits(self, values: FloatArray) -> FloatArray:
        """Term added to the logits, (N, F), or (N, 1) without columns; 0 for a case whose values are the means.

        Args:
            values: (N, K) in the columns' own units, above 0 where the scale is log.
        """
        added = np.zeros((len(values), 1))
        for value, column in zip(values.T, self.columns.values(), strict=True):
            standard = (_on_scale(value, column.scale) - column.mean) / column.deviation
            added = added + standard[:, None] * np.array(column.weights)
        return added

    def describe(self) -> list[str]:
        """A few words a column, as ``log diameter_mm +0.81/SD``: the first finding's logits a standard deviation."""
        return [
            f"{'log ' if column.scale == 'log' else ''}{name} {column.weights[0]:+.3g}/SD"
            for name, column in self.columns.items()
        ]


def fit_covariate_term(
    logits: FloatArray, labels: FloatArray, values: FloatArray, scales: Mapping[str, Scale]
) -> CovariateTerm:
    """Fit a logistic regression of each finding on the logit and the columns, and express it beside the logit.

    All are standardised and the penalty is light (C = 1). With slope ``b`` of the logit and ``c`` of a column, a
    column's weight is ``c / b``; slope and intercept are left to the calibrator. ``b`` is at least 0.1, so that where
    the network adds nothing to the columns they decide the ranking and the logit keeps its sign.

    Args:
        logits: (N, F) of calibration cases, by networks that have not seen them.
        labels: (N, F), 0, 1, or NaN where a finding is unknown.
        values: (N, K) in the columns' own units.
        scales: K columns, and the scale that each is used on.

    Raises:
        UsageError: when a column does not vary.
    """
    if not scales:
        return CovariateTerm()
    require_covariates_vary(values, scales)
    known = np.stack([_on_scale(value, scale) for value, scale in zip(values.T, scales.values(), strict=True)], axis=1)
    means, deviations = known.mean(axis=0), known.std(axis=0)
    weights = []
    for column, truth in zip(logits.T, labels.T, strict=True):
        labelled = np.isfinite(truth)
        spread = float(column[labelled].std()) or 1.0
        joined = np.column_stack(
            [(column[labelled] - column[labelled].mean()) / spread, (known[labelled] - means) / deviations]
        )
        slope, *column_slopes = _fit_slopes(joined, truth[labelled])
        weights.append([weight / slope * spread for weight in column_slopes])
    return CovariateTerm(
        {
            name: Covariate(scale=scale, mean=float(mean), deviation=float(deviation), weights=of_column)
            for (name, scale), mean, deviation, of_column in zip(
                scales.items(), means, deviations, zip(*weights, strict=True), strict=True
            )
        }
    )


def require_covariates_vary(values: FloatArray, scales: Mapping[str, Scale]) -> None:
    """Check, before anything is trained, that each column varies over the calibration cases.

    Args:
        values: (N, K) of the calibration cases, in the columns' own units.
        scales: K columns, and the scale that each is used on.

    Raises:
        UsageError: naming the column.
    """
    for name, value in zip(scales, values.T, strict=True):
        if not np.ptp(value) > 1e-9 * np.abs(value).max():
            raise UsageError(
                f"data.covariates: {name!r} is {value[0]:g} in all {len(value)} calibration cases; leave it out"
            )


def _fit_slopes(columns: FloatArray, truth: FloatArray) -> list[float]:
    """Slopes of a logistic regression with C = 1 and a free intercept; the first at least ``_LEAST_SLOPE``."""
    from scipy import special
    from scipy.optimize import minimize

    design, signs = np.column_stack([columns, np.ones(len(columns))]), 2 * truth - 1

    def loss(slopes: FloatArray) -> tuple[float, FloatArray]:
        margins = signs * (design @ slopes)
        penalised = np.append(slopes[:-1], 0.0)
        gradient = penalised - design.T @ (signs * special.expit(-margins))
        return float(np.logaddexp(0, -margins).sum() + penalised @ penalised / 2), gradient

    bounds = [(_LEAST_SLOPE, None), *[(None, None)] * (design.shape[1] - 1)]
    begin = np.append(1.0, np.zeros(design.shape[1] - 1))
    solution = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-8})
    return [float(slope) for slope in solution.x[:-1]]


def _on_scale(values: FloatArray, scale: Scale) -> FloatArray:
    return np.log(values) if scale == "log" else values
