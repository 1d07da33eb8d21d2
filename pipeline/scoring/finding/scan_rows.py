"""Results of a search for one scan: its row, its candidates and, with a classifier, their score rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.cases.case import Case
from pipeline.errors import Code
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.rows import ModelIdentity, ScoreRow, now

RAS = "RAS"
DIAMETER = "diameter_mm"


@dataclass(frozen=True, kw_only=True)
class ScanRow:
    """Result of one scan.

    Attributes:
        case_id: of the scan.
        status, code, reason, warnings: as of a score row; ``scored`` is a scan that was searched.
        probability: calibrated, that the scan holds a malignant lesion; None where it was not searched, where there is
            no classifier, where none was fitted for this detector and classifier together, and where candidates that
            could not be scored are more than half, or leave its bounds further apart than 0.05.
        probability_lower, probability_upper: its bounds, the same where every candidate was scored.
        candidates: by falling probability of class ``nodule``.
        scores: with a classifier, one for each candidate; else empty.
        extra: the scan's other columns in its table, which its candidates keep.
        detector: that searched.
        image_sha256: of the scan; None where it was not read.
        seconds: from opening the scan to this row.
        measures: of the scan; not in the tables.
        signature: of the input before it was opened; not in the tables.
    """

    case_id: str
    patient_id: str | None
    image: str
    status: str
    code: str = ""
    reason: str = ""
    warnings: str = ""
    probability: float | None = None
    probability_lower: float | None = None
    probability_upper: float | None = None
    candidates: tuple[Candidate, ...] = ()
    scores: tuple[ScoreRow, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    detector: ModelIdentity
    image_sha256: str | None = None
    scored_at: str
    seconds: float
    measures: Mapping[str, float] = field(default_factory=dict)
    signature: str = ""

    @property
    def was_searched(self) -> bool:
        """Whether it is known what the scan holds."""
        return self.status in ("scored", "flagged")


def candidate_case(scan: Case, number: int, candidate: Candidate) -> Case:
    """A candidate as the manifest of candidates holds it, so that scoring it here or from that table is the same.

    Args:
        scan: that it was found in.
        number: of the candidate in the scan, from 1.
        candidate: where it lies.
    """
    extra = {**scan.extra, DIAMETER: repr(candidate.diameter_mm)}  # as a table read back has it
    return Case(
        case_id=candidate_id(scan.case_id, number),
        image=scan.image,
        path=scan.path,
        patient_id=scan.patient_id,
        center_mm=candidate.center_mm,
        extra=extra,
        files=scan.files,
        url=scan.url,
        part=scan.part,
    )


LESION_PROBABILITY_COLUMN = "probability_nodule"  # column of a candidate: that it is a lesion at all, calibrated
DETECTOR, DETECTOR_DIGEST = "model", "model_digest"  # columns of a candidate: name and digest of what found it


def candidate_id(scan_id: str, number: int) -> str:
    """A candidate's case id: the scan's and its number, from 1."""
    return f"{scan_id}#{number}"


def unsearched(
    case: Case,
    detector: ModelIdentity,
    *,
    status: str,
    code: Code,
    reason: str,
    warnings: Sequence[Code] = (),
    signature: str = "",
    seconds: float = 0.0,
) -> ScanRow:
    """The row of a scan that was not searched."""
    return ScanRow(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image=case.image,
        status=status,
        code=code,
        reason=reason,
        warnings=";".join(warnings),
        extra=case.extra,
        detector=detector,
        scored_at=now(),
        seconds=round(seconds, 4),
        signature=signature,
    )
