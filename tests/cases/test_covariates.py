"""Covariates of a case: numbers, and whatever else stands in such a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cases.case import Case
from pipeline.cases.covariates import covariates_of, read_covariates
from pipeline.errors import CaseError


def case(**extra: str) -> Case:
    return Case(case_id="a", image="a.nii.gz", path=Path("a.nii.gz"), extra=extra)


def test_numbers_are_read_in_their_own_unit() -> None:
    found = read_covariates(
        case(diameter_mm=" 8.5 ", change="-2", other="text"), {"diameter_mm": "log", "change": "linear"}
    )
    assert found == {"column diameter_mm": 8.5, "column change": -2.0}
    assert covariates_of({"share_inside": 1.0, **found}, ["change", "diameter_mm"]) == [-2.0, 8.5]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({}, r"there is no column 'diameter_mm', expected a number above 0, as 8.5; score a manifest that has it"),
        ({"diameter_mm": "  "}, r"'diameter_mm' is blank, expected a number above 0, as 8.5; fill it in"),
        ({"diameter_mm": "8,5"}, r"'diameter_mm' is '8,5', expected a number above 0, as 8.5; correct it"),
        ({"diameter_mm": "0"}, r"'diameter_mm' is '0', expected a number above 0"),
        ({"diameter_mm": "nan"}, r"'diameter_mm' is 'nan'"),
        ({"diameter_mm": "1e200"}, r"'diameter_mm' is '1e200'"),
        ({"diameter_mm": "1_000"}, r"'diameter_mm' is '1_000'"),
        ({"diameter_mm": "\uff19"}, r"'diameter_mm' is '\uff19'"),
    ],
)
def test_a_cell_that_is_no_such_number_rejects_the_case(extra: dict[str, str], says: str) -> None:
    with pytest.raises(CaseError, match=says) as caught:
        read_covariates(case(**extra), {"diameter_mm": "log"})
    assert caught.value.code == "E_OUT_OF_ENVELOPE"
