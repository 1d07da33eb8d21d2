"""Logits of single networks as the mean of several would have them: calibrated for what scores, not for its parts."""

import numpy as np
import pytest
from scipy.special import expit

from pipeline.evaluation.calibration.ensemble_mean import LEAST_PAIRS, as_mean_of
from pipeline.evaluation.calibration.logistic import fit_recalibration


def study(cases, networks, agreement, *, seed, uneven=False):
    """Labels, and logits (cases, networks) whose correlation over cases is ``agreement``."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.7, 1.6, cases)
    labels = (rng.random(cases) < expit(truth)).astype(int)
    seen = 1.5 * (truth + rng.normal(0.0, 0.8, cases))
    own = rng.normal(size=(cases, networks)) * np.sqrt(seen.var() * (1 - agreement) / agreement)
    if uneven:
        far = np.abs(seen - seen.mean())
        own *= (far / np.sqrt(np.mean(far**2)))[:, None]
    return labels, seen[:, None] + own


def slope_of_mean(networks, agreement, *, steady, seed=0, uneven=False):
    """Calibration slope, on many new cases, of the mean of networks that was calibrated on single ones."""
    labels, logits = study(40_000, networks, agreement, seed=seed, uneven=uneven)
    single = logits[np.arange(len(logits)), np.arange(len(logits)) % networks]
    pairs = study(10_000, 2, agreement, seed=seed + 100, uneven=uneven)[1]
    used = as_mean_of(networks, single, labels, pairs).logits if steady else single
    new_labels, new = study(120_000, networks, agreement, seed=seed + 200, uneven=uneven)
    right = fit_recalibration(new.mean(axis=1), new_labels, fixed_slope=False).slope
    return right / fit_recalibration(used, labels, fixed_slope=False).slope


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("networks", "agreement"), [(3, 0.7), (5, 0.8), (3, 0.9), (15, 0.9), (5, 1.0)])
def test_the_mean_of_networks_is_calibrated(networks, agreement, uneven):
    found = np.mean([slope_of_mean(networks, agreement, steady=True, seed=seed, uneven=uneven) for seed in (0, 1)])
    assert found == pytest.approx(1.0, abs=0.03)


def test_without_it_the_mean_is_underconfident():
    assert slope_of_mean(3, 0.7, steady=False) > 1.25
    assert slope_of_mean(5, 0.9, steady=False) > 1.08


def test_a_threshold_reaches_its_sensitivity_on_the_mean():
    labels, logits = study(40_000, 5, 0.8, seed=0)
    pairs = study(10_000, 2, 0.8, seed=1)[1]
    drawn = as_mean_of(5, logits[:, 0], labels, pairs).logits
    new_labels, new = study(80_000, 5, 0.8, seed=2)
    reached = [
        (new.mean(axis=1)[new_labels == 1] >= np.quantile(values[labels == 1], 0.05)).mean()
        for values in (logits[:, 0], drawn)
    ]
    assert reached[0] > 0.962
    assert reached[1] == pytest.approx(0.95, abs=0.006)


def test_class_means_stay_and_the_spread_about_them_shrinks_by_the_factor():
    labels, logits = study(4000, 3, 0.8, seed=0)
    found = as_mean_of(3, logits[:, 0], labels, logits[:, 1:])
    assert 1 / np.sqrt(3) < found.factor < 1
    for label in (0, 1):
        own, drawn = logits[labels == label, 0], found.logits[labels == label]
        assert drawn.mean() == pytest.approx(own.mean())
        np.testing.assert_allclose(drawn - drawn.mean(), found.factor * (own - own.mean()))


def test_the_pairs_order_and_their_labels_do_not_matter():
    labels, logits = study(2000, 3, 0.8, seed=0)
    pairs = logits[:300, 1:]
    found = as_mean_of(3, logits[:, 0], labels, pairs)
    turned = as_mean_of(3, logits[:, 0], labels, pairs[::-1, ::-1])
    assert turned.factor == pytest.approx(found.factor, abs=1e-5)
    assert "mean of 3 networks" in found.describe()
    assert "300 cases" in found.describe()


def test_shifted_and_stretched_logits_have_the_same_factor():
    labels, logits = study(2000, 3, 0.8, seed=0)
    found = as_mean_of(3, logits[:, 0], labels, logits[:, 1:])
    moved = as_mean_of(3, 20 * logits[:, 0] - 70, labels, 20 * logits[:, 1:] - 70)
    assert moved.factor == pytest.approx(found.factor, abs=1e-4)
    np.testing.assert_allclose(moved.logits, 20 * found.logits - 70, atol=0.1)


def test_networks_that_agree_and_single_networks_change_nothing():
    labels, logits = study(2000, 3, 1.0, seed=0)
    np.testing.assert_allclose(as_mean_of(3, logits[:, 0], labels, logits[:, 1:]).logits, logits[:, 0], atol=1e-3)
    single = as_mean_of(1, logits[:, 0], labels, np.empty((0, 2)))
    assert single.describe() == ""
    np.testing.assert_array_equal(single.logits, logits[:, 0])


def test_networks_that_agree_on_nothing_shrink_by_no_more_than_their_number():
    rng = np.random.default_rng(0)
    labels, logits = study(2000, 3, 0.8, seed=0)
    for spread in (3, 30, 300):
        assert 0.5 <= as_mean_of(4, logits[:, 0], labels, rng.normal(0, spread, (200, 2))).factor < 0.75


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda labels, logits, pairs: (labels, logits, pairs[: LEAST_PAIRS - 1]), "7 cases were left out by two"),
        (lambda labels, logits, pairs: (0 * labels, logits, pairs), "one class|only benign|both classes"),
        (lambda labels, logits, pairs: (labels, 20.0 * labels + 0.1 * expit(logits), pairs), "separate"),
        (lambda labels, logits, pairs: (labels, -logits, -pairs), "do not rank malignant above benign"),
    ],
)
def test_what_cannot_be_estimated_changes_nothing_and_says_why(change, reason):
    import re

    labels, logits = study(500, 3, 0.8, seed=0)
    labels, single, pairs = change(labels, logits[:, 0], logits[:, 1:])
    found = as_mean_of(3, single, labels, pairs)
    np.testing.assert_array_equal(found.logits, single)
    assert found.factor == 1.0
    assert re.search(reason, found.reason)
    assert found.reason in found.describe()


def test_eight_pairs_are_enough():
    labels, logits = study(500, 3, 0.8, seed=0)
    assert as_mean_of(3, logits[:, 0], labels, logits[:LEAST_PAIRS, 1:]).reason == ""
