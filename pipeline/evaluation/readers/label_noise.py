"""Largest AUROC that can be reached where the label is the opinion of a few readers.

A rating is taken as the case's own value, which the readers would agree on if all of them rated it, plus an error of
each reader: both normal, errors independent and alike. The label says on which side of the middle the mean of a case's
readers lies. Even a score that is the case's own value ranks such labels imperfectly, and by how much follows from the
reliability of one rating alone. An error that all readers share is not part of it: this is the ceiling against
readers' labels, not against the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray, FloatArray
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.readers.agreement import Ratings

_GRID = np.linspace(-8.0, 8.0, 4001)
_SPLITS = 50  # random halves of each case's readers


@dataclass(frozen=True)
class Panel:
    """How many readers make the label, and how many the score, in a share of the cases.

    Attributes:
        labelling: readers whose mean is the label.
        scoring: other readers whose mean is the score; None is the case's own value, or all readers that there are.
        share: of the cases.
    """

    labelling: int
    scoring: int | None
    share: float


def auroc_against_readers(reliability: float, panels: Sequence[Panel], *, malignant: float, benign: float) -> float:
    """AUROC that a score has against labels by readers.

    Args:
        reliability: of one rating (ICC), in (0, 1).
        panels: shares that add up to 1.
        malignant: share of cases whose readers' mean lies above the middle.
        benign: share whose mean lies below; with ``malignant`` at most 1, the rest being indeterminate and left out.

    Raises:
        UndefinedMetricError: when a number is not in its range.
    """
    if not 0.0 < reliability < 1.0 or min(malignant, benign) <= 0.0 or malignant + benign > 1.0 + 1e-9:
        raise UndefinedMetricError(
            f"ceiling: reliability {reliability:.3f} with {malignant:.3f} malignant and {benign:.3f} benign cases; "
            "expected a reliability between 0 and 1, and cases of both classes"
        )
    shares = np.array([panel.share for panel in panels])
    noise = 1.0 - reliability
    of_labels = np.array([reliability + noise / panel.labelling for panel in panels])
    of_scores = np.array([reliability + (noise / panel.scoring if panel.scoring else 0.0) for panel in panels])

    def quantile(probability: float) -> float:
        """Value below which the mean of a case's readers lies with a probability, over all panels."""
        if probability >= 1.0 - 1e-12:
            return 50.0
        return float(
            optimize.brentq(
                lambda value: shares @ stats.norm.cdf(value / np.sqrt(of_labels)) - probability, -50.0, 50.0
            )
        )

    upper, lower = quantile(1.0 - malignant), quantile(min(benign, 1.0 - malignant))
    positive, negative = np.zeros_like(_GRID), np.zeros_like(_GRID)
    for share, of_label, of_score in zip(shares, of_labels, of_scores, strict=True):
        density = share * stats.norm.pdf(_GRID, scale=np.sqrt(of_score))
        # Mean of the labelling readers where the score is known.
        mean = reliability / of_score * _GRID
        spread = np.sqrt(max(of_label - reliability**2 / of_score, 1e-15))
        positive += density * stats.norm.sf((upper - mean) / spread)
        negative += density * stats.norm.cdf((lower - mean) / spread)
    below = np.cumsum(negative) - negative / 2.0
    return float((positive @ below) / (positive.sum() * negative.sum()))


def readers_of(ratings: Ratings, *, least: int = 1) -> list[tuple[int, float]]:
    """How many readers rated, and the share of cases that so many rated; cases of fewer than ``least`` left out."""
    numbers, cases = np.unique(ratings.counts[ratings.counts >= least], return_counts=True)
    return [(int(number), float(count / cases.sum())) for number, count in zip(numbers, cases, strict=True)]


def ceiling(ratings: Ratings, reliability: float) -> float:
    """AUROC of a case's own value against the labels that its readers' mean gives.

    Args:
        ratings: of the judged cases.
        reliability: of one rating.

    Raises:
        UndefinedMetricError: when the readers' means give one class only, or the reliability is not between 0 and 1.
    """
    means = means_of(ratings.values)
    malignant, benign = (float(side[np.isfinite(means)].mean()) for side in sides_of(means, ratings.middle))
    panels = [Panel(number, None, share) for number, share in readers_of(ratings)]
    return auroc_against_readers(reliability, panels, malignant=malignant, benign=benign)


@dataclass(frozen=True)
class HalfPanels:
    """Half of each case's readers against the label of the other half.

    Attributes:
        observed: AUROC, mean over random halves.
        expected: AUROC that the model of readers predicts.
        cases: with at least two readers.
    """

    observed: float
    expected: float
    cases: int


def half_panels(ratings: Ratings, reliability: float, *, rng: np.random.Generator) -> HalfPanels:
    """Evaluate half of each case's readers against the other half, beside what the model of readers predicts.

    The label is the mean of the smaller half; cases in which it is the middle are left out, as for the label itself.

    Raises:
        UndefinedMetricError: when no halves give both classes.
    """
    several = ratings.values[ratings.counts >= 2]
    labelling = np.isfinite(several).sum(axis=1) // 2  # readers of the label's half
    aurocs, shares = [], []
    for _ in range(_SPLITS):
        order = np.where(np.isfinite(several), rng.random(several.shape), np.inf).argsort(axis=1)
        place = order.argsort(axis=1)
        labels_from = place < labelling[:, None]
        means, scores = (
            means_of(np.where(labels_from, several, np.nan)),
            means_of(np.where(labels_from, np.nan, several)),
        )
        malignant, benign = sides_of(means, ratings.middle)
        if malignant.any() and benign.any():
            known = malignant | benign
            aurocs.append(auroc(malignant[known].astype(int), scores[known]))
            shares.append((malignant.mean(), benign.mean()))
    if not aurocs:
        raise UndefinedMetricError("half of the readers against the others: no halves give both classes")
    malignant_share, benign_share = np.mean(shares, axis=0)
    panels = [Panel(number // 2, number - number // 2, share) for number, share in readers_of(ratings, least=2)]
    expected = auroc_against_readers(reliability, panels, malignant=float(malignant_share), benign=float(benign_share))
    return HalfPanels(float(np.mean(aurocs)), expected, len(several))


def means_of(values: FloatArray) -> FloatArray:
    """Mean rating of each case, NaN where nobody rated, shape (n,)."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0))


def sides_of(means: FloatArray, middle: float) -> tuple[BoolArray, BoolArray]:
    """Which cases lie above and which below the middle; NaN and the middle itself are neither."""
    return means > middle, means < middle
