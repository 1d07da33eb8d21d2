"""Score rows: what stands in the code column, how long a refusal took, and blanks where there is no score."""

import pytest

from pipeline.cases.case import Case
from pipeline.errors import Code
from pipeline.scoring.rows import ModelIdentity, first_code, refusal, rows_table, schema

STAMP = ModelIdentity("tiny@1", "1" * 64, "2" * 64)
CASE = Case(case_id="a", image="a.nii", path="a.nii", patient_id="P1")


def test_the_code_of_a_flagged_row_is_its_first_warning():
    assert first_code([Code.W_UNITS, Code.W_SUFFIX]) == "W_UNITS"
    assert first_code([]) == ""


def test_a_refusal_says_what_was_found_before_and_how_long_it_took():
    found = refusal(
        CASE,
        STAMP,
        status="rejected",
        code=Code.E_FORMAT,
        reason="made up",
        warnings=[Code.W_UNITS, Code.W_SUFFIX],
        seconds=1.23456789,
    )
    assert (found.code, found.reason, found.warnings, found.seconds) == (
        "E_FORMAT",
        "made up",
        "W_UNITS;W_SUFFIX",
        1.2346,
    )
    assert (found.case_id, found.image, found.patient_id, found.model) == ("a", "a.nii", "P1", "tiny@1")


@pytest.mark.parametrize(("members", "findings"), [(0, []), (2, []), (0, ["malignant", "calcified"])])
def test_a_row_without_a_score_has_blank_members_and_findings(members, findings):
    found = refusal(CASE, STAMP, status="rejected", code=Code.E_FORMAT, reason="made up")
    table = rows_table([found], members=members, findings=findings)
    assert table.schema == schema(members, findings)
    more = [name for name in table.column_names if name.startswith(("probability_", "decision_"))]
    assert len(more) == members + 2 * len(findings)
    assert all(table.column(name).to_pylist() == [None] for name in more)
