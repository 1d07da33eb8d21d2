import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from studies import predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.error import ece_null, expected_calibration_error, miscalibration
from pipeline.evaluation.intervals.patient_labels import PatientLabels

CASES = predictions(200, seed=5)
LABELS, PROBABILITIES = CASES.labels, CASES.probabilities
ALONE = PatientLabels(np.arange(200), 0.0)


def slow_auroc(labels, scores):
    pairs = itertools.product(scores[labels == 1], scores[labels == 0])
    return float(np.mean([1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs]))


def slow_ece(labels, probabilities, bins):
    order = np.argsort(probabilities)
    parts = np.array_split(order, bins)
    return sum(len(part) / len(labels) * abs(probabilities[part].mean() - labels[part].mean()) for part in parts)


def test_auroc_is_the_share_of_rightly_ordered_pairs():
    rounded = np.round(PROBABILITIES, 1)
    assert metrics.auroc(LABELS, rounded) == pytest.approx(slow_auroc(LABELS, rounded), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5.0))
def test_auroc_ignores_monotone_rescaling(seed, power):
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, 28)]
    scores = rng.integers(1, 20, 30).astype(float)
    assert metrics.auroc(labels, scores**power * 3 - 7) == metrics.auroc(labels, scores)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_metric_depends_on_the_order_of_the_cases(seed):
    order = np.random.default_rng(seed).permutation(LABELS.size)
    rounded = np.round(PROBABILITIES, 1)
    for metric in (
        metrics.auroc,
        metrics.average_precision,
        metrics.brier_score,
        expected_calibration_error,
    ):
        assert metric(LABELS[order], rounded[order]) == pytest.approx(metric(LABELS, rounded), abs=1e-12)


def test_simple_metrics_agree_with_scikit_learn():
    assert metrics.average_precision(LABELS, PROBABILITIES) == sk.average_precision_score(LABELS, PROBABILITIES)
    assert metrics.brier_score(LABELS, PROBABILITIES) == pytest.approx(sk.brier_score_loss(LABELS, PROBABILITIES))
    assert metrics.log_loss(LABELS, PROBABILITIES) == pytest.approx(sk.log_loss(LABELS, PROBABILITIES))
    sure = np.where(LABELS == 1, 0.0, 1.0)
    assert metrics.log_loss(LABELS, sure) == pytest.approx(sk.log_loss(LABELS, sure))


def test_ece_without_ties_is_the_definition_over_equal_bins():
    for bins in (1, 5, 10, 20):
        assert expected_calibration_error(LABELS, PROBABILITIES, bins=bins) == pytest.approx(
            slow_ece(LABELS, PROBABILITIES, bins), abs=1e-12
        )


def test_ece_null_contains_the_ece_of_labels_drawn_from_the_probabilities():
    rng = np.random.default_rng(0)
    null = ece_null(PROBABILITIES, ALONE, bins=13, draws=4000, rng=rng)
    drawn = [
        expected_calibration_error((rng.random(LABELS.size) < PROBABILITIES).astype(int), PROBABILITIES, bins=13)
        for _ in range(1000)
    ]
    assert null.median == pytest.approx(np.median(drawn), rel=0.03)
    assert np.mean(np.array(drawn) < null.p95) == pytest.approx(0.95, abs=0.02)
    assert null.median < null.p95
    assert 0.04 < null.median < 0.09  # a perfect model of 200 cases


def test_the_same_generator_gives_the_same_null():
    first, second = (ece_null(PROBABILITIES, ALONE, rng=np.random.default_rng(4), draws=200) for _ in range(2))
    assert first == second


def test_calibration_slope_and_intercept_are_the_logistic_fits():
    odds = metrics.log_odds(PROBABILITIES)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:, None], LABELS)
    assert metrics.calibration_slope(LABELS, PROBABILITIES) == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    shift = optimize.minimize_scalar(lambda a: np.logaddexp(0.0, -(2 * LABELS - 1) * (odds + a)).sum(), tol=1e-12).x
    assert metrics.calibration_intercept(LABELS, PROBABILITIES) == pytest.approx(shift, abs=1e-6)


def test_overconfident_probabilities_have_a_slope_below_one():
    sharper = sigmoid(2.0 * metrics.log_odds(PROBABILITIES))
    assert metrics.calibration_slope(LABELS, sharper) == pytest.approx(
        metrics.calibration_slope(LABELS, PROBABILITIES) / 2
    )


def test_probabilities_that_are_too_low_have_an_intercept_above_zero():
    lower = sigmoid(metrics.log_odds(PROBABILITIES) - 1.0)
    before = metrics.calibration_intercept(LABELS, PROBABILITIES)
    assert metrics.calibration_intercept(LABELS, lower) == pytest.approx(before + 1.0)


def test_miscalibration_is_what_isotonic_recalibration_wins_back():
    found = miscalibration(LABELS, PROBABILITIES)
    recalibrated = IsotonicRegression().fit_transform(PROBABILITIES, LABELS)
    best = metrics.brier_score(LABELS, recalibrated)
    assert found == pytest.approx(metrics.brier_score(LABELS, PROBABILITIES) - best)
    assert found >= 0
    assert miscalibration(LABELS, recalibrated) == pytest.approx(0.0, abs=1e-12)
    assert miscalibration(LABELS, PROBABILITIES**3) > found


def test_miscalibration_of_probabilities_that_differ_in_their_last_bit():
    labels, probabilities = [0, 1, 0, 1, 0, 1], [0.1, 0.2, 1 - 3e-16, 1 - 2e-16, 1 - 1e-16, 1.0]
    best = (2 * 0.5**2 + 2 * 0.5**2) / 6
    assert miscalibration(labels, probabilities) == pytest.approx(metrics.brier_score(labels, probabilities) - best)


def test_confusion_counts_the_threshold_as_positive():
    counts = metrics.confusion([1, 1, 0, 0, 0], [0.9, 0.4, 0.4, 0.1, 0.39], 0.4)
    assert (counts.true_positive, counts.false_negative, counts.true_negative, counts.false_positive) == (2, 0, 2, 1)
    assert (counts.sensitivity, counts.specificity) == (1.0, 2 / 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_raising_a_threshold_never_raises_sensitivity(seed, first, second):
    rng = np.random.default_rng(seed)
    labels, probabilities = np.r_[0, 1, rng.integers(0, 2, 20)], np.round(rng.random(22), 1)
    low, high = (metrics.confusion(labels, probabilities, each) for each in sorted((first, second)))
    assert high.sensitivity <= low.sensitivity
    assert high.specificity >= low.specificity


@pytest.mark.parametrize(
    "metric", [metrics.auroc, metrics.average_precision, metrics.calibration_intercept, metrics.calibration_slope]
)
@pytest.mark.parametrize(("value", "word"), [(1, "malignant"), (0, "benign")])
def test_one_class_is_undefined(metric, value, word):
    with pytest.raises(UndefinedMetricError, match=f"all 3 cases are {word}"):
        metric([value] * 3, [0.1, 0.5, 0.9])


@pytest.mark.parametrize(
    ("metric", "labels", "probabilities", "message"),
    [
        (metrics.brier_score, [0, 1], [0.5, 1.5], r"1.5; expected \[0, 1\]"),
        (metrics.log_loss, [0, 1], [0.5, np.nan], "1 of 2 are not finite"),
        (metrics.brier_score, [], [], "at least one case"),
        (metrics.brier_score, [0, None], [0.5, 0.5], "hold nan; expected 0 or 1"),
        (metrics.brier_score, ["a", "b"], [0.5, 0.5], "not a number"),
        (metrics.auroc, [0, 1], [0.5], "one value a case"),
        (expected_calibration_error, [0, 1], [0.2, 0.5], "2 cases for 15 bins"),
        (metrics.calibration_slope, [0, 1, 1], [0.4, 0.4, 0.4], "all 3 probabilities are equal"),
        (metrics.calibration_slope, [0, 1, 1], [0.1, 0.4, 0.5], "separate all 3 cases"),
    ],
)
def test_the_undefined_is_an_error_and_never_a_number(metric, labels, probabilities, message):
    with pytest.raises(UndefinedMetricError, match=message):
        metric(labels, probabilities)


def test_shares_without_cases_are_undefined():
    counts = metrics.confusion([0, 0], [0.1, 0.2], 0.5)
    with pytest.raises(UndefinedMetricError, match="no malignant case"):
        _ = counts.sensitivity
    positive = metrics.confusion([1, 1], [0.6, 0.7], 0.5)
    with pytest.raises(UndefinedMetricError, match="no benign case"):
        _ = positive.specificity


def test_almost_separated_classes_still_get_their_slope():
    odds = np.r_[np.linspace(-400, -1, 50), np.linspace(0, 400, 50)]
    labels = np.r_[np.zeros(50), np.ones(50)].astype(int)
    labels[49], labels[50] = 1, 0
    probabilities = sigmoid(odds / 30)
    found = metrics.calibration_slope(labels, probabilities)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    kept = metrics.log_odds(probabilities)[:, None]
    assert found == pytest.approx(reference.fit(kept, labels).coef_[0, 0], rel=1e-3)
