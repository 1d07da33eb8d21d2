import numpy as np
import pandas as pd
import pytest
from studies import point, predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import as_groups
from pipeline.evaluation.decisions.decision_curve import decision_curve, net_benefit, net_benefit_interval
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals.resampling import patient_weights
from pipeline.evaluation.metrics import confusion

TEST = predictions(200, seed=8)


def test_net_benefit_is_its_definition():
    thresholds = [0.05, 0.2, 0.5, 0.9]
    found = net_benefit(TEST.labels, TEST.probabilities, thresholds=thresholds)
    for value, threshold in zip(found, thresholds, strict=True):
        counts = confusion(TEST.labels, TEST.probabilities, threshold)
        expected = (counts.true_positive - counts.false_positive * threshold / (1 - threshold)) / 200
        assert value == pytest.approx(expected)


def test_treating_all_breaks_even_at_the_prevalence():
    prevalence = float(TEST.labels.mean())
    curve = decision_curve(TEST.labels, TEST.probabilities, thresholds=[prevalence / 2, prevalence])
    assert curve.treat_all[0] > 0
    assert curve.treat_all[1] == pytest.approx(0.0)


def test_a_perfect_model_is_worth_the_prevalence_everywhere():
    curve = decision_curve(TEST.labels, TEST.labels.astype(float))
    assert curve.model == pytest.approx(np.full(99, TEST.labels.mean()))
    assert curve.thresholds == pytest.approx([percent / 100 for percent in range(1, 100)])


@pytest.mark.parametrize("thresholds", [[0.0, 0.5], [0.5, 1.0]])
def test_a_threshold_of_zero_or_one_has_no_net_benefit(thresholds):
    with pytest.raises(UndefinedMetricError, match=r"expected \(0, 1\)"):
        net_benefit(TEST.labels, TEST.probabilities, thresholds=thresholds)


def test_one_class_has_no_decision_curve():
    with pytest.raises(UndefinedMetricError, match="all 2 cases are benign"):
        decision_curve([0, 0], [0.1, 0.2])


def test_net_benefit_at_the_threshold_has_the_bootstraps_interval():
    test = predictions(400)
    found = net_benefit_interval(test.labels, test.probabilities, test.patients, threshold=0.2)
    assert found.estimate == pytest.approx(net_benefit(test.labels, test.probabilities, thresholds=[0.2])[0])
    groups = as_groups(test.patients, test.labels)
    worth = np.where(test.labels == 1, 1.0, -0.25) * (test.probabilities >= 0.2)
    drawn = np.concatenate(
        [
            weights @ worth / weights.sum(axis=1)
            for weights in patient_weights(groups, resamples=2000, rng=np.random.default_rng(0))
        ]
    )
    assert (found.lower, found.upper) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)
    with pytest.raises(UndefinedMetricError, match=r"expected \(0, 1\)"):
        net_benefit_interval(test.labels, test.probabilities, test.patients, threshold=1.0)
    with pytest.raises(UndefinedMetricError, match="interval of a net benefit: 1 patient"):
        net_benefit_interval([0, 1], [0.2, 0.3], ["a", "a"], threshold=0.2)


def test_an_evaluation_has_net_benefit_and_uncalibrated_losses_with_intervals():
    found = evaluate(predictions(), operating_point=point(), resamples=20).to_json()["intervals"]
    for name in ("net_benefit", "brier_score_uncalibrated", "log_loss_uncalibrated"):
        assert found[name]["lower"] < found[name]["estimate"] < found[name]["upper"]


@pytest.mark.parametrize("prevalence", [None, 0.03, 0.4])
def test_curve_is_that_of_dcurves(prevalence):
    dcurves = pytest.importorskip("dcurves")
    frame = pd.DataFrame({"label": TEST.labels, "model": TEST.probabilities})
    thresholds = np.array([0.02, 0.1, 0.3, 0.75])
    theirs = dcurves.dca(
        data=frame, outcome="label", modelnames=["model"], thresholds=thresholds, prevalence=prevalence
    )
    ours = decision_curve(TEST.labels, TEST.probabilities, thresholds=thresholds, prevalence=prevalence)
    for name, values in (("model", ours.model), ("all", ours.treat_all)):
        np.testing.assert_allclose(theirs[theirs["model"] == name]["net_benefit"], values, atol=1e-12)


def test_curve_at_another_prevalence_by_hand():
    # 3 of 4 malignant and 1 of 2 benign cases are called at 0.25, whose odds are 1 / 3.
    found = decision_curve([1, 1, 1, 1, 0, 0], [0.9, 0.8, 0.3, 0.1, 0.6, 0.2], thresholds=[0.25], prevalence=0.1)
    assert found.model == pytest.approx([0.1 * 3 / 4 - 0.9 * (1 / 2) / 3])
    assert found.treat_all == pytest.approx([0.1 - 0.9 / 3])
    assert (found.prevalence, found.lower, found.upper) == (0.1, None, None)


def test_restating_for_the_prevalence_of_the_cases_changes_nothing():
    here = decision_curve(TEST.labels, TEST.probabilities)
    restated = decision_curve(TEST.labels, TEST.probabilities, prevalence=float(TEST.labels.mean()))
    np.testing.assert_allclose(restated.model, here.model, atol=1e-15)
    np.testing.assert_allclose(restated.treat_all, here.treat_all, atol=1e-15)


@pytest.mark.parametrize("prevalence", [0.0, 1.0])
def test_prevalence_of_none_or_all_has_no_curve(prevalence):
    with pytest.raises(UndefinedMetricError, match=r"prevalence . is not in \(0, 1\)"):
        decision_curve(TEST.labels, TEST.probabilities, prevalence=prevalence)


def test_limits_are_the_interval_at_each_threshold():
    curve = decision_curve(TEST.labels, TEST.probabilities, patients=TEST.patients, thresholds=[0.1, 0.35])
    for place, threshold in enumerate((0.1, 0.35)):
        interval = net_benefit_interval(TEST.labels, TEST.probabilities, TEST.patients, threshold=threshold)
        limits = [curve.lower[place], curve.model[place], curve.upper[place]]
        assert limits == pytest.approx([interval.lower, interval.estimate, interval.upper])
    assert curve.to_json()["upper"] == curve.upper.tolist()


def test_limits_of_one_patient_are_undefined():
    with pytest.raises(UndefinedMetricError, match="1 patient; expected at least 2"):
        decision_curve([0, 1], [0.1, 0.9], patients=["one", "one"])


def test_limits_at_another_prevalence_are_the_bootstraps_with_rates_by_class():
    test = predictions(400)
    curve = decision_curve(test.labels, test.probabilities, patients=test.patients, thresholds=[0.2], prevalence=0.05)
    groups, called = as_groups(test.patients, test.labels), test.probabilities >= 0.2
    drawn = []
    for weights in patient_weights(groups, resamples=4000, rng=np.random.default_rng(0)):
        found, alarms = (
            weights[:, test.labels == value]
            @ called[test.labels == value]
            / weights[:, test.labels == value].sum(axis=1)
            for value in (1, 0)
        )
        drawn.append(0.05 * found - 0.95 * alarms * 0.25)
    width = np.diff(np.quantile(np.concatenate(drawn), [0.025, 0.975]))[0]
    assert curve.upper[0] - curve.lower[0] == pytest.approx(width, rel=0.06)
    assert curve.upper[0] - curve.model[0] == pytest.approx(curve.model[0] - curve.lower[0])
