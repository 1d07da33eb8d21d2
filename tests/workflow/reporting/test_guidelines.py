"""What the checklist of a report says of its model."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny_models import save_tiny

from pipeline.evaluation.beside_headline import Details, evaluate_details
from pipeline.evaluation.covariates import Covariate
from pipeline.evaluation.decisions.operating_points import choose_operating_point
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.report.page import Flow, SplitCounts
from pipeline.workflow.reporting.guidelines import answered_items
from pipeline.workflow.reporting.report_sources import ReportSources


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    columns = {"diameter_mm": Covariate(scale="log", mean=2.3, deviation=0.5, weights=(0.8,))}
    saved = save_tiny(tmp_path_factory.mktemp("model") / "model")
    return saved.model_copy(update={"members": (saved.members[0].model_copy(update={"covariates": columns}),)})


def predictions():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    logits = rng.normal(2.0 * labels - 1.0, 1.5)
    columns = {"label": labels, "logit": logits, "probability": 1 / (1 + np.exp(-logits))}
    who = {"case_id": np.arange(120).astype(str), "patient_id": (np.arange(120) // 2).astype(str), "split": "test"}
    return Predictions.from_frame(pd.DataFrame({**who, **columns, "site": "north"}))


def point():
    return choose_operating_point(predictions().labels, predictions().probabilities)


def judged(description):
    test = predictions()
    found = evaluate(test, operating_point=point(), resamples=20)
    return ReportSources(
        title="t",
        model="m",
        calibration="temperature 1.6",
        predictions=test,
        evaluation=found,
        description=description,
    )


def answers(shown, details=None):
    items = answered_items(shown, details or Details())
    return {item.place.removeprefix("TRIPOD+AI ").split(",")[0]: item.answer for item in items}


def test_predictors_are_those_of_the_model(description):
    found = answers(judged(description))
    assert "the image" in found["9b"]
    assert "column diameter_mm" in found["9b"]
    assert "alone" not in found["9b"]
    assert "diameter_mm: logarithm, standardised" in found["12b"]


def test_recalibration_and_class_balance_are_told_from_the_model(description):
    plain = answers(judged(description))
    assert plain["12f"] == plain["24"] == "the model was not updated after its training"
    assert plain["13"] is None  # a model without its configuration
    provenance = {
        "config": {"training": {"class_balance": "weighted_loss"}},
        "recalibration": {"intercept_shift": 0.31},
    }
    moved = answers(judged(description.model_copy(update={"provenance": provenance})))
    assert "refitted" in moved["12f"]
    assert "+0.310" in moved["24"]
    assert "weighted by class" in moved["13"]


def test_numbers_of_each_split_and_clusters(description):
    shown = replace(
        judged(description),
        flow=Flow(300, splits={"train": SplitCounts(200, 90, 40), "test": SplitCounts(100, 50, 20)}),
    )
    details = evaluate_details(shown.predictions, operating_point=point(), columns=["site"], resamples=20)
    found = answers(shown, details)
    assert found["21"] == "train: 200 cases of 90 patients, 40 malignant; test: 100 cases of 50 patients, 20 malignant"
    assert "by site" in found["23b"]
    assert answers(shown)["23b"] is None


def test_predictions_of_unknown_origin_claim_nothing_of_a_model():
    found = answers(judged(None))
    assert all(found[place] is None for place in ("9b", "12b", "12f", "13", "22", "24", "27a"))
