"""Judge a detector on searched scans: every statistic with its interval. Nothing is fitted to the scans judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import BoolArray
from pipeline.evaluation.detection.froc import RATES, FrocCurve, FrocReplicates, froc, froc_replicates
from pipeline.evaluation.detection.localisation import localisation_intervals
from pipeline.evaluation.detection.matching import CandidateOutcome, Matches, match_scans
from pipeline.evaluation.detection.probabilities import ProbabilityJudgement, candidate_labels, judge_probabilities
from pipeline.evaluation.detection.searched_scan import SearchedScan
from pipeline.evaluation.evaluate import attempt, settle
from pipeline.evaluation.intervals.bootstrap import bootstrap_share_interval
from pipeline.evaluation.intervals.interval import Band, Interval
from pipeline.evaluation.subgroups import FEWEST_PATIENTS, MISSING

DIAMETER_EDGES_MM = (6.0, 8.0, 15.0)  # of the Fleischner Society (6 and 8) and Lung-RADS (15)
DIAMETER_GROUP = "diameter_mm"


@dataclass(frozen=True)
class LesionGroup:
    """Lesions that share a diameter class or another property; false positives are those of all scans.

    Attributes:
        name: of the property, as ``diameter_mm`` or ``texture``.
        value: that the lesions share, as ``6 to 8`` or ``solid``.
        n_lesions: lesions in it.
        n_patients: patients they come from.
        intervals: ``sensitivity_at_…`` and ``cpm``; empty where there are too few patients.
        too_few: why there are no intervals, in words; None where there are some.
    """

    name: str
    value: str
    n_lesions: int
    n_patients: int
    intervals: Mapping[str, Interval]
    too_few: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {name: getattr(self, name) for name in ("name", "value", "n_lesions", "n_patients", "too_few")}
        return plain | {"intervals": {name: interval.to_json() for name, interval in self.intervals.items()}}


@dataclass(frozen=True)
class DetectionEvaluation:
    """Result of ``evaluate_detection``.

    Attributes:
        n_scans: scans judged, with and without lesions.
        n_patients: patients they come from.
        n_lesions: lesions that count.
        n_ignored_lesions: lesions that are neither to be found nor a mistake to find.
        candidates_by_outcome: candidates that are ``hit``, ``duplicate``, ``ignored`` and ``false positive``.
        curve: FROC of all lesions.
        band: the curve at 1/16 to 16 false positives a scan with pointwise limits over patients; None where these are
            undefined.
        intervals: ``sensitivity_at_0.125`` to ``sensitivity_at_8``, ``cpm``, ``localisation_median_mm``,
            ``localisation_p90_mm``, ``diameter_error_median_mm``: those that the scans define.
        undefined: the others, with the reason.
        groups: lesions by diameter class, then by each of their groups.
        candidates: calibration of the candidates' probabilities; None where that is undefined.
    """

    n_scans: int
    n_patients: int
    n_lesions: int
    n_ignored_lesions: int
    candidates_by_outcome: Mapping[str, int]
    curve: FrocCurve
    band: Band | None
    intervals: Mapping[str, Interval]
    undefined: Mapping[str, str]
    groups: tuple[LesionGroup, ...]
    candidates: ProbabilityJudgement | None

    def __getitem__(self, name: str) -> Interval:
        """A statistic with its interval.

        Raises:
            UndefinedMetricError: with the reason, when the scans do not define it.
        """
        if name not in self.intervals:
            raise UndefinedMetricError(self.undefined.get(name, f"{name}: is not a statistic of a detector"))
        return self.intervals[name]

    @property
    def counts(self) -> str:
        """Who was judged, as ``40 patients, 52 scans, 61 lesions``."""
        return f"{self.n_patients} patients, {self.n_scans} scans, {self.n_lesions} lesions"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **{name: getattr(self, name) for name in ("n_scans", "n_patients", "n_lesions", "n_ignored_lesions")},
            "candidates_by_outcome": dict(self.candidates_by_outcome),
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "undefined": dict(self.undefined),
            "groups": [group.to_json() for group in self.groups],
            "candidate_probabilities": None if self.candidates is None else self.candidates.to_json(),
            "froc": None
            if self.band is None
            else {
                "false_positives_per_scan": self.band.x.tolist(),
                "sensitivity": self.band.y.tolist(),
                "lower": self.band.lower.tolist(),
                "upper": self.band.upper.tolist(),
            },
        }

    def metrics(self, prefix: str = "test_") -> dict[str, float]:
        """Flat numbers for a tracking store, as ``test_cpm``, ``test_cpm_lower``; undefined ones are left out."""
        flat: dict[str, float] = {
            name: getattr(self, name) for name in ("n_scans", "n_patients", "n_lesions", "n_ignored_lesions")
        }
        flat["false_positives"] = self.candidates_by_outcome["false positive"]
        intervals = dict(self.intervals)
        if self.candidates is not None:
            intervals |= {f"candidates_{name}": interval for name, interval in self.candidates.intervals.items()}
        for name, interval in intervals.items():
            flat |= {name: interval.estimate, f"{name}_lower": interval.lower, f"{name}_upper": interval.upper}
        return {f"{prefix}{name}": float(value) for name, value in flat.items()}


def sensitivity_name(rate: float) -> str:
    """Name of the sensitivity at a rate of false positives a scan, as ``sensitivity_at_0.125``."""
    return f"sensitivity_at_{rate:g}"


def evaluate_detection(
    scans: Sequence[SearchedScan] | Matches,
    *,
    resamples: int = 2000,
    seed: int = 0,
    diameter_edges_mm: Sequence[float] = DIAMETER_EDGES_MM,
) -> DetectionEvaluation:
    """Judge a detector on searched scans.

    Args:
        scans: those that could be searched, each once, with all their lesions and candidates, or their matches.
        resamples: patient-level bootstrap samples.
        seed: of the bootstrap.
        diameter_edges_mm: that part the lesions by diameter; a class holds its lower edge.

    Raises:
        UsageError: without scans, or when two share an id.
        UndefinedMetricError: when no lesion counts. Other statistics that the scans do not define are listed in
            ``undefined``.
    """
    matches = scans if isinstance(scans, Matches) else match_scans(scans)
    curve = froc(matches)
    froc_rng, place_rng, curve_rng = (np.random.default_rng([seed, stream]) for stream in range(3))
    replicates = froc_replicates(matches, resamples=resamples, rng=froc_rng)
    everyone = np.ones(len(matches.lesions), dtype=bool)
    statistics = _froc_statistics(matches, everyone, curve, replicates)
    statistics |= localisation_intervals(matches, resamples=min(resamples, 1000), rng=place_rng)
    intervals, undefined = settle(statistics)
    judged, no_candidates = attempt(
        lambda: judge_probabilities(candidate_labels(matches), rng=curve_rng, event="in a lesion")
    )
    return DetectionEvaluation(
        n_scans=len(matches.scans),
        n_patients=matches.patients,
        n_lesions=len(matches.lesions),
        n_ignored_lesions=sum(lesion.ignore for scan in matches.scans for lesion in scan.scan.lesions),
        candidates_by_outcome={outcome: matches.count(outcome) for outcome in get_args(CandidateOutcome)},
        curve=curve,
        band=_band(matches, curve, replicates),
        intervals=intervals,
        undefined=undefined if no_candidates is None else {**undefined, "candidates": no_candidates},
        groups=tuple(
            _judge_group(matches, name, value, members, resamples=resamples, seed=seed)
            for name, value, members in lesion_groups(matches, diameter_edges_mm)
        ),
        candidates=judged,
    )


def _froc_statistics(
    matches: Matches, among: BoolArray, curve: FrocCurve, replicates: FrocReplicates
) -> dict[str, Callable[[], Interval]]:
    """Sensitivity at each rate and their mean under their names, computed when called."""
    cases, patients = int(among.sum()), int(np.unique(matches.lesion_patients[among]).size)
    columns = {
        sensitivity_name(rate): (float(curve.at([rate])[0]), replicates.at_rates[:, number])
        for number, rate in enumerate(RATES)
    }
    columns["cpm"] = (curve.cpm, replicates.at_rates.mean(axis=1))
    return {
        name: partial(bootstrap_share_interval, name, estimate, values, cases=cases, patients=patients)
        for name, (estimate, values) in columns.items()
    }


def _band(matches: Matches, curve: FrocCurve, replicates: FrocReplicates) -> Band | None:
    patients = int(np.unique(matches.lesion_patients).size)
    estimates = curve.at(replicates.band_rates)
    try:
        intervals = [
            bootstrap_share_interval("FROC", float(estimate), values, cases=len(matches.lesions), patients=patients)
            for estimate, values in zip(estimates, replicates.at_band.T, strict=True)
        ]
    except UndefinedMetricError:  # the same reason as that of the mean sensitivity, which is listed
        return None
    lower, upper = (np.array([getattr(interval, end) for interval in intervals]) for end in ("lower", "upper"))
    return Band(replicates.band_rates, estimates, lower, upper)


def lesion_groups(matches: Matches, diameter_edges_mm: Sequence[float]) -> list[tuple[str, str, BoolArray]]:
    """Name, value and members, shape (lesions,), of each diameter class and group that has lesions, in order."""
    lesions = [match.lesion for match in matches.lesions]
    diameters = np.array([np.nan if lesion.diameter_mm is None else lesion.diameter_mm for lesion in lesions])
    groups: list[tuple[str, str, BoolArray]] = []
    for low, high in pairwise((0.0, *diameter_edges_mm, np.inf)):
        words = f"below {high:g}" if low == 0.0 else f"{low:g} and above" if high == np.inf else f"{low:g} to {high:g}"
        groups.append((DIAMETER_GROUP, words, (diameters >= low) & (diameters < high)))
    groups.append((DIAMETER_GROUP, MISSING, np.isnan(diameters)))
    for name in dict.fromkeys(name for lesion in lesions for name in lesion.groups):
        values = np.array([lesion.groups.get(name) or MISSING for lesion in lesions], dtype=np.str_)
        groups += [(name, str(value), values == value) for value in np.unique(values)]
    return [group for group in groups if group[2].any()]


def _judge_group(
    matches: Matches, name: str, value: str, members: BoolArray, *, resamples: int, seed: int
) -> LesionGroup:
    patients = int(np.unique(matches.lesion_patients[members]).size)
    if patients < FEWEST_PATIENTS:
        reason = f"too few patients to say: {patients}, at least {FEWEST_PATIENTS} needed"
        return LesionGroup(name, value, int(members.sum()), patients, {}, reason)
    rng = np.random.default_rng([seed, 3])
    replicates = froc_replicates(matches, resamples=min(resamples, 1000), rng=rng, among=members)
    intervals, _ = settle(_froc_statistics(matches, members, froc(matches, among=members), replicates))
    return LesionGroup(name, value, int(members.sum()), patients, intervals)
