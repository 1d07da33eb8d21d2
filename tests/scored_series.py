"""Results of made-up cases, for tests of what is written about them."""

from __future__ import annotations

from pipeline.dicomnet.objects.case_result import CaseResult, FindingResult
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.evaluation.decisions.operating_points import OperatingPoint

_POINT = OperatingPoint(
    threshold=0.3,
    rule="sensitivity",
    target=0.9,
    cost_ratio=None,
    n_positive=40,
    n_negative=60,
    sensitivity=0.925,
    specificity=0.7,
)
CENTER_RAS = (1.25, 2.125, -3.75)  # inside the phantom of dicom_writing


def reported_model(**changes) -> ReportedModel:
    """A model of lesions."""
    settings = {
        "name": "tiny@0123456789ab",
        "digest": "0123456789ab" * 5 + "0123",
        "findings": ("malignant",),
        "label_source": "made up",
        "intensities": "simulated",
        "calibration": "temperature 1.5",
        "modality": "CT",
        "operating_points": (_POINT.to_json(),),
        "refer_zone": None,
        "region_mm": (28.0, 28.0, 28.0),
        "window": (-1000.0, 400.0),
    }
    return ReportedModel(**{**settings, **changes})


def case_result(*, probability: float | None = 0.25, **changes) -> CaseResult:
    """A case; with a probability of None one that was refused."""
    scored = probability is not None
    settings = {
        "case_id": "ct#1",
        "status": "scored" if scored else "rejected",
        "code": "" if scored else "E_SLICE_GAP",
        "reason": "" if scored else "a slice is missing between two others; copy it again",
        "warnings": "",
        "findings": (FindingResult("malignant", probability, "negative"),) if scored else (),
        "threshold": 0.3 if scored else None,
        "scored_at": "2026-01-02T03:04:05+00:00",
        "image_sha256": None,
        "center_mm": CENTER_RAS,
        "diameter_mm": 8.5,
    }
    return CaseResult(**{**settings, **changes})
