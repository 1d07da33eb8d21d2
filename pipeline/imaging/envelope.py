"""The acceptance envelope: limits on a model's inputs, learned from its training cases.

It is measured on the region that the network sees, before windowing, and on the stored spacing; never on the file's
field of view, so that a model trained on small crops accepts the same lesion in a whole CT. It refuses inputs unlike
anything in training; it is no detector of subtle shifts, and its margins are wide on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.config.body_parts import body_part_term, contradicts
from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Warning

# How far beyond the training range a measure may lie, at least. The composition of a region changes by half when a
# lesion lies at the pleura or at the file's edge instead of inside the lung, and few patients need not show that.
_LEAST_MARGIN = {"share_inside": 0.55, "air_fraction": 0.55, "tissue_fraction": 0.55, "zero_fraction": 0.1}
_LEAST_MARGIN |= {"lung_hu": 120.0}  # a mean over all of the lung moves less than that of a region
_LEAST_MARGIN_HU = 250.0
_LEAST_RATIO_SPACING = 1.25  # spacing is judged by ratio: 0.7 and 0.9 mm are as far apart as 1.4 and 1.8
# The middle quantiles depend on a region's composition alone, which the fractions judge.
_NOT_JUDGED = ("intensity_q25", "intensity_q50", "intensity_q75")
_EXACT = ("slice_axis",)  # names a direction, which must be equal
_BODY_PART_KEYS = ("body_parts", "refuses_other_body_parts")
_OF_RANGE, _OF_FEW = 0.5, 5.0  # margin = range x (0.5 + 5 / cases): few cases determine the range poorly


@dataclass(frozen=True)
class Limit:
    """One measure's borders: refused outside [lower, upper], flagged outside [near_lower, near_upper].

    None is no border. Values are in the measure's unit.
    """

    lower: float | None
    near_lower: float | None
    near_upper: float | None
    upper: float | None


class Acceptance(Protocol):
    """Judges one input by its measures: an `Envelope`, alone or with the covariates of the case."""

    @property
    def modality(self) -> str:
        """Of the training cases."""
        ...

    def judge(
        self, measures: Mapping[str, float], *, path: Path | str = "input", body_part: str | None = None
    ) -> tuple[Warning, ...]:
        """As `Envelope.judge`."""
        ...


@dataclass(frozen=True)
class Envelope:
    """What a model accepts.

    Attributes:
        modality: that of the training cases.
        cases: how many training cases it was fitted on.
        limits: by measure (see `pipeline.imaging.preprocess.ModelInput.measures`).
        body_parts: of the training cases, as their headers or the configuration name them; empty when nothing does.
        refuses_other_body_parts: whether a case of another body part is refused, and not flagged only.
    """

    modality: str
    cases: int
    limits: Mapping[str, Limit]
    body_parts: tuple[str, ...] = ()
    refuses_other_body_parts: bool = False

    def judge(
        self, measures: Mapping[str, float], *, path: Path | str = "input", body_part: str | None = None
    ) -> tuple[Warning, ...]:
        """Judge one case; W_NEAR_ENVELOPE for each measure near a border, W_BODY_PART for another body part.

        Raises:
            CaseError: E_OUT_OF_ENVELOPE, naming the measure, its value and its limits, or the body part.
        """
        warnings = self._judge_body_part(body_part, path)
        for name, limit in self.limits.items():
            value = measures.get(name)
            if value is None or not math.isfinite(value):
                raise CaseError(
                    Code.E_OUT_OF_ENVELOPE,
                    path,
                    f"{name} cannot be measured here, but the model's training cases have it",
                )
            accepted = f"accepted {_side(limit.lower)} to {_side(limit.upper)}"
            if not _between(limit.lower, value, limit.upper):
                raise CaseError(
                    Code.E_OUT_OF_ENVELOPE,
                    path,
                    f"{name} is {value:.4g}, {accepted}: unlike the model's training cases",
                )
            if not _between(limit.near_lower, value, limit.near_upper):
                warnings.append(Warning(Code.W_NEAR_ENVELOPE, f"{name} is {value:.4g}, {accepted}"))
        return tuple(warnings)

    def _judge_body_part(self, body_part: str | None, path: Path | str) -> list[Warning]:
        """Judge the body part; without one in the case or the model nothing is refused."""
        if body_part is None or not self.body_parts or not contradicts(body_part, self.body_parts):
            return []
        reason = f"the header says {body_part}, the model was trained on {', '.join(self.body_parts)}"
        if self.refuses_other_body_parts:
            raise CaseError(Code.E_OUT_OF_ENVELOPE, path, reason)
        return [Warning(Code.W_BODY_PART, reason)]

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back to an equal envelope."""
        return {
            "modality": self.modality,
            "cases": self.cases,
            "limits": {
                name: [limit.lower, limit.near_lower, limit.near_upper, limit.upper]
                for name, limit in sorted(self.limits.items())
            },
            # Absent, not empty, where there is none, so that the digests of earlier models do not change.
            **({"body_parts": list(self.body_parts)} if self.body_parts else {}),
            **({"refuses_other_body_parts": True} if self.refuses_other_body_parts else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Envelope:
        """Read what `to_json` wrote.

        Raises:
            ValueError: for anything else; the message names the key.
        """
        if (
            not isinstance(value, Mapping)
            or not {"modality", "cases", "limits"} <= set(value) <= {"modality", "cases", "limits", *_BODY_PART_KEYS}
            or not isinstance(value["limits"], Mapping)
        ):
            raise ValueError("envelope: expected the keys cases, limits and modality")
        limits = {}
        for name, numbers in value["limits"].items():
            if not isinstance(numbers, list | tuple) or len(numbers) != 4 or not all(map(_number_or_none, numbers)):
                raise ValueError(f"envelope: limits.{name}: {numbers!r}, expected four numbers or nulls")
            limits[str(name)] = Limit(*(None if number is None else float(number) for number in numbers))
        parts, refuses = value.get("body_parts", []), value.get("refuses_other_body_parts", False)
        if not isinstance(parts, list | tuple) or any(body_part_term(str(part)) != part for part in parts):
            raise ValueError("envelope: body_parts: expected known terms, as CHEST")
        if not isinstance(refuses, bool):
            raise ValueError("envelope: refuses_other_body_parts: expected true or false")
        return cls(str(value["modality"]), int(value["cases"]), limits, tuple(parts), refuses)


def fit_envelope(measures: Sequence[Mapping[str, float]], *, modality: str) -> Envelope:
    """Learn the envelope from training cases, and from those only.

    Args:
        measures: one mapping a case, as `preprocess` returns them. A measure that some case lacks gets no limit.
        modality: of the cases.

    Raises:
        ValueError: without a case.
    """
    if not measures:
        raise ValueError("an envelope needs at least one training case")
    shared = set.intersection(*(set(case) for case in measures)).difference(_NOT_JUDGED)
    limits = {}
    for name in sorted(shared):
        values = np.array([case[name] for case in measures], dtype=np.float64)
        if np.isfinite(values).all():
            limits[name] = _limit(name, values, modality, _spread(measures, shared))
    return Envelope(modality, len(measures), limits)


def _limit(name: str, values: np.ndarray, modality: str, spread: float) -> Limit:
    low, high = float(values.min()), float(values.max())
    if name in _EXACT:
        return Limit(low, low, high, high)
    share = _OF_RANGE + _OF_FEW / len(values)
    if name.startswith("spacing"):
        ratio = max(_LEAST_RATIO_SPACING, (high / low) ** share)
        return Limit(low / ratio, low / math.sqrt(ratio), high * math.sqrt(ratio), high * ratio)
    least = _LEAST_MARGIN.get(name, _LEAST_MARGIN_HU if modality == "CT" else 0.5 * spread)
    margin = max(least, (high - low) * share)
    if name == "share_inside":  # more of the region inside the image is never a reason to refuse
        return Limit(low - margin, low - margin / 2, None, None)
    return Limit(low - margin, low - margin / 2, high + margin / 2, high + margin)


def _spread(measures: Sequence[Mapping[str, float]], shared: set[str]) -> float:
    """The cases' median range of intensities, as a scale for intensities without a unit."""
    names = sorted(name for name in shared if name.startswith("intensity"))
    if len(names) < 2:
        return 1.0
    values = np.array([[case[name] for name in names] for case in measures])
    return float(np.median(values.max(axis=1) - values.min(axis=1)))


def _between(lower: float | None, value: float, upper: float | None) -> bool:
    return (lower is None or value >= lower) and (upper is None or value <= upper)


def _side(border: float | None) -> str:
    return "any" if border is None else f"{border:.4g}"


def _number_or_none(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
