"""Judged cases beside the ratings of several readers: agreement, each reader against the others, and the ceiling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray, as_groups
from pipeline.evaluation.intervals import resampling
from pipeline.evaluation.intervals.bootstrap import auroc_interval, percentile_interval
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.intervals.paired_difference import paired_auroc
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.agreement import Ratings, ReaderColumns, agreement_intervals, read_ratings
from pipeline.evaluation.readers.label_noise import HalfPanels, ceiling, half_panels, means_of, sides_of

_LABEL_AGREES = 0.99  # share of labels that must be the readers' mean, for a ceiling to be computed


@dataclass(frozen=True)
class ReaderResult:
    """One reader and the model, both against the other readers' consensus, on the cases that the reader rated.

    Attributes:
        name: of the column.
        n_cases: cases with a consensus.
        reader: AUROC of the reader's ratings; None where undefined.
        model: AUROC of the model.
        gain: the model's less the reader's, paired.
    """

    name: str
    n_cases: int
    reader: Interval
    model: Interval
    gain: Interval


@dataclass(frozen=True)
class ReadersEvaluation:
    """Results from several readers' ratings.

    Attributes:
        n_cases: judged cases with a rating.
        n_ratings: ratings of them.
        alpha: Krippendorff's, interval metric.
        reliability: of one rating, ICC(1,1).
        readers: each against the others' consensus; empty where readers are not named.
        mean_reader: AUROC of a reader against the others' consensus, mean over readers (or places of a joined column).
        mean_model: the model's on the same cases, likewise.
        mean_gain: the second less the first.
        ceiling: AUROC of a score that is each case's own value against the labels; its limits follow from those of the
            reliability. None where the labels are not these readers'.
        halves: half of the readers against the other half, observed and expected by the same model of readers.
        missing: reasons, by name.
    """

    n_cases: int
    n_ratings: int
    alpha: Interval
    reliability: Interval
    readers: tuple[ReaderResult, ...]
    mean_reader: Interval | None
    mean_model: Interval | None
    mean_gain: Interval | None
    ceiling: Interval | None
    halves: HalfPanels | None
    missing: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def evaluate_readers(
    predictions: Predictions, columns: ReaderColumns, *, resamples: int = 1000, seed: int = 0
) -> ReadersEvaluation:
    """Judge agreement, readers and ceiling on judged cases.

    Args:
        predictions: one row a case, with probabilities; agreement counts unlabelled rows too.
        columns: that hold the ratings.
        resamples: patient-level bootstrap samples.
        seed: of the bootstraps.

    Raises:
        UsageError: when a cell is no number.
        UndefinedMetricError: when no case has two ratings, or all ratings are the same.
    """
    ratings, patients = read_ratings(predictions.extra, columns), predictions.patients
    streams = [np.random.default_rng([seed, stream]) for stream in (0, 1, 2)]
    agreement = agreement_intervals(ratings.values, patients, rng=streams[0], resamples=resamples)
    missing: dict[str, str] = {}
    results = []
    for number, name in enumerate(ratings.readers):
        try:
            results.append(_one_reader(name, number, ratings, predictions))
        except UndefinedMetricError as error:
            missing[name] = str(error)
    means: dict[str, Interval] = {}
    try:
        means = _mean_over_readers(ratings, predictions, rng=streams[1], resamples=resamples)
    except UndefinedMetricError as error:
        missing["a reader against the others"] = str(error)
    limit, halves = None, None
    try:
        _require_labels_of_readers(predictions, ratings)
        limit = _ceiling_interval(ratings, agreement["reliability"])
        halves = half_panels(ratings, _inside(agreement["reliability"].estimate), rng=streams[2])
    except UndefinedMetricError as error:
        missing["ceiling"] = str(error)
    return ReadersEvaluation(
        n_cases=int((ratings.counts > 0).sum()),
        n_ratings=int(ratings.counts.sum()),
        alpha=agreement["alpha"],
        reliability=agreement["reliability"],
        readers=tuple(results),
        mean_reader=means.get("reader"),
        mean_model=means.get("model"),
        mean_gain=means.get("gain"),
        ceiling=limit,
        halves=halves,
        missing=missing,
    )


@dataclass(frozen=True, eq=False)
class _Against:
    """A reader's cases with a consensus of the others.

    Attributes:
        cases: which they are, shape (n,).
        labels: the consensus, 0 or 1, shape (cases,).
        scores: the reader's ratings, shape (cases,).
    """

    cases: BoolArray
    labels: IntArray
    scores: FloatArray


def _against_others(ratings: Ratings, reader: int) -> _Against:
    """The reader at a place, and the others' mean above or below the middle; where it is the middle, no consensus."""
    others = np.delete(ratings.values, reader, axis=1)
    malignant, benign = sides_of(means_of(others), ratings.middle)
    cases = np.isfinite(ratings.values[:, reader]) & (malignant | benign)
    return _Against(cases, malignant[cases].astype(np.int64), ratings.values[cases, reader])


def _one_reader(name: str, reader: int, ratings: Ratings, predictions: Predictions) -> ReaderResult:
    against = _against_others(ratings, reader)
    scores, patients = predictions.probabilities[against.cases], predictions.patients[against.cases]
    if not against.labels.size:
        raise UndefinedMetricError(f"{name}: no case that this reader and others rated")
    return ReaderResult(
        name=name,
        n_cases=int(against.labels.size),
        reader=auroc_interval(against.labels, against.scores, patients),
        model=auroc_interval(against.labels, scores, patients),
        gain=paired_auroc(against.labels, scores, against.scores, patients).interval(),
    )


def _mean_over_readers(
    ratings: Ratings, predictions: Predictions, *, rng: np.random.Generator, resamples: int
) -> dict[str, Interval]:
    """``reader``, ``model`` and ``gain``: mean AUROC over readers, by patient bootstrap; the readers stay the same."""
    groups = as_groups(predictions.patients, predictions.logits)
    pairs = []
    for reader_number in range(ratings.values.shape[1]):
        against = _against_others(ratings, reader_number)
        if against.labels.size and 0 < against.labels.sum() < against.labels.size:
            both = [
                resampling.auroc_statistic(resampling.Ranking.of(against.labels, scores))
                for scores in (against.scores, predictions.probabilities[against.cases])
            ]
            pairs.append((against.cases, both))
    if not pairs:
        raise UndefinedMetricError("no reader has cases of both classes by the others' consensus")

    def mean_of(which: int) -> Callable[[FloatArray], FloatArray]:
        def statistic(weights: FloatArray) -> FloatArray:
            return np.asarray(np.mean([both[which](weights[:, cases]) for cases, both in pairs], axis=0))

        return statistic

    reader, model = mean_of(0), mean_of(1)

    def gain(weights: FloatArray) -> FloatArray:
        return model(weights) - reader(weights)

    statistics = {"reader": reader, "model": model, "gain": gain}
    replicates = resampling.replicates(groups, statistics, resamples=resamples, rng=rng)
    everyone = np.ones((1, len(predictions)))
    return {
        name: percentile_interval(f"mean over readers, {name}", float(statistic(everyone)[0]), replicates[name])
        for name, statistic in statistics.items()
    }


def _require_labels_of_readers(predictions: Predictions, ratings: Ratings) -> None:
    labelled = predictions.frame["label"].notna().to_numpy()
    malignant, benign = sides_of(means_of(ratings.values), ratings.middle)
    known = labelled & (malignant | benign)
    labels = predictions.frame["label"].to_numpy(dtype=np.float64, na_value=np.nan)
    agrees = float((labels[known] == malignant[known]).mean()) if known.any() else 0.0
    if agrees < _LABEL_AGREES:
        raise UndefinedMetricError(
            f"ceiling: the readers' mean gives {100 * agrees:.0f} % of the labels (by the side of {ratings.middle:g}); "
            "a ceiling is for labels that are these readers' own"
        )


def _ceiling_interval(ratings: Ratings, reliability: Interval) -> Interval:
    """The ceiling rises with the reliability, so that its limits are those of the reliability's."""
    if reliability.estimate <= 0.0:
        raise UndefinedMetricError("ceiling: readers agree no more than by chance, so there is nothing to predict")
    lower, estimate, upper = (
        ceiling(ratings, _inside(value)) for value in (reliability.lower, reliability.estimate, reliability.upper)
    )
    return Interval(estimate, lower, upper, method="from the reliability's limits")


def _inside(reliability: float) -> float:
    return min(max(reliability, 1e-3), 1.0 - 1e-6)
