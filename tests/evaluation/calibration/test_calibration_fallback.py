"""Few, separable or reversed calibration cases: which calibrator they can bear, and that it is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from pipeline.errors import CalibrationError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration.fallback import fit_intercept, fit_platt_with_prior, fit_with_fallback
from pipeline.evaluation.calibration.fit import fit_calibrator

SEPARABLE = np.linspace(-3, 3, 40), (np.linspace(-3, 3, 40) > 0).astype(int)


def drawn(cases, seed, *, slope=1.0):
    """Logits whose true calibrated log odds are ``slope`` times themselves."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=cases) * 2
    return logits, (rng.random(cases) < special.expit(slope * logits)).astype(int)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_what_can_be_fitted_as_asked_is(method):
    logits, labels = drawn(300, seed=1)
    fit = fit_with_fallback(method, logits, labels, prior_offset=0.2)
    assert (fit.used, fit.reasons) == (method, ())
    assert fit.calibrator == fit_calibrator(method, logits, labels, prior_offset=0.2)
    assert fit.describe() == fit.calibrator.describe()


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_separable_cases_get_a_slope_that_the_prior_keeps_finite(method):
    fit = fit_with_fallback(method, *SEPARABLE)
    assert fit.used == "platt_prior"
    assert 1.0 < fit.calibrator.parameters["slope"] < 20.0
    assert "separate" in fit.reasons[0]
    assert f"in place of {method}" in fit.describe()


def test_a_network_that_ranks_backwards_keeps_its_direction_with_a_small_slope():
    logits, labels = drawn(60, seed=2, slope=-1.0)
    fit = fit_with_fallback("temperature", logits, labels)
    assert fit.used == "platt_prior"
    assert 0.0 < fit.calibrator.parameters["slope"] < 0.2
    assert "do not rank malignant above benign" in fit.reasons[0]


@pytest.mark.parametrize(
    ("malignant", "benign", "used"),
    [(5, 5, "platt_prior"), (4, 20, "intercept"), (20, 2, "intercept"), (1, 20, "none"), (20, 0, "none")],
)
def test_the_fewer_cases_of_a_class_the_less_is_fitted(malignant, benign, used):
    labels = np.array([1] * malignant + [0] * benign)
    logits = np.where(labels == 1, 2.0, -2.0) + np.linspace(0, 0.5, labels.size)  # separable: no temperature fits
    fit = fit_with_fallback("temperature", logits, labels)
    assert fit.used == used
    assert fit.is_calibrated == (used != "none")
    assert len(fit.reasons) == {"platt_prior": 1, "intercept": 2, "none": 3}[used]
    assert fit.to_json() == {"asked": "temperature", "used": used, "reasons": list(fit.reasons)}


@pytest.mark.parametrize(
    ("method", "malignant", "benign", "used"),
    [
        ("none", 5, 5, "none"),
        ("temperature", 5, 5, "platt_prior"),
        ("temperature", 4, 20, "intercept"),
        ("temperature", 1, 20, "none"),
    ],
)
def test_every_rung_takes_the_prior_offset_off_first(method, malignant, benign, used):
    labels = np.array([1] * malignant + [0] * benign)
    logits = np.where(labels == 1, 2.0, -2.0) + np.linspace(0, 0.5, labels.size)
    plain = fit_with_fallback(method, logits, labels)
    fit = fit_with_fallback(method, logits + 0.7, labels, prior_offset=0.7)
    assert (fit.used, fit.calibrator.prior_offset) == (used, 0.7)
    np.testing.assert_allclose(fit.calibrator.apply(logits + 0.7), plain.calibrator.apply(logits), atol=1e-6)


def test_equal_logits_say_the_share_of_malignant_cases():
    fit = fit_with_fallback("platt", [0.7] * 40, [1] * 10 + [0] * 30)
    assert fit.used == "intercept"
    assert fit.calibrator.apply([0.7]) == pytest.approx([0.25], abs=1e-9)


def test_logits_that_are_not_finite_are_not_calibrated():
    assert fit_with_fallback("temperature", [np.inf, 0.0, 1.0], [1, 0, 1]).used == "none"


def test_an_unknown_method_and_labels_beyond_0_and_1_are_refused():
    with pytest.raises(CalibrationError, match="'beta' is not one of"):
        fit_with_fallback("beta", *SEPARABLE)
    with pytest.raises(CalibrationError, match="hold 2; expected 0 or 1"):
        fit_with_fallback("platt", [0.0, 1.0, 2.0], [0, 1, 2])


def test_the_slope_with_a_prior_is_the_mode_of_the_posterior():
    logits, labels = drawn(25, seed=3)
    found = fit_platt_with_prior(logits, labels).parameters

    def negative_log_posterior(at):
        probabilities = special.expit(np.exp(at[0]) * logits + at[1])
        likelihood = stats.bernoulli.logpmf(labels, probabilities).sum()
        return -likelihood - stats.norm.logpdf(at[0])

    slow = optimize.minimize(negative_log_posterior, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8})
    assert found["slope"] == pytest.approx(np.exp(slow.x[0]), rel=1e-4)
    assert found["intercept"] == pytest.approx(slow.x[1], abs=1e-4)


def test_with_many_cases_the_prior_makes_no_difference():
    logits, labels = drawn(20_000, seed=4, slope=0.3)
    with_prior, without = fit_platt_with_prior(logits, labels), fit_calibrator("platt", logits, labels)
    assert with_prior.parameters["slope"] == pytest.approx(without.parameters["slope"], rel=2e-3)


def test_on_few_cases_the_prior_is_better_on_new_ones_than_no_prior():
    """Mean log loss on new cases over 200 calibration splits of 16 cases."""
    gains = []
    for seed in range(200):
        logits, labels = drawn(16, seed=seed)
        if not 5 <= labels.sum() <= 11:
            continue
        new_logits, new_labels = drawn(2000, seed=10_000 + seed)
        try:
            plain = fit_calibrator("platt", logits, labels)
        except CalibrationError:
            continue
        losses = [
            metrics.log_loss(new_labels, calibrator.apply(new_logits))
            for calibrator in (plain, fit_platt_with_prior(logits, labels))
        ]
        gains.append(losses[0] - losses[1])
    assert len(gains) > 100
    assert np.mean(gains) > 0.02


@given(
    logits=st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=40),
    seed=st.integers(0, 1000),
    method=st.sampled_from(["temperature", "platt", "isotonic"]),
)
@settings(max_examples=200, deadline=None)
def test_any_finite_logits_get_probabilities_that_never_decrease(logits, seed, method):
    labels = np.random.default_rng(seed).integers(0, 2, len(logits))
    fit = fit_with_fallback(method, logits, labels)
    probabilities = fit.calibrator.apply(np.sort(logits))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) >= 0).all()


@given(logits=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=40), offset=st.floats(-5, 5))
@settings(max_examples=100, deadline=None)
def test_an_intercept_alone_is_right_on_average(logits, offset):
    labels = np.arange(len(logits)) % 2
    calibrator = fit_intercept(logits, labels, prior_offset=offset)
    assert calibrator.parameters["slope"] == 1.0
    assert calibrator.apply(logits).mean() == pytest.approx(labels.mean(), abs=1e-6)
