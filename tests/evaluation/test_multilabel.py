import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from studies import calibrator, frame, point

from pipeline.errors import UsageError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.multilabel import AVERAGED, evaluate_findings, in_order
from pipeline.evaluation.predictions import Predictions

POINTS = {"malignant": point(0.2), "calcified": point(0.4), "spiculated": point(0.3)}


def several(n=160):
    """Three findings of the same cases, the second known for half of them only."""
    parts = []
    for seed, name in enumerate(POINTS):
        part = frame(n, seed=seed).assign(finding=name, patient_id=frame(n, seed=0)["patient_id"])
        if name == "calcified":
            part["label"] = part["label"].where(np.arange(n) % 2 == 0)
        parts.append(part)
    return Predictions.from_frame(pd.concat(parts, ignore_index=True)).with_probabilities(calibrator().apply)


MADE = several()
FOUND = evaluate_findings(MADE, POINTS, resamples=300)


def test_each_finding_is_judged_as_if_it_were_alone():
    for name, operating_point in POINTS.items():
        alone = evaluate(MADE.where(finding=name), operating_point=operating_point, resamples=300)
        assert FOUND.evaluations[name].to_json() == alone.to_json()
    assert FOUND.first is FOUND.evaluations["malignant"]
    assert (FOUND.evaluations["calcified"].n_cases, FOUND.evaluations["calcified"].n_unlabelled) == (80, 80)


def test_macro_is_the_mean_and_micro_the_pool():
    labelled = MADE.labelled()
    for name, of in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        each = [FOUND.evaluations[finding].intervals[name].estimate for finding in POINTS]
        assert FOUND.macro[name].estimate == pytest.approx(np.mean(each), abs=1e-12)
        assert FOUND.micro[name].estimate == pytest.approx(of(labelled.labels, labelled.probabilities), abs=1e-12)
    squares = (labelled.probabilities - labelled.labels) ** 2
    assert FOUND.micro["brier_score"].estimate == pytest.approx(squares.mean())
    right = [each.confusion for each in FOUND.evaluations.values()]
    pooled = sum(c.true_positive for c in right) / sum(c.true_positive + c.false_negative for c in right)
    assert FOUND.micro["sensitivity"].estimate == pytest.approx(pooled)
    assert FOUND.macro["sensitivity"].estimate == pytest.approx(np.mean([c.sensitivity for c in right]))
    assert set(FOUND.macro) == set(FOUND.micro) == set(AVERAGED)
    for interval in (*FOUND.macro.values(), *FOUND.micro.values()):
        assert interval.lower < interval.estimate < interval.upper


def test_averages_narrow_with_patients_not_with_rows():
    """The same patients' rows told ten times over say nothing new."""
    copies = [MADE.frame.assign(case_id=MADE.frame["case_id"] + f"-{number}") for number in range(10)]
    repeated = Predictions.from_frame(pd.concat(copies, ignore_index=True))
    again = evaluate_findings(repeated, POINTS, resamples=300)
    width, before = (each.macro["auroc"].upper - each.macro["auroc"].lower for each in (again, FOUND))
    assert width == pytest.approx(before, rel=0.15)


def test_a_single_finding_has_no_averages_and_adds_nothing():
    found = evaluate_findings(MADE.where(finding="malignant"), {"malignant": POINTS["malignant"]}, resamples=200)
    assert (found.macro, found.micro, found.to_json(), found.metrics()) == ({}, {}, {}, {})


def test_metrics_name_finding_and_average():
    metrics = FOUND.metrics("test_")
    assert metrics["test_calcified_auroc"] == FOUND.evaluations["calcified"]["auroc"].estimate
    assert metrics["test_macro_auroc_lower"] == FOUND.macro["auroc"].lower
    assert metrics["test_micro_brier_score"] == FOUND.micro["brier_score"].estimate


def test_a_finding_without_labels_is_refused_and_one_class_is_said():
    rows = MADE.frame
    blank = Predictions.from_frame(rows.assign(label=rows["label"].where(rows["finding"] != "calcified")))
    with pytest.raises(UsageError, match="no labelled case"):
        evaluate_findings(blank, POINTS, resamples=100)
    one = Predictions.from_frame(rows.assign(label=rows["label"].where(rows["finding"] != "calcified", 0)))
    found = evaluate_findings(one, POINTS, resamples=100)
    assert "auroc" not in found.macro  # a mean over fewer findings would be another quantity
    assert "macro auroc: undefined" in found.undefined["macro auroc"]
    assert "brier_score" in found.macro


def test_the_label_comes_first():
    assert in_order(["b", "malignant", "a", "b"]) == ("malignant", "b", "a")
    assert in_order(["b", "a"]) == ("b", "a")
