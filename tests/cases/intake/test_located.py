"""Rows of scans with the lesions that files mark in them; and what is said of what becomes no case."""

from pathlib import Path

import pytest
from made_scans import scan

from pipeline.cases.intake.left_out import left_out_lines
from pipeline.cases.intake.located import LocatedRow, only_lesions, with_lesions
from pipeline.cases.intake.rows import IntakeRow
from pipeline.cases.lesions.lesion import Lesion, RefusedAnnotation
from pipeline.cases.lesions.match import LesionMatch
from pipeline.errors import CaseError, Code


def lesion(x, diameter):
    return Lesion((x, 0.0, 0.0), diameter, "1", Path("marks.json"), "slicer-markups")


def test_a_centre_of_a_table_takes_the_diameter_of_the_mark_at_its_place_alone():
    row = IntakeRow(scan("a.nii"), center_mm=(0.0, 0.0, 0.0))
    marks = [lesion(30.0, 9.0), lesion(0.5, 6.0)]
    assert with_lesions([row], {id(row.scan): tuple(marks)})[0].diameter_mm == 6.0
    assert with_lesions([row], {id(row.scan): tuple(marks[:1])})[0].diameter_mm is None


def test_only_several_lesions_of_a_scan_are_numbered():
    rows = [IntakeRow(scan("a.nii"), label=1), IntakeRow(scan("b.nii"))]
    marks = {id(rows[0].scan): (lesion(1.0, 5.0), lesion(20.0, 7.0)), id(rows[1].scan): (lesion(2.0, None),)}
    found = with_lesions(rows, marks)
    assert [(each.row.scan.image, each.row.center_mm[0], each.lesion) for each in found] == [
        ("a.nii", 1.0, "#1"),
        ("a.nii", 20.0, "#2"),
        ("b.nii", 2.0, ""),
    ]


def test_scans_without_a_lesion_are_left_out_where_half_have_one():
    rows = [IntakeRow(scan("a.nii"), center_mm=(1.0, 0.0, 0.0)), IntakeRow(scan("b.nii"))]
    found = only_lesions([LocatedRow(row) for row in rows])
    assert [each.row.scan.image for each in found.rows] == ["a.nii"]
    assert found.without == ["b.nii"]
    assert found.lines == ()


def test_where_few_scans_have_a_lesion_each_scan_is_one_case_without_a_centre():
    marked = scan("a.nii")
    rows = [IntakeRow(marked, case_id=name, center_mm=(x, 0.0, 0.0)) for name, x in (("first", 1.0), ("second", 2.0))]
    rows += [IntakeRow(scan(f"{number}.nii")) for number in range(2)]
    found = only_lesions([LocatedRow(row, 5.0, lesion) for row, lesion in zip(rows, ["#1", "#2", "", ""], strict=True)])
    assert [(each.row.scan.image, each.row.case_id, each.row.center_mm, each.lesion) for each in found.rows] == [
        ("a.nii", "first", None, ""),
        ("0.nii", None, None, ""),
        ("1.nii", None, None, ""),
    ]
    assert found.without == []
    assert found.lines == (
        "lesion centres: 1 of 3 scans have one, too few for cases that are lesions; whole scans are taken",
    )


@pytest.mark.parametrize(("labels", "label"), [((0, 1), None), ((1, 0), None), ((1, 1), 1), ((None, 1), 1)])
def test_a_scan_whose_lesions_have_both_labels_has_none(labels, label):
    marked = scan("a.nii")
    rows = [IntakeRow(marked, center_mm=(float(x), 0.0, 0.0), label=each) for x, each in enumerate(labels)]
    rows += [IntakeRow(scan(f"{number}.nii"), label=0) for number in range(2)]
    found = only_lesions([LocatedRow(row) for row in rows])
    assert found.rows[0].row.label == label
    torn = "1 scans have lesions of both labels and stay unlabelled: a.nii"
    assert (torn in found.lines) == (set(labels) == {0, 1})


def test_annotations_of_no_scan_are_told():
    error = CaseError(Code.E_NOT_FOUND, Path("marks.json"), "its name fits none of the 2 images")
    match = LesionMatch(homeless=(RefusedAnnotation(error),))
    lines = left_out_lines(unread=[], masks=[], derived=[], other_kind=[], series=[], without=[], match=match)
    assert list(lines) == [
        "1 annotations that give no lesion: marks.json: E_NOT_FOUND: its name fits none of the 2 images"
    ]
