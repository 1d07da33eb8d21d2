"""How far from a lesion's centre its hit lies, and how well its diameter is estimated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import FloatArray, IntArray
from pipeline.evaluation.detection.matching import Matches
from pipeline.evaluation.intervals.bootstrap import percentile_interval
from pipeline.evaluation.intervals.interval import Interval


def localisation_intervals(
    matches: Matches, *, resamples: int, rng: np.random.Generator
) -> dict[str, Callable[[], Interval]]:
    """Error of hits in mm, as functions to call by name, each with its interval over patients.

    ``localisation_median_mm`` and ``localisation_p90_mm``: distance of the hit from the lesion's centre.
    ``diameter_error_median_mm``: absolute error of the hit's diameter, where the lesion's is known. Missed lesions have
    none of these, so a detector that misses the difficult ones has smaller errors.

    Args:
        matches: of all scans.
        resamples: bootstrap samples.
        rng: source of the draws.
    """
    hit = np.isfinite(matches.distances_mm)
    distances, patients = matches.distances_mm[hit], matches.lesion_patients[hit]
    errors = diameter_errors_mm(matches)
    sized = np.isfinite(errors)
    return {
        "localisation_median_mm": lambda: _quantile_interval(distances, patients, 0.5, resamples, rng),
        "localisation_p90_mm": lambda: _quantile_interval(distances, patients, 0.9, resamples, rng),
        "diameter_error_median_mm": lambda: _quantile_interval(
            np.abs(errors[sized]), matches.lesion_patients[sized], 0.5, resamples, rng
        ),
    }


def diameter_errors_mm(matches: Matches) -> FloatArray:
    """Diameter of the hit less that of the lesion, mm; NaN where missed or unknown, shape (lesions,)."""
    lesions = ((scan, match) for scan in matches.scans for match in scan.lesions)
    return np.array(
        [
            np.nan
            if match.candidate is None or match.lesion.diameter_mm is None
            else scan.scan.candidates[match.candidate].diameter_mm - match.lesion.diameter_mm
            for scan, match in lesions
        ],
        dtype=np.float64,
    )


def _quantile_interval(
    values: FloatArray, patients: IntArray, share: float, resamples: int, rng: np.random.Generator
) -> Interval:
    """Quantile of a value a hit, with the percentile interval of the patient bootstrap."""
    ids = np.unique(patients)
    if ids.size < 2:
        raise UndefinedMetricError(f"localisation: hits in {ids.size} patients; expected at least 2")
    parts = [values[patients == patient] for patient in ids]
    drawn = rng.integers(0, ids.size, size=(resamples, ids.size))
    replicates = np.array([np.quantile(np.concatenate([parts[patient] for patient in row]), share) for row in drawn])
    return percentile_interval("localisation", float(np.quantile(values, share)), replicates)
