"""Pictures of lesions: what they show, which side is which, and that they show nobody's name."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_programs import dciodvfy_errors
from dicom_writing import ORIGIN, SHAPE, SPACING, write_series
from scored_series import case_result, reported_model

from pipeline.dicomnet.objects.planes import _GAP, _PANEL
from pipeline.dicomnet.objects.result_objects import result_objects, write_results
from pipeline.dicomnet.objects.source_series import SourceSeries

MIDDLE_RAS = (0.0, 0.0, 0.0)
BALL_MM = 4.0


def write_ball(folder, *, offset_lps=(0.0, 0.0, 0.0), **attributes):
    """A bright ball in air, beside the middle of a series of 34 × 24 × 32 mm."""
    axes = [np.arange(size) * mm + first for size, mm, first in zip(SHAPE, SPACING, ORIGIN, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)  # LPS mm
    inside = np.clip((BALL_MM + 1 - np.linalg.norm(grid - offset_lps, axis=-1)) / 2, 0, 1)  # a soft border
    values = np.round(-900 + 1200 * inside).astype(int) + np.random.default_rng(0).integers(-5, 5, SHAPE)

    def edit(image, number):
        image.PixelData = (values[:, :, number].T + 1024).astype("<u2").tobytes()
        for keyword, value in attributes.items():
            setattr(image, keyword, value)

    return SourceSeries.read(write_series(folder, edit), modality="CT")


def capture_of(series, **changes):
    (capture,) = result_objects(
        [case_result(center_mm=MIDDLE_RAS, diameter_mm=8.0, **changes)], series, reported_model()
    ).captures
    return capture


def panels(capture):
    """Axial, coronal and sagittal plane, without marks and letters at their edges."""
    picture = capture.pixel_array
    return [
        picture[_GAP : _GAP + _PANEL, left : left + _PANEL] for left in (_GAP + n * (_PANEL + _GAP) for n in range(3))
    ]


def brightest(panel):
    """Where the middle of what is bright lies from the panel's middle: shares of the width to the right and down."""
    inner = panel[40:-40, 40:-40] > 128
    rows, columns = np.nonzero(inner)
    return (columns.mean() + 40) / _PANEL - 0.5, (rows.mean() + 40) / _PANEL - 0.5


def test_a_lesion_lies_in_the_middle_of_its_three_planes(tmp_path):
    for panel in panels(capture_of(write_ball(tmp_path / "ct"))):
        assert np.abs(brightest(panel)).max() < 0.01
        # 8 mm of 28 mm wide: the ball fills 6.4 % of the plane.
        assert (panel[40:-40, 40:-40] > 128).sum() / panel.size == pytest.approx(np.pi * 4**2 / 28**2, rel=0.15)


@pytest.mark.parametrize(
    ("offset_lps", "expected"),
    [  # axial: right and down; coronal; sagittal
        ((4.0, 0.0, 0.0), [(1, 0), (1, 0), None]),  # the patient's left is shown on the right
        ((0.0, 4.0, 0.0), [(0, 1), None, (1, 0)]),  # behind: down in the axial plane, right in the sagittal
        ((0.0, 0.0, 4.0), [None, (0, -1), (0, -1)]),  # towards the head: up
    ],
)
def test_sides_are_as_in_a_viewer(tmp_path, offset_lps, expected):
    shown = panels(capture_of(write_ball(tmp_path / "ct", offset_lps=offset_lps)))
    for panel, direction in zip(shown, expected, strict=True):
        if direction is not None:
            np.testing.assert_allclose(brightest(panel), np.array(direction) * 4 / 28, atol=0.03)


def test_the_probability_is_drawn_in(tmp_path):
    series = write_ball(tmp_path / "ct")
    below = [capture_of(series, probability=value).pixel_array[_PANEL + 2 * _GAP :] for value in (0.123, 0.123, 0.876)]
    np.testing.assert_array_equal(below[0], below[1])
    assert (below[0] != below[2]).any()
    assert (below[0] > 200).sum() > 500  # pixels of letters


def test_a_picture_tells_nobody_who_the_patient_is(tmp_path):
    """Whoever the patient is, the pixels are the same; and the object says that they name nobody."""
    one = capture_of(write_ball(tmp_path / "one", PatientName="ONE^ANNE", PatientID="1", AccessionNumber="A1"))
    other = capture_of(write_ball(tmp_path / "two", PatientName="TWO^BEN", PatientID="2", AccessionNumber="A2"))
    assert one.PixelData == other.PixelData
    assert (one.PatientID, other.PatientID) == ("1", "2")
    assert one.BurnedInAnnotation == "NO"


def test_the_window_of_the_model_is_what_is_shown(tmp_path):
    series = write_ball(tmp_path / "ct")
    narrow = reported_model(window=(-905.0, -895.0))
    (capture,) = result_objects([case_result(center_mm=MIDDLE_RAS)], series, narrow).captures
    assert panels(capture)[0][60:80, 100:120].std() > 20  # the noise of the air
    assert panels(capture_of(series))[0][60:80, 100:120].std() < 2


def test_without_a_window_the_range_of_the_region_is_shown(tmp_path):
    (capture,) = result_objects(
        [case_result(center_mm=MIDDLE_RAS)], write_ball(tmp_path / "ct"), reported_model(window=None)
    ).captures
    assert np.abs(brightest(panels(capture)[0])).max() < 0.01


def test_a_picture_names_the_slice_through_the_lesion(tmp_path):
    series = write_ball(tmp_path / "ct")
    (source,) = capture_of(series).SourceImageSequence
    assert source.ReferencedSOPInstanceUID == series.images[8].sop_instance  # at 0 mm


def test_a_picture_says_that_a_detector_found_the_lesion(tmp_path):
    series = write_ball(tmp_path / "ct")
    marked, found = (capture_of(series, lesion_probability=value).pixel_array for value in (None, 0.125))
    assert found.shape[0] > marked.shape[0]  # a line more


def test_long_words_of_the_model_stay_in_the_picture(tmp_path):
    """A label source may have a thousand characters."""
    series = write_ball(tmp_path / "ct")
    paths = write_results(
        result_objects([case_result(center_mm=MIDDLE_RAS)], series, reported_model(label_source="x" * 1000)), tmp_path
    )
    for path in paths:
        assert dciodvfy_errors(path) == []


def test_each_scored_lesion_has_its_picture_and_a_refused_one_has_none(tmp_path):
    results = [
        case_result(center_mm=MIDDLE_RAS),
        case_result(probability=None, case_id="ct#2"),
        case_result(center_mm=(2.0, 0.0, 0.0), case_id="ct#3"),
    ]
    captures = result_objects(results, write_ball(tmp_path / "ct"), reported_model()).captures
    assert [capture.InstanceNumber for capture in captures] == [1, 3]
    assert len({capture.SOPInstanceUID for capture in captures}) == 2
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1


def test_a_damaged_slice_costs_the_picture_and_not_the_report(tmp_path):
    """The picture may reach further than the region that was scored."""
    series = write_ball(tmp_path / "ct")
    path = series.scan.slices[8].file.path
    path.write_bytes(path.read_bytes() + b"\0\0")
    objects = result_objects([case_result(center_mm=MIDDLE_RAS)], series, reported_model())
    assert objects.captures == ()
    assert "no picture: E_SLICE_UNREADABLE: changed while the series was being read" in objects.report.to_json()
    assert "111047" in objects.report.to_json()
