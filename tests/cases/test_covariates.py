"""Covariates of a case: numbers, and whatever else stands in such a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cases.case import Case
from pipeline.cases.covariates import read_covariates
from pipeline.errors import CaseError


def case(**extra: str) -> Case:
    return Case(case_id="a", image="a.nii.gz", path=Path("a.nii.gz"), extra=extra)


def test_numbers_are_read_in_their_own_unit() -> None:
    found = read_covariates(
        case(diameter_mm=" 8.5 ", change="-2", other="text"), {"diameter_mm": "log", "change": "linear"}
    )
    assert found == {"diameter_mm": 8.5, "change": -2.0}


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({}, r"'diameter_mm' is missing, expected a number above 0; fill it in"),
        ({"diameter_mm": "  "}, r"'diameter_mm' is blank, expected a number above 0"),
        ({"diameter_mm": "8,5"}, r"'diameter_mm' is '8,5', expected a number above 0"),
        ({"diameter_mm": "0"}, r"'diameter_mm' is '0', expected a number above 0"),
        ({"diameter_mm": "nan"}, r"'diameter_mm' is 'nan'"),
        ({"diameter_mm": "1e999"}, r"'diameter_mm' is '1e999'"),
    ],
)
def test_a_cell_that_is_no_such_number_rejects_the_case(extra: dict[str, str], says: str) -> None:
    with pytest.raises(CaseError, match=says) as caught:
        read_covariates(case(**extra), {"diameter_mm": "log"})
    assert caught.value.code == "E_OUT_OF_ENVELOPE"
