"""What so many labelled cases can bear, said before anything is computed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.cases.case import Case
from pipeline.cases.manifest import Manifest
from pipeline.cases.plan import CaseCount, Plan, auroc_half_width, describe_plan, plan_training
from pipeline.cases.splits import assign_splits, leave_out_parts
from pipeline.config.inputs import SplitFractions


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
        (100, 100, Plan(None, 5)),
        (299, 9000, Plan(None, 5)),
        (300, 300, Plan(None, 3)),
        (999, 999, Plan(None, 3)),
        (1000, 99_000, Plan(None, 1)),
    ],
)
def test_the_fewer_patients_of_the_rarer_class_the_more_often_each_case_is_used(malignant, benign, plan):
    assert plan_training(cases_of(malignant, benign)) == plan


def test_patients_count_and_not_their_lesions():
    assert plan_training(cases_of(1200, 1200, per_patient=100)) == Plan(5, 1)


def in_splits(cases, **counts):
    """The same cases, so many of each class in each split; the rest train."""
    left = {label: [name for name, count in counts.items() for _ in range(count)] for label in (0, 1)}
    return [replace(case, split=left[case.label].pop() if left[case.label] else "train") for case in cases]


def test_what_is_configured_stays_and_given_splits_are_kept():
    cases = cases_of(20, 20)
    assert plan_training(cases, folds=None, members=1) == Plan(None, 1)
    assert plan_training(cases, folds=3, members="auto") == Plan(3, 1)
    assert plan_training(in_splits(cases, validation=4, test=4)) == Plan(None, 5)


@pytest.mark.parametrize(
    ("splits", "members"),
    [
        ({"validation": 150, "calibration": 150, "test": 150}, 1),
        ({"validation": 150, "calibration": 99, "test": 150}, 3),  # too few for a slope of their own
        ({"validation": 300, "test": 150}, 3),
        ({"calibration": 300, "test": 150}, 3),
    ],
)
def test_one_network_needs_given_splits_that_can_validate_and_calibrate(splits, members):
    assert plan_training(in_splits(cases_of(1200, 1200), **splits)) == Plan(None, members)


@pytest.mark.parametrize(("developing", "members"), [(1, 1), (2, 2), (4, 4), (9, 5)])
def test_no_more_networks_than_there_are_patients_to_leave_out(developing, members):
    cases = [replace(case, split="test") for case in cases_of(90, 0)]
    cases += [replace(case, split="train") for case in cases_of(developing, 200)]
    cases = [replace(case, patient_id=str(number)) for number, case in enumerate(cases)]
    assert plan_training(cases).members == members


@pytest.mark.parametrize("patients", [4, 5, 7, 12])
def test_splits_drawn_of_few_patients_can_be_shared_among_the_networks(patients):
    cases = cases_of(patients, 40)
    plan = plan_training(cases, folds=None)
    manifest = Manifest(Path("m.csv"), Path(), tuple(cases), columns=(), digest="", faults=(), repeated_rows=0)
    splits = assign_splits(manifest, SplitFractions(), seed=0, joined=plan.members > 1)
    assert leave_out_parts(cases, [splits.of[case.case_id] for case in cases], plan.members, seed=0)


def test_a_patient_with_cases_of_both_classes_counts_once():
    count = CaseCount.of([Case(str(n), "", Path(), patient_id="p", label=n) for n in (0, 1)])
    assert (count.patients, count.malignant_patients, count.benign_patients) == (1, 1, 1)


def test_a_small_test_split_and_a_small_calibration_split_are_told_with_the_way_out():
    cases = cases_of(30, 30)
    names = ["train", "validation", "calibration", "test"]
    split_of = {case.case_id: names[number % 4] for number, case in enumerate(cases)}
    whole, calibration, test = describe_plan(cases, split_of, Plan(None, 1))
    assert "60 cases (30 malignant) of 60 patients" in whole
    assert "training.members=auto" in calibration
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
