"""Who says what of which case: networks speak only of cases that they were not fitted on."""

import numpy as np
import pytest
import torch
from cohorts import tiny_config

from pipeline.cases.case import Case
from pipeline.cases.splits import AGREEMENT
from pipeline.config.experiment import Config
from pipeline.imaging.image import ScanFacts
from pipeline.imaging.preprocess import ModelInput
from pipeline.workflow.cohort import Cohort, Usable
from pipeline.workflow.learning.folds import around_fold, fold_names, fold_parts
from pipeline.workflow.learning.held_out import held_out_logits, out_of_fold_logits
from pipeline.workflow.learning.learn import member_parts


class Says(torch.nn.Module):
    """A network whose logit is the number of the case, which its voxels hold, and its own number after the point."""

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.weight = torch.nn.Parameter(torch.ones(1))  # names the device

    def forward(self, images):
        return images.flatten(1)[:, :1] + self.number / 100


def cohort(splits):
    usable = []
    for number, split in enumerate(splits):
        case = Case(f"{number:03d}", f"{number}.nii", None, patient_id=f"P{number}", label=number // 5 % 2)
        voxels = np.full((1, 8, 8, 8), number, np.float32)
        seen = ModelInput(voxels, (), {}, ScanFacts("0", (8, 8, 8), (1.0, 1.0, 1.0), "RAS", "CT"))
        usable.append(Usable(case, split, seen))
    return Cohort(tuple(usable), rejected=(), unlabelled=0, repeated_rows=0)


def config(tmp_path, *, members=1, early_stopping=None):
    training = {"members": members, "early_stopping": early_stopping}
    tree = tiny_config(tmp_path / "m.csv", tmp_path, training=training, evaluation={"baseline_columns": []})
    return Config.model_validate(tree)


def names(part):
    return np.array([each.split for each in part.usable])


def test_a_member_speaks_of_what_it_left_out_and_all_of_them_of_test_cases(tmp_path):
    settings = config(tmp_path, members=3)
    parts = member_parts(cohort(["train"] * 160 + ["test"] * 20), settings)
    said = held_out_logits(parts, [Says(number) for number in range(3)], settings)
    owner = np.argmax([names(part) == "calibration" for part in parts], axis=0)
    np.testing.assert_allclose(said.logits[:160, 0], np.arange(160) + owner[:160] / 100, rtol=1e-6)
    np.testing.assert_allclose(said.logits[160:, 0], np.arange(160, 180) + 0.01, rtol=1e-6)
    pairs = {(round(float(one), 2), round(float(two), 2)) for one, two in said.pairs[:, :, 0]}
    expected = set()
    for member, part in enumerate(parts):
        for row in np.flatnonzero(names(part) == AGREEMENT):
            assert owner[row] != member
            expected.add((round(row + owner[row] / 100, 2), round(row + member / 100, 2)))
    assert pairs == expected
    assert said.networks == 3


def test_the_mean_of_a_folds_networks_speaks_of_its_cases_and_of_those_set_aside(tmp_path):
    settings = config(tmp_path, members=2)
    whole = cohort([f"fold-{number % 4}" for number in range(160)])
    parts = [fold_parts(whole, fold, settings)[0] for fold in fold_names(whole)]
    folds = [[Says(2 * fold), Says(2 * fold + 1)] for fold in range(4)]
    said = out_of_fold_logits(parts, folds, settings)
    own = np.arange(160) % 4
    np.testing.assert_allclose(said.logits[:, 0], np.arange(160) + (2 * own + 0.5) / 100, rtol=1e-6)
    rows = [(row, fold) for fold, part in enumerate(parts) for row in np.flatnonzero(names(part) == AGREEMENT)]
    assert len(rows) == len(said.pairs) > 8
    for (row, fold), (one, two) in zip(rows, said.pairs[:, :, 0], strict=True):
        assert own[row] != fold
        assert one == pytest.approx(row + (2 * own[row] + 0.5) / 100, abs=1e-3)
        assert two == pytest.approx(row + (2 * fold + 0.5) / 100, abs=1e-3)
    assert said.networks == 4


def test_about_one_training_patient_in_sixteen_of_each_class_is_set_aside(tmp_path):
    settings = config(tmp_path)
    whole = cohort([f"fold-{number % 4}" for number in range(160)])
    for fold in fold_names(whole):
        (part,) = fold_parts(whole, fold, settings)
        assert (names(part) == "test").sum() == 40
        aside = [each for each in part.usable if each.split == AGREEMENT]
        assert [sum(each.case.label == label for each in aside) for label in (0, 1)] == [4, 4]  # of 60 each
        assert not {each.case.case_id for each in part.training()} & {each.case.case_id for each in aside}
    chosen = [
        tuple(np.flatnonzero(names(fold_parts(whole, fold, settings)[0]) == AGREEMENT)) for fold in ("fold-0", "fold-1")
    ]
    assert chosen[0] != chosen[1]


def test_a_class_of_few_patients_loses_none(tmp_path):
    settings = config(tmp_path)
    whole = cohort(["fold-0", "fold-1"] * 7)
    for fold in fold_names(whole):
        (part,) = fold_parts(whole, fold, settings)
        assert AGREEMENT not in names(part)


def test_no_fold_spends_cases_on_calibration_and_only_early_stopping_on_validation(tmp_path):
    whole = cohort([f"fold-{number % 4}" for number in range(160)])
    for settings, expected in (
        (config(tmp_path), {"train", "test"}),
        (config(tmp_path, members=2), {"train", "test"}),
        (config(tmp_path, early_stopping={"patience": 2}), {"train", "validation", "test"}),
    ):
        assert set(names(around_fold(whole, "fold-1", settings))) == expected
