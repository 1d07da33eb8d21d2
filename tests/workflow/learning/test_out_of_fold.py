"""Cross-fitting: what judges a case is fitted without its fold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cohorts import tiny_config

from pipeline.cases.case import Case
from pipeline.cases.covariates import measure_name
from pipeline.config.experiment import Config
from pipeline.errors import CalibrationError
from pipeline.evaluation.covariates import fit_covariate_term
from pipeline.evaluation.decisions.refer_zone import decide, fit_refer_zone, judge_refer_zone
from pipeline.evaluation.metrics import auroc
from pipeline.evaluation.predictions import FOLD_COLUMNS, Predictions
from pipeline.imaging.image import ScanFacts
from pipeline.imaging.preprocess import ModelInput
from pipeline.workflow.cohort import Cohort, Usable
from pipeline.workflow.judging.calibrate import calibrate_findings
from pipeline.workflow.judging.regressions import compare_with_regression
from pipeline.workflow.learning.held_out import HeldOut
from pipeline.workflow.learning.out_of_fold import judge_out_of_fold

FOLD = np.arange(360) % 3


@pytest.fixture
def config(tmp_path):
    data, evaluation = {"covariates": {"diameter_mm": "log"}}, {"baseline_columns": []}
    tree = tiny_config(tmp_path / "manifest.csv", tmp_path, data=data, evaluation=evaluation)
    return Config.model_validate(tree | {"operating_point": {"refer_coverage": 0.8}})


@pytest.fixture
def study():
    """Labels, and logits and diameters that each say something of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(360) // 3 % 2
    return labels, rng.normal(2 * labels - 1, 2.0)[:, None], np.exp(rng.normal(2 + 0.5 * labels, 0.5))


def cases_of(labels, diameters):
    usable = []
    for number, (label, diameter) in enumerate(zip(labels, diameters, strict=True)):
        where, extra = Path(f"{number}.nii"), {"diameter_mm": str(diameter)}
        case = Case(f"{number:03d}", where.name, where, patient_id=f"P{number}", label=int(label), extra=extra)
        voxels, measures = np.zeros((1, 8, 8, 8), np.float32), {measure_name("diameter_mm"): float(diameter)}
        seen = ModelInput(voxels, (), measures, ScanFacts("0", (8, 8, 8), (1.0, 1.0, 1.0), "RAS", "CT"))
        usable.append(Usable(case, "train", seen))
    return usable


NO_PAIRS = np.empty((0, 2, 1))


def judged(labels, logits, diameters, config, *, pairs=NO_PAIRS):
    """What judges the cases, and what is fitted on all of them."""
    usable = cases_of(labels, diameters)
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
    judgement = judge_out_of_fold(parts, HeldOut(logits, pairs, networks=3), config, prior_offset=0.0)
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


def test_what_decides_a_case_does_not_depend_on_the_labels_of_its_fold(study, config):
    labels, logits, diameters = study
    before, tests, _ = judged(labels, logits, diameters, config)
    after, others, _ = judged(np.where(FOLD == 0, 1 - labels, labels), logits, diameters, config)
    own = FOLD == 0
    for column in FOLD_COLUMNS:
        values, changed = tests[column].to_numpy(), others[column].to_numpy()
        np.testing.assert_array_equal(values[own], changed[own])
        assert (values[~own] != changed[~own]).all()
        assert len(set(values)) == 3
    assert before.operating_point.threshold != after.operating_point.threshold  # the model's rests on all of them


def test_threshold_and_zone_of_a_fold_are_chosen_on_the_others(study, config):
    labels, logits, diameters = study
    _, tests, _ = judged(labels, logits, diameters, config)
    own, values = FOLD == 1, diameters[:, None]
    term = fit_covariate_term(logits[~own], labels[~own, None].astype(float), values[~own], {"diameter_mm": "log"})
    shifted = (logits + term.logits(values))[~own]
    ((fit,), points) = calibrate_findings(shifted, labels[~own, None].astype(float), config, prior_offset=0.0)
    zone = fit_refer_zone(labels[~own], fit.calibrator.apply(shifted[:, 0]), coverage=0.8)
    expected = [points["malignant"].threshold, zone.malignant_from, zone.benign_to]
    np.testing.assert_allclose(tests.loc[tests["fold"] == 1, list(FOLD_COLUMNS)], np.tile(expected, (own.sum(), 1)))


def test_the_pooled_evaluation_and_the_refer_zone_decide_each_fold_at_its_own(study, config):
    judgement, tests, _ = judged(*study, config)
    positive = tests["probability"].to_numpy() >= tests["fold_threshold"].to_numpy()
    malignant = tests["label"].to_numpy() == 1
    assert judgement.evaluation.confusion.true_positive == (positive & malignant).sum()
    assert judgement.evaluation.confusion.false_positive == (positive & ~malignant).sum()
    assert judgement.evaluation.fold_thresholds == (tests["fold_threshold"].min(), tests["fold_threshold"].max())
    assert "each fold is decided at the threshold chosen on the others" in judgement.evaluation.decided_at
    threshold = judgement.operating_point.threshold
    found = judge_refer_zone(judgement.refer_zone, judgement.of_first("test"), threshold=threshold)
    decisions = np.concatenate(
        [
            decide(
                rows["probability"],
                threshold=rows["fold_threshold"],
                zone=replace(
                    judgement.refer_zone,
                    malignant_from=rows["fold_malignant_from"].iloc[0],
                    benign_to=rows["fold_benign_to"].iloc[0],
                ),
            )
            for _, rows in tests.groupby("fold")
        ]
    )
    assert found.referred.estimate == pytest.approx((decisions == "refer").mean())


def test_too_few_cases_in_the_other_folds_judge_no_zone(study, config):
    labels, logits, diameters = study
    few = np.where((np.arange(360) < 240) | (labels == 0), labels, 0)  # 120 malignant, 80 of them in two folds
    judgement, tests, _ = judged(few, logits, diameters, config)
    assert tests["fold_malignant_from"].isna().all()
    assert tests["fold_threshold"].notna().all()
    with pytest.raises(CalibrationError, match="each fold is decided by the cases of the others, which are fewer than"):
        judge_refer_zone(judgement.refer_zone, judgement.of_first("test"), threshold=0.5)


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
    (fit,) = judgement.calibrations
    np.testing.assert_allclose(calibration["probability"], fit.calibrator.apply(calibration["logit"]))
    zone, chances = judgement.refer_zone, set(calibration["probability"])
    assert {zone.malignant_from, zone.benign_to} <= chances


def test_the_model_is_calibrated_for_the_mean_of_the_folds_and_the_cases_are_judged_by_single_ones(study, config):
    labels, logits, diameters = study
    rng = np.random.default_rng(1)
    seen = rng.normal(2 * (rng.random(120) < 0.5) - 1, 1.5)[:, None]
    pairs = (seen + rng.normal(0.0, 1.3, (120, 2)))[:, :, None]
    alone, judged_alone, calibrates_alone = judged(labels, logits, diameters, config)
    mean, judged_mean, calibrates_mean = judged(labels, logits, diameters, config, pairs=pairs)
    np.testing.assert_array_equal(judged_alone["probability"], judged_mean["probability"])
    assert alone.means[0].factor == 1.0
    assert "0 cases were left out by two networks" in alone.calibration
    assert 0.7 < mean.means[0].factor < 0.95
    spread = [frame["logit"].groupby(frame["label"]).std() for frame in (calibrates_mean, calibrates_alone)]
    assert (spread[0] < spread[1]).all()
    assert mean.calibrations[0].calibrator != alone.calibrations[0].calibrator
    assert mean.operating_point.threshold != alone.operating_point.threshold
    assert mean.covariates != alone.covariates
    assert mean.calibration_to_json()["malignant"]["mean"]["pairs"] == 120


def test_the_gain_over_a_regression_pairs_the_same_cases(study, config):
    labels, logits, diameters = study
    settings = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"baseline_columns": ("diameter_mm",)})}
    )
    judgement, tests, _ = judged(labels, logits, diameters, settings)
    (baseline,) = judgement.comparisons
    assert baseline.predictions.case_ids.tolist() == tests["case_id"].tolist()  # folds lie between one another here
    own, other = (auroc(rows["label"], rows["probability"]) for rows in (tests, baseline.predictions.frame))
    assert baseline.gain.estimate == pytest.approx(own - other)
    assert baseline.gain.lower < own - other < baseline.gain.upper


def test_predictions_in_another_order_are_not_compared(study, config):
    judgement, tests, _ = judged(*study, config)
    model = judgement.of_first("test")
    turned = Predictions.from_frame(tests.iloc[::-1].reset_index(drop=True))
    with pytest.raises(ValueError, match="baseline: its predictions are not of the model's cases in the same order"):
        compare_with_regression("baseline", (), model, turned, judgement.operating_point, config)
