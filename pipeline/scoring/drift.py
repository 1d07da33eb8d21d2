"""Whether tonight's cases look like those that the model was made with: population stability indices.

The reference is kept in the model directory: deciles of each envelope measure over the training cases, and of the
probability over the calibration cases. A run's cases are counted into the same ten bins. An index below 0.1 is usually
read as stable and above 0.25 as shifted; on few cases chance alone gives more, so none is computed below 100 cases.

Source: Siddiqi, Credit Risk Scorecards, 2006; Yurdakul & Naranjo, 2020, for the role of the number of cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROBABILITY = "probability"
LEAST_CASES = 100
_BINS = 10


@dataclass(frozen=True)
class Reference:
    """Where the inner borders between tenths lie, and the share of the reference cases in each bin.

    Attributes:
        edges: increasing, at most nine; fewer where values repeat.
        shares: one more than edges, adding up to 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]


def fit_references(values: Mapping[str, Sequence[float]]) -> dict[str, Reference]:
    """References by name; a name with fewer than ten finite values gets none."""
    found = {}
    for name, numbers in values.items():
        column = np.asarray(numbers, dtype=np.float64)
        column = column[np.isfinite(column)]
        if column.size >= _BINS:
            edges = np.unique(np.quantile(column, np.arange(1, _BINS) / _BINS))
            found[name] = Reference(tuple(edges.tolist()), tuple((_counts(edges, column) / column.size).tolist()))
    return found


class DriftMeter:
    """Counts a run's cases into the references' bins; memory does not grow with their number."""

    def __init__(self, references: Mapping[str, Reference]) -> None:
        self._references = references
        self.counts = {name: np.zeros(len(each.shares)) for name, each in references.items()}

    def add(self, name: str, values: Iterable[float | None]) -> None:
        """Count values of one measure; None and names without a reference are passed over."""
        if name in self._references:
            column = np.array([value for value in values if value is not None], dtype=np.float64)
            self.counts[name] += _counts(np.array(self._references[name].edges), column)

    def indices(self) -> dict[str, float]:
        """Population stability index by name; names with fewer than 100 cases are absent."""
        return {
            name: stability_index(np.array(self._references[name].shares), counts)
            for name, counts in sorted(self.counts.items())
            if counts.sum() >= LEAST_CASES
        }


def stability_index(expected: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Sum over bins of (observed - expected) x ln(observed / expected) of the shares.

    Args:
        expected: shares of the reference, shape (bins,).
        counts: cases in each bin, shape (bins,); half a case stands in for none, so that the index stays finite.
    """
    observed = np.maximum(counts, 0.5) / counts.sum()
    expected = np.maximum(expected, 0.5 / max(counts.sum(), LEAST_CASES))
    return float(np.sum((observed - expected) * np.log(observed / expected)))


def references_to_json(references: Mapping[str, Reference]) -> dict[str, Any]:
    """Plain JSON values, for ``model.json``."""
    return {name: [list(each.edges), list(each.shares)] for name, each in sorted(references.items())}


def references_from_json(value: Mapping[str, Any]) -> dict[str, Reference]:
    """Read what `references_to_json` wrote."""
    return {
        name: Reference(tuple(map(float, edges)), tuple(map(float, shares))) for name, (edges, shares) in value.items()
    }


def _counts(edges: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(np.searchsorted(edges, column, side="left"), minlength=edges.size + 1).astype(np.float64)
