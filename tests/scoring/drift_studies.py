"""Simulated cases with measures and probabilities, some of one patient: what drift is tried on."""

from __future__ import annotations

import numpy as np

from pipeline.scoring.drift import DriftMeter, fit_probability_references, fit_references

MEASURES = 12
ALIKE = 0.5  # correlation of a measure, or of what the scores add, between two cases of one patient


def draw_cases(rng, patients, cases, *, mix=0.0, scores=0.0, curve=0.0):
    """Measures (standard normal, correlated 0.7 in threes), and probabilities that follow the first of them.

    Args:
        rng: random numbers.
        patients: how many.
        cases: of each.
        mix: standard deviations that the first measure is shifted by.
        scores: standard deviations (of all log odds) that the log odds are shifted by, given the measures.
        curve: weight of the first measure's square in the log odds.

    Returns:
        Patients' ids and columns by name.
    """

    def alike(columns):
        of_patient = rng.normal(size=(patients, 1, columns))
        own = rng.normal(size=(patients, cases, columns))
        return (np.sqrt(ALIKE) * of_patient + np.sqrt(1 - ALIKE) * own).reshape(-1, columns)

    common = np.repeat(alike(MEASURES // 3), 3, axis=1)
    values = np.sqrt(0.7) * common + np.sqrt(0.3) * alike(MEASURES)
    values[:, 0] += mix
    odds = 0.8 * values[:, 0] + 0.6 * alike(1)[:, 0] + scores + curve * (values[:, 0] ** 2 - 1)
    columns = {f"measure_{number}": values[:, number] for number in range(MEASURES)}
    ids = np.repeat([f"patient {number}" for number in range(patients)], cases).tolist()
    return ids, columns | {"probability": 1 / (1 + np.exp(-odds))}


def fit_to(rng, training, calibration, *, cases=1, curve=0.0):
    """References of so many training and calibration patients with so many cases each."""
    patients, columns = draw_cases(rng, training, cases, curve=curve)
    columns.pop("probability")
    found = fit_references(columns, patients)
    patients, columns = draw_cases(rng, calibration, cases, curve=curve)
    probabilities = columns.pop("probability")
    measures = [dict(zip(columns, case, strict=True)) for case in zip(*columns.values(), strict=True)]
    return found | fit_probability_references("probability", probabilities.tolist(), measures, patients)


def drift_of(references, patients, columns, *, least_effect=0.1):
    """What the meter says of the cases, given in two batches that divide a patient."""
    meter, half = DriftMeter(references), len(patients) // 2
    for part in (slice(None, half), slice(half, None)):
        meter.add(patients[part], {name: values[part] for name, values in columns.items()})
    return meter.drift(least_effect=least_effect)
