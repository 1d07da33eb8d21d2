"""How often drift is an alert without a shift and with one; the tables are in docs/results/simulations.md."""

import numpy as np
import pytest
from drift_studies import draw_cases, drift_of, fit_to
from scipy import stats

from pipeline.scoring.stability import BinShares, measure_shift

GIVEN = "probability_given_measures"
REFERENCES = {"200 + 100": (200, 100, 2), "2,000 + 1,000": (2000, 1000, 1)}
SHIFTS = ({}, {"mix": 0.2}, {"mix": 0.4}, {"mix": 0.8}, {"scores": 0.2}, {"scores": 0.4}, {"scores": 0.8})


def rates(seed, reference, patients, cases, *, runs, curve=0.0, **shift):
    """Shares of runs with any alert, with one of the mix, and with one of the scores given the mix."""
    rng, counts = np.random.default_rng(seed), np.zeros(3)
    for _ in range(runs):
        training, calibration, each = reference
        references = fit_to(rng, training, calibration, cases=each, curve=curve)
        ids, columns = draw_cases(rng, patients, cases, curve=curve, **shift)
        alerts = drift_of(references, ids, columns).alerts
        counts += [bool(alerts), any(name.startswith("measure") for name in alerts), GIVEN in alerts]
    return counts / runs


def test_few_patients_of_several_cases_each_are_no_alert():
    assert rates(0, (200, 100, 2), 34, 3, runs=40)[0] <= 0.05


def test_shift_of_the_mix_is_an_alert_of_the_mix_alone():
    found, mix, scores = rates(1, (200, 100, 2), 300, 3, runs=10, mix=0.8)
    assert (found, mix, scores) == (1.0, 1.0, 0.0)


def test_shift_of_the_scores_is_an_alert_of_the_scores_alone():
    found, mix, scores = rates(2, (200, 100, 2), 300, 3, runs=10, scores=0.8)
    assert (found, mix, scores) == (1.0, 0.0, 1.0)


def test_hundred_thousand_cases_shifted_by_two_fifths_of_a_standard_deviation_are_an_alert():
    assert rates(3, (2000, 1000, 1), 100_000, 1, runs=1, mix=0.4)[:2].tolist() == [1.0, 1.0]


def false_alarms(rng, patients, cases, *, runs):
    """Shares of runs with p below 0.01, by the index and by Pearson's statistic, both over the design effect."""
    below = np.zeros(2)
    for _ in range(runs):
        samples = []
        for count, each in ((200, 1), (patients, cases)):
            of_patient = np.repeat(rng.normal(size=count), each)
            samples.append(np.sqrt(0.5) * (of_patient + rng.normal(size=count * each)))
        edges = np.quantile(samples[0], np.arange(1, 10) / 10)
        parts = [
            BinShares.of(np.searchsorted(edges, values), np.repeat(np.arange(count), each), count=10)
            for values, (count, each) in zip(samples, ((200, 1), (patients, cases)), strict=True)
        ]
        found = measure_shift(*parts)
        by_chance = found.index - found.effect if found.effect > 0 else None
        ratio = found.statistic if by_chance is None else found.index / by_chance
        below += [stats.f.sf(ratio, *found.degrees) < 0.01, found.p_value < 0.01]
    return below / runs


@pytest.mark.campaign
def test_campaign_of_the_index_against_pearsons_statistic():
    print("\n| cases | index | Pearson |\n|---|---|---|")
    rng = np.random.default_rng(0)
    for patients, cases in ((34, 3), (100, 1), (300, 3)):
        index, pearson = false_alarms(rng, patients, cases, runs=4000)
        print(f"| {patients} x {cases} | {index:.3f} | {pearson:.3f} |", flush=True)
        assert pearson < 0.01 + 3 * np.sqrt(0.01 * 0.99 / 4000)


@pytest.mark.campaign
def test_campaign_of_alerts_by_patients_and_shift():
    print("\n| reference patients | cases | none | mix 0.2 | 0.4 | 0.8 | scores 0.2 | 0.4 | 0.8 |")
    print("|---|---|---|---|---|---|---|---|---|")
    wrong = []
    for title, reference in REFERENCES.items():
        for patients, cases in ((34, 3), (100, 1), (300, 3), (2000, 1), (100_000, 1)):
            cells = []
            for number, shift in enumerate(SHIFTS):
                runs = (400 if not shift else 60) if patients < 100_000 else (40 if not shift else 10)
                found, mix, scores = rates(number, reference, patients, cases, runs=runs, **shift)
                if not shift:
                    cells.append(f"{found:.3f}")
                    wrong.append((found, runs))
                elif "mix" in shift:
                    cells.append(f"{mix:.2f} ({scores:.2f})")
                    wrong.append((scores, runs))
                else:
                    cells.append(f"{scores:.2f} ({mix:.2f})")
                    wrong.append((mix, runs))
            print(f"| {title} | {patients:,} x {cases} | " + " | ".join(cells) + " |", flush=True)
    print("\n| scores bend with the first measure by | mix 0.4 | 0.8 |\n|---|---|---|")
    for curve in (0.1, 0.2, 0.4):
        cells = [f"{rates(9, (2000, 1000, 1), 2000, 1, runs=40, curve=curve, mix=mix)[2]:.2f}" for mix in (0.4, 0.8)]
        print(f"| {curve} | " + " | ".join(cells) + " |", flush=True)
    assert all(share <= 0.01 + 3 * np.sqrt(0.01 * 0.99 / runs) for share, runs in wrong)
