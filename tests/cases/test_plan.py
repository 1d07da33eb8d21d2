"""What so many labelled cases can bear, said before anything is computed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.cases.case import Case
from pipeline.cases.plan import CaseCount, Plan, auroc_half_width, describe_plan, plan_training


def cases_of(malignant, benign, *, per_patient=1):
    labels = [1] * malignant + [0] * benign
    return [
        Case(f"c{number}", "", Path(), patient_id=f"p{number // per_patient}", label=label)
        for number, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("malignant", "benign", "plan"),
    [
        (20, 20, Plan(5, 1)),
        (4, 60, Plan(4, 1)),
        (99, 5000, Plan(5, 1)),
        (100, 100, Plan(None, 3)),
        (999, 999, Plan(None, 3)),
        (1000, 99_000, Plan(None, 1)),
    ],
)
def test_the_fewer_patients_of_the_rarer_class_the_more_often_each_case_is_used(malignant, benign, plan):
    assert plan_training(cases_of(malignant, benign)) == plan


def test_patients_count_and_not_their_lesions():
    assert plan_training(cases_of(1200, 1200, per_patient=100)) == Plan(5, 1)


def test_what_is_configured_stays_and_given_splits_are_kept():
    cases = cases_of(20, 20)
    assert plan_training(cases, folds=None, members=1) == Plan(None, 1)
    assert plan_training(cases, folds=3, members="auto") == Plan(3, 1)
    assert plan_training(cases, splits={"train", "validation", "test"}) == Plan(None, 3)


def test_given_splits_without_one_for_calibration_need_several_networks():
    many = cases_of(1200, 1200)
    assert plan_training(many, splits={"train", "validation", "test"}) == Plan(None, 3)
    assert plan_training(many, splits={"train", "validation", "calibration", "test"}) == Plan(None, 1)


def test_a_patient_with_cases_of_both_classes_counts_once():
    count = CaseCount.of([Case(str(n), "", Path(), patient_id="p", label=n) for n in (0, 1)])
    assert (count.patients, count.malignant_patients, count.benign_patients) == (1, 1, 1)


def test_a_small_test_split_and_a_small_calibration_split_are_told_with_the_way_out():
    cases = cases_of(30, 30)
    names = ["train", "validation", "calibration", "test"]
    split_of = {case.case_id: names[number % 4] for number, case in enumerate(cases)}
    whole, calibration, test = describe_plan(cases, split_of, Plan(None, 1))
    assert "60 cases (30 malignant) of 60 patients" in whole
    assert "training.members=3" in calibration
    assert "--folds 5 judges all 60" in test


def test_large_splits_need_no_advice():
    cases = cases_of(400, 400)
    split_of = {case.case_id: ["train", "validation", "calibration", "test"][n % 4] for n, case in enumerate(cases)}
    assert len(describe_plan(cases, split_of, Plan(None, 1))) == 1


def test_half_width_is_what_repeated_studies_show():
    """Against the spread of the AUROC of two normal distributions over 2,000 studies of 20 and 30 cases."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [20, 30])
    separation = 1.4657  # of unit normals with AUROC 0.85
    aurocs = [roc_auc_score(labels, rng.normal(labels * separation)) for _ in range(2000)]
    assert np.mean(aurocs) == pytest.approx(0.85, abs=0.005)
    assert auroc_half_width(0.85, 20, 30) == pytest.approx(1.96 * np.std(aurocs), rel=0.12)


def test_the_plan_is_made_without_torch():
    code = (
        "import sys; import pipeline.workflow.learning.experiment; import pipeline.jobs.train; "
        "print([name for name in ('torch', 'monai', 'mlflow', 'lightning', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
