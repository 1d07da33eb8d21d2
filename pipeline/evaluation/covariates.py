"""What is known of a case beside its image, as a lesion's diameter: a linear term on the network's logit.

The term is fitted where the calibrator is, on cases that the network has not seen, so that it weighs the image as what
it is worth on new cases. What comes out is a logit again, which is calibrated and judged as a network's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat

from pipeline.config_inputs import Scale, Section
from pipeline.errors import CalibrationError
from pipeline.evaluation.arrays import FloatArray


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
    """What columns add to the logits of a network's findings, as plain numbers; without columns nothing.

    Attributes:
        columns: in the order in which values are given.
    """

    columns: Mapping[str, Covariate] = field(default_factory=dict)

    def logits(self, values: FloatArray) -> FloatArray:
        """What is added to the logits, (N, F), or (N, 1) without columns; 0 for a case at all means.

        Args:
            values: (N, K) in the columns' own units, above 0 where the scale is log.
        """
        added = np.zeros((len(values), 1))
        for value, column in zip(values.T, self.columns.values(), strict=True):
            standard = (_on_scale(value, column.scale) - column.mean) / column.deviation
            added = added + standard[:, None] * np.array(column.weights)
        return added

    def describe(self) -> list[str]:
        """One line a column, as ``log diameter_mm: +0.81 logits a standard deviation``, of the first finding."""
        return [
            f"{'log ' if column.scale == 'log' else ''}{name}: {column.weights[0]:+.3g} logits a standard deviation"
            for name, column in self.columns.items()
        ]


def fit_covariate_term(
    logits: FloatArray, labels: FloatArray, values: FloatArray, scales: Mapping[str, Scale]
) -> CovariateTerm:
    """Fit a logistic regression of each finding on the logit and the columns, and express it beside the logit.

    All are standardised and the penalty is light (C = 1). With slope ``b`` of the logit and ``c`` of a column, a
    column's weight is ``c / b``; slope and intercept are left to the calibrator.

    Args:
        logits: (N, F) of calibration cases, by networks that have not seen them.
        labels: (N, F), 0, 1, or NaN where a finding is unknown.
        values: (N, K) in the columns' own units.
        scales: K columns, and the scale that each is used on.

    Raises:
        CalibrationError: when a column does not vary, or beside it the logit does not rank malignant above benign.
    """
    if not scales:
        return CovariateTerm()
    from sklearn.linear_model import LogisticRegression

    known = np.stack([_on_scale(value, scale) for value, scale in zip(values.T, scales.values(), strict=True)], axis=1)
    means, deviations = known.mean(axis=0), known.std(axis=0)
    for name, deviation in zip(scales, deviations, strict=True):
        if not deviation > 0:
            raise CalibrationError(
                f"covariates: {name!r} is the same in all {len(known)} calibration cases; leave it out"
            )
    weights = []
    for finding, (column, truth) in enumerate(zip(logits.T, labels.T, strict=True), start=1):
        at = np.isfinite(truth)
        spread = float(column[at].std()) or 1.0
        joined = np.column_stack([(column[at] - column[at].mean()) / spread, (known[at] - means) / deviations])
        slope, *others = LogisticRegression(max_iter=1000).fit(joined, truth[at].astype(np.int64)).coef_[0]
        if slope <= 0:
            raise CalibrationError(
                f"covariates: beside {', '.join(scales)} the logit of finding {finding} does not rank malignant above "
                f"benign on {int(at.sum())} calibration cases; train longer, or set data.covariates to {{}}"
            )
        weights.append([float(other) / float(slope) * spread for other in others])
    return CovariateTerm(
        {
            name: Covariate(scale=scale, mean=float(mean), deviation=float(deviation), weights=of_column)
            for (name, scale), mean, deviation, of_column in zip(
                scales.items(), means, deviations, zip(*weights, strict=True), strict=True
            )
        }
    )


def _on_scale(values: FloatArray, scale: Scale) -> FloatArray:
    return np.log(values) if scale == "log" else values
