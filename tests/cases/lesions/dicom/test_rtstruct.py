"""RT structure sets: filled outlines against the mask, holes, types, points and lines, damage."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from lesion_files import AXIAL, OBLIQUE, ellipsoid, outlines, pixel_edges, write_mask, write_scan, write_structure_set

from pipeline.cases.case import Case
from pipeline.cases.lesions.dicom.rtstruct import read_structure_set
from pipeline.cases.lesions.files.mask import read_mask
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import ReadingOptions
from pipeline.errors import CaseError, Code


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "ct", OBLIQUE)


@pytest.fixture(scope="module")
def images(scan):
    return ImageIndex([Case("ct", "ct", scan.folder)], root=scan.folder.parent)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rt.dcm"


def ring_mask():
    """A shell: what is cut out of it lies off its middle, so that the hole moves the centre."""
    return ellipsoid(radii=(9, 8, 4.2)) & ~ellipsoid((34, 18, 15), (2.4, 3.2, 2.2))


def of_mask(scan, mask, path):
    """The lesion as the reader of masks measures it."""
    (lesion,) = read_mask(write_mask(scan, path.with_name("m.nii.gz"), mask.astype(np.uint8))).lesions
    return lesion


def on_slice(scan, edges, number):
    return scan.lps(np.column_stack([edges, np.full(len(edges), number)]))


def only(found):
    assert found.refused == ()
    (lesion,) = found.lesions
    return lesion


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_an_outline_within_an_outline_is_a_hole(scan, images, path, kind):
    outer, hole = ellipsoid(radii=(9, 8, 4.2)), ellipsoid((34, 18, 15), (2.4, 3.2, 2.2))
    write_structure_set(scan, path, [("n", kind, outlines(scan, outer) + outlines(scan, hole))])
    expected = of_mask(scan, outer & ~hole, path)
    lesion = only(read_structure_set(path, images))
    assert lesion.center_mm == expected.center_mm
    assert lesion.diameter_mm == expected.diameter_mm
    assert np.linalg.norm(np.subtract(lesion.center_mm, scan.center_mm)) > 0.05  # the hole counts


def test_a_channel_to_the_hole_is_a_hole_too(scan, images, path):
    outer, hole = ellipsoid(radii=(9, 8, 4.2)), ellipsoid((34, 18, 15), (2.4, 3.2, 2.2))
    parts = []
    for number in np.flatnonzero(outer.any((0, 1))):
        ring = pixel_edges(outer[:, :, number])
        if hole[:, :, number].any():
            inner = pixel_edges(hole[:, :, number])
            ring = np.vstack([ring, ring[:1], inner, inner[:1]])
        parts.append(on_slice(scan, ring, number))
    write_structure_set(scan, path, [("n", "CLOSED_PLANAR", parts)])
    assert only(read_structure_set(path, images)).center_mm == of_mask(scan, outer & ~hole, path).center_mm


def test_outlines_through_pixel_centres_enclose_the_same_lesion(scan, images, path):
    mask = np.zeros_like(scan.mask)
    mask[20:31, 15:24, 8:13] = True
    corners = np.array([(20, 15), (30, 15), (30, 23), (20, 23)], float)
    parts = [on_slice(scan, corners, number) for number in range(8, 13)]
    write_structure_set(scan, path, [("n", "CLOSED_PLANAR", parts)])
    lesion, expected = only(read_structure_set(path, images)), of_mask(scan, mask, path)
    assert (lesion.center_mm, lesion.diameter_mm) == (expected.center_mm, expected.diameter_mm)


def test_outlines_drawn_between_the_slices_keep_their_own_depth(scan, images, path):
    edges = pixel_edges(ellipsoid()[:, :, 14])
    write_structure_set(scan, path, [("n", "CLOSED_PLANAR", [on_slice(scan, edges, 14.4)])])
    expected = scan.affine[:3] @ [30, 17, 14.4, 1]
    assert only(read_structure_set(path, images)).center_mm == pytest.approx(expected, abs=1e-3)


def test_each_region_is_a_lesion_and_its_pieces_only_on_request(scan, images, path):
    one, two = ellipsoid(), ellipsoid((12, 30, 6), (3.2, 4.4, 1.2))
    both = outlines(scan, one) + outlines(scan, two)
    write_structure_set(scan, path, [("a", "CLOSED_PLANAR", both), ("b", "CLOSED_PLANAR", outlines(scan, two))])
    found = read_structure_set(path, images)
    assert [lesion.name for lesion in found.lesions] == ["1", "2"]
    pieces = read_structure_set(path, images, ReadingOptions(labels="components", only=frozenset({1}))).lesions
    assert {piece.center_mm for piece in pieces} == {of_mask(scan, part, path).center_mm for part in (one, two)}


def test_an_outline_smaller_than_a_pixel_has_its_own_centre(scan, images, path):
    tiny = np.array([(20.2, 15.2), (20.6, 15.2), (20.6, 15.6), (20.2, 15.6)])
    write_structure_set(scan, path, [("n", "CLOSED_PLANAR", [on_slice(scan, tiny, 9)])])
    lesion = only(read_structure_set(path, images))
    assert lesion.center_mm == pytest.approx(scan.affine[:3] @ [20.4, 15.4, 9, 1], abs=1e-3)
    assert lesion.diameter_mm == pytest.approx(np.hypot(0.4 * 0.8, 0.4 * 0.9), abs=1e-3)


def test_points_and_lines_of_two_points_have_a_centre(scan, images, path):
    a, b = scan.lps([20, 15, 9]), scan.lps([26, 15, 9])
    regions = [("a", "POINT", [a]), ("b", "OPEN_PLANAR", [np.vstack([a, b])])]
    write_structure_set(scan, path, regions)
    point, line = read_structure_set(path, images).lesions
    assert point.center_mm == pytest.approx(scan.affine[:3] @ [20, 15, 9, 1], abs=1e-3)
    assert point.diameter_mm is None
    assert line.center_mm == pytest.approx(scan.affine[:3] @ [23, 15, 9, 1], abs=1e-3)
    assert line.diameter_mm == pytest.approx(6 * 0.8, abs=1e-3)


def test_types_of_the_standard_say_which_regions_are_lesions(scan, images, path):
    regions = [("CANARY^ANNE", "CLOSED_PLANAR", outlines(scan))] * 4
    write_structure_set(scan, path, regions, interpreted=["ORGAN", "GTV", "PTV", ""])
    found = read_structure_set(path, images)
    assert [lesion.name for lesion in found.lesions] == ["2", "4"]
    assert found.notes == (f"{path}: left out 2 regions of types that are no lesions (ORGAN, PTV); --only takes them",)
    assert [one.name for one in read_structure_set(path, images, ReadingOptions(only=frozenset({1}))).lesions] == ["1"]


def test_a_set_without_a_lesion_and_regions_without_an_outline_are_said(scan, images, path):
    write_structure_set(
        scan, path, [("a", "CLOSED_PLANAR", outlines(scan)), ("b", "CLOSED_PLANAR", [])], interpreted=["ORGAN", ""]
    )
    found = read_structure_set(path, images)
    (refused,) = found.refused
    assert refused.error.code is Code.E_CENTER_MISSING
    assert "1 of other types, 1 without an outline" in refused.error.reason
    assert refused.reference.series == scan.series
    assert "left out 1 region without an outline" in found.notes[0]


@pytest.mark.parametrize(
    ("kind", "points", "code", "says"),
    [
        ("CLOSED_PLANAR", [(20, 15, 9), (22, 15, 9)], Code.E_FORMAT, "fewer than 3 points"),
        ("CLOSED_PLANAR", [(20, 15, 9), (22, 15, 9), (22, 18, 12)], Code.E_ORIENTATION, "crosses 3 slices"),
        ("OPEN_PLANAR", [(20, 15, 9), (22, 15, 9), (22, 18, 9)], Code.E_FORMAT, "open lines with 3 points"),
        ("POINT", [(20, 15, 9), (22, 15, 9)], Code.E_FORMAT, "points with 2 points"),
        ("CANARY^ANNE", [(20, 15, 9)], Code.E_FORMAT, "of no known kind"),
        ("CLOSED_PLANAR", [(20, 15, 9), (1e9, 15, 9), (22, 18, 9)], Code.E_CENTER, "no number below"),
    ],
)  # fmt: skip
def test_a_region_that_has_no_centre_is_refused_and_the_others_go_on(scan, images, path, kind, points, code, says):
    bad = scan.lps(np.array(points, float))
    regions = [("CANARY^ANNE", kind, [bad]), ("b", "CLOSED_PLANAR", outlines(scan))]
    write_structure_set(scan, path, regions)
    found = read_structure_set(path, images)
    (refused,) = found.refused
    assert refused.error.code is code, refused.error
    assert says in refused.error.reason
    assert refused.name == "ROI 1"
    assert "CANARY" not in str(refused)
    assert [lesion.name for lesion in found.lesions] == ["2"]


def contour(dataset, roi=0, place=0):
    return dataset.ROIContourSequence[roi].ContourSequence[place]


def set_data(dataset, values):
    contour(dataset).ContourData = values


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (lambda d: setattr(contour(d), "NumberOfContourPoints", 7), Code.E_FORMAT, "an outline of 7 points with"),
        (lambda d: contour(d).ContourData.pop(), Code.E_FORMAT, "coordinates"),
        (lambda d: contour(d).__delattr__("ContourData"), Code.E_FORMAT, "with 0 coordinates"),
        (lambda d: setattr(d.ROIContourSequence[0], "ReferencedROINumber", 5), Code.E_FORMAT, "outlines region 5"),
        (lambda d: d.StructureSetROISequence.append(d.StructureSetROISequence[0]), Code.E_FORMAT, "region 1 twice"),
    ],
)
def test_a_damaged_set_is_refused_as_a_whole(scan, images, path, edit, code, says):
    write_structure_set(scan, path, edit=edit)
    with pytest.raises(CaseError, match=says) as caught:
        read_structure_set(path, images)
    assert caught.value.code is code


def test_a_coordinate_that_is_no_number_is_refused(scan, images, path):
    write_structure_set(scan, path)
    dataset = pydicom.dcmread(path)
    count = len(contour(dataset).ContourData)
    raw = "\\".join(["1.0"] * (count - 1) + ["nan"])
    contour(dataset).pop("ContourData")
    contour(dataset).add_new(0x30060050, "LT", raw)  # as a program would write it that checks nothing
    dataset.save_as(path)
    (refused,) = read_structure_set(path, images).refused
    assert refused.error.code is Code.E_CENTER


def test_outlines_between_pixels_count_by_their_area(scan, images, path):
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    small, large = [9.3, 9.3, 9.0] + 0.1 * square, [9.3, 9.3, 10.0] + 0.3 * square
    write_structure_set(scan, path, [("n", "CLOSED_PLANAR", [scan.lps(small), scan.lps(large)])])
    (lesion,) = read_structure_set(path, images).lesions
    center = np.average([small.mean(axis=0), large.mean(axis=0)], axis=0, weights=[0.01, 0.09])
    assert lesion.center_mm == pytest.approx(scan.affine[:3] @ [*center, 1], abs=2e-3)


def test_of_two_series_that_an_object_refers_to_none_is_taken(scan, images, path):
    def refer_to_another(dataset):
        study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        other = pydicom.Dataset()
        other.SeriesInstanceUID = "1.2.3"
        study.RTReferencedSeriesSequence.append(other)

    write_structure_set(scan, path, edit=refer_to_another)
    (lesion,) = read_structure_set(path, images).lesions
    assert (lesion.reference.series, lesion.reference.frame_of_reference) == (None, scan.frame_of_reference)


def test_outlines_of_a_series_that_is_not_at_hand_are_refused_by_code(scan, path, tmp_path):
    other = write_scan(tmp_path / "other", AXIAL, seed=5)
    write_structure_set(scan, path)
    one = ImageIndex([Case("o", "o", other.folder)])
    (refused,) = read_structure_set(path, one).refused
    assert refused.error.code is Code.E_MIXED_SERIES
    assert scan.series not in str(refused)
    (refused,) = read_structure_set(path, ImageIndex()).refused
    assert refused.error.code is Code.E_MIXED_SERIES


def test_another_frame_of_reference_than_the_images_is_refused(scan, images, path):
    def edit(dataset):
        frame = "1.2.3.4"
        dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = frame
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = frame

    write_structure_set(scan, path, edit=edit)
    (refused,) = read_structure_set(path, images).refused
    assert refused.error.code is Code.E_AFFINE_DISAGREE
    assert "another frame of reference than that of 'ct'" in refused.error.reason
