"""The refer-to-human zone: its promise, its refusals, and what it leaves to decide."""

import numpy as np
import pandas as pd
import pytest
from studies import predictions

from pipeline.errors import CalibrationError
from pipeline.evaluation.decisions.refer_zone import (
    ReferZone,
    attainable_coverage,
    decide,
    fit_refer_zone,
    judge_refer_zone,
)
from pipeline.evaluation.predictions import Predictions


def cases(rng, n, *, gap=1.5):
    labels = np.arange(n) % 2
    return labels, 1 / (1 + np.exp(-rng.normal((2 * labels - 1) * gap / 2, 1.0)))


def test_coverage_of_each_class_is_what_was_promised():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        zone = fit_refer_zone(*cases(rng, 240), coverage=0.9)
        labels, values = cases(rng, 4000)
        covered.append(
            [(values[labels == 1] >= zone.malignant_from).mean(), (values[labels == 0] <= zone.benign_to).mean()]
        )
    low, high = attainable_coverage(120, 0.9)
    for column in np.array(covered).T:
        assert 0.9 <= column.mean() <= 0.92  # at least the promise, by less than one case in 121 on average
        assert 0.92 <= ((column >= low) & (column <= high)).mean() <= 0.98


def test_quantiles_are_those_of_the_slow_definition():
    rng = np.random.default_rng(1)
    labels, values = cases(rng, 300)
    zone = fit_refer_zone(labels, values, coverage=0.85)
    scores = sorted(1 - values[labels == 1])  # nonconformity of the true class
    rank = int(np.ceil((len(scores) + 1) * 0.85))
    assert zone.malignant_from == pytest.approx(1 - scores[rank - 1])
    assert zone.benign_to == sorted(values[labels == 0])[int(np.ceil(151 * 0.85)) - 1]


@pytest.mark.parametrize(("benign_to", "malignant_from"), [(0.7, 0.3), (0.3, 0.7)])
def test_both_or_neither_is_referred(benign_to, malignant_from):
    zone = ReferZone(0.9, malignant_from, benign_to, 100, 100, (0.8, 0.9), (0.8, 0.9))
    assert decide([0.1, 0.5, 0.9], threshold=0.5, zone=zone).tolist() == ["negative", "refer", "positive"]
    assert ReferZone.from_json(zone.to_json()) == zone


@pytest.mark.parametrize(
    ("benign_to", "malignant_from", "decisions"),
    [(0.7, 0.3, ["refer", "refer"]), (0.3, 0.7, ["negative", "positive"])],
)
def test_borders_belong_to_the_side_that_they_bound(benign_to, malignant_from, decisions):
    zone = ReferZone(0.9, malignant_from, benign_to, 100, 100, (0.8, 0.9), (0.8, 0.9))
    assert decide([0.3, 0.7], threshold=0.5, zone=zone).tolist() == decisions
    rows = {"case_id": ["a", "b"], "patient_id": ["a", "b"], "label": [0, 1], "probability": [0.3, 0.7]}
    judged = Predictions.from_frame(pd.DataFrame(rows).assign(split="test", logit=0.0))
    error = judge_refer_zone(zone, judged, threshold=0.5).error_of_rest
    assert (error and error.estimate) == (None if "refer" in decisions else 0.0)


def test_fewer_than_a_hundred_calibration_cases_of_a_class_are_refused():
    labels = np.r_[np.ones(99), np.zeros(500)]
    with pytest.raises(CalibrationError, match="99 malignant and 500 benign calibration cases; expected at least 100"):
        fit_refer_zone(labels, np.linspace(0, 1, 599))
    labels = np.r_[np.ones(100), np.zeros(100)]
    fit_refer_zone(labels, np.linspace(0, 1, 200), coverage=0.99)
    with pytest.raises(CalibrationError, match=r"cannot be promised by 100 cases of a class; ask for 0\.990"):
        fit_refer_zone(labels, np.linspace(0, 1, 200), coverage=0.995)
    with pytest.raises(CalibrationError, match=r"coverage: 1\.0 is not in"):
        fit_refer_zone(labels, np.linspace(0, 1, 200), coverage=1.0)


def test_attainable_range_is_printed_and_shrinks_with_cases():
    few, many = attainable_coverage(100, 0.9), attainable_coverage(1000, 0.9)
    assert few[0] < many[0] < 0.9 < many[1] < few[1]
    zone = fit_refer_zone(*cases(np.random.default_rng(0), 240))
    assert (
        f"{zone.attainable_positive[0]:.2f} and {zone.attainable_positive[1]:.2f} of the malignant" in zone.describe()
    )


def test_the_attainable_range_is_where_the_coverage_of_many_splits_lies():
    cases, coverage = 100, 0.9
    splits = np.sort(np.random.default_rng(0).random((20_000, cases)), axis=1)  # of a score, its own coverage
    found = splits[:, int(np.ceil((cases + 1) * coverage)) - 1]
    assert attainable_coverage(cases, coverage) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=0.002)


def test_the_rest_are_the_cases_that_a_score_row_would_decide():
    fitted, judged = predictions(900, seed=1), predictions(900, seed=2)
    zone = fit_refer_zone(fitted.labels, fitted.probabilities)
    threshold = zone.malignant_from - 0.1  # cases just above it are typical of benign ones alone, or of both
    found = judge_refer_zone(zone, judged, threshold=threshold)
    decisions = np.array([decide(value, threshold=threshold, zone=zone).item() for value in judged.probabilities])
    rest, positive, malignant = decisions != "refer", decisions == "positive", judged.labels == 1
    assert found.referred.estimate == pytest.approx((~rest).mean())
    assert found.error_of_rest.estimate == pytest.approx((positive != malignant)[rest].mean())
    assert found.sensitivity_of_rest.estimate == pytest.approx(positive[rest & malignant].mean())
    assert found.specificity_of_rest.estimate == pytest.approx((~positive)[rest & ~malignant].mean())
    assert found.error_of_rest.estimate < (positive != malignant).mean()
    everything = ReferZone(0.9, 0.0, 1.0, 100, 100, (0.8, 0.9), (0.8, 0.9))
    nothing_left = judge_refer_zone(everything, judged, threshold=0.5)
    assert nothing_left.error_of_rest is nothing_left.sensitivity_of_rest is nothing_left.specificity_of_rest is None


def test_a_case_on_which_zone_and_threshold_disagree_is_referred():
    zone = ReferZone(0.9, 0.6, 0.59, 100, 100, (0.8, 0.9), (0.8, 0.9))  # by itself it refers next to nothing
    assert decide([0.1, 0.4, 0.7], threshold=0.2, zone=zone).tolist() == ["negative", "refer", "positive"]
    assert decide([0.1, 0.4, 0.7], threshold=0.2).tolist() == ["negative", "positive", "positive"]
    assert decide([0.4, 0.4], threshold=[0.2, 0.5]).tolist() == ["positive", "negative"]
    judged = predictions(900, seed=2)
    low = judge_refer_zone(zone, judged, threshold=0.2).referred.estimate
    between = (judged.probabilities >= 0.2) & (judged.probabilities < 0.6)
    assert low == pytest.approx(between.mean())
