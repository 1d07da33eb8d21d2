"""Pictures of candidates: which are shown, and that the circle lies where the candidate does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cases.case import Case
from pipeline.evaluation.detection.searched_scan import ScoredPoint, SearchedScan, TrueLesion
from pipeline.workflow.detection.candidate_pictures import GridScan, candidate_pictures, place_png, shown_places
from pipeline.workflow.detection.judge_detector import judge_searches
from pipeline.workflow.detection.search_scans import Searches

MARK = np.array([255, 200, 60])


def judged():
    lesions = (TrueLesion((0.0, 0.0, 0.0), 12.0), TrueLesion((50.0, 0.0, 0.0), 9.0, lesion_id="l2"))
    points = (
        ScoredPoint((2.0, 0.0, 0.0), 0.9, 10.0),
        ScoredPoint((3.0, 0.0, 0.0), 0.5, 10.0),
        ScoredPoint((-50.0, 0.0, 0.0), 0.7, 6.0),
    )
    scans = (SearchedScan("a", "p", lesions, points), SearchedScan("b", "q", (), ()))
    cases = tuple(Case(name, f"{name}.nii", Path(f"{name}.nii")) for name in ("a", "b"))
    return judge_searches(Searches(scans, cases, ((), ()), ()), resamples=50)


def test_hits_false_positives_and_missed_lesions_are_shown_but_no_duplicates():
    places = shown_places(judged())
    assert [place.title for place in places] == [
        "a#1: hit, probability 0.900",
        "a#3: false positive, probability 0.700",
        "a: missed lesion l2",
    ]
    assert places[0].caption == "10.0 mm across, 2.0 mm from the lesion's centre"
    assert (places[2].center_mm, places[2].diameter_mm) == ((50.0, 0.0, 0.0), 9.0)


def test_each_picture_is_of_its_own_scan():
    asked = []

    def read(case):
        asked.append(case.case_id)
        return GridScan(np.zeros((40, 40, 40), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))

    pictures = candidate_pictures(judged(), read)
    assert asked == ["a", "a", "a"]
    assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("center", [(30.0, 20.0, 10.0), (-30.0, 3.0, 41.0), (36.7, -5.3, 2.2)])
def test_circle_lies_around_the_bright_place(center):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -60.0
    index = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing="ij"), -1)
    distance = np.linalg.norm(index * 2.0 - 60.0 - np.array(center), axis=-1)
    scan = GridScan(np.where(distance < 6.0, 220, 20).astype(np.uint8), affine)
    sheet = np.asarray(Image.open(io.BytesIO(place_png(scan, center, 16.0)))).astype(int)
    assert sheet.shape == (132, 3 * 132 + 8, 3)
    for left in (0, 136, 272):
        plane = sheet[:, left : left + 132]
        ring = np.argwhere((np.abs(plane - MARK) < 8).all(axis=-1))
        ring = ring[np.linalg.norm(ring - ring.mean(axis=0), axis=1) < 30]  # without the letters at the edges
        bright = np.argwhere((plane > 150).all(axis=-1))
        assert np.abs(np.median(bright, axis=0) - (ring.max(axis=0) + ring.min(axis=0)) / 2).max() < 3.0
        assert ring.max(axis=0)[0] - ring.min(axis=0)[0] == pytest.approx(16.0 * 132 / 66, abs=2)


def test_place_at_the_edge_of_the_scan_is_shown_with_black_around_it():
    scan = GridScan(np.full((30, 30, 30), 200, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    plane = np.asarray(Image.open(io.BytesIO(place_png(scan, (0.0, 30.0, 30.0), 8.0))))[:, :132]
    # The patient's right is on the left; the scan ends at R = 0, which lies on the right.
    assert plane[60, 20].tolist() == [200, 200, 200]
    assert plane[30, 125].tolist() == [0, 0, 0]
