"""Ids of cases and of patients: whose they are, and what of a DICOM header is never written."""

import pytest
from made_scans import scan

from pipeline.cases.intake.columns import Columns
from pipeline.cases.intake.joining import Join
from pipeline.cases.intake.located import LocatedRow
from pipeline.cases.intake.naming import name_cases
from pipeline.cases.intake.pseudonyms import pseudonym
from pipeline.cases.intake.rows import IntakeRow


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("MALIGNANCY_PATIENT_SALT", "pepper")


def ids(*rows, keep_ids=False, **columns):
    found = columns and Columns(**{"case": "id", "join": Join((), "file name"), **columns})
    naming = name_cases([LocatedRow(row) for row in rows], found or None, keep_ids=keep_ids)
    return [(case.case_id, case.patient_id) for case in naming.cases]


def dicom(image, **header):
    return scan(image, modality="CT", **header)


def test_ids_that_stand_in_a_header_are_not_written_even_where_a_table_has_them():
    hashed = pseudonym("47", "pepper")
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


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("Patient name", ["anna.smith", "b"]),
        ("Patient", ["Anna Smith", "Smith, Bob"]),
        ("pat", ["DOE^JOHN", "MÜLLER-LÜDENSCHEIDT^K"]),
    ],
)
def test_names_of_patients_are_hashed_unless_they_are_to_be_kept(column, texts):
    rows = [IntakeRow(scan(f"{number}.nii"), case_id=f"c{number}", patient=text) for number, text in enumerate(texts)]
    found = ids(*rows, patient=column)
    assert [case for case, _ in found] == ["c0", "c1"]
    assert [patient for _, patient in found] == [pseudonym(text.casefold(), "pepper") for text in texts]
    assert [patient for _, patient in ids(*rows, patient=column, keep_ids=True)] == texts


@pytest.mark.parametrize("texts", [["P 1", "P 2"], ["Patient 01", "Patient 02"], ["A", "B"], ["Fall 7 b", "Fall 8"]])
def test_numbered_ids_are_no_names(texts):
    rows = [IntakeRow(scan(f"{number}.nii"), patient=text) for number, text in enumerate(texts)]
    assert [patient for _, patient in ids(*rows, patient="Patient")] == texts


def test_cases_called_by_a_name_are_called_by_their_path():
    rows = [IntakeRow(scan("a.nii"), case_id="Anna Smith"), IntakeRow(scan("b.nii"), case_id="Bob Ray")]
    assert [case for case, _ in ids(*rows, case="who")] == ["a.nii", "b.nii"]


def test_one_patient_in_two_spellings_is_one_patient():
    rows = [
        IntakeRow(scan(f"{number}.nii"), patient=text)
        for number, text in enumerate(["1000", "1000.0", "P1", "p1", "P2"])
    ]
    assert [patient for _, patient in ids(*rows, patient="patient")] == ["1000", "1000", "P1", "P1", "P2"]


def test_a_study_id_that_a_table_gives_is_not_written():
    row = IntakeRow(dicom("a/1", patient="0047", study="1.2.3"), case_id="1.2.3")
    assert ids(row) == [("a/1", pseudonym("47", "pepper"))]


def test_headers_without_a_patient_do_not_make_one_patient_of_all():
    rows = [IntakeRow(dicom("a", study="1")), IntakeRow(dicom("b", study="2"))]
    assert [patient for _, patient in ids(*rows)] == ["a", "b"]


def test_sessions_of_one_bids_subject_are_one_patient():
    rows = [IntakeRow(scan(f"sub-01/ses-{number}/t1.nii")) for number in (1, 2)]
    assert [patient for _, patient in ids(*rows)] == ["sub-01", "sub-01"]
    assert name_cases([LocatedRow(row) for row in rows], None, keep_ids=False).lines == ()


def test_scans_of_unknown_patients_are_counted():
    located = [LocatedRow(IntakeRow(scan("a.nii"))), LocatedRow(IntakeRow(scan("b.nii"), patient="P1"))]
    (line,) = name_cases(located, None, keep_ids=False).lines
    assert line.startswith("patient: unknown of 1 cases")


def test_an_id_that_is_the_path_of_another_scan_gives_way_to_numbers():
    rows = [IntakeRow(scan("a.nii"), case_id="b.nii"), IntakeRow(scan("b.nii"))]
    assert [case for case, _ in ids(*rows)] == ["00001", "00002"]


def test_lesions_of_two_scans_with_one_id_are_numbered_by_path():
    located = [
        LocatedRow(IntakeRow(scan(image), case_id="7"), 5.0, lesion) for image in "ab" for lesion in ("#1", "#2")
    ]
    cases = name_cases(located, None, keep_ids=False).cases
    assert [case.case_id for case in cases] == ["a#1", "a#2", "b#1", "b#2"]


def test_a_scans_one_diameter_is_not_that_of_each_of_its_lesions():
    row = IntakeRow(scan("a.nii"), extra={"diameter_mm": "9"})
    cases = name_cases([LocatedRow(row, 5.0, "#1"), LocatedRow(row, 7.0, "#2")], None, keep_ids=False).cases
    assert [case.extra["diameter_mm"] for case in cases] == ["5", "7"]
    (case,) = name_cases([LocatedRow(row, 5.0)], None, keep_ids=False).cases
    assert case.extra["diameter_mm"] == "9"


def test_what_a_table_says_stands_before_the_header():
    row = IntakeRow(dicom("a/1", sex="M", manufacturer="X"), extra={"sex": "F"})
    (case,) = name_cases([LocatedRow(row)], None, keep_ids=True).cases
    assert (case.extra["sex"], case.extra["manufacturer"]) == ("F", "X")
