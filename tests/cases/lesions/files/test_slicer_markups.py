"""3D Slicer's markups, new and old; damage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.cases.lesions.files.slicer import read_fcsv, read_markups
from pipeline.cases.lesions.lesion import ReadingOptions
from pipeline.errors import CaseError, Code


def write(path, *markups):
    path.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": list(markups)}))
    return path


def fiducials(*positions, system="LPS", **more):
    points = [{"label": "CANARY^ANNE", "position": list(position)} for position in positions]
    return {"type": "Fiducial", "coordinateSystem": system, "controlPoints": points} | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.mrk.json"


def test_each_point_is_a_lesion_in_the_files_own_system(path):
    found = read_markups(write(path, fiducials((1, 2, 3), (4, 5, 6)), fiducials((1, 2, 3), system="RAS")))
    assert [lesion.center_mm for lesion in found.lesions] == [(-1, -2, 3), (-4, -5, 6), (1, 2, 3)]
    assert [lesion.name for lesion in found.lesions] == ["markup 1 point 1", "markup 1 point 2", "markup 2 point 1"]
    assert "CANARY" not in repr(found)


def test_a_line_is_a_long_axis_and_points_not_put_down_do_not_count(path):
    line = fiducials((1, 2, 3), (4, 6, 3), type="Line")
    line["controlPoints"].append({"position": [0, 0, 0], "positionStatus": "undefined"})
    (lesion,) = read_markups(write(path, line)).lesions
    assert lesion.center_mm == (-2.5, -4, 3)
    assert lesion.diameter_mm == 5.0
    assert lesion.name == ""


def test_a_region_of_interest_has_its_centre_and_the_larger_side_near_the_axial_plane(path):
    upright = {"type": "ROI", "coordinateSystem": "RAS", "center": [1, 2, 3], "size": [4, 6, 9], "controlPoints": []}
    assert [(one.center_mm, one.diameter_mm) for one in read_markups(write(path, upright)).lesions] == [((1, 2, 3), 6)]
    turned = upright | {"orientation": [0, 0, 1, 0, 1, 0, -1, 0, 0]}  # the first axis runs along z
    assert read_markups(write(path, turned)).lesions[0].diameter_mm == 9
    cyclic = upright | {"orientation": [0, 1, 0, 0, 0, 1, 1, 0, 0]}  # likewise, and the second along x
    assert read_markups(write(path, cyclic | {"size": [50, 8, 6]})).lesions[0].diameter_mm == 8
    first = fiducials((7, 8, 9), type="ROI")  # as version 1.0.0 wrote it
    (lesion,) = read_markups(write(path, first)).lesions
    assert (lesion.center_mm, lesion.diameter_mm) == ((-7, -8, 9), None)


def test_other_types_are_left_out_and_counted(path):
    found = read_markups(write(path, fiducials((1, 2, 3)), {"type": "Angle"}, {"type": "CANARY"}, {"type": ["x"]}))
    assert len(found.lesions) == 1
    assert found.notes == (
        f"{path}: left out 1 markup of type Angle",
        f"{path}: left out 2 markups of type unknown",
    )


def test_a_system_that_is_not_said_is_never_guessed(path):
    silent = fiducials((1, 2, 3))
    del silent["coordinateSystem"]
    (refused,) = read_markups(write(path, silent)).refused
    assert refused.error.code is Code.E_CENTER
    assert "--system" in refused.error.reason
    assert read_markups(path, ReadingOptions(system="LPS")).lesions[0].center_mm == (-1, -2, 3)
    strange = read_markups(write(path, fiducials((1, 2, 3), system="CANARY")), ReadingOptions(system="LPS"))
    assert "is neither RAS nor LPS" in strange.refused[0].error.reason  # what is said is not overruled


@pytest.mark.parametrize(
    ("position", "says"),
    [
        ([1, 2], "not 3 numbers"),
        ([1, 2, "3"], "not 3 numbers"),
        ([1, 2, None], "not 3 numbers"),
        ([1, 2, True], "not 3 numbers"),
        ("CANARY", "not 3 numbers"),
        ([1, 2, float("nan")], "three finite numbers"),
        ([1, 2, float("inf")], "three finite numbers"),
        ([1, 2, 1e9], "three finite numbers"),
        ([1, 2, 10**400], "beyond all numbers"),
    ],
)
def test_a_point_that_is_no_place_is_refused_and_the_others_go_on(path, position, says):
    markup = fiducials((1, 2, 3))
    markup["controlPoints"].append({"position": position})
    found = read_markups(write(path, markup))
    assert len(found.lesions) == 1
    (refused,) = found.refused
    assert refused.error.code is Code.E_CENTER
    assert says in refused.error.reason
    assert refused.name == "point 2"


@pytest.mark.parametrize(
    ("markup", "code"),
    [
        (fiducials((1, 2, 3), type="Line"), Code.E_CENTER),
        (fiducials((1, 2, 3), (1, 2, 3), type="Line"), Code.E_CENTER),  # without a length
        (fiducials(), Code.E_CENTER_MISSING),
        (fiducials() | {"controlPoints": 5}, Code.E_FORMAT),
        (fiducials((1, 2, 3), coordinateUnits="um"), Code.E_CENTER),
        ({"type": "ROI", "coordinateSystem": "LPS", "center": [1, 2]}, Code.E_CENTER),
        ({"type": "ROI", "coordinateSystem": "LPS", "center": [1, 2, 3], "size": [0, 0, 0]}, Code.E_CENTER),
    ],
)
def test_a_markup_without_a_lesion_is_refused(path, markup, code):
    (refused,) = read_markups(write(path, markup)).refused
    assert refused.error.code is code


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ('{"markups": [{"type": "Fiducial", "controlPoints": [{"position": [1, 2', Code.E_TRUNCATED, "not whole JSON"),
        ('{"markups": [1,, 2]}', Code.E_FORMAT, "line 1"),
        ('{"markups": ' + "[" * 100_000, Code.E_FORMAT, "no JSON that a program wrote"),
        ('{"markups": [' + "9" * 10_000 + "]}", Code.E_FORMAT, "no JSON that a program wrote"),
        ('{"markups": {"a": 1}}', Code.E_FORMAT, "no list 'markups'"),
        ('{"markups": [5]}', Code.E_FORMAT, "no list 'markups'"),
        ("[1, 2]", Code.E_FORMAT, "no list 'markups'"),
        ("   ", Code.E_EMPTY_FILE, "nothing but blanks"),
    ],
)
def test_damaged_json_is_refused_in_one_line(path, content, code, says):
    path.write_text(content)
    with pytest.raises(CaseError, match=says) as caught:
        read_markups(path)
    assert caught.value.code is code
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf_8_is_refused(path):
    path.write_bytes(b'{"markups": "\xff\xfa"}')
    with pytest.raises(CaseError, match="is not UTF-8") as caught:
        read_markups(path)
    assert caught.value.code is Code.E_ENCODING


HEADER = "# Markups fiducial file version = 4.10\n"
COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
ROWS = "vtk_0,1.5,2,3,0,0,0,1,1,1,0,CANARY^ANNE,,\nvtk_1,4,5,6,0,0,0,1,1,1,0,F-2,,\n"


@pytest.mark.parametrize(("system", "sign"), [("0", 1), ("RAS", 1), ("1", -1), ("LPS", -1)])
def test_fcsv_obeys_its_header_old_and_new(tmp_path, system, sign):
    path = tmp_path / "F.fcsv"
    path.write_text(f"{HEADER}# CoordinateSystem = {system}\n{COLUMNS}{ROWS}")
    found = read_fcsv(path)
    assert [one.center_mm for one in found.lesions] == [(1.5 * sign, 2 * sign, 3), (4 * sign, 5 * sign, 6)]
    assert [one.name for one in found.lesions] == ["point 1", "point 2"]
    assert "CANARY" not in repr(found)


def test_columns_in_another_order_and_windows_line_ends(tmp_path):
    path = tmp_path / "F.fcsv"
    path.write_bytes(b"# CoordinateSystem = RAS\r\n# columns = label,z,y,x\r\nF,3,2,1\r\n\r\n")
    assert read_fcsv(path).lesions[0].center_mm == (1, 2, 3)


def test_fcsv_without_a_system_is_never_guessed_and_slicer_3_is_read_with_one(tmp_path):
    path = tmp_path / "F.fcsv"
    path.write_text("# Fiducial List file\nF-1,1,2,3,1,1\n")
    with pytest.raises(CaseError, match="is not given") as caught:
        read_fcsv(path)
    assert caught.value.code is Code.E_CENTER
    assert read_fcsv(path, ReadingOptions(system="RAS")).lesions[0].center_mm == (1, 2, 3)


@pytest.mark.parametrize(("row", "code"), [("a,1,2", "E_CENTER"), ("a,1,x,3", "E_CENTER"), ("a,1,nan,3", "E_CENTER")])
def test_a_bad_line_of_a_fcsv_is_refused_and_the_others_go_on(tmp_path, row, code):
    path = tmp_path / "F.fcsv"
    path.write_text(f"{HEADER}# CoordinateSystem = LPS\n{COLUMNS}{ROWS}{row}\n")
    found = read_fcsv(path)
    assert len(found.lesions) == 2
    assert found.refused[0].error.code == code


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{HEADER}# CoordinateSystem = LPS\n{COLUMNS}", "holds no point"),
        ("# CoordinateSystem = LPS\n# columns = id,x,y\n1,2,3\n", "no x, y and z"),
        ("# CoordinateSystem = 2\n# columns = id,x,y,z\n1,2,3,4\n", "is neither RAS nor LPS"),
    ],
)
def test_a_fcsv_without_places_is_refused(tmp_path, content, says):
    path = tmp_path / "F.fcsv"
    path.write_text(content)
    with pytest.raises(CaseError, match=says):
        read_fcsv(path)


def test_a_megabyte_of_a_name_does_no_harm(tmp_path, path):
    name = "x" * 2_000_000
    markup = fiducials((1, 2, 3))
    markup["controlPoints"][0]["label"] = name
    assert len(read_markups(write(path, markup)).lesions) == 1
    old = tmp_path / "F.fcsv"
    old.write_text(f"{HEADER}# CoordinateSystem = LPS\n{COLUMNS}vtk,1,2,3,0,0,0,1,1,1,0,{name},,\n")
    assert len(read_fcsv(old).lesions) == 1
    assert len(str(read_markups(write(path, {"type": name})))) < 1000


def test_the_same_point_in_either_system_is_the_same_lesion(path):
    point = np.array([12.34567, -8.76543, 101.00049])
    (ras,) = read_markups(write(path, fiducials(point, system="RAS"))).lesions
    (lps,) = read_markups(write(path, fiducials(point * [-1, -1, 1]))).lesions
    assert ras.center_mm == lps.center_mm == (12.346, -8.765, 101.0)
