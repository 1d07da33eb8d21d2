"""How often the intervals of sensitivity and CPM hold the truth, in simulated studies with patients that are alike."""

from __future__ import annotations

import numpy as np
import pytest
from detection_studies import simulated

from pipeline.evaluation.detection.froc import RATES, froc, froc_replicates
from pipeline.evaluation.detection.matching import match_scans
from pipeline.evaluation.intervals.bootstrap import bootstrap_share_interval, percentile_interval


def coverage(*, studies, patients, resamples, spread=1.0, true_patients=20_000):
    """Share of studies whose intervals hold the truth: of Wilson's and of the percentile interval, by statistic."""
    truth = froc(simulated(true_patients, seed=10_000, spread=spread))
    true = {"at 1/8": truth.at([0.125])[0], "at 1": truth.at([1.0])[0], "cpm": truth.cpm}
    held = {name: np.zeros(2) for name in true}
    for study in range(studies):
        matches = match_scans(simulated(patients, seed=study, spread=spread))
        curve = froc(matches)
        drawn = froc_replicates(matches, resamples=resamples, rng=np.random.default_rng(study)).at_rates
        columns = {"at 1/8": (0, 0.125), "at 1": (3, 1.0)}
        values = {name: (curve.at([rate])[0], drawn[:, column]) for name, (column, rate) in columns.items()}
        values["cpm"] = (curve.cpm, drawn.mean(axis=1))
        owners = np.unique(matches.lesion_patients).size
        for name, (estimate, replicates) in values.items():
            wilson = bootstrap_share_interval(name, estimate, replicates, cases=len(matches.lesions), patients=owners)
            percentile = percentile_interval(name, estimate, replicates)
            held[name] += [wilson.contains(true[name]), percentile.contains(true[name])]
    assert len(RATES) == drawn.shape[1]
    return {name: tuple(count / studies) for name, count in held.items()}


@pytest.mark.slow
def test_froc_intervals_hold_the_truth_in_most_studies():
    found = coverage(studies=200, patients=60, resamples=200)
    print(found)
    # With 200 studies a true 95 % shows as 91 % or more in all but one run of 200 a statistic.
    assert all(wilson >= 0.905 for wilson, _ in found.values())


@pytest.mark.campaign
@pytest.mark.parametrize("patients", [20, 40, 100])
@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_froc_intervals_hold_the_truth_in_93_to_98_percent_of_studies(patients, spread):
    found = coverage(studies=1000, patients=patients, resamples=500, spread=spread)
    print(f"\n{patients} patients, spread {spread}: (Wilson, percentile) {found}")
    assert all(0.916 <= wilson <= 0.99 for wilson, _ in found.values())
