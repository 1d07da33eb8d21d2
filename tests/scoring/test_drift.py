"""Population stability: the index by hand, and where few cases or empty bins leave it."""

import math

import numpy as np
import pytest

from pipeline.scoring.drift import LEAST_CASES, DriftMeter, Reference, fit_references, stability_index


def test_the_index_is_the_sum_over_bins():
    expected, observed = (0.2, 0.3, 0.5), (0.25, 0.25, 0.5)
    by_hand = sum((seen - was) * math.log(seen / was) for seen, was in zip(observed, expected, strict=True))
    assert stability_index(np.array(expected), np.array([50.0, 50.0, 100.0])) == pytest.approx(by_hand)


def test_half_a_case_stands_in_for_an_empty_bin_of_the_run():
    found = stability_index(np.array([0.5, 0.5]), np.array([200.0, 0.0]))
    none = 0.5 / 200
    assert found == pytest.approx(0.5 * math.log(2) + (none - 0.5) * math.log(none / 0.5))


@pytest.mark.parametrize(("counts", "none"), [([100.0, 300.0], 0.5 / 400), ([10.0, 30.0], 0.5 / LEAST_CASES)])
def test_half_a_case_stands_in_for_an_empty_bin_of_the_reference(counts, none):
    found = stability_index(np.array([0.0, 1.0]), np.array(counts))
    assert found == pytest.approx((0.25 - none) * math.log(0.25 / none) + (0.75 - 1) * math.log(0.75))


def test_cases_of_the_reference_itself_have_an_index_of_nought():
    values = np.random.default_rng(0).normal(size=1000)
    meter = DriftMeter(fit_references({"mean": values}))
    meter.add("mean", values)
    assert meter.indices() == {"mean": pytest.approx(0.0, abs=1e-12)}


def test_a_hundred_cases_have_an_index_and_fewer_have_none():
    meter = DriftMeter({"mean": Reference((0.0,), (0.5, 0.5))})
    meter.add("mean", [-1.0, None] * (LEAST_CASES // 2) + [1.0] * (LEAST_CASES // 2 - 1))
    assert meter.indices() == {}
    meter.add("mean", [1.0])
    assert meter.indices() == {"mean": 0.0}


def test_ten_finite_values_make_a_reference_and_nine_do_not():
    nine = [float(number) for number in range(9)] + [math.inf, math.nan]
    assert fit_references({"mean": nine}) == {}
    assert fit_references({"mean": [*nine, 9.0]})["mean"].shares == pytest.approx((0.1,) * 10)
