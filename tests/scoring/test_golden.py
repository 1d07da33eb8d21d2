"""Golden scans: what is wrong with them is one line, and never switches the check off."""

import json
import os

import numpy as np
import pytest
from tiny_models import write_model

from pipeline.errors import ModelError, UnfinishedError
from pipeline.scoring.golden import golden_drift
from pipeline.scoring.golden_limits import require_no_drift
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


def drift(model):
    return golden_drift(Scorer(load_model(model), device="cpu"), [model])


def edit(model, **values):
    path = model / "golden" / "golden.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"member_probabilities": [[[float("nan")]], [[0.5]]]}, "holds NaN, expected finite numbers"),
        ({"member_probabilities": [[[float("inf")]], [[0.5]]]}, "holds Infinity, expected finite numbers"),
        ({"member_probabilities": [[[-1.0]], [[0.5]]]}, r"holds a probability outside \[0, 1\]"),
        ({"member_probabilities": [[["nan"]], [["nan"]]]}, r"holds a probability outside \[0, 1\]"),
        ({"member_probabilities": [[[0.5]]]}, "2 scans have 1 probabilities, expected 1 each"),
        ({"member_probabilities": [], "scans": []}, "0 scans have 0 probabilities"),
        ({"member_probabilities": [[[0.5]]] * 1000, "scans": ["0.nii.gz"] * 1000}, "1000 scans have"),
        ({"scans": 7}, "TypeError"),
    ],
)
def test_golden_probabilities_that_are_none_are_damage(model, values, says):
    assert drift(model) == 0
    edit(model, **values)
    with pytest.raises(ModelError, match=f"golden.json: {says}.*; the file is damaged") as caught:
        drift(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["golden.json", "0.nii.gz"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "zero"])
def test_a_pipe_among_golden_scans_is_not_waited_for(model, name, make):
    (model / "golden" / name).unlink()
    make(model / "golden" / name)
    with pytest.raises(ModelError, match="damaged"):
        drift(model)


def test_a_drift_that_is_no_number_ends_the_run(model, monkeypatch):
    monkeypatch.setattr(Scorer, "member_probabilities", lambda *_: np.full((2, 1, 1), np.nan))
    found = golden_drift(Scorer(load_model(model), device="cpu"), [model])
    with pytest.raises(UnfinishedError, match="differs by nan"):
        require_no_drift(found, backend="eager", when="before the first scan")
