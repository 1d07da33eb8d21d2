"""Calibrating a detector's classes, and mining what it gets wrong."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from pipeline.cases.case import Case
from pipeline.config.detection import CandidateRules
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.detection.searched_scan import ScoredPoint, SearchedScan, TrueLesion
from pipeline.models.detector import DetectorOutput
from pipeline.scoring.finding.candidate import Candidate
from pipeline.training.detection import mining
from pipeline.training.detection.scans import MarkedLesion, TrainingScan
from pipeline.workflow.detection.calibrate_detector import fit_calibrators
from pipeline.workflow.detection.search_scans import Searches

LESION, ELSEWHERE, IGNORED = (0.0, 0.0, 0.0), (50.0, 0.0, 0.0), (0.0, 50.0, 0.0)


def searched(number, solid, rng):
    """A scan with a hit, a false positive and a candidate in an ignored lesion, and the rows of its lesions."""
    scan_id = f"s{number}"
    rows = [
        Case(f"{scan_id}-{name}", "", Path(), extra={"solid": value}) for name, value in (("lesion", solid), ("x", ""))
    ]
    lesions = (
        TrueLesion(LESION, 10.0, lesion_id=f"{scan_id}-lesion"),
        TrueLesion(IGNORED, 10.0, ignore=True, lesion_id=f"{scan_id}-x"),
    )
    logits = [(rng.normal(1, 1), 2.0 * (solid == "1") - 1 + rng.normal()), (rng.normal(-1, 1), rng.normal(-1, 1))]
    candidates = [
        Candidate(place, 8.0, tuple(sigmoid(pair).tolist()))
        for place, pair in zip((LESION, ELSEWHERE, IGNORED), [*logits, (9.0, 9.0)], strict=True)
    ]
    points = tuple(ScoredPoint(each.center_mm, each.probabilities[0], 8.0) for each in candidates)
    return SearchedScan(scan_id, f"p{number}", lesions, points), tuple(candidates), rows


def fitted(solids):
    rng = np.random.default_rng(0)
    parts = [searched(number, solid, rng) for number, solid in enumerate(solids)]
    table = SimpleNamespace(lesions_of={scan.scan_id: tuple(rows) for scan, _, rows in parts})
    cases = tuple(Case(scan.scan_id, "", Path()) for scan, _, _ in parts)
    searches = Searches(tuple(scan for scan, _, _ in parts), cases, tuple(found for _, found, _ in parts), ())
    return fit_calibrators(searches, table, ("nodule", "solid"))


def test_hits_are_calibrated_against_false_positives():
    nodule, solid = fitted(["1", "0"] * 60)
    probabilities = nodule.calibrator.apply([-2.0, 0.0, 2.0])
    assert probabilities[0] < 0.2 < 0.35 < probabilities[1] < 0.65 < 0.8 < probabilities[2]
    # Normal logits of means 1 and -1 and variance 1 have log odds of twice the logit.
    assert 1.3 < nodule.calibrator.parameters["slope"] < 2.9
    assert solid.calibrator.apply([-1.0]) < 0.3 < solid.calibrator.apply([2.0])


def test_candidates_in_ignored_lesions_and_unknown_attributes_count_for_nothing():
    nodule, solid = fitted(["1", "0", "", ""] * 30)
    assert nodule.used == "platt"
    known, everything = fitted(["1", "0"] * 30)[1], solid
    assert known.used == everything.used
    none = fitted([""] * 40)[1]
    assert none.used == "none"  # false positives alone are no two classes


def test_mined_places_are_false_positives_alone(monkeypatch):
    heat = torch.full((1, 20, 20, 20), -9.0)
    for cell in ((2, 2, 2), (10, 10, 10), (15, 4, 4)):
        heat[0][cell] = 3.0
    heat[0, 4, 15, 15] = -3.0  # too weak to teach much
    output = DetectorOutput(heat, torch.zeros(3, 20, 20, 20), torch.full((1, 20, 20, 20), 2.0))
    monkeypatch.setattr(mining, "search_volume", lambda *_, **__: output)
    scan = TrainingScan(
        "scan",
        np.zeros((40, 40, 40), np.uint8),
        (
            MarkedLesion(np.array([4.0, 4, 5]), 8.0, ignore=False, attributes=()),
            MarkedLesion(np.array([20.0, 20, 21]), 8.0, ignore=True, attributes=()),
        ),
    )
    settings = SimpleNamespace(
        grid=SimpleNamespace(spacing_mm=2.0),
        candidates=CandidateRules(),
        training=SimpleNamespace(precision="32-true", accelerator="cpu"),
    )
    (hard,) = mining.mine(None, [None, scan], [1], settings)
    assert hard.scan == 1
    np.testing.assert_allclose(hard.voxel, [30, 8, 8])
    assert 0.9 < hard.probability < 1.0
