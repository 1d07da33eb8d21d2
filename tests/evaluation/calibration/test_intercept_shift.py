"""Moving a calibrator to another place: the intercept moves, the ranking does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CalibrationError, UndefinedMetricError
from pipeline.evaluation.calibration.calibrator import Calibrator, logit, sigmoid
from pipeline.evaluation.calibration.intercept_shift import fit_intercept_shift, shift_intercept
from pipeline.evaluation.decisions.prevalence import adjust_prevalence, prevalence_shift
from pipeline.evaluation.metrics import auroc, calibration_intercept

KNOTS = {"logits": (-2.0, 0.0, 3.0), "probabilities": (0.1, 0.4, 0.9)}
CALIBRATORS = [
    Calibrator("none", prior_offset=0.4),
    Calibrator("temperature", {"temperature": 1.7}, prior_offset=-0.3),
    Calibrator("platt", {"slope": 0.8, "intercept": 0.5}),
]


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda each: each.method)
@given(shift=st.floats(-5, 5), values=st.lists(st.floats(-20, 20), min_size=1, max_size=9))
def test_shift_adds_to_the_log_odds_and_to_nothing_else(calibrator, shift, values):
    moved = shift_intercept(calibrator, shift)
    assert moved.calibrated_logit(values) == pytest.approx(calibrator.calibrated_logit(values) + shift, abs=1e-9)


def test_isotonic_shift_moves_the_knots():
    moved = shift_intercept(Calibrator("isotonic", KNOTS), 0.7)
    assert moved.apply([-2.0, 0.0, 3.0]) == pytest.approx(sigmoid(logit([0.1, 0.4, 0.9]) + 0.7))


@pytest.mark.parametrize("calibrator", [*CALIBRATORS, Calibrator("isotonic", KNOTS)], ids=lambda each: each.method)
def test_refit_makes_expected_equal_observed_and_keeps_the_ranking(calibrator):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=400)
    labels = (rng.random(400) < sigmoid(logits - 1.5)).astype(int)
    moved = shift_intercept(calibrator, fit_intercept_shift(calibrator, logits, labels))
    assert moved.apply(logits).mean() == pytest.approx(labels.mean(), abs=1e-9)
    assert auroc(labels, moved.apply(logits)) == auroc(labels, calibrator.apply(logits))
    if calibrator.method != "isotonic":  # there the same equation is the likelihood's
        assert calibration_intercept(labels, moved.apply(logits)) == pytest.approx(0.0, abs=1e-9)


def test_refit_refuses_what_it_cannot_know():
    with pytest.raises(CalibrationError, match="all 3 cases are benign"):
        fit_intercept_shift(CALIBRATORS[0], [0.0, 1.0, 2.0], [0, 0, 0])
    with pytest.raises(CalibrationError, match="no shift within 30 log odds"):
        fit_intercept_shift(CALIBRATORS[0], [-400.0, -300.0], [1, 0])


def test_prevalence_shift_is_bayes_in_odds():
    values = np.array([0.0, 0.2, 0.5, 1.0])
    moved = adjust_prevalence(values, calibrated_at=0.4, wanted=0.05)
    # Slow definition: likelihood ratio from the posterior and the old prior, times the new prior odds.
    for old, new in zip(values[1:3], moved[1:3], strict=True):
        ratio = (old / (1 - old)) / (0.4 / 0.6)
        odds = ratio * 0.05 / 0.95
        assert new == pytest.approx(odds / (1 + odds))
    assert (moved[0], moved[-1]) == (0.0, 1.0)
    assert adjust_prevalence(moved, calibrated_at=0.05, wanted=0.4) == pytest.approx(values)
    assert prevalence_shift(calibrated_at=0.3, wanted=0.3) == 0.0
    with pytest.raises(UndefinedMetricError, match="is not in"):
        adjust_prevalence(values, calibrated_at=0.4, wanted=1.0)
