"""Covariates of a case: numbers, and whatever else stands in such a cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.cases.case import Case
from pipeline.cases.covariates import EnvelopeOfCase, covariates_of, fit_envelope_of_cases, read_covariates
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


def test_a_covariate_in_another_unit_is_refused_and_its_margin_is_on_its_own_scale() -> None:
    diameters = np.geomspace(3, 40, 100)
    cases = [{"column diameter_mm": float(diameter)} for diameter in diameters]
    envelope = fit_envelope_of_cases(cases, modality="CT", scales={"diameter_mm": "log"})
    assert all(envelope.judge(case) == () for case in cases)
    assert [warning.code for warning in envelope.judge({"column diameter_mm": 2.3})] == ["W_NEAR_ENVELOPE"]
    for wrong in (0.8, 120.0):  # 8 mm in centimetres, and a diameter in another unit
        with pytest.raises(CaseError, match=r"diameter_mm is .*, accepted 2\.034 to 58\.99"):
            envelope.judge({"column diameter_mm": wrong})
    linear = fit_envelope_of_cases(cases, modality="CT", scales={"diameter_mm": "linear"})
    assert linear.limits["column diameter_mm"].upper == pytest.approx(40 + 37 * 0.15)


def test_an_image_is_judged_with_its_cases_covariates() -> None:
    measures = [{"share_inside": 1.0, "column diameter_mm": diameter} for diameter in (5.0, 10.0, 20.0)]
    envelope = fit_envelope_of_cases(measures, modality="CT", scales={"diameter_mm": "log"})
    assert list(envelope.limits) == ["column diameter_mm", "share_inside"]
    assert EnvelopeOfCase(envelope, {"column diameter_mm": 10.0}).judge({"share_inside": 1.0}) == ()
    with pytest.raises(CaseError, match="column diameter_mm is 1000"):
        EnvelopeOfCase(envelope, {"column diameter_mm": 1000.0}).judge({"share_inside": 1.0})
