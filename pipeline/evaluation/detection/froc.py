"""FROC: sensitivity against false positives a scan, over all thresholds, and the mean sensitivity of LUNA16 (CPM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray
from pipeline.evaluation.detection.matching import Matches, match_scans
from pipeline.evaluation.detection.searched_scan import SearchedScan
from pipeline.evaluation.intervals.resampling import patient_weights

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives a scan, of LUNA16
_BAND_RATES = np.geomspace(1.0 / 16.0, 16.0, 65)


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """Sensitivity against false positives a scan, one point a threshold, from the highest threshold on.

    Attributes:
        thresholds: distinct probabilities, falling; the first is infinite, where nothing is called, shape (k,).
        false_positives: a scan, rising from 0, shape (k,).
        sensitivity: share of the lesions that are hit, rising from 0, shape (k,).
        n_scans: scans over which false positives are counted.
        n_lesions: lesions that count.
    """

    thresholds: FloatArray
    false_positives: FloatArray
    sensitivity: FloatArray
    n_scans: int
    n_lesions: int

    def at(self, rates: Sequence[float] | FloatArray) -> FloatArray:
        """Sensitivity at rates of false positives a scan, shape as ``rates``.

        Between two thresholds it is interpolated linearly; beyond the last candidate it stays as it is.
        """
        return np.interp(np.asarray(rates, dtype=np.float64), self.false_positives, self.sensitivity)

    @property
    def cpm(self) -> float:
        """Competition performance metric: mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a scan."""
        return float(self.at(RATES).mean())


def froc(scans: Sequence[SearchedScan] | Matches, *, among: BoolArray | None = None) -> FrocCurve:
    """The FROC curve of all scans together.

    Args:
        scans: searched scans, those without lesions or candidates among them, or their matches.
        among: which of the lesions of the matches count, shape (lesions,); default all. Candidates in the others are
            left out, so that a threshold has the same false positives whichever lesions are looked at.

    Raises:
        UsageError: without scans, or when two share an id.
        UndefinedMetricError: when no lesion counts.

    Source: Setio et al., 2017 (LUNA16); Niemeijer et al., 2011 (the mean).

    Example:
        >>> from pipeline.evaluation.detection.searched_scan import ScoredPoint, TrueLesion
        >>> lesion = TrueLesion((0.0, 0.0, 0.0), 8.0)
        >>> candidates = (ScoredPoint((1.0, 0.0, 0.0), 0.9, 7.0), ScoredPoint((50.0, 0.0, 0.0), 0.4, 5.0))
        >>> froc([SearchedScan("scan", "patient", (lesion,), candidates)]).cpm
        1.0
    """
    matches = scans if isinstance(scans, Matches) else match_scans(scans)
    events = _Events.of(matches, among)
    false_positives, sensitivity = events.curves(np.ones((1, matches.patients)))
    return FrocCurve(
        thresholds=np.r_[np.inf, events.thresholds],
        false_positives=false_positives[0],
        sensitivity=sensitivity[0],
        n_scans=len(matches.scans),
        n_lesions=events.lesion_patients.size,
    )


@dataclass(frozen=True, eq=False)
class FrocReplicates:
    """Sensitivity on resamples of the patients; NaN where one has no lesion.

    Attributes:
        at_rates: at the seven rates of LUNA16, shape (resamples, 7).
        band_rates: false positives a scan of the band, shape (k,).
        at_band: sensitivity there, shape (resamples, k).
    """

    at_rates: FloatArray
    band_rates: FloatArray
    at_band: FloatArray


def froc_replicates(
    matches: Matches, *, resamples: int, rng: np.random.Generator, among: BoolArray | None = None
) -> FrocReplicates:
    """Resample the patients, with all their scans, lesions and candidates.

    Args:
        matches: of all scans.
        resamples: bootstrap samples.
        rng: source of the draws.
        among: as of `froc`.

    Raises:
        UndefinedMetricError: when no lesion counts.
    """
    events = _Events.of(matches, among)
    rates = np.r_[RATES, _BAND_RATES]
    rows = []
    patients = np.arange(matches.patients)
    for weights in patient_weights(patients, resamples=resamples, rng=rng):
        for few in np.array_split(weights, max(1, weights.shape[0] * events.patients.size // 2_000_000)):
            curves = zip(*events.curves(few), strict=True)
            rows += [np.interp(rates, false_positives, sensitivity) for false_positives, sensitivity in curves]
    values = np.asarray(rows)
    return FrocReplicates(values[:, : len(RATES)], _BAND_RATES, values[:, len(RATES) :])


@dataclass(frozen=True, eq=False)
class _Events:
    """Hits and false positives together, in order of falling probability.

    Attributes:
        patients: of each event, shape (n,).
        is_hit: 1 for a hit, 0 for a false positive, shape (n,).
        ends: last position of each group of equal probability, shape (k,).
        thresholds: those probabilities, shape (k,).
        scan_patients: as of `Matches`.
        lesion_patients: of the lesions that count.
    """

    patients: IntArray
    is_hit: FloatArray
    ends: IntArray
    thresholds: FloatArray
    scan_patients: IntArray
    lesion_patients: IntArray

    @classmethod
    def of(cls, matches: Matches, among: BoolArray | None = None) -> _Events:
        counted = np.ones(len(matches.lesions), dtype=bool) if among is None else among
        if not counted.any():
            raise UndefinedMetricError(
                f"FROC: none of the lesions of {len(matches.scans)} scans counts, so sensitivity is undefined; "
                "give scans with lesions"
            )
        hit = counted & np.isfinite(matches.hit_probabilities)
        probabilities = np.r_[matches.hit_probabilities[hit], matches.false_positives]
        patients = np.r_[matches.lesion_patients[hit], matches.false_positive_patients]
        is_hit = np.r_[np.ones(int(hit.sum())), np.zeros(matches.false_positives.size)]
        falling = np.argsort(-probabilities, kind="stable")
        ordered = probabilities[falling]
        ends = np.flatnonzero(np.r_[np.diff(ordered) < 0.0, True]) if ordered.size else np.zeros(0, dtype=np.int64)
        return cls(
            patients=patients[falling],
            is_hit=is_hit[falling],
            ends=ends,
            thresholds=ordered[ends],
            scan_patients=matches.scan_patients,
            lesion_patients=matches.lesion_patients[counted],
        )

    def curves(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """False positives a scan and sensitivity, each (r, k + 1), for weights of the patients (r, patients)."""
        of_events = weights[:, self.patients]
        hits = np.cumsum(of_events * self.is_hit, axis=1)[:, self.ends]
        false_positives = np.cumsum(of_events * (1.0 - self.is_hit), axis=1)[:, self.ends]
        scans = weights[:, self.scan_patients].sum(axis=1, keepdims=True)
        lesions = weights[:, self.lesion_patients].sum(axis=1, keepdims=True)
        sensitivity = np.divide(hits, lesions, out=np.full_like(hits, np.nan), where=lesions > 0.0)
        start = np.where(lesions > 0.0, 0.0, np.nan)
        return (
            np.hstack([np.zeros((len(weights), 1)), false_positives / scans]),
            np.hstack([start, sensitivity]),
        )
