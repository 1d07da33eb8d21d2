"""Covariates: numbers that a table holds of every case beside its image, as the diameter that a reader measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pipeline.cases.case import Case
from pipeline.config.inputs import Scale
from pipeline.errors import CaseError, Code

NO_COVARIATES: Mapping[str, Scale] = MappingProxyType({})
_LARGEST = 1e15  # beyond it squares overflow, and no quantity of a patient is


def measure_name(column: str) -> str:
    """What a covariate is called among a case's measures, where no measure of the image can have its name."""
    return f"column {column}"


def read_covariates(case: Case, scales: Mapping[str, Scale]) -> dict[str, float]:
    """A case's covariates in their columns' own units, by ``measure_name``.

    Args:
        case: with the columns as text.
        scales: the columns, and the scale that each is used on.

    Raises:
        CaseError: E_OUT_OF_ENVELOPE, where a column is missing or blank, or holds no finite number or, on the log
            scale, none above 0.
    """
    return {measure_name(name): _number(case, name, scale) for name, scale in scales.items()}


def covariates_of(measures: Mapping[str, float], columns: Sequence[str]) -> list[float]:
    """The covariates among a case's measures, in the order of the columns."""
    return [measures[measure_name(name)] for name in columns]


def _number(case: Case, name: str, scale: Scale) -> float:
    expected = "a number above 0, as 8.5" if scale == "log" else "a number, as 8.5"
    if name not in case.extra:
        reason = f"there is no column {name!r}, expected {expected}; score a manifest that has it"
        raise CaseError(Code.E_OUT_OF_ENVELOPE, case.path, reason)
    text = case.extra[name].strip()
    try:
        # Python would take 1_000 and digits of other scripts, which no table means.
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST or (scale == "log" and value <= 0):
        fault = (
            f"is {text!r}, expected {expected}; correct it" if text else f"is blank, expected {expected}; fill it in"
        )
        raise CaseError(Code.E_OUT_OF_ENVELOPE, case.path, f"column {name!r} {fault}")
    return value
