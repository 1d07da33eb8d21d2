"""What is reported of one case: its score row, and where its lesion is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.cases.case import Case, Point
from pipeline.cases.lesions.locate import DIAMETER
from pipeline.codes import Code
from pipeline.config.inputs import MALIGNANT

DECISIONS = ("positive", "negative", "refer")


@dataclass(frozen=True)
class FindingResult:
    """One finding's calibrated probability, in [0, 1], and the decision at its operating point."""

    name: str
    probability: float
    decision: str


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
        return cls(
            **{name: row[name] for name in ("case_id", "status", "code", "reason", "warnings")},
            findings=tuple(results),
            threshold=row["threshold"] if scored else None,
            scored_at=row["scored_at"],
            image_sha256=row["image_sha256"],
            center_mm=case.center_mm,
            diameter_mm=_diameter(case),
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


def _diameter(case: Case) -> float | None:
    try:
        diameter = float(case.extra.get(DIAMETER, ""))
    except ValueError:
        return None
    return diameter if 0 < diameter < float("inf") else None
