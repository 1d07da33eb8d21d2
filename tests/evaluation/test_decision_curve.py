import numpy as np
import pytest
from studies import predictions

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.decision_curve import decision_curve, net_benefit
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
