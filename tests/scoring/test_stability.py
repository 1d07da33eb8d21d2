"""Distance and test of two binned samples, against slow definitions, scipy, and hand-worked cases."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import UndefinedMetricError
from pipeline.scoring.stability import LEAST_PATIENTS, BinShares, holm, measure_shift, stability_index


def of_counts(*counts):
    """One case a patient, so many in each bin."""
    return BinShares.of(np.repeat(np.arange(len(counts)), counts), np.arange(sum(counts)), count=len(counts))


def clustered(seed, patients, cases, bins=4):
    """Bins of cases whose patients each prefer one, as numbers of bins and of patients."""
    rng = np.random.default_rng(seed)
    of_patient = np.repeat(rng.integers(0, bins, patients), cases)
    own = rng.integers(0, bins, patients * cases)
    return np.where(rng.random(own.size) < 0.6, of_patient, own), np.repeat(np.arange(patients), cases)


def test_index_is_the_sum_over_bins():
    expected, observed = (0.2, 0.3, 0.5), (0.25, 0.25, 0.5)
    by_hand = sum((seen - was) * math.log(seen / was) for seen, was in zip(observed, expected, strict=True))
    assert stability_index(of_counts(20, 30, 50), of_counts(50, 50, 100)) == pytest.approx(by_hand)


@pytest.mark.parametrize("turned", [False, True])
def test_half_a_case_of_its_own_sample_stands_in_for_none(turned):
    pair = of_counts(40, 40), of_counts(300, 0)
    none = 0.5 / 300
    found = stability_index(*(reversed(pair) if turned else pair))
    assert found == pytest.approx(0.5 * math.log(2) + (none - 0.5) * math.log(none / 0.5))


def test_bin_that_neither_fills_adds_nothing():
    without = measure_shift(of_counts(20, 30), of_counts(40, 10))
    assert measure_shift(of_counts(20, 0, 30), of_counts(40, 0, 10)) == without


def test_covariance_is_that_of_sums_over_patients():
    bins, patients = clustered(0, 30, 3)
    found = BinShares.of(bins, patients, count=4)
    shares = np.bincount(bins, minlength=4) / bins.size
    sums = [sum(np.eye(4)[place] - shares for place in bins[patients == one]) for one in range(30)]
    slow = 30 / 29 * sum(np.outer(each, each) for each in sums) / bins.size**2
    np.testing.assert_allclose(found.covariance, slow, atol=1e-15)
    np.testing.assert_allclose(found.shares, shares)
    assert (found.cases, found.patients) == (90, 30)


def test_one_case_a_patient_has_the_multinomial_covariance():
    found, plain = of_counts(10, 20, 30), BinShares.of_independent([1 / 6, 1 / 3, 1 / 2], count=60)
    np.testing.assert_allclose(found.covariance * 59 / 60, plain.covariance, atol=1e-15)
    assert (plain.cases, plain.patients) == (60, 60)


def test_test_is_rao_and_scotts_by_eigenvalues_of_pearsons_weighted_covariance():
    reference, sample = (BinShares.of(*clustered(seed, size, 5), count=4) for seed, size in ((1, 40), (2, 25)))
    cases = np.array([reference.cases, sample.cases])
    pooled = (cases[0] * reference.shares + cases[1] * sample.shares) / cases.sum()
    roots = [np.linalg.eigvals(np.diag(1 / pooled) @ each.covariance).real.sum() for each in (reference, sample)]
    values = np.linalg.eigvals(np.diag(1 / pooled) @ (reference.covariance + sample.covariance)).real
    assert values.sum() > 1.5 * 3 * (1 / cases).sum()  # there is a design effect to speak of
    counts = np.array([reference.shares * cases[0], sample.shares * cases[1]])
    pearson = stats.chi2_contingency(counts, correction=False).statistic
    above = values.sum() ** 2 / (values**2).sum()
    below = above * sum(roots) ** 2 / (roots[0] ** 2 / 39 + roots[1] ** 2 / 24)
    found = measure_shift(reference, sample)
    assert found.statistic == pytest.approx(pearson * (1 / cases).sum() / values.sum())
    assert found.degrees == pytest.approx((above, below))
    assert found.p_value == pytest.approx(stats.f.sf(found.statistic, above, below))
    assert found.effect == pytest.approx(max(found.index - values.sum(), 0))
    assert (found.cases, found.patients) == (125, 25)


def test_effect_is_the_index_less_what_chance_adds():
    found = measure_shift(of_counts(100, 100, 100), of_counts(60, 90, 150))
    assert found.effect == pytest.approx(found.index - 2 * (1 / 300 + 1 / 300), rel=0.05)
    assert measure_shift(of_counts(100, 100, 100), of_counts(10, 10, 11)).effect == 0.0


def test_samples_apart_without_any_spread_differ_clearly():
    found = measure_shift(of_counts(100, 0), of_counts(0, 100))
    assert found.p_value < 1e-20
    # Pearson's statistic of independent cases, which is their number, over its one degree of freedom.
    assert found.statistic == pytest.approx(200)
    assert found.degrees == pytest.approx((1, 198))


def test_samples_in_one_bin_do_not_differ():
    found = measure_shift(of_counts(50, 0), of_counts(30, 0))
    assert (found.index, found.effect, found.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(("sizes", "whose"), [((9, 10), "the reference"), ((10, 9), "these cases")])
def test_fewer_than_ten_patients_are_not_tested(sizes, whose):
    assert LEAST_PATIENTS == 10
    samples = [of_counts(size - 5, 5) for size in sizes]
    with pytest.raises(UndefinedMetricError, match=f"^9 patients in {whose}; expected at least 10"):
        measure_shift(*samples)
    assert measure_shift(of_counts(5, 5), of_counts(5, 5)).p_value == 1.0


@pytest.mark.parametrize("patients", [[], ["one", "one"]])
def test_shares_of_one_patient_have_no_spread(patients):
    with pytest.raises(UndefinedMetricError, match="expected at least 2"):
        BinShares.of(np.zeros(len(patients), np.int64), np.array(patients), count=2)


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    found = holm({"a": 0.02, "b": 0.001, "c": 0.011, "d": 0.9, "e": 0.8})
    assert found == pytest.approx({"b": 0.005, "c": 0.044, "a": 0.06, "e": 1.0, "d": 1.0})
    assert holm({"a": 0.010, "b": 0.012}) == pytest.approx({"a": 0.020, "b": 0.020})
    assert holm({}) == {}
