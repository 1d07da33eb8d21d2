"""Probabilities of exactly 0 or 1, and what they do to the slope."""

import numpy as np
import pytest
from studies import calibrator, frame, point, predictions

from pipeline.evaluation import metrics
from pipeline.evaluation.calibration.saturation import saturation_caution
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import Predictions
from pipeline.workflow.reporting.training_summary import evaluation_text

CASES = predictions(200, seed=6)


def with_certain(wrong, right):
    """The cases, some malignant ones at 0 or 1."""
    probabilities = CASES.probabilities.copy()
    malignant = np.flatnonzero(CASES.labels == 1)
    probabilities[malignant[:wrong]] = 0.0
    probabilities[malignant[wrong : wrong + right]] = 1.0
    return probabilities


def test_one_wrongly_certain_case_moves_the_slope_and_is_named():
    probabilities = with_certain(1, 2)
    rest = (probabilities > 0.0) & (probabilities < 1.0)
    before = metrics.calibration_slope(CASES.labels[rest], probabilities[rest])
    assert metrics.calibration_slope(CASES.labels, probabilities) < before - 0.15
    assert saturation_caution(CASES.labels, probabilities) == (
        f"3 of 200 probabilities are 0 or 1, 1 of them wrongly, and count with log odds of -36 or 36; "
        f"without them the slope is {before:.2f}"
    )


@pytest.mark.parametrize("probability", [metrics.EDGE, 1 - metrics.EDGE, 1e-300])
def test_what_rounds_to_0_or_1_counts_and_what_does_not_is_left(probability):
    probabilities = CASES.probabilities.copy()
    assert saturation_caution(CASES.labels, probabilities) is None
    probabilities[np.flatnonzero(CASES.labels == 0)[0]] = probability
    wrong = int(probability > 0.5)
    assert f"1 of 200 probabilities are 0 or 1, {wrong} of them wrongly" in saturation_caution(
        CASES.labels, probabilities
    )
    probabilities[np.flatnonzero(CASES.labels == 0)[0]] = 1e-15
    assert saturation_caution(CASES.labels, probabilities) is None


def test_without_them_the_slope_may_be_undefined_or_nothing_left():
    assert saturation_caution([0, 1], [0.0, 1.0]).endswith("without them no case is left")
    assert "the slope is undefined (calibration slope: all 2 cases are benign" in saturation_caution(
        [0, 0, 1], [0.2, 0.3, 1.0]
    )


def test_an_evaluation_and_what_the_command_prints_say_so():
    rows = frame(200, seed=6).assign(probability=with_certain(1, 0))
    found = evaluate(Predictions.from_frame(rows), operating_point=point(), resamples=20)
    caution = found.cautions["calibration_slope"]
    assert caution.startswith("1 of 200 probabilities are 0 or 1, 1 of them wrongly")
    assert f"\n  {caution}\n" in evaluation_text("x", found)
    plain = Predictions.from_frame(frame(200, seed=6)).with_probabilities(calibrator().apply)
    assert "calibration_slope" not in evaluate(plain, operating_point=point(), resamples=20).cautions
