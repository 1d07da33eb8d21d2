"""Rows of the lesions' table as what is to be found, and scans by what they may be used for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cases.case import Case
from pipeline.cases.scan_table import read_scan_table
from pipeline.errors import CaseError, Code, UsageError
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.model_description import PatientHashes
from pipeline.workflow.detection.chosen_scans import choose_judged_scans
from pipeline.workflow.detection.search_scans import search_scans, true_lesion


def lesion(**extra):
    return Case("l", "a.nii", Path("a.nii"), center_mm=(1.0, 2.0, 3.0), extra=extra)


def seen(train=(), validation=(), calibration=()):
    return PatientHashes.of("salt", {"train": train, "validation": validation, "calibration": calibration})


@pytest.fixture
def table(tmp_path):
    rows = [
        f"s{number},s{number}.nii.gz,p{number},,{split}"
        for number, split in enumerate(("train", "calibration", "test"))
    ]
    (tmp_path / "scans.csv").write_text("\n".join(["case_id,image,patient_id,label,split", *rows]) + "\n")
    (tmp_path / "lesions.csv").write_text(
        "case_id,image,center_x_mm,center_y_mm,center_z_mm,coordinate_system,diameter_mm\nl,s2.nii.gz,1,2,3,RAS,\n"
    )
    return read_scan_table(tmp_path / "scans.csv")


@pytest.mark.parametrize(
    ("columns", "groups"),
    [
        ({}, {}),
        ({"solid": "1", "part_solid_or_ground_glass": "0"}, {"texture": "solid"}),
        ({"solid": "0", "part_solid_or_ground_glass": "1"}, {"texture": "part-solid or ground-glass"}),
        ({"solid": "", "calcified": "1"}, {"texture": "unknown", "calcified": "yes"}),
        ({"calcified": ""}, {"calcified": "unknown"}),
    ],
)
def test_texture_and_calcification_are_groups(columns, groups):
    assert true_lesion(lesion(**columns)).groups == groups


def test_other_columns_are_groups_where_they_are_asked_for():
    assert true_lesion(lesion(lobe=" upper "), ["lobe", "site"]).groups == {"lobe": "upper", "site": ""}


def test_scan_that_cannot_be_searched_is_rejected_and_the_others_go_on(table):
    def search(case):
        if case.case_id == "s1":
            raise CaseError(Code.E_SHAPE, case.path, "5 slices")
        return [Candidate((1.0, 2.0, 4.0), 5.0, (0.7, 0.1))]

    found = search_scans(search, table, table.scans.cases)
    assert [scan.scan_id for scan in found.scans] == ["s0", "s2"]
    assert [(case.case_id, error.code) for case, error in found.rejected] == [("s1", Code.E_SHAPE)]
    assert found.scans[1].candidates[0].probability == 0.7
    assert found.scans[1].lesions[0].diameter_mm is None
    assert found.scans[0].lesions == ()


def test_test_split_is_judged_and_the_calibration_split_fits(table):
    chosen = choose_judged_scans(table, seen(train=["p0"], calibration=["p1"]))
    assert [case.case_id for case in chosen.judged] == ["s2"]
    assert [case.case_id for case in chosen.calibration] == ["s1"]
    assert chosen.left_out == {}


def test_patients_that_either_model_was_trained_on_fit_nothing(table):
    assert choose_judged_scans(table, seen(validation=["p1"])).calibration == ()
    assert choose_judged_scans(table, seen(), seen(train=["p1"])).calibration == ()
    assert choose_judged_scans(table, seen(), seen(calibration=["p1"])).calibration != ()


def test_table_whose_test_patients_have_all_been_seen_cannot_judge(table):
    with pytest.raises(UsageError, match="1 of patients that the classifier has seen"):
        choose_judged_scans(table, seen(), seen(calibration=["p2"]))


def test_detector_says_who_its_calibration_patients_are_where_the_table_names_no_split(table, tmp_path):
    lines = (tmp_path / "scans.csv").read_text().splitlines()
    (tmp_path / "bare.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    chosen = choose_judged_scans(read_scan_table(tmp_path / "bare.csv"), seen(train=["p0"], calibration=["p1"]))
    assert [case.case_id for case in chosen.judged] == ["s2"]
    assert [case.case_id for case in chosen.calibration] == ["s1"]
    assert chosen.left_out == {"patients that the detector has seen": 2}
