"""Covariates: numbers that a table holds of every case beside its image, as the diameter that a reader measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipeline.cases.case import Case
from pipeline.config.inputs import Scale
from pipeline.errors import CaseError, Code
from pipeline.imaging.envelope import Envelope, Limit, fit_envelope
from pipeline.imaging.image import Warning

NO_COVARIATES: Mapping[str, Scale] = MappingProxyType({})
# A limit's margin as shares of the training range. A wrong unit or a slip of the pen changes what a table says by a
# factor, so less is let through than of what is measured in an image.
_OF_RANGE, _OF_FEW = 0.1, 5.0
_LARGEST = 1e15  # beyond it squares overflow, and no quantity of a patient is


def measure_name(column: str) -> str:
    """Name of a covariate among a case's measures, which no measure of an image has."""
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


@dataclass(frozen=True)
class EnvelopeOfCase:
    """A model's envelope for one case, whose covariates are judged with what is measured in its image.

    Attributes:
        envelope: of the model.
        covariates: of the case, as `read_covariates` returns them.
    """

    envelope: Envelope
    covariates: Mapping[str, float]

    @property
    def modality(self) -> str:
        """Of the training cases."""
        return self.envelope.modality

    def judge(
        self, measures: Mapping[str, float], *, path: Path | str = "input", body_part: str | None = None
    ) -> tuple[Warning, ...]:
        """Judge the image's measures and the case's covariates, as `Envelope.judge`."""
        return self.envelope.judge({**measures, **self.covariates}, path=path, body_part=body_part)


def fit_envelope_of_cases(
    measures: Sequence[Mapping[str, float]], *, modality: str, scales: Mapping[str, Scale] = NO_COVARIATES
) -> Envelope:
    """Learn the envelope from training cases: limits of what is measured in their images, and of their covariates.

    Args:
        measures: one mapping a case, with its covariates by ``measure_name``.
        modality: of the cases.
        scales: the covariates' columns, and the scale that each is used on.

    Raises:
        ValueError: without a case.
    """
    names = {measure_name(column): scale for column, scale in scales.items()}
    measured = [{name: value for name, value in case.items() if name not in names} for case in measures]
    envelope = fit_envelope(measured, modality=modality)
    limits = {name: _limit(np.array([case[name] for case in measures]), scale) for name, scale in names.items()}
    return replace(envelope, limits=dict(sorted({**envelope.limits, **limits}.items())))


def _limit(values: np.ndarray, scale: Scale) -> Limit:
    scaled = np.log(values) if scale == "log" else values
    low, high = float(scaled.min()), float(scaled.max())
    margin = (high - low) * (_OF_RANGE + _OF_FEW / len(values))
    borders = (low - margin, low - margin / 2, high + margin / 2, high + margin)
    return Limit(*(float(np.exp(border) if scale == "log" else border) for border in borders))


def _number(case: Case, name: str, scale: Scale) -> float:
    expected = "a number above 0, as 8.5" if scale == "log" else "a number, as 8.5"
    if name not in case.extra:
        reason = f"there is no column {name!r}, expected {expected}; score a manifest that has it"
        raise CaseError(Code.E_OUT_OF_ENVELOPE, case.path, reason)
    text = case.extra[name].strip()
    try:
        # Python's float also accepts 1_000 and digits of other scripts.
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST or (scale == "log" and value <= 0):
        fault = (
            f"is {text!r}, expected {expected}; correct it" if text else f"is blank, expected {expected}; fill it in"
        )
        raise CaseError(Code.E_OUT_OF_ENVELOPE, case.path, f"column {name!r} {fault}")
    return value
