"""Ids of cases and of patients: whose they are, and what of a DICOM header is never written."""

import pytest
from made_scans import scan

from pipeline.cases.intake.located import LocatedRow
from pipeline.cases.intake.naming import cases_of
from pipeline.cases.intake.pseudonyms import pseudonym
from pipeline.cases.intake.rows import IntakeRow


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("MALIGNANCY_PATIENT_SALT", "pepper")


def ids(*rows, keep_ids=False):
    cases, _ = cases_of([LocatedRow(row) for row in rows], keep_ids=keep_ids)
    return [(case.case_id, case.patient_id) for case in cases]


def dicom(image, **header):
    return scan(image, modality="CT", **header)


def test_ids_that_stand_in_a_header_are_not_written_even_where_a_table_has_them():
    hashed = pseudonym("0047", "pepper")
    rows = [
        IntakeRow(dicom("a/1", patient="0047", accession="CT9"), case_id="ct9", patient="47"),
        IntakeRow(dicom("a/2", patient="0047", accession="CT8")),
        IntakeRow(scan("b.nii"), case_id="other", patient="47"),
        IntakeRow(dicom("c/1", patient="anonymous"), case_id="study 3", patient="P3"),
    ]
    assert ids(*rows) == [("a/1", hashed), ("a/2", hashed), ("other", hashed), ("study 3", "P3")]
    assert ids(*rows, keep_ids=True)[:3] == [("ct9", "0047"), ("a/2", "0047"), ("other", "0047")]


def test_a_table_without_headers_keeps_its_ids_and_a_scan_alone_is_a_patient_of_its_own():
    assert ids(IntakeRow(scan("a.nii"), case_id="007", patient="P7"), IntakeRow(scan("b.nii"))) == [
        ("007", "P7"),
        ("b.nii", "b.nii"),
    ]


def test_an_id_of_several_scans_gives_way_to_their_paths():
    rows = [IntakeRow(scan("a/1.nii"), case_id="7"), IntakeRow(scan("a/2.nii"), case_id="7")]
    assert [case for case, _ in ids(*rows)] == ["a/1.nii", "a/2.nii"]
