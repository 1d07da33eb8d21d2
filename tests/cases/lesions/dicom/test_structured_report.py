"""Structured reports of TID 1500, as highdicom and as viewers write them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_writing import affine, write_multiframe
from lesion_files import (
    AXIAL,
    OBLIQUE,
    planar_group,
    region_in_space,
    region_on_image,
    write_report,
    write_scan,
    write_segmentation,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pipeline.cases.case import Case
from pipeline.cases.lesions.dicom.structured_report import read_report
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import ReadingOptions
from pipeline.errors import Code


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "ct", OBLIQUE)


@pytest.fixture(scope="module")
def images(scan):
    return ImageIndex([Case("ct", "ct", scan.folder)], root=scan.folder.parent)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sr.dcm"


def ras(scan, *index):
    return scan.affine[:3] @ [*index, 1]


def test_groups_are_lesions_with_their_stated_diameter(scan, images, path):
    a, b = scan.lps([20, 15, 9])[0], scan.lps([30, 17, 14])[0]
    groups = [
        planar_group(scan, region_in_space(scan, "POINT", a), diameter_mm=12.5),
        planar_group(scan, region_in_space(scan, "POINT", b)),
    ]
    write_report(scan, path, groups)
    found = read_report(path, images)
    assert [(lesion.name, lesion.diameter_mm) for lesion in found.lesions] == [("1", 12.5), ("2", None)]
    assert found.lesions[0].center_mm == pytest.approx(ras(scan, 20, 15, 9), abs=1e-3)
    assert found.lesions[0].reference.series == scan.series
    assert "CANARY" not in repr(found)
    assert [one.name for one in read_report(path, images, ReadingOptions(only=frozenset({2}))).lesions] == ["2"]


@pytest.mark.parametrize(
    ("kind", "pixels", "center", "diameter"),
    [
        ("POINT", [(20.5, 15.5)], (20, 15), None),
        ("CIRCLE", [(20.5, 15.5), (25.5, 15.5)], (20, 15), 8.0),
        ("ELLIPSE", [(15.5, 15.5), (25.5, 15.5), (20.5, 12.5), (20.5, 18.5)], (20, 15), 8.0),
        ("POLYLINE", [(15.5, 15.5), (25.5, 15.5)], (20, 15), 8.0),
        ("POLYLINE", [(18, 13), (24, 13), (24, 19), (18, 19), (18, 13)], (20.5, 15.5), np.hypot(6 * 0.8, 6 * 0.9)),
    ],
)
def test_regions_on_an_image_count_pixels_from_their_corner(scan, images, path, kind, pixels, center, diameter):
    write_report(scan, path, [planar_group(scan, region_on_image(scan, kind, np.array(pixels, float), 9))])
    (lesion,) = read_report(path, images).lesions
    assert lesion.center_mm == pytest.approx(ras(scan, *center, 9), abs=1e-3)
    assert lesion.diameter_mm == (None if diameter is None else pytest.approx(diameter, abs=1e-3))


@pytest.mark.parametrize(
    ("kind", "indices", "center", "diameter"),
    [
        ("ELLIPSE", [(15, 15, 9), (25, 15, 9), (20, 12, 9), (20, 18, 9)], (20, 15, 9), 8.0),
        ("POLYGON", [(18, 13, 9), (24, 13, 9), (24, 19, 9), (18, 19, 9), (18, 13, 9)], (21, 16, 9), np.hypot(4.8, 5.4)),
    ],
)  # fmt: skip
def test_regions_in_space(scan, images, path, kind, indices, center, diameter):
    points = scan.lps(np.array(indices, float))
    write_report(scan, path, [planar_group(scan, region_in_space(scan, kind, points))])
    (lesion,) = read_report(path, images).lesions
    assert lesion.center_mm == pytest.approx(ras(scan, *center), abs=1e-3)
    assert lesion.diameter_mm == pytest.approx(diameter, abs=1e-3)
    assert read_report(path, ImageIndex()).lesions == (lesion,)  # coordinates in space need no image


def measurement(code, value, *children, unit="mm"):
    """A NUM item with what it was inferred from, as viewers write bidirectional measurements."""
    concept, units, amount, item = Dataset(), Dataset(), Dataset(), Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = code, "SRT", "Long Axis"
    units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", "unit"
    amount.NumericValue, amount.MeasurementUnitsCodeSequence = value, [units]
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", "NUM", [concept]
    item.MeasuredValueSequence = [amount]
    item.ContentSequence = list(children)
    return item


def coordinates(scan, kind, pixels, number):
    item, image, reference = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID = scan.slices[number].SOPClassUID
    reference.ReferencedSOPInstanceUID = scan.slices[number].SOPInstanceUID
    image.RelationshipType, image.ValueType, image.ReferencedSOPSequence = "SELECTED FROM", "IMAGE", [reference]
    item.RelationshipType, item.ValueType, item.GraphicType = "INFERRED FROM", "SCOORD", kind
    item.GraphicData, item.ContentSequence = [float(value) for value in np.ravel(pixels)], [image]
    return item


def group_of(dataset):
    measurements = [item for item in dataset.ContentSequence if item.ValueType == "CONTAINER"][-1]
    return measurements.ContentSequence[0]


def rewritten(scan, path, children):
    """A report whose only group holds these items instead of its region."""
    write_report(scan, path, [planar_group(scan, region_in_space(scan, "POINT", scan.lps([1, 1, 1])))])
    dataset = pydicom.dcmread(path)
    group = group_of(dataset)
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType in ("TEXT", "CODE")] + children
    dataset.save_as(path)
    return path


def test_a_bidirectional_measurement_has_the_middle_of_its_long_axis(scan, images, path):
    short = measurement("G-A186", 4.0, coordinates(scan, "POLYLINE", [(20.5, 13.5), (20.5, 20.5)], 9))
    long = measurement("G-A185", 8.0, coordinates(scan, "POLYLINE", [(15.5, 15.5), (25.5, 15.5)], 9))
    (lesion,) = read_report(rewritten(scan, path, [short, long]), images).lesions
    assert lesion.center_mm == pytest.approx(ras(scan, 20, 15, 9), abs=1e-3)
    assert lesion.diameter_mm == 8.0


@pytest.mark.parametrize(("unit", "expected"), [("mm", 1.25), ("cm", 12.5), ("[in_i]", 8.0)])
def test_stated_lengths_are_mm_or_cm_and_else_the_region_is_measured(scan, images, path, unit, expected):
    line = coordinates(scan, "POLYLINE", [(15.5, 15.5), (25.5, 15.5)], 9)
    children = [measurement("103339001", "1.25", line, unit=unit)]
    (lesion,) = read_report(rewritten(scan, path, children), images).lesions
    assert lesion.diameter_mm == expected


def test_an_ellipsoid_has_the_middle_of_its_axes(scan, images, path):
    ends = scan.lps(np.array([(15, 15, 9), (25, 15, 9), (20, 12, 9), (20, 18, 9), (20, 15, 8), (20, 15, 10)], float))
    item = coordinates(scan, "ELLIPSOID", ends, 9)
    item.ValueType, item.ReferencedFrameOfReferenceUID = "SCOORD3D", scan.frame_of_reference
    (lesion,) = read_report(rewritten(scan, path, [item]), images).lesions
    assert lesion.center_mm == pytest.approx(ras(scan, 20, 15, 9), abs=1e-3)
    assert lesion.diameter_mm == pytest.approx(8.0, abs=1e-3)


def test_groups_without_a_place_are_left_out_and_said(scan, images, path):
    found = read_report(rewritten(scan, path, [measurement("G-D705", 3.0)]), images)
    assert found.lesions == found.refused == ()
    assert "left out 1 measurement group without a place" in found.notes[0]


def test_a_group_that_names_a_segment_points_there(scan, images, path, tmp_path):
    from highdicom.sr import ReferencedSegmentationFrame, SourceImageForSegmentation

    segmentation = write_segmentation(scan, tmp_path / "seg.dcm")
    source = SourceImageForSegmentation(scan.slices[0].SOPClassUID, scan.slices[0].SOPInstanceUID)
    segment = ReferencedSegmentationFrame(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1, 1, source)
    group = planar_group(scan, None, diameter_mm=7.5, referenced_segment=segment)
    write_report(scan, path, [group], evidence=[segmentation])
    (refused,) = read_report(path, images).refused
    assert refused.error.code is Code.E_CENTER_MISSING
    assert refused.segment.object_uid == segmentation.SOPInstanceUID
    assert refused.segment.number == "1"
    assert refused.diameter_mm == 7.5


@pytest.mark.parametrize(
    ("kind", "pixels", "code", "says"),
    [
        ("POLYLINE", [(1, 1), (4, 1), (4, 5)], Code.E_FORMAT, "an open line with 3 points"),
        ("MULTIPOINT", [(1, 1), (4, 1)], Code.E_FORMAT, "MULTIPOINT with 2 points"),
        ("CIRCLE", [(1, 1)], Code.E_FORMAT, "CIRCLE with 1 points"),
        ("ELLIPSE", [(1, 1), (2, 2)], Code.E_FORMAT, "ELLIPSE with 2 points"),
        ("POINT", [(np.nan, 1)], Code.E_CENTER, "no number"),
        ("POINT", [(1, 1, 1)], Code.E_FORMAT, "3 numbers for points of 2"),
        ("CANARY", [(1, 1)], Code.E_FORMAT, "a region with"),
    ],
)
def test_regions_without_a_centre_are_refused_by_code(scan, images, path, kind, pixels, code, says):
    (refused,) = read_report(rewritten(scan, path, [coordinates(scan, kind, pixels, 9)]), images).refused
    assert refused.error.code is code, refused.error
    assert says in refused.error.reason
    assert "CANARY" not in str(refused)


def test_pixels_of_no_image_and_of_a_whole_slide_are_refused(scan, images, path):
    alone = coordinates(scan, "POINT", [(1, 1)], 9)
    del alone.ContentSequence
    assert "pixels of no image" in read_report(rewritten(scan, path, [alone]), images).refused[0].error.reason
    slide = coordinates(scan, "POINT", [(1, 1)], 9)
    slide.PixelOriginInterpretation = "VOLUME"
    assert "microscope" in read_report(rewritten(scan, path, [slide]), images).refused[0].error.reason


def test_a_report_on_another_series_is_refused_by_code(scan, path, tmp_path):
    other = write_scan(tmp_path / "other", AXIAL, seed=5)
    write_report(scan, path, [planar_group(scan, region_on_image(scan, "POINT", np.array([(1.0, 1.0)]), 3))])
    (refused,) = read_report(path, ImageIndex([Case("o", "o", other.folder)])).refused
    assert refused.error.code is Code.E_MIXED_SERIES


def test_a_slice_that_is_not_at_hand_is_refused(scan, path, tmp_path):
    write_report(scan, path, [planar_group(scan, region_on_image(scan, "POINT", np.array([(1.0, 1.0)]), 23))])
    part = tuple(sorted(scan.folder.iterdir()))
    files = tuple(file for file in part if pydicom.dcmread(file, stop_before_pixels=True).InstanceNumber < 20)
    images = ImageIndex([Case("ct", "ct", scan.folder, files=files)])
    (refused,) = read_report(path, images).refused
    assert refused.error.code is Code.E_MIXED_SERIES
    assert "a slice that the image does not hold" in refused.error.reason


def test_a_multi_frame_image_needs_the_number_of_the_frame(tmp_path, path):
    file = write_multiframe(tmp_path / "ct.dcm")
    image = pydicom.dcmread(file)
    images = ImageIndex([Case("ct", "ct.dcm", file)])
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    scan = write_scan(tmp_path / "other", AXIAL)
    place = coordinates(replace(scan, slices=[item]), "POINT", [(4.5, 7.5)], 0)

    def of_the_multi_frame(dataset):
        series = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        series.SeriesInstanceUID = image.SeriesInstanceUID
        series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = image.SOPInstanceUID

    rewritten(scan, path, [place])
    dataset = pydicom.dcmread(path)
    of_the_multi_frame(dataset)
    dataset.save_as(path)
    (refused,) = read_report(path, images).refused
    assert refused.error.code is Code.E_GEOMETRY_MISSING
    assert "one of 16 frames" in refused.error.reason
    group_of(dataset).ContentSequence[-1].ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 3
    dataset.save_as(path)
    (lesion,) = read_report(path, images).lesions  # frames stand in the reverse order of their positions
    assert lesion.center_mm == pytest.approx(affine()[:3] @ [4, 7, 13, 1], abs=1e-3)


def test_long_axis_stands_before_diameter_and_length(scan, images, path):
    place = coordinates(scan, "POINT", [(20.5, 15.5)], 9)
    items = [measurement("410668003", 3.0), measurement("81827009", 4.0), measurement("103339001", 5.0), place]
    assert read_report(rewritten(scan, path, items), images).lesions[0].diameter_mm == 5.0
    assert codes.SCT.LongAxis.value == "103339001"
    assert codes.SCT.Diameter.value == "81827009"
    assert codes.SCT.Length.value == "410668003"
