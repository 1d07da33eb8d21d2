"""The leaky noisy-or of a scan: by hand, fitted on simulated scans, and read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CalibrationError
from pipeline.evaluation.detection.scan_probability import (
    ScanProbability,
    candidate_products,
    fit_scan_probability,
    nearly_known_products,
)

DIGEST = "ab" * 32
SHARES = st.lists(st.floats(0.0, 1.0), max_size=6)


def simulated_scans(scans, *, leak, weight, seed=0):
    rng = np.random.default_rng(seed)
    products = [rng.beta(0.7, 2.0, rng.integers(0, 5)) for _ in range(scans)]
    chances = [1.0 - (1.0 - leak) * np.prod(1.0 - weight * part) for part in products]
    return products, (rng.random(scans) < chances).astype(int)


def test_probability_worked_out_by_hand():
    fitted = ScanProbability(leak=0.1, weight=0.5, classifier_digest=DIGEST)
    assert fitted.apply([], []) == pytest.approx(0.1)
    assert fitted.apply([0.8, 1.0], [0.5, 0.6]) == pytest.approx(1.0 - 0.9 * 0.8 * 0.7)


def test_bounds_worked_out_by_hand():
    fitted = ScanProbability(leak=0.1, weight=0.5, classifier_digest=DIGEST)
    bounds = fitted.bounds([0.8, 0.5], [0.5, None])
    assert bounds.lower == pytest.approx(1.0 - 0.9 * 0.8)
    assert bounds.upper == pytest.approx(1.0 - 0.9 * 0.8 * 0.75)
    assert bounds.probability is None  # 0.18 apart


@given(nodule=SHARES, data=st.data())
@settings(max_examples=50, deadline=None)
def test_whatever_an_unscored_candidate_is_the_probability_lies_within_the_bounds(nodule, data):
    fitted = ScanProbability(0.1, 0.8, DIGEST)
    known = data.draw(st.lists(st.none() | st.floats(0.0, 1.0), min_size=len(nodule), max_size=len(nodule)))
    bounds = fitted.bounds(nodule, known)
    filled = [data.draw(st.floats(0.0, 1.0)) if value is None else value for value in known]
    assert bounds.lower - 1e-12 <= fitted.apply(nodule, filled) <= bounds.upper + 1e-12
    if None not in known:
        assert bounds.lower == bounds.upper == bounds.probability


def test_the_middle_of_close_bounds_is_given():
    fitted = ScanProbability(leak=0.1, weight=1.0, classifier_digest=DIGEST)
    near, apart = fitted.bounds([0.9, 0.05], [0.5, None]), fitted.bounds([0.06], [None])
    assert near.upper - near.lower == pytest.approx(0.55 * 0.9 * 0.05)
    assert near.probability == pytest.approx(1.0 - 0.9 * 0.55 * 0.975)
    assert apart.upper - apart.lower == pytest.approx(0.054)
    assert apart.probability is None


def test_where_most_candidates_could_not_be_scored_there_is_no_probability_however_close_the_bounds():
    fitted = ScanProbability(leak=0.1, weight=1.0, classifier_digest=DIGEST)
    assert fitted.bounds([0.001, 0.001], [0.5, None]).probability is not None
    assert fitted.bounds([0.001, 0.001, 0.001], [0.5, None, None]).probability is None
    assert nearly_known_products([0.001, 0.001, 0.001], [0.5, None, None]) is None
    assert fitted.bounds([], []).probability == pytest.approx(0.1)  # no candidate is no refused candidate


def test_scans_whose_unscored_candidates_could_matter_fit_nothing():
    np.testing.assert_allclose(nearly_known_products([0.9, 0.04], [0.5, None]), [0.45, 0.02])
    assert nearly_known_products([0.9, 0.9, 0.04, 0.02], [0.5, 0.5, None, None]) is None
    assert nearly_known_products([], []).shape == (0,)


@given(nodule=SHARES, leak=st.floats(0.01, 0.99), weight=st.floats(0.01, 1.0), extra=st.floats(0.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_another_candidate_never_lowers_the_probability(nodule, leak, weight, extra):
    fitted = ScanProbability(leak, weight, DIGEST)
    before = fitted.apply(nodule, [0.5] * len(nodule))
    after = fitted.apply([*nodule, extra], [0.5] * (len(nodule) + 1))
    assert leak - 1e-12 <= before <= after + 1e-12 <= 1.0 + 1e-12


@pytest.mark.parametrize(("leak", "weight"), [(0.05, 0.9), (0.2, 0.4)])
def test_fit_finds_the_numbers_that_the_labels_were_drawn_with(leak, weight):
    products, labels = simulated_scans(20_000, leak=leak, weight=weight)
    fitted = fit_scan_probability(products, labels, classifier_digest=DIGEST)
    assert fitted.leak == pytest.approx(leak, abs=0.015)
    assert fitted.weight == pytest.approx(weight, abs=0.04)


def test_fit_is_the_largest_posterior_of_a_grid():
    products, labels = simulated_scans(60, leak=0.1, weight=0.7, seed=3)
    fitted = fit_scan_probability(products, labels, classifier_digest=DIGEST)

    def posterior(leak, weight):
        value = 0.5 * np.log(leak * (1 - leak) * weight * (1 - weight))
        for part, label in zip(products, labels, strict=True):
            benign = (1 - leak) * np.prod(1 - weight * part)
            value += np.log(1 - benign) if label else np.log(benign)
        return value

    best = max(posterior(a, b) for a in np.linspace(0.005, 0.6, 40) for b in np.linspace(0.02, 0.99, 40))
    assert posterior(fitted.leak, fitted.weight) >= best - 1e-6


def test_leak_is_above_zero_where_no_scan_without_candidates_was_malignant():
    fitted = fit_scan_probability([[]] * 20 + [[0.9]] * 10, [0] * 20 + [1] * 10, classifier_digest=DIGEST)
    assert fitted.leak == pytest.approx(0.5 / 21, abs=0.005)


def test_reads_back_what_it_writes():
    fitted = ScanProbability(0.03, 0.8, DIGEST)
    assert ScanProbability.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"leak": 0.1, "weight": 0.5}, "expected an object with classifier_digest, leak, weight"),
        ({"leak": "0.1", "weight": 0.5, "classifier_digest": DIGEST}, "are not numbers"),
        ({"leak": 0.0, "weight": 0.5, "classifier_digest": DIGEST}, "expected leak in"),
        ({"leak": float("nan"), "weight": 0.5, "classifier_digest": DIGEST}, "expected leak in"),
        ({"leak": 0.1, "weight": 1.5, "classifier_digest": DIGEST}, "expected leak in"),
        ({"leak": 0.1, "weight": 0.5, "classifier_digest": 3}, "is not text"),
        ({"leak": 0.1, "weight": 0.5, "classifier_digest": "model"}, "is not a digest"),
    ],
)
def test_foreign_numbers_are_refused(value, message):
    with pytest.raises(CalibrationError, match=message):
        ScanProbability.from_json(value)


def test_too_few_scans_of_a_class_cannot_be_fitted():
    with pytest.raises(CalibrationError, match="4 malignant and 9 benign calibration scans, expected at least 5"):
        fit_scan_probability([[0.5]] * 13, [1] * 4 + [0] * 9, classifier_digest=DIGEST)


def test_candidates_that_do_not_fit_together_are_refused():
    with pytest.raises(CalibrationError, match="expected as many"):
        candidate_products([0.5], [0.5, 0.4])
    with pytest.raises(CalibrationError, match="outside"):
        candidate_products([1.5], [0.5])
    with pytest.raises(CalibrationError, match="2 scans and 3 labels"):
        fit_scan_probability([[0.5], []], [0, 1, 1], classifier_digest=DIGEST)
