import numpy as np
import pytest
from studies import point, predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import as_groups
from pipeline.evaluation.decision_curve import decision_curve, net_benefit, net_benefit_interval
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.metrics import confusion
from pipeline.evaluation.resampling import patient_weights

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
