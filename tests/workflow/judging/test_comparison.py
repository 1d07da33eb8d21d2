"""A model's answers for the gate."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.calibration.calibrator import logit, sigmoid
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.predictions import Predictions
from pipeline.workflow.judging import comparison

ZONE = ReferZone(0.9, 0.3, 0.6, 100, 100, (0.8, 0.95), (0.8, 0.95))
POINT = OperatingPoint(0.02, "sensitivity", 0.9, None, 50, 50, 0.9, 0.6)


@pytest.fixture
def enriched(monkeypatch):
    """Cases whose probabilities are right where 2 % are malignant; here about half are."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0.0, 1.5, 1500)
    labels = (rng.random(1500) < sigmoid(odds)).astype(int)
    offset = float(logit(0.02) - logit(labels.mean()))
    names = np.arange(1500).astype(str)
    table = pd.DataFrame(
        {
            "case_id": names,
            "patient_id": names,
            "split": "test",
            "label": labels,
            "logit": odds + offset,
            "probability": sigmoid(odds + offset),
        }
    )
    predictions = Predictions.from_frame(table)
    monkeypatch.setattr(comparison, "predictions_from", lambda scored, columns: predictions)
    return sigmoid(odds)


def test_probabilities_are_restated_for_the_cases_at_hand_before_calibration_is_judged(enriched):
    model = SimpleNamespace(operating_point=POINT, refer_zone=ZONE)
    plain = comparison.contender([], (), model)
    assert plain.calibration is None
    assert plain.zone is ZONE
    assert not plain.evaluation.intervals["calibration_intercept"].contains(0.0)
    restated = comparison.contender([], (), model, prevalence=0.02)
    assert restated.calibration.intervals["calibration_intercept"].contains(0.0)
    labels = restated.predictions.labels
    assert restated.calibration.calibrated.brier_score == pytest.approx(np.mean((enriched - labels) ** 2))
    # Decisions, and what the model says, stay what they are.
    assert restated.evaluation.confusion == plain.evaluation.confusion
    assert np.array_equal(restated.predictions.probabilities, plain.predictions.probabilities)
