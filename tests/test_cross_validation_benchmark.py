"""A run beside a cross-validation is refused before anything is trained, unless its cases and folds are the same."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.predictions import Predictions, write_predictions

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from cross_validation import read_other

FOLDS = {f"case-{number}": f"fold-{number % 2}" for number in range(8)}


def write_other(folder, folds):
    rows = {
        "case_id": list(folds),
        "patient_id": list(folds),
        "split": "test",
        "finding": "malignant",
        "fold": [int(fold.removeprefix("fold-")) for fold in folds.values()],
        "seed": 0,
        "label": [number % 2 for number in range(len(folds))],
        "logit": np.zeros(len(folds)),
        "probability": np.full(len(folds), 0.5),
    }
    write_predictions(Predictions.from_frame(pd.DataFrame(rows)), folder / "predictions-seed0.parquet")


def test_the_same_folds_by_other_numbers_are_taken(tmp_path):
    write_other(tmp_path, {case: fold.replace("1", "7") for case, fold in FOLDS.items()})
    assert list(read_other(tmp_path, 0, FOLDS)["case_id"]) == list(FOLDS)


@pytest.mark.parametrize(
    "folds",
    [
        dict(list(FOLDS.items())[:6]),
        {**FOLDS, "case-9": "fold-0"},
        dict.fromkeys(FOLDS, "fold-0"),
        {**FOLDS, "case-0": "fold-1"},
        {case: f"fold-{number % 4}" for number, case in enumerate(FOLDS)},
    ],
    ids=["a case less", "a case more", "one fold", "a case elsewhere", "finer folds"],
)
def test_other_cases_or_folds_are_refused(folds, tmp_path):
    write_other(tmp_path, folds)
    with pytest.raises(SystemExit, match="other cases or folds"):
        read_other(tmp_path, 0, FOLDS)


def test_a_run_of_other_seeds_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"predictions-seed3\.parquet is missing"):
        read_other(tmp_path, 3, FOLDS)
