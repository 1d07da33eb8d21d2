"""Several readers' ratings of the same cases: how far they agree, and how each does against the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.arrays import FloatArray, IntArray, as_groups
from pipeline.evaluation.intervals import resampling
from pipeline.evaluation.intervals.bootstrap import percentile_interval
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.intervals.resampling import WeightedStatistic

JOINED_COLUMN = "ratings"  # of one column that holds a case's ratings as 5|4|3
_NUMBERED = re.compile(r"(rating|reader)_\d+")
_SEPARATOR = re.compile(r"[|;/]")
MIDDLE = 3.0


@dataclass(frozen=True)
class ReaderColumns:
    """Which columns hold the ratings.

    Attributes:
        names: one a reader; or a single one that holds a case's ratings joined, as ``5|4|3``, by readers who need not
            be the same from case to case.
        middle: the rating that is neither benign nor malignant.
    """

    names: tuple[str, ...]
    middle: float = MIDDLE


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings of cases.

    Attributes:
        values: NaN where a reader did not rate, shape (n, readers).
        readers: names of the columns; empty where ratings are joined and readers unknown.
        middle: the rating that is neither benign nor malignant.
    """

    values: FloatArray
    readers: tuple[str, ...]
    middle: float

    @property
    def counts(self) -> IntArray:
        """Ratings of each case, shape (n,)."""
        return np.asarray(np.isfinite(self.values).sum(axis=1), dtype=np.int64)


def usual_reader_columns(available: Sequence[str]) -> tuple[str, ...]:
    """Columns that hold readers' ratings wherever a table has them: ``rating_1`` and on, else ``ratings``."""
    numbered = tuple(name for name in available if _NUMBERED.fullmatch(str(name)))
    if len(numbered) >= 2:
        return numbered
    return (JOINED_COLUMN,) if JOINED_COLUMN in available else ()


def read_ratings(table: pd.DataFrame, columns: ReaderColumns) -> Ratings:
    """The ratings of a table's rows.

    Raises:
        UsageError: when a column is missing, or a cell is no number.
    """
    missing = [name for name in columns.names if name not in table.columns]
    if missing:
        raise UsageError(f"evaluation.readers: there is no column {missing[0]!r}; correct the names")
    if len(columns.names) == 1:
        cells = [_split(cell) for cell in table[columns.names[0]]]
        width = max([len(cell) for cell in cells] + [1])
        texts = np.array([cell + [""] * (width - len(cell)) for cell in cells], dtype=object).reshape(-1, width)
        readers: tuple[str, ...] = ()
    else:
        texts = table[list(columns.names)].astype(object).where(table[list(columns.names)].notna(), "").to_numpy()
        readers = columns.names
    values = np.full(texts.shape, np.nan)
    for place, text in np.ndenumerate(texts):
        if str(text).strip():
            values[place] = _number(str(text), columns)
    return Ratings(values, readers, columns.middle)


def _split(cell: object) -> list[str]:
    return [] if cell is None or cell != cell else [part for part in _SEPARATOR.split(str(cell)) if part.strip()]


def _number(text: str, columns: ReaderColumns) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(
            f"evaluation.readers: {', '.join(columns.names)}: a cell holds {text[:20]!r}; expected numbers, or numbers "
            "joined by | in a single column"
        )
    return value


def krippendorff_alpha(ratings: FloatArray) -> float:
    """Agreement beyond chance: 1 is perfect, 0 what chance would give; differences count squared (interval metric).

    Args:
        ratings: NaN where a reader did not rate, shape (n, readers).

    Raises:
        UndefinedMetricError: when no case has two ratings, or all ratings are the same.

    Source: Krippendorff, 2011 (Computing Krippendorff's alpha-reliability).
    """
    return _value(_alpha_statistic(ratings), len(ratings), "Krippendorff's alpha")


def single_rating_reliability(ratings: FloatArray) -> float:
    """Share of a rating's variance that is the case's and not the reader's: ICC(1,1), one-way random effects.

    Readers need not be the same from case to case; a reader's constant bias counts as error.

    Args:
        ratings: NaN where a reader did not rate, shape (n, readers).

    Raises:
        UndefinedMetricError: when no case has two ratings, or all ratings are the same.

    Source: Shrout & Fleiss, 1979; unequal numbers of ratings as in Searle et al., 1992 (analysis of variance).
    """
    return _value(_reliability_statistic(ratings), len(ratings), "reliability of a rating")


def agreement_intervals(
    ratings: FloatArray, patients: npt.ArrayLike, *, rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Interval]:
    """``alpha`` and ``reliability`` with percentile intervals by patient bootstrap.

    Raises:
        UndefinedMetricError: when no case has two ratings, or all ratings are the same.
    """
    estimates = {"alpha": krippendorff_alpha(ratings), "reliability": single_rating_reliability(ratings)}
    groups = as_groups(patients, ratings[:, 0])
    statistics = {"alpha": _alpha_statistic(ratings), "reliability": _reliability_statistic(ratings)}
    replicates = resampling.replicates(groups, statistics, resamples=resamples, rng=rng)
    return {name: percentile_interval(name, estimate, replicates[name]) for name, estimate in estimates.items()}


def _value(statistic: WeightedStatistic, cases: int, what: str) -> float:
    value = float(statistic(np.ones((1, cases)))[0])
    if not np.isfinite(value):
        raise UndefinedMetricError(f"{what}: needs cases that two readers rated, and ratings that differ")
    return value


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of each case's ratings: how many, their sum, and the squares about their own mean; each shape (n,)."""

    count: FloatArray
    total: FloatArray
    within: FloatArray

    @classmethod
    def of(cls, ratings: FloatArray) -> _Sums:
        known = np.isfinite(ratings)
        count, total = known.sum(axis=1).astype(np.float64), np.where(known, ratings, 0.0).sum(axis=1)
        mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        return cls(count, total, np.where(known, (ratings - mean[:, None]) ** 2, 0.0).sum(axis=1))


def _alpha_statistic(ratings: FloatArray) -> WeightedStatistic:
    values = np.where((np.isfinite(ratings).sum(axis=1) >= 2)[:, None], ratings, np.nan)
    values = values - np.nanmean(values) if np.isfinite(values).any() else values
    sums = _Sums.of(values)
    pairs = np.divide(
        2.0 * sums.count * sums.within, sums.count - 1.0, out=np.zeros_like(sums.count), where=sums.count > 1
    )
    squares = np.nansum(values**2, axis=1)

    def statistic(weights: FloatArray) -> FloatArray:
        count = weights @ sums.count
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = (weights @ pairs) / count
            expected = 2.0 * (weights @ squares - (weights @ sums.total) ** 2 / count) / (count - 1.0)
            return np.where(expected > 1e-12, 1.0 - observed / expected, np.nan)

    return statistic


def _reliability_statistic(ratings: FloatArray) -> WeightedStatistic:
    sums = _Sums.of(ratings - np.nanmean(ratings) if np.isfinite(ratings).any() else ratings)
    rated = (sums.count > 0).astype(np.float64)
    of_means = np.divide(sums.total**2, sums.count, out=np.zeros_like(sums.total), where=sums.count > 0)

    def statistic(weights: FloatArray) -> FloatArray:
        cases, count = weights @ rated, weights @ sums.count
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (weights @ of_means - (weights @ sums.total) ** 2 / count) / (cases - 1.0)
            within = (weights @ sums.within) / (count - cases)
            size = (count - weights @ sums.count**2 / count) / (cases - 1.0)
            of_cases = (between - within) / size
            return np.where(of_cases + within > 1e-12, of_cases / (of_cases + within), np.nan)

    return statistic
