"""Findings of a manifest: what is read, what is refused, and who may train without the label."""

import numpy as np
import pytest

from pipeline.cases.findings import (
    finding_labels,
    partly_labelled,
    require_findings,
    require_findings_in_splits,
)
from pipeline.cases.manifest import read_manifest
from pipeline.errors import TableError

NAMES = ("malignant", "spiculated", "calcified")


def manifest(tmp_path, rows, columns="case_id,patient_id,image,label,spiculated,calcified"):
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return read_manifest(path)


def test_labels_are_the_label_and_the_columns_with_nan_for_blank(tmp_path):
    made = manifest(tmp_path, ["a,p,a.nii,1,0,", "b,q,b.nii,,1,1.0", "c,r,c.nii,0, ,0"])
    require_findings(made, NAMES)
    expected = [[1, 0, np.nan], [np.nan, 1, 1], [0, np.nan, 0]]
    np.testing.assert_array_equal(finding_labels(made.cases, NAMES), expected)
    assert finding_labels(made.cases, ("malignant", "elsewhere"))[:, 1].tolist() == pytest.approx(
        [np.nan] * 3, nan_ok=True
    )


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        (
            ["a,p,a.nii,1,0"],
            "case_id,patient_id,image,label,spiculated",
            r"E_LABEL_COLUMNS: has no column 'calcified', which is one of the findings \(extra columns: spiculated\)",
        ),
        (
            ["a,p,a.nii,1,0,0", "b,q,b.nii,0,0,2"],
            "case_id,patient_id,image,label,spiculated,calcified",
            r"E_LABEL_VALUE: case 'b': calcified is '2', expected 1 \(present\), 0 \(absent\) or blank",
        ),
        (
            ["a,p,a.nii,1,yes,0"],
            "case_id,patient_id,image,label,spiculated,calcified",
            "case 'a': spiculated is 'yes', expected 1",
        ),
        (
            ["a,p,a.nii,1,0,0,1", "b,q,b.nii,0,0,0,1"],
            "case_id,patient_id,image,label,spiculated,calcified,malignant",
            "E_LABEL_CONFLICT: case 'b': column 'malignant' holds '1' and column 'label' 0",
        ),
        (
            ["a,p,a.nii,,0,0,1"],
            "case_id,patient_id,image,label,spiculated,calcified,malignant",
            "column 'malignant' holds '1' and column 'label' a blank",
        ),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_line(tmp_path, rows, columns, says):
    made = manifest(tmp_path, rows, columns)
    with pytest.raises(TableError, match=says) as caught:
        require_findings(made, NAMES)
    assert "\n" not in str(caught.value)


def test_a_binary_model_asks_nothing_of_other_columns(tmp_path):
    require_findings(manifest(tmp_path, ["a,p,a.nii,1,yes,5"]), ("malignant",))


def test_only_cases_that_cannot_leak_train_without_the_label(tmp_path):
    columns = "case_id,patient_id,image,label,spiculated,calcified,split"
    rows = [
        "a,p,a.nii,,1,,",  # may train
        "b,q,b.nii,,,0,train",  # may train
        "c,r,c.nii,,1,,test",  # meant for judging
        "d,,d.nii,,1,,",  # nobody knows whose it is
        "e,s,e.nii,,,,",  # nothing to learn from
        "f,t,f.nii,1,1,1,train",  # labelled
    ]
    assert [case.case_id for case in partly_labelled(manifest(tmp_path, rows, columns).cases, NAMES)] == ["a", "b"]


def test_a_split_in_which_a_finding_has_one_class_is_named(tmp_path):
    rows = [
        f"{split}{number},{split}{number},{split}{number}.nii,{number % 2},{number // 2 % 2},{number % 2}"
        for split in ("train", "validation", "calibration", "test")
        for number in range(4)
    ]
    made = manifest(tmp_path, rows)
    split_of = {case.case_id: case.case_id.rstrip("0123456789") for case in made.cases}
    require_findings_in_splits(made, NAMES, split_of)
    worse = manifest(tmp_path, [row[:-1] + "0" if row.startswith("test") else row for row in rows])
    with pytest.raises(TableError, match="split 'test' has 4 not calcified and 0 calcified cases"):
        require_findings_in_splits(worse, NAMES, split_of)


def test_partly_labelled_cases_complete_the_training_split_alone(tmp_path):
    rows = [
        f"{split}{number},{split}{number},{split}{number}.nii,{number % 2},{number // 2 % 2},"
        + ("" if split == "train" else str(number % 2))
        for split in ("train", "validation", "calibration", "test")
        for number in range(4)
    ]
    extra = ["x,x,x.nii,,,1", "y,y,y.nii,,,0"]
    made = manifest(tmp_path, rows + extra)
    split_of = {case.case_id: case.case_id.rstrip("0123456789") for case in made.cases if case.label is not None}
    require_findings_in_splits(made, NAMES, split_of)
    made = manifest(tmp_path, [*rows, *(row.replace(",x,", ",test0,") for row in extra)])
    with pytest.raises(TableError, match="split 'train' has 1 not calcified and 0 calcified"):
        require_findings_in_splits(made, NAMES, split_of)
