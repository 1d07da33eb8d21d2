import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import calibrator, frame, predictions

from pipeline.errors import UsageError
from pipeline.evaluation.patient_level import by_patient
from pipeline.evaluation.predictions import COLUMNS, Predictions, read_predictions, write_predictions


def test_a_file_gives_back_what_was_written_and_the_same_bytes(tmp_path):
    made = predictions(60)
    write_predictions(made, tmp_path / "a.parquet")
    again = read_predictions(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(again.frame, made.frame)
    assert again.probabilities.tobytes() == made.probabilities.tobytes()
    write_predictions(again, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]


def test_the_file_has_the_types_of_the_contract(tmp_path):
    write_predictions(predictions(20), tmp_path / "p.parquet")
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert tuple(schema.names[: len(COLUMNS)]) == COLUMNS
    assert [str(schema.field(name).type) for name in COLUMNS] == [
        *("string",) * 4,
        *("int64",) * 2,
        "int8",
        *("double",) * 2,
    ]
    assert schema.names[len(COLUMNS) :] == ["site", "diameter_mm"]


def test_text_ids_stay_text(tmp_path):
    write_predictions(
        Predictions.from_frame(frame(12).assign(case_id=[f"{n:03d}" for n in range(12)])), tmp_path / "p.parquet"
    )
    assert read_predictions(tmp_path / "p.parquet").case_ids[7] == "007"


def test_defaults_fill_what_a_simple_table_leaves_out():
    made = Predictions.from_frame(frame(10)[["case_id", "patient_id", "split", "label", "logit"]])
    assert set(made.frame["finding"]) == {"malignant"}
    assert made.frame[["fold", "seed", "probability"]].isna().all(axis=None)
    assert not made.calibrated
    assert made.extra.shape == (10, 0)
    with pytest.raises(UsageError, match="10 rows have no probability"):
        _ = made.probabilities


def test_rows_are_chosen_by_split_finding_fold_and_seed():
    parts = [
        frame(10, split=split).assign(fold=fold, seed=3, patient_id=lambda f, split=split: split + f["patient_id"])
        for split in ("calibration", "test")
        for fold in (0, 1)
    ]
    made = Predictions.from_frame(pd.concat(parts, ignore_index=True))
    assert len(made.where(split="test")) == 20
    assert len(made.where(split="test", fold=1, seed=3, finding="malignant")) == 10
    assert len(made.where(seed=4)) == 0
    assert len(Predictions.from_frame(frame(10)).where(fold=0)) == 0


def test_unlabelled_rows_are_kept_until_asked_to_go():
    made = Predictions.from_frame(frame(10).assign(label=[None, *[0, 1] * 4, 1]))
    assert len(made) == 10
    assert len(made.labelled()) == 9
    assert made.labelled().labels.tolist() == [*[0, 1] * 4, 1]
    with pytest.raises(UsageError, match="1 cases are unlabelled"):
        _ = made.labels


def test_probabilities_come_from_the_logits():
    made = Predictions.from_frame(frame(10)).with_probabilities(calibrator(2.0).apply)
    assert made.probabilities == pytest.approx(calibrator(2.0).apply(made.logits))


def test_arrays_have_one_value_a_case():
    made = predictions(30)
    for values in (made.case_ids, made.patients, made.labels, made.logits, made.probabilities):
        assert values.shape == (30,)
    assert (made.labels.dtype, made.logits.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="patient_id"), "has no column 'patient_id'"),
        (lambda f: f.drop(columns=["label", "logit"]), "has no column 'label', 'logit'"),
        (lambda f: f.iloc[:0], "has no rows"),
        (lambda f: f.assign(probability=1.2), r"probability: 1.2 of case 000 is outside \[0, 1\]"),
        (lambda f: f.assign(probability=np.inf), "probability: inf of case 000"),
        (lambda f: f.assign(logit=[*[0.5] * 9, np.nan]), "logit: nan of case 009 is not finite"),
        (lambda f: f.assign(logit=[-np.inf, *[0.5] * 9]), "logit: -inf of case 000"),
        (lambda f: f.assign(logit="high"), "logit: .*expected numbers"),
        (lambda f: f.assign(label=2), "label: 2 is neither 0"),
        (lambda f: f.assign(label=0.5), "label: 0.5 is not a whole number"),
        (lambda f: f.assign(label="malignant"), "label: .*expected numbers"),
        (lambda f: f.assign(fold=0.5), "fold: 0.5 is not a whole number"),
        (lambda f: f.assign(patient_id="p1", split=["test", "train"] * 5), "patient p1 is in 2 splits"),
        (lambda f: f.assign(case_id="same"), "case same occurs twice"),
        (lambda f: f.assign(patient_id=[None, *["a"] * 9]), "patient_id: row 1 is blank"),
        (lambda f: f.assign(split=" "), "split: row 1 is blank"),
        (lambda f: f.set_axis([*f.columns[:-1], "site"], axis=1), "two columns 'site'"),
    ],
)
def test_a_broken_table_gets_one_clear_line(change, message):
    with pytest.raises(UsageError, match=message) as caught:
        Predictions.from_frame(change(frame(10)), source="runs/1/predictions.parquet")
    assert str(caught.value).startswith("runs/1/predictions.parquet: ")
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_gets_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("case_id,logit\n")
    with pytest.raises(UsageError, match="is not a readable Parquet file"):
        read_predictions(tmp_path / "text.parquet")
    with pytest.raises(UsageError, match=r"is not a readable Parquet file|does not exist"):
        read_predictions(tmp_path)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10))
def test_any_finite_logit_survives_the_file(tmp_path_factory, logits):
    path = tmp_path_factory.mktemp("any") / "p.parquet"
    rows = frame(len(logits) + 4).head(len(logits)).assign(logit=logits)
    write_predictions(Predictions.from_frame(rows), path)
    assert read_predictions(path).logits.tolist() == logits


def test_thresholds_of_folds_are_kept_checked_and_no_subgroups(tmp_path):
    table = frame(40).assign(fold=np.arange(40) % 2, fold_threshold=np.where(np.arange(40) % 2, 0.3, np.nan))
    made = Predictions.from_frame(table)
    assert "fold_threshold" not in made.extra.columns
    assert made.decided_by_fold
    np.testing.assert_array_equal(made.thresholds(0.6), np.where(np.arange(40) % 2, 0.3, 0.6))
    assert not Predictions.from_frame(frame(40)).decided_by_fold
    write_predictions(made, tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.parquet").frame, made.frame)
    with pytest.raises(UsageError, match=r"fold_threshold: 1\.5 is outside \[0, 1\]"):
        Predictions.from_frame(table.assign(fold_threshold=1.5))


def test_a_patient_is_decided_at_the_threshold_of_their_fold():
    table = frame(200).assign(probability=0.4)
    number = table["patient_id"].str[1:].astype(int)
    by = by_patient(Predictions.from_frame(table.assign(fold_threshold=np.where(number % 2, 0.3, 0.5))))
    odd = np.array([int(name[1:]) % 2 == 1 for name in by.patients])
    np.testing.assert_array_equal(by.probabilities >= by.thresholds(0.9), odd)
