"""Drift of a run against its model's references: what is tested, what is an alert, and what it says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from drift_studies import draw_cases, drift_of, fit_to

from pipeline.scoring.drift import (
    FALSE_ALARMS_A_RUN,
    LEAST_CASES,
    Drift,
    DriftMeter,
    fit_references,
    references_from_json,
    references_to_json,
)
from pipeline.scoring.given_measures import Expected, Term, fit_expected
from pipeline.scoring.stability import DistributionShift

CALM = DistributionShift(0.02, 0.0, 1.0, (9.0, 900.0), 0.5, 500, 400)
GIVEN = "probability_given_measures"


def patients(count):
    return [f"patient {number}" for number in range(count)]


def reference(values):
    return fit_references({"mean": values}, patients(len(values)))


def test_cases_of_the_reference_itself_have_an_index_of_nought():
    values = np.random.default_rng(0).normal(size=1000)
    found = drift_of(reference(values), patients(1000), {"mean": values})
    assert found.shifts["mean"].index == pytest.approx(0.0, abs=1e-12)
    assert (found.alerts, found.untested, found.sentences()) == ((), {}, [])


def test_tenths_of_the_reference_fill_ten_bins():
    (found,) = reference(np.arange(200.0)).values()
    assert found.shares == pytest.approx((0.1,) * 10)
    assert found.edges == pytest.approx([0.1 * 199 * number for number in range(1, 10)], rel=1e-4)
    assert found.sample.cases == found.sample.patients == 200


def test_a_hundred_cases_are_tested_and_fewer_are_not():
    meter = DriftMeter(reference(np.arange(50.0)))
    meter.add(patients(LEAST_CASES), {"mean": [20.0, None] + [30.0] * (LEAST_CASES - 2)})
    assert meter.drift(least_effect=0.1).untested == {"mean": "99 cases; expected at least 100"}
    meter.add([None], {"mean": [math.inf]})
    meter.add([None], {"other": [1.0]})
    assert meter.drift(least_effect=0.1).shifts == {}
    meter.add([""], {"mean": [1.0], "other": [1.0]})
    found = meter.drift(least_effect=0.1)
    assert found.shifts["mean"].cases == found.shifts["mean"].patients == LEAST_CASES
    assert meter.unknown_patients == 3


def test_values_of_ten_patients_make_a_reference_and_of_nine_do_not():
    values = [*range(9), math.nan, 9.0, 10.0]
    assert list(fit_references({"mean": values}, [*patients(10), "patient 1", "patient 2"])) == []
    assert list(fit_references({"mean": values}, [*patients(10), "patient 1", "another"])) == ["mean"]


def test_cases_without_a_patient_count_as_one_each_over_batches():
    meter = DriftMeter(reference(np.arange(50.0)))
    for _ in range(3):
        meter.add([None, "one", "", "one"] * 20, {"mean": np.arange(80.0)})
    assert meter.unknown_patients == 120
    assert meter.drift(least_effect=0.1).shifts["mean"].patients == 121


@pytest.mark.parametrize("step", [-0.5, 0.5])
def test_a_measure_that_never_varied_shows_a_step_either_way(step):
    references = reference([2.5] * 60)
    assert drift_of(references, patients(120), {"mean": [2.5 * (1 + 1e-9), 2.5] * 60}).alerts == ()
    assert drift_of(references, patients(120), {"mean": [2.5 + step] * 120}).alerts == ("mean",)


def test_lowest_value_of_a_tenth_is_told_from_what_lies_below():
    values = [0.0] * 30 + list(range(1, 171))
    found = drift_of(reference(values), patients(200), {"mean": [-1.0] * 30 + values[30:]})
    assert found.alerts == ("mean",)


def test_alert_needs_a_shift_that_is_clear_and_large():
    values = np.random.default_rng(3).normal(size=3000)
    of_many, of_few = reference(values), reference(values[:30])
    small = drift_of(of_many, patients(3000), {"mean": values + 0.2})
    assert small.adjusted["mean"] < 1e-6
    assert small.alerts == ()
    assert drift_of(of_many, patients(3000), {"mean": values + 0.2}, least_effect=0.02).alerts == ("mean",)
    unclear = drift_of(of_few, patients(100), {"mean": values[30:130] + 0.75}, least_effect=0.0)
    assert unclear.shifts["mean"].effect > 0.1
    assert unclear.adjusted["mean"] > FALSE_ALARMS_A_RUN
    assert unclear.alerts == ()
    assert drift_of(of_many, patients(3000), {"mean": values + 0.4}).alerts == ("mean",)


def test_limit_of_an_alert_is_on_what_lies_beyond_chance():
    values = np.random.default_rng(3).normal(size=200)
    references, moved = reference(values), {"mean": values[:150] + 0.8}
    shift = drift_of(references, patients(150), moved).shifts["mean"]
    assert shift.index - shift.effect > 0.05
    assert drift_of(references, patients(150), moved, least_effect=shift.effect).alerts == ("mean",)
    assert drift_of(references, patients(150), moved, least_effect=(shift.effect + shift.index) / 2).alerts == ()


def test_alert_is_at_one_in_a_hundred_over_all_that_is_tested():
    values = np.random.default_rng(4).normal(size=(400, 4))
    names = ("a", "b", "c", "d")
    references = fit_references(dict(zip(names, values.T, strict=True)), patients(400))
    clear, unclear = [0.0], [1.0]
    for step in np.arange(0.2, 0.6, 0.002):
        columns = dict(zip(names, (values + step * np.eye(4)[0]).T, strict=True))
        found = drift_of(references, patients(400), columns, least_effect=0.0)
        assert found.adjusted["a"] == pytest.approx(min(4 * found.shifts["a"].p_value, 1))
        (clear if found.alerts else unclear).append(found.adjusted["a"])
    assert 0.007 < max(clear) < 0.01 < min(unclear) < 0.014


def test_references_are_read_back_as_they_were_written():
    references = fit_to(np.random.default_rng(0), 60, 40)
    read = references_from_json(json.loads(json.dumps(references_to_json(references))))
    assert references_to_json(read) == references_to_json(references)
    ids, columns = draw_cases(np.random.default_rng(1), 200, 1)
    before, after = drift_of(references, ids, columns), drift_of(read, ids, columns)
    assert after.shifts.keys() == before.shifts.keys() >= {GIVEN, "probability", "measure_0"}
    for name, shift in before.shifts.items():
        assert after.shifts[name].p_value == pytest.approx(shift.p_value, rel=1e-4)


def test_references_hold_nothing_of_a_single_case():
    few, many = (json.dumps(references_to_json(fit_to(np.random.default_rng(0), size, size))) for size in (200, 4000))
    assert len(many) == pytest.approx(len(few), rel=0.1)
    assert "patient " not in many


def test_reference_of_an_earlier_program_is_taken_for_one_case_of_each_patient():
    old = {"mean": [[-1.0, 0.0, 1.0], [0.25] * 4]}
    values = np.random.default_rng(0).normal(1, 1, size=400)
    unknown = drift_of(references_from_json(old), patients(400), {"mean": values})
    assert "does not say of how many cases" in unknown.untested["mean"]
    assert references_to_json(references_from_json(old)) == old
    few, many = (
        drift_of(references_from_json(old, patients={"mean": count}), patients(400), {"mean": values})
        for count in (20, 400)
    )
    assert (few.alerts, many.alerts) == ((), ("mean",))


@pytest.mark.parametrize(
    "alien",
    [
        {"shares": [0.5, 0.5, 0.0]},
        {"covariance": [[1.0]]},
        {"covariance": [[math.nan, 0.0], [0.0, 0.1]]},
        {"cases": 0},
        {"expected": {"intercept": 0.0, "terms": {"mean": {"center": 0.0, "scale": 0.0, "weight": 1.0}}}},
        {"expected": {"intercept": 0.0, "terms": {"mean": {"center": 0.0}}}},
    ],
)
def test_alien_reference_is_refused(alien):
    right = {"edges": [0.0], "shares": [0.5, 0.5], "cases": 9, "patients": 9, "covariance": [[0.1, 0.0], [0.0, 0.1]]}
    references_from_json({"mean": right})
    with pytest.raises((ValueError, TypeError), match=r"reference|regression|missing"):
        references_from_json({"mean": right | alien})


def test_regression_takes_off_what_the_measures_say():
    expected = Expected(0.5, {"a": Term(10.0, 2.0, 0.8), "b": Term(0.0, 1.0, -0.3)})
    odds = np.array([1.0, -2.0, 0.0])
    found = expected.residuals(1 / (1 + np.exp(-odds)), {"a": np.array([12.0, 10.0, 100.0]), "b": [0.0, 1.0, 0.0]})
    np.testing.assert_allclose(found, [1 - 0.5 - 0.8, -2 - 0.5 + 0.3, 0 - 0.5 - 4 * 0.8])
    assert np.isnan(expected.residuals([0.5], {"a": [1.0]})).all()
    refused = expected.residuals([np.nan, 0.5], {"a": [10.0, 10.0], "b": [0.0, 0.0]})
    np.testing.assert_allclose(refused, [np.nan, -0.5])


def test_residuals_of_the_reference_are_as_wide_as_those_of_new_cases():
    rng = np.random.default_rng(5)
    measures = rng.normal(size=(60, 40))
    odds = measures[:, 0] + rng.normal(size=60)
    cases = [{f"m{number}": value for number, value in enumerate(case)} for case in measures]
    fit, left = fit_expected(1 / (1 + np.exp(-odds)), cases, patients(60))
    new = rng.normal(size=(5000, 40))
    of_new = fit.residuals(
        1 / (1 + np.exp(-(new[:, 0] + rng.normal(size=5000)))), {f"m{number}": new[:, number] for number in range(40)}
    )
    of_fitted = fit.residuals(1 / (1 + np.exp(-odds)), {f"m{number}": measures[:, number] for number in range(40)})
    assert left.std() == pytest.approx(of_new.std(), rel=0.2)
    assert of_fitted.std() < 0.7 * of_new.std()


def test_no_regression_without_a_measure_that_varies_or_with_nine_patients():
    cases = [{"same": 1.0, "mean": float(number)} for number in range(30)]
    scores = [0.1 + 0.02 * number for number in range(30)]
    assert fit_expected(scores, [{"same": 1.0}] * 30, patients(30)) is None
    assert fit_expected(scores, cases, patients(9) + ["patient 0"] * 21) is None
    fit, _ = fit_expected(scores, cases, patients(10) + ["patient 0"] * 20)
    assert list(fit.terms) == ["mean"]


def said(*alerts, shifted=()):
    """Sentences of a run with these alerts, of all that is usually tested."""
    names = {"mean", "probability", GIVEN, *alerts} - set(shifted)
    return Drift(dict.fromkeys(names, CALM), dict.fromkeys(names, 0.0004), alerts, {}).sentences()


def test_sentences_tell_a_change_of_mix_from_one_of_scores():
    numbers = "(index 0.02, 0.00 beyond chance, p below 0.001)"
    assert said() == []
    mix = f"the mix of cases has changed: mean {numbers}"
    scores = f"scores have changed given the mix: {GIVEN} {numbers}, log odds less what the measures let one expect"
    assert said("mean") == [mix]
    assert said("mean", "probability") == [
        mix,
        f"the probabilities have changed, no more than the mix explains: probability {numbers}",
    ]
    assert said("probability", GIVEN) == said(GIVEN) == [scores]
    assert said("mean", "probability", GIVEN) == [mix, scores]
    (alone,) = said("probability")
    assert "nor the scores given the measures" in alone
    (unknown,) = said("probability", shifted=[GIVEN])
    assert "is not known, for want of a reference" in unknown


def test_large_p_value_is_shown():
    found = Drift({"mean": replace(CALM, index=0.31)}, {"mean": 0.0061}, ("mean",), {}).sentences()
    assert found == ["the mix of cases has changed: mean (index 0.31, 0.00 beyond chance, p 0.006)"]
