"""Baseline: logistic regression on a few columns, as lesion diameter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import UsageError
from pipeline.evaluation.arrays import FloatArray, as_labels, require_both_classes


@dataclass(frozen=True)
class Baseline:
    """A fitted logistic regression as plain numbers.

    Attributes:
        columns: numeric columns it reads.
        log_columns: those of them that it uses the logarithm of; the other numbers are on that scale.
        medians: put in where a value is missing, one a column.
        means: subtracted, one a column.
        scales: divided by, one a column.
        coefficients: of the standardised columns.
        intercept: log odds at the means.
    """

    columns: tuple[str, ...]
    medians: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    log_columns: tuple[str, ...] = ()

    def logits(self, frame: pd.DataFrame) -> FloatArray:
        """Log odds of malignancy, shape (n,).

        Raises:
            UsageError: when a column is missing or holds text, or a value has no logarithm where one is used.
        """
        values = _matrix(frame, self.columns, self.log_columns)
        filled = np.where(np.isnan(values), np.asarray(self.medians), values)
        standard = (filled - np.asarray(self.means)) / np.asarray(self.scales)
        return np.asarray(standard @ np.asarray(self.coefficients) + self.intercept, dtype=np.float64)


def on_scale(columns: Sequence[str], log_columns: Collection[str]) -> tuple[str, ...]:
    """Columns for people, as ``log diameter_mm`` for one whose logarithm is used."""
    return tuple(f"log {name}" if name in log_columns else name for name in columns)


def fit_baseline(
    frame: pd.DataFrame, labels: npt.ArrayLike, columns: Sequence[str], *, log_columns: Collection[str] = ()
) -> Baseline:
    """Fit on training cases: missing values become the median, columns are standardised, the penalty is light (C = 1).

    Args:
        frame: one row a case.
        labels: 0 or 1, shape (n,).
        columns: numeric columns of ``frame``.
        log_columns: columns to use the logarithm of, as the model does; names not among ``columns`` do nothing.

    Raises:
        UsageError: without columns, with one class, or when a column is missing, holds text or holds no number, or a
            value has no logarithm where one is used.
    """
    from sklearn.linear_model import LogisticRegression

    if not columns:
        raise UsageError("baseline: no columns; expected at least one numeric column, as diameter_mm")
    truth = as_labels(labels, error=UsageError)
    require_both_classes(truth, what="baseline", error=UsageError)
    logs = tuple(name for name in columns if name in log_columns)
    values = _matrix(frame, columns, logs)
    if len(values) != truth.size:
        raise UsageError(f"baseline: {len(values)} rows for {truth.size} labels; expected one label a row")
    empty = np.isnan(values).all(axis=0)
    if empty.any():
        raise UsageError(
            f"baseline: column {columns[int(np.argmax(empty))]!r} holds no number; fill it in or leave it out"
        )
    medians = np.nanmedian(values, axis=0)
    filled = np.where(np.isnan(values), medians, values)
    means, scales = filled.mean(axis=0), filled.std(axis=0)
    scales = np.where(scales > 0.0, scales, 1.0)
    model = LogisticRegression(max_iter=1000).fit((filled - means) / scales, truth)
    numbers = (tuple(float(value) for value in row) for row in (medians, means, scales, model.coef_[0]))
    median, mean, scale, coefficient = numbers
    return Baseline(tuple(columns), median, mean, scale, coefficient, float(model.intercept_[0]), logs)


def _matrix(frame: pd.DataFrame, columns: Sequence[str], log_columns: Collection[str]) -> FloatArray:
    """The columns as numbers on the scale they are used on, shape (n, columns); NaN where missing."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UsageError(
            f"baseline: there is no column {missing[0]!r}; expected {', '.join(columns)}; correct the names"
        )
    parts = []
    for name in columns:
        try:
            parts.append(pd.to_numeric(frame[name]).to_numpy(dtype=np.float64, na_value=np.nan))
        except (TypeError, ValueError) as error:
            raise UsageError(f"baseline: column {name!r} is not numeric ({error}); leave it out") from None
    values = np.column_stack(parts)
    if np.isinf(values).any():
        raise UsageError(f"baseline: a value of {', '.join(columns)} is infinite; expected finite numbers; correct it")
    for number, name in enumerate(columns):
        if name in log_columns:
            if (values[:, number] <= 0.0).any():
                raise UsageError(
                    f"baseline: column {name!r} holds {np.nanmin(values[:, number]):g}, which has no logarithm; "
                    "expected numbers above 0; correct it, or use scale linear"
                )
            values[:, number] = np.log(values[:, number])
    return values
