"""Covariates: numbers that a table holds of every case beside its image, as the diameter that a reader measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from pipeline.cases.case import Case
from pipeline.config_inputs import Scale
from pipeline.errors import CaseError, Code

NO_COVARIATES: Mapping[str, Scale] = MappingProxyType({})


def read_covariates(case: Case, scales: Mapping[str, Scale]) -> dict[str, float]:
    """A case's covariates by column, in the column's own unit.

    Args:
        case: with the columns as text.
        scales: the columns, and the scale that each is used on.

    Raises:
        CaseError: E_OUT_OF_ENVELOPE, where a column is missing or blank, or holds no finite number or, on the log
            scale, none above 0.
    """
    known = {}
    for name, scale in scales.items():
        text = case.extra.get(name, "").strip()
        expected = "a number above 0" if scale == "log" else "a number"
        try:
            known[name] = float(text)
        except ValueError:
            known[name] = math.nan
        if not math.isfinite(known[name]) or (scale == "log" and known[name] <= 0):
            found = f"is {text!r}" if text else "is blank" if name in case.extra else "is missing"
            raise CaseError(
                Code.E_OUT_OF_ENVELOPE, case.path, f"column {name!r} {found}, expected {expected}; fill it in"
            )
    return known
