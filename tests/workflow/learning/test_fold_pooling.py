"""Folds: what is refused before anything is trained, and what the pooled judgement is made of."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from cohorts import tiny_config

from pipeline.cases.case import Case
from pipeline.cases.covariates import measure_name
from pipeline.config.experiment import Config
from pipeline.errors import UsageError
from pipeline.imaging.image import ScanFacts
from pipeline.imaging.preprocess import ModelInput
from pipeline.workflow.cohort import Cohort, Usable
from pipeline.workflow.learning import folds, learn
from pipeline.workflow.learning.folds import learn_folds
from pipeline.workflow.learning.held_out import HeldOut


@pytest.fixture
def config(tmp_path):
    training, evaluation = {"early_stopping": None}, {"baseline_columns": []}
    return Config.model_validate(tiny_config(tmp_path / "m.csv", tmp_path, training=training, evaluation=evaluation))


def with_refer_zone(config):
    """One that so few cases cannot bear."""
    point = config.operating_point.model_copy(update={"refer_coverage": 0.99})
    return config.model_copy(update={"operating_point": point})


def with_diameter(config):
    return config.model_copy(update={"data": config.data.model_copy(update={"covariates": {"diameter_mm": "log"}})})


def cohort(names):
    """Cases that all have the same diameter."""
    voxels, measures = np.zeros((1, 8, 8, 8), np.float32), {measure_name("diameter_mm"): 7.0}
    seen = ModelInput(voxels, (), measures, ScanFacts("0", (8, 8, 8), (1.0, 1.0, 1.0), "RAS", "CT"))
    usable = []
    for number, split in enumerate(names):
        label = number // len(set(names)) % 2
        case = Case(f"{number:02d}", f"{number}.nii", f"{number}.nii", patient_id=f"P{number}", label=label)
        usable.append(Usable(case, split, seen))
    return Cohort(tuple(usable), rejected=(), unlabelled=0, repeated_rows=0)


class Run:
    """A tracked run that keeps nothing."""

    run_id = "parent"

    def metrics(self, values):
        pass


@pytest.fixture
def trained(monkeypatch):
    """Networks that were not trained, with another prior offset each, and what the judge was told."""
    told, offsets = {}, iter((0.5, 1.0, 2.1))

    @contextmanager
    def no_run(self, fold):
        yield Run()

    def train(tasks, **_):
        return tuple(SimpleNamespace(network=0, prior_offset=next(offsets)) for _ in tasks)

    def judge(parts, said, config, *, prior_offset):
        told.update(prior_offset=prior_offset, logits=said.logits)
        return "judged"

    monkeypatch.setattr(folds._FoldRuns, "open", no_run)
    monkeypatch.setattr(folds, "fit_networks", train)
    said = HeldOut(np.arange(24.0)[:, None], np.empty((0, 2, 1)), 3)
    monkeypatch.setattr(folds, "out_of_fold_logits", lambda *_: said)
    monkeypatch.setattr(folds, "judge_out_of_fold", judge)
    return told


FOLDS = [f"fold-{number % 3}" for number in range(24)]


def test_cross_fitting_takes_the_mean_prior_offset_of_the_folds_networks(config, trained, tmp_path):
    networks, judgement = learn_folds(cohort(FOLDS), config, tmp_path, Run(), name="n", tags={})
    assert (len(networks), judgement) == (3, "judged")
    assert trained["prior_offset"] == pytest.approx(1.2)
    np.testing.assert_array_equal(trained["logits"][:, 0], np.arange(24.0))


def test_members_are_calibrated_with_their_mean_prior_offset(config, monkeypatch):
    monkeypatch.setattr(learn, "held_out_logits", lambda *_: None)
    monkeypatch.setattr(learn, "judge", lambda usable, logits, config, *, prior_offset: prior_offset)
    fitted = [SimpleNamespace(network=0, prior_offset=offset) for offset in (0.5, 1.0, 2.1)]
    assert learn.judge_members(cohort(FOLDS), fitted, config) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_refer_zone, r"operating_point\.refer_coverage: 0\.99"),
        (with_diameter, r"data\.covariates: 'diameter_mm' is 7 in all 24 calibration cases"),
    ],
)
def test_what_the_calibration_cases_cannot_bear_is_refused_before_training(config, monkeypatch, tmp_path, change, says):
    def train(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(folds, "fit_networks", train)
    monkeypatch.setattr(learn, "fit_networks", train)
    with pytest.raises(UsageError, match=says):
        learn_folds(cohort(FOLDS), change(config), tmp_path, Run(), name="n", tags={})
    with pytest.raises(UsageError, match=says):
        learn.learn(cohort(["calibration"] * 24), change(config), tmp_path, Run())
