"""LIDC-IDRI's XML: readers clustered into nodules, non-nodules left out, XML's dangers refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from lesion_files import AXIAL, OBLIQUE, SPACING, ellipsoid, write_lidc_xml, write_mask, write_scan

from pipeline.cases.case import Case
from pipeline.cases.lesions.files.lidc_readings import Contour, Reading, cluster_readings
from pipeline.cases.lesions.files.lidc_xml import read_lidc_xml
from pipeline.cases.lesions.files.xml_tree import parse_xml
from pipeline.cases.lesions.images import ImageIndex
from pipeline.errors import CaseError, Code


@pytest.fixture(scope="module", params=[AXIAL, OBLIQUE], ids=["axial", "oblique"])
def scan(request, tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "ct", request.param)


@pytest.fixture
def images(scan):
    return ImageIndex([Case("ct", "ct", scan.folder)], root=scan.folder.parent)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "069.xml"


SMALL = (
    "<unblindedReadNodule><noduleID>s</noduleID><roi><imageZposition>-100</imageZposition><imageSOP_UID>1</imageSOP_UID>"
    "<inclusion>TRUE</inclusion><edgeMap><xCoord>3</xCoord><yCoord>4</yCoord></edgeMap></roi></unblindedReadNodule>"
)
NO_NODULE = "<nonNodule><nonNoduleID>n</nonNoduleID><imageZposition>1</imageZposition></nonNodule>"


def test_two_readers_of_one_nodule_are_one_lesion_and_two_nodules_two(scan, images, path):
    nodules = [ellipsoid(), ellipsoid((12, 30, 6), (4.2, 4.2, 1.2))]
    found = read_lidc_xml(write_lidc_xml(scan, path, nodules, extra=SMALL + NO_NODULE), images)
    assert len(found.lesions) == 2
    for lesion, mask in zip(found.lesions, nodules[::-1], strict=True):  # by rising position
        center = scan.affine[:3] @ [*np.argwhere(mask).mean(0), 1]
        assert lesion.center_mm == pytest.approx(center, abs=1e-3)
        assert lesion.reference.series == scan.series
    assert found.lesions[1].diameter_mm == pytest.approx(11 * SPACING[0], abs=0.3)
    assert found.notes == (
        f"{path}: left out 2 readings of nodules below 3 mm",
        f"{path}: left out 2 readings of non-nodules",
    )
    assert "CANARY" not in repr(found)


def test_an_outline_without_ratings_is_of_a_nodule_below_3_mm(scan, images, path):
    write_lidc_xml(scan, path)
    path.write_text(re.sub("<characteristics>.*?</characteristics>", "<characteristics/>", path.read_text()))
    found = read_lidc_xml(path, images)
    assert found.lesions == ()
    assert found.notes == (f"{path}: left out 2 readings of nodules below 3 mm",)


def test_a_file_without_a_nodule_has_no_lesion_and_is_no_fault(scan, images, path):
    found = read_lidc_xml(write_lidc_xml(scan, path, [], extra=NO_NODULE), images)
    assert found.lesions == found.refused == ()


def test_outlines_on_slices_that_are_not_at_hand_are_placed_by_their_height(tmp_path, path):
    scan = write_scan(tmp_path / "ct", AXIAL)
    files = tuple(sorted(scan.folder.iterdir()))
    kept = [file for file in files if not any(file.name == f"IM{(number * 7) % 24:03d}.dcm" for number in (15, 16))]
    kept = [file for file in kept if int(file.name[2:5]) in {(number * 7) % 24 for number in range(15)}]
    images = ImageIndex([Case("ct", "ct", scan.folder, files=tuple(kept))])
    (lesion,) = read_lidc_xml(write_lidc_xml(scan, path), images).lesions
    assert lesion.center_mm == pytest.approx(scan.center_mm, abs=1e-3)


def test_nodules_beyond_a_part_of_the_series_are_not_taken_for_one(tmp_path, path):
    scan = write_scan(tmp_path / "ct", AXIAL)
    kept = {f"IM{(number * 7) % 24:03d}.dcm" for number in range(8)}
    files = tuple(sorted(file for file in scan.folder.iterdir() if file.name in kept))
    nodules = [ellipsoid((30, 17, place), (4.2, 4.2, 1.2)) for place in (12, 17, 22)]
    found = {}
    for name, part in (("whole", None), ("part", files)):
        images = ImageIndex([Case("ct", "ct", scan.folder, files=part)])
        found[name] = [one.center_mm for one in read_lidc_xml(write_lidc_xml(scan, path, nodules), images).lesions]
    assert found["part"] == found["whole"]
    assert len(found["part"]) == 3


def test_another_series_and_another_format_are_refused_by_code(scan, tmp_path, path):
    write_lidc_xml(scan, path)
    other = write_scan(tmp_path / "other", AXIAL, seed=9)
    (refused,) = read_lidc_xml(path, ImageIndex([Case("o", "o", other.folder)])).refused
    assert refused.error.code is Code.E_MIXED_SERIES
    nifti = write_mask(scan, tmp_path / "scan.nii.gz")
    (refused,) = read_lidc_xml(path, ImageIndex([Case("o", "o", nifti)])).refused
    assert refused.error.code is Code.E_GEOMETRY_MISSING
    assert scan.series not in str(refused)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE LidcReadMessage [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><LidcReadMessage>&c;</LidcReadMessage>'
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><LidcReadMessage>&x;</LidcReadMessage>'


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (BOMB, Code.E_FORMAT, "declares a document type or entities"),
        (OUTSIDE, Code.E_FORMAT, "declares a document type or entities"),
        ("<!DOCTYPE a SYSTEM 'http://example.org/a.dtd'><a/>", Code.E_FORMAT, "declares a document type"),
        ("<LidcReadMessage><readingSession>", Code.E_TRUNCATED, "ends early"),
        ("<LidcReadMessage", Code.E_TRUNCATED, "ends early"),
        ("<a></b>", Code.E_FORMAT, "is not XML"),
        ("<LidcReadMessage>&undefined;</LidcReadMessage>", Code.E_FORMAT, "is not XML"),
        ("<a>" * 1000, Code.E_FORMAT, "nests deeper than 64"),
        ("<html><body/></html>", Code.E_FORMAT, "its root element is not LidcReadMessage"),
        ('<?xml version="1.0" encoding="CANARY"?><a/>', Code.E_FORMAT, "XML"),
    ],
)  # fmt: skip
def test_dangerous_and_damaged_xml_is_refused_in_one_line(path, content, code, says):
    path.write_text(content)
    with pytest.raises(CaseError, match=says) as caught:
        read_lidc_xml(path, ImageIndex())
    assert caught.value.code is code
    assert "\n" not in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("<xCoord>30<", "<xCoord>nan<", Code.E_CENTER),
        ("<xCoord>30<", "<xCoord>CANARY<", Code.E_CENTER),
        ("<xCoord>30<", "<xCoord>1e300<", Code.E_CENTER),
        ("</imageZposition>", "x</imageZposition>", Code.E_CENTER),
    ],
)
def test_coordinates_that_are_no_numbers_are_refused_with_their_series(scan, images, path, before, after, code):
    text = write_lidc_xml(scan, path).read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    (refused,) = read_lidc_xml(path, images).refused
    assert refused.error.code is code
    assert refused.reference.series == scan.series
    assert "CANARY" not in str(refused)


def test_name_spaces_and_other_encodings_are_read(path):
    path.write_bytes('<?xml version="1.0" encoding="utf-16"?><n:a xmlns:n="u"><n:b>é</n:b></n:a>'.encode("utf-16"))
    root = parse_xml(path, path.read_bytes())
    assert (root.tag, root[0].tag, root[0].text) == ("a", "b", "é")


def square(column, row, z, size=4.0):
    points = np.array([(0, 0), (size, 0), (size, size), (0, size)]) + np.array([column, row])
    return Reading((), (Contour(inclusion=True, z_mm=z, points=points),))


def test_readings_that_come_within_a_slice_thickness_are_one_nodule():
    readings = [square(10, 10, 5.0), square(11, 10, 5.0), square(11, 10, 6.0), square(40, 40, 1.0)]
    nodules = cluster_readings(readings, slice_z_mm=np.arange(20.0), slice_thickness_mm=1.2)
    assert [[readings.index(reading) for reading in nodule] for nodule in nodules] == [[3], [0, 1, 2]]


def test_a_nodule_of_more_than_four_readings_is_split_where_it_can_be():
    near = [square(10, 10, 5.0)] * 4 + [square(15.0, 10, 5.0)]  # touches within 1 pixel
    whole = cluster_readings(near[:2] + near[4:], slice_z_mm=np.arange(20.0), slice_thickness_mm=1.2)
    split = cluster_readings(near, slice_z_mm=np.arange(20.0), slice_thickness_mm=1.2)
    assert sorted(map(len, whole)) == [3]
    assert sorted(map(len, split)) == [1, 4]
    assert cluster_readings([], slice_z_mm=np.arange(3.0), slice_thickness_mm=1.0) == []
