"""Reported values of one case: its score row, and its lesion's centre."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.cases.case import Case, Point
from pipeline.cases.lesions.locate import DIAMETER
from pipeline.codes import Code
from pipeline.config.inputs import MALIGNANT
from pipeline.scoring.finding.scan_rows import DETECTOR, DETECTOR_DIGEST, LESION_PROBABILITY_COLUMN

_DIGEST, _SHORT = re.compile(r"[0-9a-f]{64}"), 12  # of a model, and how much of it follows its name


@dataclass(frozen=True)
class FindingResult:
    """One finding's calibrated probability, in [0, 1], and the decision at its operating point."""

    name: str
    probability: float
    decision: str


@dataclass(frozen=True)
class NamedDetector:
    """The detector that found a lesion: name with short digest, and the model digest, as its candidates have them."""

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case.

    Attributes:
        case_id: as in the rows.
        status, code, reason, warnings: as in the rows (`pipeline.scoring.rows.ScoreRow`).
        findings: the first is malignancy; empty when the case was not scored.
        threshold: of the first finding; None when the case was not scored.
        scored_at: ISO 8601, UTC.
        image_sha256: of the image that was scored; None when it could not be read.
        center_mm: lesion centre, RAS world mm; None for whole images.
        diameter_mm: None when it is not known.
        lesion_probability: that a detector's candidate is a lesion at all; None where a person marked it.
        detector: that found it; None where a person marked it, and where its candidate does not name one.
    """

    case_id: str
    status: str
    code: str
    reason: str
    warnings: str
    findings: tuple[FindingResult, ...]
    threshold: float | None
    scored_at: str
    image_sha256: str | None
    center_mm: Point | None
    diameter_mm: float | None
    lesion_probability: float | None = None
    detector: NamedDetector | None = None

    @property
    def is_scored(self) -> bool:
        """Whether there is a probability."""
        return bool(self.findings)

    @classmethod
    def of(cls, row: Mapping[str, Any], case: Case, findings: Sequence[str] = (MALIGNANT,)) -> Self:
        """From a row of ``scores.parquet`` (or of `pipeline.scoring.rows.rows_table`) and its case.

        Args:
            row: by column.
            case: for the place of its lesion.
            findings: of the model.
        """
        scored = row["status"] in ("scored", "flagged") and row["probability"] is not None
        results = []
        if scored:
            results.append(FindingResult(findings[0], row["probability"], row["decision"]))
            results += [
                FindingResult(name, row[f"probability_{name}"], row[f"decision_{name}"]) for name in findings[1:]
            ]
        lesion_probability = _number(case, LESION_PROBABILITY_COLUMN, most=1.0)
        return cls(
            **{name: row[name] for name in ("case_id", "status", "code", "reason", "warnings")},
            findings=tuple(results),
            threshold=row["threshold"] if scored else None,
            scored_at=row["scored_at"],
            image_sha256=row["image_sha256"],
            center_mm=case.center_mm,
            diameter_mm=_number(case, DIAMETER, most=math.inf),
            lesion_probability=lesion_probability,
            detector=None if lesion_probability is None else _named_detector(case),
        )

    def found_in_words(self) -> str:
        """Sentence on a lesion that a detector found and its probability; blank where a person marked it."""
        if self.lesion_probability is None:
            return ""
        return (
            f"found by a detector, {self.lesion_probability:.3f} likely to be a lesion; "
            "the probability of malignancy holds if it is one"
        )

    def code_in_words(self) -> str:
        """Code, cause, what was found and the way out, of a case that was not scored."""
        return f"{self.code}: {self.reason}. {_sentence(self.code)}"

    def warnings_in_words(self) -> tuple[str, ...]:
        """Each warning's code and cause."""
        return tuple(f"{code}: {Code[code].cause}" for code in self.warnings.split(";") if code)


def _sentence(code: str) -> str:
    known = Code[code]
    return f"{known.cause[:1].upper()}{known.cause[1:]}: {known.remedy}."


def _named_detector(case: Case) -> NamedDetector | None:
    """What a candidate's columns say of its detector; None where they hold something else, as in a table of one's own.

    Another program's column ``model`` may hold anything, a patient's data too: a digest tells that it is a detector's.
    """
    name, digest = case.extra.get(DETECTOR, ""), case.extra.get(DETECTOR_DIGEST, "")
    if _DIGEST.fullmatch(digest) is None or not name.endswith(f"@{digest[:_SHORT]}") or not name.isprintable():
        return None
    return NamedDetector(name, digest)


def _number(case: Case, column: str, *, most: float) -> float | None:
    """A number above 0, finite and at most ``most``, of one of the case's columns; None where there is none."""
    try:
        value = float(case.extra.get(column, ""))
    except ValueError:
        return None
    return value if 0 < value <= most and math.isfinite(value) else None
