import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import calibrator, frame, point, predictions

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation import metrics
from pipeline.evaluation.calibration import error as calibration_error
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.outcome import SampleSize, calibration_outcome
from pipeline.evaluation.decisions.prevalence import restate_prevalence
from pipeline.evaluation.evaluate import default_bins, evaluate
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions

TEST = predictions(400, seed=1)
FOUND = evaluate(TEST, operating_point=point(), resamples=200)


def test_estimates_are_the_metrics_of_the_probability_column():
    for name in ("auroc", "average_precision", "brier_score", "log_loss", "calibration_slope", "calibration_intercept"):
        assert FOUND[name].estimate == pytest.approx(getattr(metrics, name)(TEST.labels, TEST.probabilities))
    counts = metrics.confusion(TEST.labels, TEST.probabilities, 0.2)
    assert FOUND.confusion == counts
    for name in ("sensitivity", "specificity"):
        assert FOUND[name].estimate == pytest.approx(getattr(counts, name))
    called_positive = counts.true_positive + counts.false_positive
    assert FOUND["ppv"].estimate == pytest.approx(counts.true_positive / called_positive)
    assert FOUND["npv"].estimate == pytest.approx(counts.true_negative / (400 - called_positive))
    assert FOUND.ece == calibration_error.expected_calibration_error(TEST.labels, TEST.probabilities, bins=15)
    assert (FOUND.n_cases, FOUND.n_positive) == (400, TEST.labels.sum())
    assert FOUND.n_patients == len(set(TEST.patients))


def test_the_uncalibrated_stand_beside():
    assert FOUND.uncalibrated.brier_score == metrics.brier_score(TEST.labels, sigmoid(TEST.logits))
    assert FOUND.calibrated.log_loss < FOUND.uncalibrated.log_loss


def test_calibrated_probabilities_are_shown_and_distorted_ones_refuted():
    honest = evaluate(predictions(4000, seed=4), operating_point=point(), resamples=100)
    assert honest.calibration.verdict == "shown", honest.calibration
    bare = Predictions.from_frame(frame(2000, seed=4, temperature=2.5)).with_probabilities(sigmoid)
    distorted = evaluate(bare, operating_point=point(), resamples=100)
    assert distorted.calibration.verdict == "refuted"
    assert "overconfident" in distorted.calibration.reasons[0]
    low = predictions(2000, seed=4).with_probabilities(
        lambda logits: sigmoid(calibrator().calibrated_logit(logits) - 1.0)
    )
    reasons = evaluate(low, operating_point=point(), resamples=100).calibration.reasons
    assert any("too low on average" in reason for reason in reasons)


def test_the_outcome_is_that_of_these_intervals_and_counts():
    counts = SampleSize(FOUND.n_patients, FOUND.n_cases, FOUND.n_positive)
    assert FOUND.calibration == calibration_outcome(FOUND.intervals, FOUND.undefined, counts)
    assert FOUND.to_json()["calibration_outcome"] == FOUND.calibration.to_json()
    assert FOUND.calibration.verdict == "not shown"


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [((1.0, 0.9, 1.1), "shown"), ((1.0, 0.5, 1.5), "not shown"), ((0.5, 0.4, 0.6), "refuted")],
)
def test_flat_metrics_say_what_is_shown_and_what_is_refuted(slope, verdict):
    intervals = {
        **FOUND.intervals,
        "calibration_slope": Interval(*slope),
        "calibration_intercept": Interval(0.0, -0.1, 0.1),
        "ici": Interval(0.01, 0.0, 0.02),
    }
    found = replace(FOUND, intervals=intervals)
    assert found.calibration.verdict == verdict
    flat = found.metrics()
    assert (flat["test_calibration_shown"], flat["test_calibration_refuted"]) == (
        float(verdict == "shown"),
        float(verdict == "refuted"),
    )


def test_the_calibrator_fills_missing_probabilities_and_must_agree_with_given_ones():
    bare = Predictions.from_frame(frame(400, seed=1))
    assert evaluate(bare, operating_point=point(), calibrator=calibrator(), resamples=200) == FOUND
    with pytest.raises(UsageError, match="differ from the calibrator's"):
        evaluate(TEST, operating_point=point(), calibrator=calibrator(3.0))
    with pytest.raises(UsageError, match="have no probability"):
        evaluate(bare, operating_point=point())


def test_the_same_seed_gives_the_same_evaluation():
    assert evaluate(TEST, operating_point=point(), resamples=200) == FOUND
    other = evaluate(TEST, operating_point=point(), resamples=200, seed=1)
    assert other["average_precision"] != FOUND["average_precision"]
    assert other["auroc"] == FOUND["auroc"]


def test_unlabelled_rows_are_counted_and_change_nothing():
    rows = TEST.frame.copy()
    more = rows.head(50).assign(case_id=[f"u{n}" for n in range(50)], label=pd.array([None] * 50, dtype="Int8"))
    found = evaluate(
        Predictions.from_frame(pd.concat([rows, more], ignore_index=True)), operating_point=point(), resamples=200
    )
    assert found.n_unlabelled == 50
    assert found.intervals == FOUND.intervals


def test_flat_metrics_have_plain_names_and_finite_values():
    flat = FOUND.metrics()
    assert flat["test_auroc_lower"] < flat["test_auroc"] < flat["test_auroc_upper"]
    assert {"test_ece", "test_ece_null_p95", "test_brier_score_uncalibrated", "test_calibration_shown"} <= set(flat)
    assert all(isinstance(value, float) and np.isfinite(value) for value in flat.values())
    assert set(FOUND.metrics("fold0_")) == {name.replace("test_", "fold0_", 1) for name in flat}


def test_an_evaluation_is_plain_json():
    value = json.loads(json.dumps(FOUND.to_json(), allow_nan=False))
    assert value["intervals"]["auroc"]["estimate"] == FOUND["auroc"].estimate
    assert value["operating_point"]["threshold"] == 0.2


def test_the_undefined_is_named_and_the_rest_still_judged():
    benign = Predictions.from_frame(frame(40).assign(label=0)).with_probabilities(calibrator().apply)
    found = evaluate(benign, operating_point=point(), resamples=50)
    assert {"auroc", "average_precision", "calibration_slope", "calibration_intercept", "ici", "sensitivity"} <= set(
        found.undefined
    )
    assert {"brier_score", "log_loss", "specificity"} <= set(found.intervals)
    assert found.calibration.verdict == "not shown"
    assert found.undefined["ici"].startswith("calibration curve: all 40 cases are benign")
    with pytest.raises(UndefinedMetricError, match="all 40 cases are benign"):
        _ = found["auroc"]
    with pytest.raises(UndefinedMetricError, match="not a statistic"):
        _ = found["f1"]
    assert "test_auroc" not in found.metrics()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
def test_no_study_is_too_small_to_be_judged_honestly(seed, n, sure):
    rng = np.random.default_rng(seed)
    rows = frame(12).head(n).assign(label=rng.integers(0, 2, n), patient_id=rng.integers(0, 4, n).astype(str))
    probabilities = rng.integers(0, 2, n) if sure else np.round(rng.random(n), 1)
    found = evaluate(
        Predictions.from_frame(rows.assign(probability=probabilities)), operating_point=point(0.5), resamples=30
    )
    json.dumps(found.to_json(), allow_nan=False)
    assert all(found.undefined.values())
    assert len(found.intervals) + len(set(found.undefined) - {"ece"}) == 18
    assert found.calibration.reasons


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(label=None), "no labelled case"),
        (lambda f: pd.concat([f.assign(seed=0), f.assign(seed=1)]), "case 000 has several rows"),
        (lambda f: pd.concat([f.assign(finding="malignant"), f.assign(finding="calcified")]), "hold 2 findings"),
    ],
)
def test_rows_that_cannot_be_judged_together_are_refused(change, message):
    made = Predictions.from_frame(change(frame(20))).with_probabilities(calibrator().apply)
    with pytest.raises(UsageError, match=message):
        evaluate(made, operating_point=point())


def test_bins_follow_the_number_of_cases():
    assert [default_bins(n) for n in (10, 75, 150, 225, 10_000)] == [5, 5, 10, 15, 15]


def test_judging_changes_nothing_it_is_given():
    before = TEST.frame.copy()
    evaluate(TEST, operating_point=point(), resamples=20)
    pd.testing.assert_frame_equal(TEST.frame, before)


def test_limits_of_restated_predictive_values_are_movers():
    def limits(hit, other, odds):
        ratio = hit.estimate / (1 - other.estimate)
        below = np.log(hit.estimate / hit.lower), np.log((1 - other.lower) / (1 - other.estimate))
        above = np.log(hit.upper / hit.estimate), np.log((1 - other.estimate) / (1 - other.upper))
        return sigmoid(np.log(odds * ratio) + np.array([-np.hypot(*below), np.hypot(*above)]))

    sensitivity, specificity = Interval(0.9, 0.8, 0.95), Interval(0.7, 0.6, 0.8)
    restated = restate_prevalence(sensitivity, specificity, prevalence=0.1)
    ppv, npv = limits(sensitivity, specificity, 1 / 9), limits(specificity, sensitivity, 9)
    assert (restated.ppv.lower, restated.ppv.upper) == pytest.approx(tuple(ppv))
    assert (restated.npv.lower, restated.npv.upper) == pytest.approx(tuple(npv))


def test_restated_predictive_values_follow_bayes():
    sensitivity, specificity = Interval(0.9, 0.85, 0.94), Interval(0.7, 0.62, 0.77)
    restated = restate_prevalence(sensitivity, specificity, prevalence=0.1)
    assert restated.ppv.estimate == pytest.approx(0.9 * 0.1 / (0.9 * 0.1 + 0.3 * 0.9))
    assert restated.npv.estimate == pytest.approx(0.7 * 0.9 / (0.7 * 0.9 + 0.1 * 0.1))
    assert restated.ppv.lower < restated.ppv.estimate < restated.ppv.upper
    here = restate_prevalence(FOUND["sensitivity"], FOUND["specificity"], prevalence=FOUND.prevalence)
    assert here.ppv.estimate == pytest.approx(FOUND["ppv"].estimate)
    assert here.npv.estimate == pytest.approx(FOUND["npv"].estimate)
    # Within a study the sampled prevalence varies too, so the interval there is the wider one.
    assert here.ppv.upper - here.ppv.lower < FOUND["ppv"].upper - FOUND["ppv"].lower


def test_rarer_disease_lowers_ppv_and_raises_npv():
    values = [
        restate_prevalence(FOUND["sensitivity"], FOUND["specificity"], prevalence=each) for each in (0.01, 0.2, 0.5)
    ]
    assert values[0].ppv.estimate < values[1].ppv.estimate < values[2].ppv.estimate
    assert values[0].npv.estimate > values[1].npv.estimate > values[2].npv.estimate


def test_restating_survives_the_edges():
    perfect, none = Interval(1.0, 0.9, 1.0), Interval(0.0, 0.0, 0.1)
    restated = restate_prevalence(perfect, perfect, prevalence=0.3)
    assert (restated.ppv.estimate, restated.ppv.upper) == (1.0, 1.0)
    assert 0.5 < restated.ppv.lower < 1.0
    with pytest.raises(UndefinedMetricError, match="no case would be called so"):
        restate_prevalence(none, perfect, prevalence=0.3)
    with pytest.raises(UndefinedMetricError, match=r"prevalence: 1.0 is not in \(0, 1\)"):
        restate_prevalence(perfect, perfect, prevalence=1.0)
