import json
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from studies import point, predictions

from pipeline.errors import CalibrationError, UndefinedMetricError
from pipeline.evaluation.decisions.operating_points import OperatingPoint, choose_operating_point, needed_cases
from pipeline.evaluation.metrics import confusion


def cases(seed):
    rng = np.random.default_rng(seed)
    return np.r_[0, 1, rng.integers(0, 2, 38)], np.round(rng.random(40), 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_fixed_sensitivity_takes_the_largest_threshold_that_reaches_it(seed, target):
    labels, probabilities = cases(seed)
    chosen = choose_operating_point(labels, probabilities, target=target)
    assert chosen.sensitivity >= target - 1e-9
    higher = [each for each in np.unique(probabilities) if each > chosen.threshold]
    assert all(confusion(labels, probabilities, each).sensitivity < target for each in higher)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_fixed_specificity_takes_the_smallest_threshold_that_reaches_it(seed, target):
    labels, probabilities = cases(seed)
    probabilities = probabilities * 0.99
    chosen = choose_operating_point(labels, probabilities, rule="specificity", target=target)
    assert chosen.specificity >= target - 1e-9
    lower = [each for each in np.unique(probabilities) if each < chosen.threshold]
    assert all(confusion(labels, probabilities, each).specificity < target for each in lower)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_youden_beats_every_other_threshold(seed):
    labels, probabilities = cases(seed)
    chosen = choose_operating_point(labels, probabilities, rule="youden", target=None)
    best = max(
        counts.sensitivity + counts.specificity
        for counts in (confusion(labels, probabilities, each) for each in np.unique(probabilities))
    )
    assert chosen.sensitivity + chosen.specificity == pytest.approx(best)
    assert chosen.target is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["sensitivity", "specificity", "youden"]))
@example(15155, "specificity")
def test_the_order_of_the_cases_does_not_matter(seed, rule):
    labels, probabilities = cases(seed)
    order = np.random.default_rng(seed).permutation(labels.size)
    settings = {"rule": rule, "target": 0.9}
    try:
        chosen = choose_operating_point(labels, probabilities, **settings)
    except CalibrationError as error:  # a benign case of probability 1, one case in thousands
        with pytest.raises(CalibrationError, match=re.escape(str(error))):
            choose_operating_point(labels[order], probabilities[order], **settings)
        return
    assert chosen == choose_operating_point(labels[order], probabilities[order], **settings)


def test_the_cost_rule_minimises_cost_where_probabilities_are_calibrated():
    test = predictions(40_000)
    chosen = choose_operating_point(test.labels, test.probabilities, rule="cost", target=None, cost_ratio=9)
    assert chosen.threshold == pytest.approx(0.1)

    def cost(threshold):
        counts = confusion(test.labels, test.probabilities, threshold)
        return 9 * counts.false_negative + counts.false_positive

    costs = [cost(each) for each in np.linspace(0.01, 0.9, 90)]
    assert cost(chosen.threshold) <= min(costs) * 1.02


def test_nineteen_of_twenty_are_ninety_five_percent():
    labels, probabilities = np.r_[np.ones(20), np.zeros(5)], np.r_[np.linspace(0.1, 0.9, 20), np.zeros(5)]
    chosen = choose_operating_point(labels, probabilities, target=0.95)
    assert chosen.sensitivity == 0.95
    assert chosen.threshold == np.linspace(0.1, 0.9, 20)[1]
    assert (chosen.n_positive, chosen.n_negative) == (20, 5)


def test_the_threshold_itself_is_positive():
    assert point(0.3).decide([0.3, np.nextafter(0.3, 0)]).tolist() == [True, False]


def test_an_operating_point_survives_json():
    sure = choose_operating_point(*cases(1), target=0.5, confidence=0.8)
    assert "confidence" not in point().to_json()  # as models of earlier versions have it
    for chosen in (point(), sure, choose_operating_point(*cases(1), rule="cost", cost_ratio=20)):
        assert OperatingPoint.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


def test_an_operating_point_says_what_it_rests_on():
    assert point(0.2).describe() == (
        "probability ≥ 0.2 (at least 95 % sensitivity, on 60 malignant and 100 benign calibration cases; "
        "true sensitivity 0.88 to 0.98, 5th to 95th percentile)"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 0.0}, r"target: 0.0 is not in \(0, 1\]"),
        ({"target": None}, "target: None"),
        ({"rule": "specificity", "target": 1.1}, "target: 1.1"),
        ({"rule": "cost"}, "cost_ratio: None"),
        ({"rule": "cost", "cost_ratio": -1.0}, "cost_ratio: -1.0"),
        ({"rule": "best"}, "'best' is not one of"),
        ({"rule": "youden", "confidence": 0.9}, "confidence: 0.9 is not for rule 'youden'"),
        ({"confidence": 1.0}, r"confidence: 1 is not in \(0, 1\)"),
        ({"target": 1.0, "confidence": 0.9}, "no number of cases shows 1"),
        (
            {"confidence": 0.9},
            "2 malignant calibration cases cannot show 95 % .*; expected at least 45",
        ),
        ({"rule": "specificity", "confidence": 0.9}, "1 benign calibration cases cannot show 95 %"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(settings, message):
    with pytest.raises(CalibrationError, match=message):
        choose_operating_point([0, 1, 1], [0.2, 0.3, 0.9], **settings)


def test_one_class_has_no_operating_point():
    with pytest.raises(CalibrationError, match="all 2 cases are benign"):
        choose_operating_point([0, 0], [0.2, 0.3])
    with pytest.raises(UndefinedMetricError, match="expected"):
        choose_operating_point([0, 1], [-2.0, 3.0])


def test_a_specificity_out_of_reach_is_said():
    with pytest.raises(CalibrationError, match="a benign case has probability 1"):
        choose_operating_point([0, 1], [1.0, 1.0], rule="specificity", target=0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, "threshold: 1.5"),
        ({"threshold": "0.5"}, "threshold: '0.5'"),
        ({"rule": "luck"}, "'luck' is not one of"),
        ({"n_positive": 1.5}, "not a whole number"),
        ({"n_negative": 0}, "n_negative: 0"),
        ({"sensitivity": float("nan")}, "sensitivity: nan"),
        ({"target": 2.0}, "target: 2.0"),
        ({"confidence": 1.5}, "confidence: 1.5"),
        ({"extra": 1}, "expected an object with exactly"),
    ],
)
def test_a_damaged_operating_point_is_refused(change, message):
    with pytest.raises(CalibrationError, match=message):
        OperatingPoint.from_json({**point().to_json(), **change})


@pytest.mark.parametrize(("cases", "missed"), [(45, 0), (76, 0), (77, 1), (104, 1), (105, 2)])
def test_the_tolerance_bound_counts_cases_as_the_binomial_does(cases, missed):
    assert needed_cases(cases, target=0.95, confidence=0.9) == cases - missed
    with pytest.raises(CalibrationError, match="expected at least 45"):
        needed_cases(44, target=0.95, confidence=0.9)


def studies_of(rule, *, studies=3000, cases=80):
    """True sensitivity and specificity, and their stated percentiles, of thresholds chosen in simulated studies."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], cases)
    for _ in range(studies):
        chosen = choose_operating_point(labels, stats.norm.cdf(rng.normal(labels)), **rule)
        limit = stats.norm.ppf(chosen.threshold)
        yield stats.norm.sf(limit - 1.0), stats.norm.cdf(limit), chosen.true_sensitivity()


def test_the_target_is_truly_reached_with_the_stated_confidence():
    plain = np.mean([sensitivity >= 0.95 for sensitivity, _, _ in studies_of({"target": 0.95})])
    assert plain < 0.5  # which is why there is a confidence
    sure = np.mean([sensitivity >= 0.95 for sensitivity, _, _ in studies_of({"target": 0.95, "confidence": 0.9})])
    exact = stats.beta.sf(0.95, 79, 2)  # 1 of 80 may be missed
    assert exact >= 0.9
    assert sure == pytest.approx(exact, abs=0.02)  # four standard errors
    rule = {"rule": "specificity", "target": 0.9, "confidence": 0.9}
    assert np.mean([specificity >= 0.9 for _, specificity, _ in studies_of(rule)]) >= 0.88


def test_the_stated_percentiles_hold_the_true_sensitivity():
    for rule in ({"target": 0.95}, {"target": 0.8}):
        found = list(studies_of(rule))
        assert np.mean([sensitivity < low for sensitivity, _, (low, _) in found]) == pytest.approx(0.05, abs=0.016)
        assert np.mean([sensitivity > high for sensitivity, _, (_, high) in found]) == pytest.approx(0.05, abs=0.016)
    found = list(studies_of({"rule": "cost", "target": None, "cost_ratio": 4.0}))
    assert np.mean([low <= sensitivity <= high for sensitivity, _, (low, high) in found]) >= 0.89
