"""Labels drawn a patient at a time, and the null of the calibration errors that they make."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.calibration import error as calibration_error
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.logistic import fit_recalibration
from pipeline.evaluation.intervals.patient_labels import PatientLabels

WHO = np.repeat(np.arange(40), 3)


def study(rng, *, patients=56, cases=3, within=0.7):
    """Perfectly calibrated probabilities; a patient's cases have alike probabilities and alike residuals."""
    who = np.repeat(np.arange(patients), cases)

    def alike():
        own = rng.normal(size=who.size)
        return np.sqrt(within) * rng.normal(size=patients)[who] + np.sqrt(1 - within) * own

    probabilities = sigmoid(2.0 * alike())
    return (stats.norm.cdf(alike()) < probabilities).astype(int), probabilities, who


def test_likeness_is_the_slow_sum_over_pairs():
    labels, probabilities, who = study(np.random.default_rng(1))
    fit = fit_recalibration(np.log(probabilities / (1 - probabilities)), labels, fixed_slope=False)
    values = sigmoid(fit.intercept + fit.slope * np.log(probabilities / (1 - probabilities)))
    seen = most = 0.0
    for patient in np.unique(who):
        for a, b in combinations(np.flatnonzero(who == patient), 2):
            seen += (labels[a] - values[a]) * (labels[b] - values[b])
            most += min(values[a], values[b]) - values[a] * values[b]
    assert 0.3 < seen / most < 1.0
    shuffled = np.random.default_rng(2).permutation(labels.size)
    for order in (np.arange(labels.size), shuffled):
        found = PatientLabels.of(labels[order], probabilities[order], who[order])
        assert found.alike == pytest.approx(seen / most)


def test_likeness_is_none_for_single_cases_and_stays_within_0_and_1():
    labels, probabilities, _ = study(np.random.default_rng(1))
    assert PatientLabels.of(labels, probabilities, np.arange(labels.size)).alike == 0.0
    opposite = np.tile([1, 0], 30)
    assert PatientLabels.of(opposite, np.full(60, 0.5), np.repeat(np.arange(30), 2)).alike == 0.0
    same = np.repeat([1, 0], 30)
    assert PatientLabels.of(same, np.full(60, 0.5), np.repeat(np.arange(30), 2)).alike == 1.0
    certain = np.repeat([1, 0], 30)
    assert PatientLabels.of(certain, certain, np.repeat(np.arange(30), 2)).alike == 0.0


def test_a_common_fault_of_the_probabilities_is_no_likeness():
    rng = np.random.default_rng(4)
    right = sigmoid(rng.normal(size=3000))
    labels, who = (rng.random(3000) < right).astype(int), np.repeat(np.arange(300), 10)
    too_low = sigmoid(np.log(right / (1 - right)) - 2.0)
    assert PatientLabels.of(labels, too_low, who).alike < 0.03


def test_drawn_labels_have_each_cases_probability_and_the_likeness_of_pairs():
    rng = np.random.default_rng(0)
    probabilities = np.tile([0.2, 0.5, 0.8], 40)
    for alike in (0.0, 0.3, 1.0):
        drawn = PatientLabels(WHO, alike).draw(probabilities, rows=5000, rng=rng).astype(float)
        assert drawn.mean(axis=0) == pytest.approx(probabilities, abs=0.03)
        first, second, third = (drawn[:, place::3] for place in range(3))
        assert np.mean(first * second) - 0.2 * 0.5 == pytest.approx(alike * (0.2 - 0.2 * 0.5), abs=0.005)
        assert np.mean(second * third) - 0.5 * 0.8 == pytest.approx(alike * (0.5 - 0.5 * 0.8), abs=0.005)
        # Cases of different patients know nothing of each other.
        assert np.mean(first[:, :-1] * second[:, 1:]) == pytest.approx(0.1, abs=0.005)


def exceeded(*, studies, draws, seed=0, **model):
    """Share of perfectly calibrated studies whose errors exceed the 95th percentile of their null: ECE alone with cases
    drawn one by one, ECE with patients kept together, cumulative error likewise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(studies):
        labels, probabilities, who = study(rng, **model)
        bins = min(15, max(5, labels.size // 15))
        ece = calibration_error.expected_calibration_error(labels, probabilities, bins=bins)
        together = PatientLabels.of(labels, probabilities, who)
        found.append(
            [
                ece > calibration_error.ece_null(probabilities, kind, bins=bins, rng=rng, draws=draws).p95
                for kind in (PatientLabels(who, 0.0), together)
            ]
            + [
                calibration_error.cumulative_calibration_error(labels, probabilities)
                > calibration_error.cumulative_null_p95(probabilities, together, rng=rng, draws=draws)
            ]
        )
    return np.mean(found, axis=0)


def test_the_null_is_exceeded_in_5_percent_of_studies_of_alike_cases():
    by_case, ece, cumulative = exceeded(studies=200, draws=200, patients=166, within=0.9)
    assert by_case > 0.12
    # Two and a half standard errors of the simulation (1.5 % each) on either side.
    assert 0.01 <= ece <= 0.09
    assert 0.01 <= cumulative <= 0.09


@pytest.mark.campaign
def test_the_null_has_its_size_for_alike_cases():
    print("\nstudies whose error exceeds the 95th percentile of its null, of 500 that are perfectly calibrated")
    print("| cases | a patient | alike | ECE, case by case | ECE, by patient | cumulative error, by patient |")
    print("|---|---|---|---|---|---|")
    for cases, each, within in ((168, 1, 0.0), (168, 3, 0.5), (168, 3, 0.9), (500, 3, 0.7), (500, 10, 0.5),
                                (2000, 3, 0.5), (2000, 3, 0.9), (2000, 10, 0.5)):  # fmt: skip
        found = exceeded(studies=500, draws=300, patients=cases // each, cases=each, within=within)
        print(f"| {cases} | {each} | {within} | " + " | ".join(f"{share:.3f}" for share in found) + " |", flush=True)
        assert 0.02 <= found[1] <= 0.08
        assert 0.02 <= found[2] <= 0.08
