"""A detector in the listener."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from chest_scans import write_chest_series
from dicom_writing import write_series
from small_detectors import save_small_detector

from pipeline.cases.case import Case
from pipeline.dicomnet.listening.lesion_search import DetectorSearch, _cases
from pipeline.dicomnet.objects.case_result import CaseResult, NamedDetector
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.golden_detector import add_golden_scans
from pipeline.scoring.finding.scan_rows import ScanRow
from pipeline.scoring.rows import ModelIdentity

REFUSED = {
    **dict.fromkeys(("case_id", "code", "reason", "warnings", "scored_at", "image_sha256"), ""),
    "status": "rejected",
    "probability": None,
}


@pytest.mark.slow
def test_candidates_of_a_series_are_cases_and_a_scan_that_cannot_be_searched_says_why(tmp_path):
    description = save_small_detector(tmp_path / "detector")
    add_golden_scans(tmp_path / "detector")
    whole = write_chest_series(tmp_path / "received" / "whole", [((20.0, 10.0, 5.0), 8.0)])
    small = write_series(tmp_path / "received" / "small")
    scans = [
        Case(case_id=folder.name, image=folder.name, path=folder, files=tuple(sorted(folder.iterdir())))
        for folder in (whole, small)
    ]
    search = DetectorSearch(
        tmp_path / "detector", description, root=tmp_path / "received", workers=1, timeout_seconds=120.0
    )
    with closing(search):
        found, refused = search.search(scans)
    assert [case.fault for case in found] == [None] * 5
    assert [case.case_id for case in found] == [f"whole#{number}" for number in range(1, 6)]
    assert all(case.center_mm is not None and case.files == scans[0].files for case in found)
    likely = [float(case.extra["probability_nodule"]) for case in found]
    assert likely == sorted(likely, reverse=True)
    assert [case.fault.code for case in refused] == ["E_OUT_OF_ENVELOPE"]
    assert refused[0].center_mm is None


def test_candidates_that_are_hardly_lesions_are_passed_over():
    scan = Case(case_id="ct", image="ct", path=Path("ct"))
    identity = ModelIdentity("finder@" + "0" * 12, "0" * 64, "0")
    candidates = tuple(Candidate((0.0, 0.0, z), 8.0, (p,)) for z, p in ((1.0, 0.6), (2.0, 0.05)))
    row = ScanRow(
        case_id="ct",
        patient_id=None,
        image="ct",
        status="scored",
        extra={},
        detector=identity,
        scored_at="",
        seconds=0.0,
        candidates=candidates,
    )
    (kept,) = _cases(scan, row, 0.1)
    assert (kept.case_id, kept.center_mm, kept.extra["probability_nodule"]) == ("ct#1", (0.0, 0.0, 1.0), "0.6")
    assert CaseResult.of(REFUSED, kept).detector == NamedDetector(identity.model, identity.model_digest)
    (none,) = _cases(scan, row, 0.9)
    assert (none.fault.code, none.center_mm) == ("E_CENTER_MISSING", None)
    assert f"the detector {identity.model} found none" in none.fault.reason
