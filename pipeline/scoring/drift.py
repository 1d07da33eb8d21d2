"""Drift: compare the measures and probabilities of a run with those of the model's training and calibration cases.

The reference is kept in the model directory: deciles of each envelope measure over the training cases, of the
probability over the calibration cases, and of the residual of its log odds given the measures. A run's cases are
counted into the same bins. There is an alert where a difference is significant (after Holm's correction over all tests,
so that a run without a shift has one in at most 1 of 100) and large (``DistributionShift.effect``). Runs below 100
cases are not tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UndefinedMetricError
from pipeline.scoring.given_measures import Expected, fit_expected
from pipeline.scoring.stability import LEAST_PATIENTS, BinShares, DistributionShift, holm, measure_shift

PROBABILITY = "probability"
GIVEN_MEASURES = "_given_measures"
LEAST_CASES = 100
FALSE_ALARMS_A_RUN = 0.01
_BINS = 10
_ROUNDING = 1e-6  # of the largest value, because files store equal measures with rounding
_MISSING = 255  # bin number of a case without the value


@dataclass(frozen=True, eq=False)
class DriftReference:
    """Inner borders between deciles, and the distribution of the reference cases over the bins.

    Attributes:
        edges: increasing, at most ten; fewer where values repeat.
        shares: one more than edges, adding up to 1.
        sample: the same with their cases, patients and covariance; None where an earlier program left them out.
        expected: of the residual of a probability given the measures, its regression; None for others.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    sample: BinShares | None = None
    expected: Expected | None = None


def fit_references(values: Mapping[str, Sequence[float]], patients: Sequence[str]) -> dict[str, DriftReference]:
    """References by name; a name with finite values of fewer than ten patients gets none.

    Args:
        values: by name, one a case.
        patients: of each case.
    """
    references = {}
    for name, numbers in values.items():
        column, known = np.asarray(numbers, dtype=np.float64), np.asarray(patients)
        known, column = known[np.isfinite(column)], column[np.isfinite(column)]
        if np.unique(known).size >= LEAST_PATIENTS:
            edges = _edges(column)
            sample = BinShares.of(_places(edges, column), known, count=edges.size + 1)
            references[name] = DriftReference(tuple(edges.tolist()), tuple(sample.shares.tolist()), sample)
    return references


def _edges(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders between tenths, a rounding error above the values; below the lowest value too where a tenth has it.

    Without that, a measure that is the same in all reference cases would hide every smaller one.
    """
    edges, rounding = np.unique(np.quantile(column, np.arange(1, _BINS) / _BINS)), _ROUNDING * np.abs(column).max()
    lowest = [column.min() - rounding] if edges[0] == column.min() else []
    return np.concatenate([lowest, edges + rounding])


def fit_probability_references(
    name: str, probabilities: Sequence[float], measures: Sequence[Mapping[str, float]], patients: Sequence[str]
) -> dict[str, DriftReference]:
    """References of a probability, and of its residual given the measures.

    Args:
        name: of the column of score rows.
        probabilities: of cases that no network was fitted to, one a case.
        measures: of each case.
        patients: of each case.
    """
    references = fit_references({name: probabilities}, patients)
    if fit := fit_expected(probabilities, measures, patients):
        left = fit_references({name + GIVEN_MEASURES: fit[1].tolist()}, patients)
        references |= {key: replace(reference, expected=fit[0]) for key, reference in left.items()}
    return references


@dataclass(frozen=True)
class Drift:
    """Drift of a run's cases.

    Attributes:
        shifts: by name.
        adjusted: p-values after Holm's correction over all of them.
        alerts: names whose shift is significant and large.
        untested: names without a shift, with the reason.
    """

    shifts: Mapping[str, DistributionShift]
    adjusted: Mapping[str, float]
    alerts: tuple[str, ...]
    untested: Mapping[str, str]

    def sentences(self) -> list[str]:
        """What has changed: the mix of cases, the probabilities given the mix, or both; empty without an alert."""
        mix = [name for name in self.alerts if not name.startswith(PROBABILITY)]
        lines = [f"the mix of cases has changed: {', '.join(map(self._words, mix))}"] if mix else []
        of_scores = [name for name in self.alerts if name.endswith(GIVEN_MEASURES) and name.startswith(PROBABILITY)]
        lines += [
            f"scores have changed given the mix: {self._words(name)}, log odds less what the measures let one expect"
            for name in of_scores
        ]
        for name in self.alerts:
            if name in mix or name in of_scores or name + GIVEN_MEASURES in of_scores:
                continue
            if name + GIVEN_MEASURES not in self.shifts:
                why = "whether the mix explains it is not known, for want of a reference given the measures"
            elif mix:
                why = "no more than the mix explains"
            else:
                why = "no single measure has clearly changed, nor the scores given the measures"
            lines.append(f"the probabilities have changed, {why}: {self._words(name)}")
        return lines

    def _words(self, name: str) -> str:
        shift = self.shifts[name]
        return f"{name} (index {shift.index:.2f}, {shift.effect:.2f} beyond chance, p {_p(self.adjusted[name])})"


class DriftMeter:
    """Counts a run's cases into the references' bins.

    It keeps 8 bytes a case for its patient, and a byte a case and measure.
    """

    def __init__(self, references: Mapping[str, DriftReference]) -> None:
        self._references = references
        self._places: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in references}
        self._patients: list[NDArray[np.int64]] = []
        self._unknown = 0

    @property
    def unknown_patients(self) -> int:
        """Cases without a patient id, each of which counts as a patient of its own."""
        return self._unknown

    def add(self, patients: Sequence[str | None], columns: Mapping[str, Sequence[float | None]]) -> None:
        """Count cases.

        Args:
            patients: of each case; None or blank where unknown.
            columns: measures and probabilities by name, one a case; None where a case has none. Names without a
                reference are passed over.
        """
        known = [patient or None for patient in patients]
        # Each unknown patient gets a number of its own: how many there were before, plus its place.
        owners = [hash(patient or (self._unknown, place)) for place, patient in enumerate(known)]
        self._patients.append(np.array(owners, dtype=np.int64))
        self._unknown += sum(patient is None for patient in known)
        values = {
            name: np.array([np.nan if value is None else value for value in column], dtype=np.float64)
            for name, column in columns.items()
        }
        for name, reference in self._references.items():
            column = values.get(name, np.full(len(known), np.nan))
            if reference.expected is not None and (of := name.removesuffix(GIVEN_MEASURES)) in values:
                column = reference.expected.residuals(values[of], values)
            places = _places(np.array(reference.edges), column)
            places[~np.isfinite(column)] = _MISSING
            self._places[name].append(places.astype(np.uint8))

    def drift(self, *, least_effect: float) -> Drift:
        """Test every name with enough cases.

        Args:
            least_effect: ``DistributionShift.effect`` from which a significant difference is an alert.
        """
        shifts, untested = {}, {}
        patients = np.concatenate(self._patients) if self._patients else np.zeros(0, np.int64)
        for name, reference in sorted(self._references.items()):
            places = np.concatenate(self._places[name]) if self._patients else np.zeros(0, np.uint8)
            has = places != _MISSING
            try:
                shifts[name] = _shift(reference, places[has], patients[has])
            except UndefinedMetricError as error:
                untested[name] = str(error)
        adjusted = holm({name: shift.p_value for name, shift in shifts.items()})
        alerts = tuple(
            name
            for name, shift in shifts.items()
            if adjusted[name] < FALSE_ALARMS_A_RUN and shift.effect >= least_effect
        )
        return Drift(shifts, adjusted, alerts, untested)


def _shift(reference: DriftReference, places: NDArray[np.uint8], patients: NDArray[np.int64]) -> DistributionShift:
    if reference.sample is None:
        raise UndefinedMetricError("the model does not say of how many cases its reference is; train it again")
    if places.size < LEAST_CASES:
        raise UndefinedMetricError(f"{places.size} cases; expected at least {LEAST_CASES}")
    return measure_shift(reference.sample, BinShares.of(places, patients, count=len(reference.shares)))


def references_to_json(references: Mapping[str, DriftReference]) -> dict[str, Any]:
    """Plain JSON values, for ``model.json``: shares and their covariance, and nothing of a single case."""
    return {name: _to_json(reference) for name, reference in sorted(references.items())}


def _to_json(reference: DriftReference) -> Any:
    if reference.sample is None:
        return [list(reference.edges), list(reference.shares)]
    sample = reference.sample
    value: dict[str, Any] = {
        "edges": list(reference.edges),
        "shares": list(reference.shares),
        "cases": sample.cases,
        "patients": sample.patients,
        "covariance": [[float(f"{number:.6g}") for number in row] for row in sample.covariance.tolist()],
    }
    return value if reference.expected is None else value | {"expected": reference.expected.to_json()}


def references_from_json(
    value: Mapping[str, Any], *, patients: Mapping[str, int] | None = None
) -> dict[str, DriftReference]:
    """Read what `references_to_json` wrote, now or before it said of how many cases the shares are.

    Args:
        value: by name.
        patients: by name, from how many patients the reference of an earlier program is; it is then taken for one
            case of each, which is never too many. A name that is not in it has no sample.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: for anything else.
    """
    return {name: _from_json(item, (patients or {}).get(name, 0)) for name, item in value.items()}


def _from_json(value: Any, patients: int) -> DriftReference:
    if not isinstance(value, Mapping):
        edges, shares = value
        of_old = BinShares.of_independent(shares, count=patients) if patients else None
        return DriftReference(tuple(map(float, edges)), tuple(map(float, shares)), of_old)
    shares, covariance = np.array(value["shares"], dtype=np.float64), np.array(value["covariance"], dtype=np.float64)
    edges = tuple(map(float, value["edges"]))
    if shares.shape != (len(edges) + 1,) or covariance.shape != (shares.size, shares.size):
        raise ValueError("shares, edges and covariance of a reference do not fit each other")
    if not (np.isfinite(shares).all() and np.isfinite(covariance).all() and int(value["cases"]) > 0):
        raise ValueError("a reference holds what is no number")
    sample = BinShares(shares, int(value["cases"]), int(value["patients"]), covariance)
    expected = Expected.from_json(value["expected"]) if "expected" in value else None
    return DriftReference(edges, tuple(shares.tolist()), sample, expected)


def _places(edges: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.searchsorted(edges, column, side="left").astype(np.int64)


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
