"""Three outcomes of calibration from intervals and margins, and what they mean for the gate."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.calibration.outcome import (
    MARGINS,
    CalibrationOutcome,
    SampleSize,
    _widened,
    calibration_outcome,
)
from pipeline.evaluation.gate.conditions import _calibration
from pipeline.evaluation.intervals.interval import Interval

RIGHT = {
    "calibration_slope": Interval(1.0, 0.9, 1.1),
    "calibration_intercept": Interval(0.0, -0.1, 0.1),
    "ici": Interval(0.01, 0.0, 0.02),
}
COUNTS = SampleSize(patients=101, cases=200, malignant=60)


def outcome(undefined=None, counts=COUNTS, **changed):
    intervals = {**RIGHT, **{name: Interval(*limits) for name, limits in changed.items()}}
    return calibration_outcome(
        {name: each for name, each in intervals.items() if name not in (undefined or {})},
        undefined or {},
        counts,
    )


def test_the_margins_are_a_factor_of_1_25_in_slope_and_odds_and_5_points_of_probability():
    slope, intercept, ici = MARGINS
    assert (slope.lower, slope.upper, slope.ideal) == (0.8, 1.25, 1.0)
    assert (np.exp(intercept.lower), np.exp(intercept.upper), intercept.ideal) == pytest.approx((0.8, 1.25, 0.0))
    assert (ici.lower, ici.upper, ici.ideal) == (0.0, 0.05, 0.0)


def test_odds_within_the_margin_keep_observed_over_expected_within_it_at_any_prevalence():
    # Malignant cases expected when all log odds are too high, or too low, by the margin.
    odds = np.random.default_rng(0).normal(0.0, 2.0, 2000)[:, None] + np.linspace(-7.0, 7.0, 29)
    shift = MARGINS[1].upper
    right = (1 / (1 + np.exp(-odds))).sum(axis=0)
    for sign in (1, -1):
        ratio = right / (1 / (1 + np.exp(-odds - sign * shift))).sum(axis=0)
        assert ((ratio >= 0.8) & (ratio <= 1.25)).all()


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "shown"),
        ({"calibration_slope": (1.0, 0.8, 1.25)}, "shown"),
        ({"calibration_slope": (1.0, 0.79, 1.25)}, "not shown"),
        ({"calibration_slope": (1.0, 0.8, 1.26)}, "not shown"),
        ({"calibration_slope": (0.6, 0.4, 0.79)}, "not shown"),  # outside, as one of three may by chance
        ({"calibration_slope": (0.6, 0.4, 0.75)}, "refuted"),
        ({"calibration_slope": (1.5, 1.26, 1.9)}, "not shown"),
        ({"calibration_slope": (1.5, 1.30, 1.9)}, "refuted"),
        ({"calibration_intercept": (0.2, 0.18, 0.22)}, "shown"),  # excludes 0, and does not matter
        ({"calibration_intercept": (0.2, 0.17, 0.23)}, "not shown"),
        ({"calibration_intercept": (-0.2, -0.23, -0.17)}, "not shown"),
        ({"calibration_intercept": (0.3, 0.24, 0.4)}, "refuted"),
        ({"calibration_intercept": (-0.3, -0.4, -0.24)}, "refuted"),
        ({"ici": (0.04, 0.03, 0.05)}, "shown"),
        ({"ici": (0.04, 0.03, 0.051)}, "not shown"),
        ({"ici": (0.06, 0.05, 0.07)}, "not shown"),
        ({"ici": (0.06, 0.053, 0.07)}, "refuted"),
        # One that is refuted decides, whatever the others say.
        ({"calibration_slope": (0.6, 0.4, 0.7), "ici": (0.2, 0.0, 0.4)}, "refuted"),
    ],
)
def test_whole_intervals_decide(changed, verdict):
    assert outcome(**changed).verdict == verdict


@pytest.mark.parametrize("patients", [4, 101, 10_000])
@pytest.mark.parametrize(("side", "margin", "ideal"), [(1, 1.25, 1.0), (-1, 0.8, 1.0)])
def test_one_of_three_is_refuted_and_doubted_at_a_third_of_the_error(patients, side, margin, ideal):
    counts = SampleSize(patients, patients, 1)
    usual, third = (stats.t.ppf(1 - 0.025 / looks, patients - 1) for looks in (1, 3))
    for reach, verdict in ((0.29, "refuted"), (0.31, "not shown")):  # 0.3 away from the margin, in widened half-widths
        error = reach / third
        limits = sorted((margin + side * (0.3 - usual * error), margin + side * (0.3 + usual * error)))
        found = outcome(counts=counts, calibration_slope=(margin + side * 0.3, *limits))
        assert found.verdict == verdict
    away = abs(margin + side * 0.3 - ideal)
    for reach, doubted in ((0.99 * away, True), (1.01 * away, False)):
        half = reach / third * usual
        estimate = margin + side * 0.3
        assert bool(
            outcome(counts=counts, calibration_slope=(estimate, estimate - half, estimate + half)).in_doubt
        ) is (doubted)


def test_what_lies_outside_by_chance_is_said_so():
    found = outcome(calibration_slope=(1.5, 1.26, 1.9))
    assert found.reasons[0] == "slope 1.50 (1.26 to 1.90) lies outside, as one of several may by chance"
    assert found.needed is not None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"calibration_slope": (0.6, 0.4, 0.7)},
            "slope 0.60 (0.40 to 0.70) is outside 0.80 to 1.25 (overconfident)",
        ),
        (
            {"calibration_slope": (1.6, 1.4, 1.7)},
            "slope 1.60 (1.40 to 1.70) is outside 0.80 to 1.25 (underconfident)",
        ),
        (
            {"calibration_intercept": (0.4, 0.3, 0.5)},
            "intercept +0.40 (+0.30 to +0.50) is outside -0.22 to +0.22 (probabilities are too low on average)",
        ),
        (
            {"calibration_intercept": (-0.4, -0.5, -0.3)},
            "intercept -0.40 (-0.50 to -0.30) is outside -0.22 to +0.22 (probabilities are too high on average)",
        ),
        (
            {"ici": (0.1, 0.08, 0.12)},
            "ICI 0.100 (0.080 to 0.120) is outside 0.000 to 0.050 (probabilities are far from what is observed)",
        ),
    ],
)
def test_what_refutes_is_said_with_its_sense(changed, reason):
    found = outcome(**changed)
    assert found.reasons == (reason,)
    assert str(found) == f"refuted: {reason}"
    assert found.needed is None


def test_what_is_shown_is_said_with_its_intervals():
    assert str(outcome()) == (
        "shown: slope 1.00 (0.90 to 1.10) within 0.80 to 1.25; intercept +0.00 (-0.10 to +0.10) within -0.22 to +0.22; "
        "ICI 0.010 (0.000 to 0.020) within 0.000 to 0.050"
    )


def test_what_is_open_is_said_with_the_patients_that_would_decide():
    found = outcome(calibration_slope=(1.08, 0.58, 1.58))
    assert found.reasons[0] == "slope 1.08 (0.58 to 1.58) reaches below 0.80 and above 1.25"
    # Half-widths are 1.984 standard errors; 0.2 away, a perfect model is shown with 0.9 at 1.960 + 1.645 of them.
    times = (0.5 / stats.t.ppf(0.975, 100) * (1.95996 + 1.64485) / 0.2) ** 2
    assert times == pytest.approx(20.64, abs=0.01)
    assert found.needed == SampleSize(2100, 4200, 1300)
    assert found.reasons[1:] == ("about 2100 patients (4200 cases, 1300 malignant) would decide",)


def test_so_many_patients_would_show_a_perfect_model_with_the_stated_chance():
    # The slope alone, normally distributed around 1 with the standard error of so many patients.
    study = outcome(calibration_slope=(1.0, 0.5, 1.5), counts=SampleSize(10_001, 10_001, 1))
    times = study.needed.patients / 10_001
    error = 0.5 / stats.t.ppf(0.975, 10_000) / np.sqrt(times)
    estimates = np.random.default_rng(0).normal(1.0, error, 100_000)
    shown = (estimates - 1.96 * error >= 0.8) & (estimates + 1.96 * error <= 1.2)
    assert 0.895 <= shown.mean() <= 0.92  # a little above, because the number is rounded up


def test_the_worst_quantity_says_how_many_are_needed():
    slope = outcome(calibration_slope=(1.0, 0.5, 1.5)).needed
    both = outcome(calibration_slope=(1.0, 0.5, 1.5), calibration_intercept=(0.0, -0.9, 0.9)).needed
    ici = outcome(ici=(0.08, 0.0, 0.2)).needed
    assert both.patients > slope.patients > COUNTS.patients
    assert ici.patients == 1700  # (0.2 / 0.05) squared times 101, rounded up to two digits


def test_a_truth_near_a_margin_needs_what_would_part_it_from_the_margin():
    # Narrow enough to show a perfect model; 0.02 from the margin with a half-width of 0.05.
    found = outcome(calibration_slope=(0.82, 0.77, 0.87))
    assert found.needed.patients == 640  # 101 times (0.05 / 0.02) squared, rounded up to two digits
    far = outcome(calibration_slope=(0.8001, 0.75, 0.85))
    assert far.needed is None
    assert far.reasons[-1] == "more than 100 times as many patients would be needed to decide"
    assert outcome(calibration_slope=(0.8, 0.75, 0.85)).needed is None


@pytest.mark.parametrize("patients", [5, 101])
def test_a_number_between_one_and_two_times_as_many_is_for_perfect_calibration(patients):
    # A standard error for which a perfect model needs 1.5 times as many; the estimate is 0.1 from a margin.
    error = 0.2 / (1.95996 + 1.64485) * np.sqrt(1.5)
    half = error * stats.t.ppf(0.975, patients - 1)
    found = outcome(counts=SampleSize(patients, 10_000, 1), calibration_slope=(0.9, 0.9 - half, 0.9 + half))
    assert found.needed.cases == pytest.approx(15_000, abs=1000)


def test_the_interval_of_one_of_three_says_its_level():
    wide = _widened(Interval(1.0, 0.9, 1.2, 0.95, "sandwich"), 3, 101)
    times = stats.t.ppf(1 - 0.025 / 3, 100) / stats.t.ppf(0.975, 100)
    assert (wide.level, wide.method, wide.estimate) == (pytest.approx(1 - 0.05 / 3), "sandwich", 1.0)
    assert (wide.lower, wide.upper) == pytest.approx((1.0 - 0.1 * times, 1.0 + 0.2 * times))


@pytest.mark.parametrize("needed", [99, 100])
def test_a_hundred_times_as_many_is_the_most_that_is_scaled(needed):
    # The half-width over the distance to the margin is the square root of how many times as many.
    found = outcome(calibration_slope=(0.8 + 0.05 / np.sqrt(needed), 0.75 + 0.05 / np.sqrt(needed), 0.85))
    assert (found.needed is None) == (needed > 100)


def test_the_undefined_is_not_shown_with_its_reason():
    reason = "calibration slope: the probabilities separate all 40 cases perfectly, so it is infinite"
    found = outcome({"calibration_slope": reason})
    assert (found.verdict, found.reasons, found.needed) == ("not shown", (reason,), None)
    same = "calibration curve: all 9 cases are benign"
    found = outcome({"ici": same, "calibration_slope": same}, calibration_intercept=(0.0, -1.0, 1.0))
    assert found.reasons == (same, "intercept +0.00 (-1.00 to +1.00) reaches below -0.22 and above +0.22")
    assert outcome({"ici": same}, calibration_slope=(0.5, 0.4, 0.6)).verdict == "refuted"


@pytest.mark.parametrize(
    ("changed", "doubts"),
    [
        ({"calibration_slope": (0.79, 0.6, 0.95)}, ("slope",)),
        ({"calibration_slope": (0.79, 0.6, 0.97)}, ()),  # excludes 1, as one of three may by chance
        ({"calibration_slope": (0.81, 0.7, 0.9)}, ()),  # excludes 1, within what does not matter
        ({"calibration_slope": (1.26, 1.06, 1.5)}, ("slope",)),
        ({"calibration_intercept": (0.3, 0.06, 0.6), "ici": (0.06, 0.02, 0.1)}, ("intercept", "ICI")),
        ({"ici": (0.06, 0.0, 0.1)}, ()),
        ({"calibration_slope": (0.5, 0.4, 0.6)}, ("slope",)),  # refuted
    ],
)
def test_doubt_is_a_fault_that_matters_and_that_chance_hardly_explains(changed, doubts):
    assert outcome(**changed).in_doubt == doubts


def test_an_outcome_is_plain_json():
    found = outcome(calibration_slope=(1.08, 0.58, 1.58))
    value = json.loads(json.dumps(found.to_json()))
    assert value["verdict"] == "not shown"
    assert value["needed"] == {"patients": 2100, "cases": 4200, "malignant": 1300}
    assert value["in_doubt"] == []


def judged(verdict, doubts=()):
    return CalibrationOutcome(verdict, ("why",), doubts)


@pytest.mark.parametrize(
    ("challenger", "champion", "holds", "says"),
    [
        (judged("shown"), judged("shown"), True, "shown: why"),
        (judged("shown"), judged("refuted"), True, "shown: why"),
        (judged("refuted", ("slope",)), judged("refuted", ("slope",)), False, "recalibrate` refits it on local cases"),
        (judged("not shown"), judged("not shown"), True, r"why; no worse than the champion's \(not shown\)"),
        (judged("not shown"), judged("shown"), True, r"no worse than the champion's \(shown\)"),
        (judged("not shown", ("slope",)), judged("shown"), False, "in doubt by its slope, where the champion is not"),
        (judged("not shown", ("slope", "ICI")), judged("not shown", ("ICI",)), False, "in doubt by its slope, where"),
        (judged("not shown", ("slope", "ICI")), judged("not shown"), False, "in doubt by its slope and ICI, where"),
        (judged("not shown", ("slope",)), judged("not shown", ("slope",)), True, "no worse than the champion's"),
    ],
)
def test_the_gate_refuses_what_is_refuted_and_what_is_in_doubt_where_the_champion_is_not(
    challenger, champion, holds, says
):
    condition = _calibration(challenger, champion)
    assert (condition.name, condition.holds) == ("calibration", holds)
    assert condition.finding.startswith(f"{challenger.verdict}: why")
    assert re.search(says, condition.finding)
