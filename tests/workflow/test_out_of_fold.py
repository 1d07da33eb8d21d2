"""Cross-fitting: what judges a case is fitted without its fold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cohorts import tiny_config

from pipeline.cases.case import Case
from pipeline.cases.covariates import measure_name
from pipeline.config.experiment import Config
from pipeline.evaluation.covariates import fit_covariate_term
from pipeline.imaging.preprocess import ModelInput
from pipeline.workflow.cohort import Cohort, Usable
from pipeline.workflow.folds import is_cross_fitted
from pipeline.workflow.out_of_fold import judge_out_of_fold

FOLD = np.arange(240) % 3


@pytest.fixture
def config(tmp_path):
    data, evaluation = {"covariates": {"diameter_mm": "log"}}, {"baseline_columns": []}
    tree = tiny_config(tmp_path / "manifest.csv", tmp_path, data=data, evaluation=evaluation)
    return Config.model_validate(tree | {"operating_point": {"refer_coverage": 0.8}})


@pytest.fixture
def study():
    """Labels, and logits and diameters that each say something of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) // 3 % 2
    return labels, rng.normal(2 * labels - 1, 2.0)[:, None], np.exp(rng.normal(2 + 0.5 * labels, 0.5))


def judged(labels, logits, diameters, config):
    """What judges the cases, and what is fitted on all of them."""
    usable = []
    for number, (label, diameter) in enumerate(zip(labels, diameters, strict=True)):
        case = Case(f"{number:03d}", f"{number}.nii", Path(f"{number}.nii"), patient_id=f"P{number}", label=int(label))
        voxels, measures = np.zeros((1, 8, 8, 8), np.float32), {measure_name("diameter_mm"): float(diameter)}
        seen = ModelInput(voxels, (), measures, "0", (8, 8, 8), (1.0, 1.0, 1.0), "RAS", "CT")
        usable.append(Usable(case, "train", seen))
    parts = [
        Cohort(
            tuple(
                replace(each, split="test" if own == fold else "train") for each, own in zip(usable, FOLD, strict=True)
            ),
            rejected=(),
            unlabelled=0,
            repeated_rows=0,
        )
        for fold in range(3)
    ]
    judgement = judge_out_of_fold(parts, logits, config, prior_offset=0.0)
    frame = judgement.predictions.frame
    return judgement, frame[frame["split"] == "test"], frame[frame["split"] == "calibration"]


def test_a_cases_probability_does_not_depend_on_the_labels_of_its_fold(study, config):
    labels, logits, diameters = study
    _, tests, _ = judged(labels, logits, diameters, config)
    _, others, _ = judged(np.where(FOLD == 0, 1 - labels, labels), logits, diameters, config)
    own = FOLD == 0
    for column in ("logit", "probability"):
        before, after = tests[column].to_numpy(), others[column].to_numpy()
        np.testing.assert_array_equal(before[own], after[own])
        assert (before[~own] != after[~own]).all()


def test_logits_of_a_fold_have_the_term_that_the_others_fitted(study, config):
    labels, logits, diameters = study
    _, tests, _ = judged(labels, logits, diameters, config)
    own, values = FOLD == 1, diameters[:, None]
    term = fit_covariate_term(logits[~own], labels[~own, None].astype(float), values[~own], {"diameter_mm": "log"})
    np.testing.assert_allclose(tests["logit"].to_numpy()[own], (logits + term.logits(values))[own, 0])


def test_what_the_model_is_calibrated_on_is_of_no_fold(study, config):
    judgement, tests, calibration = judged(*study, config)
    assert tests["fold"].tolist() == FOLD.tolist()
    assert calibration["fold"].isna().all()
    (fit,), *_ = judgement.calibrations
    np.testing.assert_allclose(calibration["probability"], fit.calibrator.apply(calibration["logit"]))
    zone, chances = judgement.refer_zone, set(calibration["probability"])
    assert {zone.malignant_from, zone.benign_to} <= chances


@pytest.mark.parametrize(
    ("members", "early_stopping", "expected"), [(1, None, True), (1, {"patience": 2}, False), (3, None, False)]
)
def test_a_single_network_that_watches_nothing_is_cross_fitted(tmp_path, members, early_stopping, expected):
    training = {"members": members, "early_stopping": early_stopping}
    tree = tiny_config(tmp_path / "manifest.csv", tmp_path, training=training)
    assert is_cross_fitted(Config.model_validate(tree)) == expected
