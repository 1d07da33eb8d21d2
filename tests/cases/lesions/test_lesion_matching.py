"""Whose lesion it is: by id, name, series, frame of reference, patient; what is ambiguous is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from bucket import bucket_url
from lesion_files import (
    AXIAL,
    ellipsoid,
    planar_group,
    region_in_space,
    second_ellipsoid,
    write_lidc_xml,
    write_markups,
    write_mask,
    write_report,
    write_rows,
    write_scan,
    write_segmentation,
    write_structure_set,
)

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs, read_inputs
from pipeline.cases.lesions import collect
from pipeline.cases.lesions.grids import grid_disagreement
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import ImageReference, ReadingOptions, VoxelGrid
from pipeline.cases.lesions.locate import locate, located_inputs, superseded
from pipeline.cases.lesions.report import report_lines
from pipeline.errors import CaseError, Code, TableError, UsageError
from pipeline.files import sha256_bytes

TABLE = ("case_id", "x", "y", "z", "system")


@pytest.fixture
def root(tmp_path):
    """Two patients, each with a series."""
    (tmp_path / "scans").mkdir()
    return tmp_path / "scans"


@pytest.fixture
def scans(root):
    return [write_scan(root / f"P{number}" / "CT", AXIAL, seed=number) for number in (1, 2)]


def inputs_of(root, *cases):
    """A manifest's cases."""
    return Inputs(lambda _: cases, str(root / "manifest.csv"), root, digest="d")


def cases_of(root, *names, **more):
    return [Case(case_id=name, image=f"{name}/CT", path=root / name / "CT", **more) for name in names]


def codes(located):
    return {case.case_id: str(case.fault.code) if case.fault else None for case in located.cases}


def test_dicom_objects_go_to_the_series_that_they_refer_to(root, scans):
    cases = cases_of(root, "P1", "P2")
    folder = root / "annotations"
    write_segmentation(scans[1], folder / "a.dcm")
    write_structure_set(scans[0], folder / "b.dcm", [("n", "POINT", [scans[0].lps([9, 9, 9])])])
    write_report(
        scans[0],
        folder / "c.dcm",
        [planar_group(scans[0], region_in_space(scans[0], "POINT", scans[0].lps([20, 20, 4])))],
    )
    write_lidc_xml(scans[1], folder / "d.xml", [ellipsoid((12, 30, 6))])
    located = locate(inputs_of(root, *cases), [folder])
    assert [case.case_id for case in located.cases] == ["P1#1", "P1#2", "P2#1", "P2#2"]
    assert [lesion.lesion.format for lesion in located.lesions] == ["rtstruct", "dicom-sr", "dicom-seg", "lidc-xml"]
    assert [case.extra["lesion_source"] for case in located.cases] == [
        "annotations/b.dcm (1)", "annotations/c.dcm (1)", "annotations/a.dcm (1)", "annotations/d.xml (nodule 1)",
    ]  # fmt: skip
    assert not located.without


def test_the_order_of_lesions_is_that_of_sources_and_files(root, scans, tmp_path):
    cases = cases_of(root, "P1")
    one = write_rows(tmp_path / "one.csv", TABLE, ["P1", 1, 2, 3, "RAS"])
    two = write_rows(tmp_path / "two.csv", TABLE, ["P1", 9, 9, 9, "RAS"], ["P1", 5, 5, 5, "RAS"])
    found = locate(inputs_of(root, *cases), [two, one])
    assert [case.center_mm for case in found.cases] == [(9, 9, 9), (5, 5, 5), (1, 2, 3)]
    assert found.cases == locate(inputs_of(root, *cases), [two, one]).cases


@pytest.mark.parametrize(
    ("header", "cell"),
    [("case_id", "P2"), ("image", "P2/CT"), ("image", ".\\P2\\CT"), ("patient_id", "P2"), ("seriesuid", None)],
)
def test_rows_of_a_table_go_by_case_image_patient_or_series(root, scans, tmp_path, header, cell):
    cases = cases_of(root, "P1", "P2")
    path = write_rows(tmp_path / "t.csv", (header, "x", "y", "z", "system"), [cell or scans[1].series, 1, 2, 3, "RAS"])
    located = locate(inputs_of(root, *cases), [path])
    assert {case.case_id: case.center_mm for case in located.cases} == {"P1": None, "P2": (1, 2, 3)}
    assert codes(located) == {"P1": "E_CENTER_MISSING", "P2": None}
    assert [case.case_id for case in located.without] == ["P1"]


def test_a_patient_of_the_table_stands_before_the_folder(root, scans, tmp_path):
    cases = cases_of(root, "P1", "P2")
    cases = [replace(case, patient_id=f"00{number}") for number, case in enumerate(cases, start=7)]
    path = write_rows(
        tmp_path / "t.csv", ("patient", "x", "y", "z", "system"), ["008", 1, 2, 3, "RAS"], ["P1", 1, 2, 3, "RAS"]
    )
    located = locate(inputs_of(root, *cases), [path])
    assert [lesion.case.case_id for lesion in located.lesions] == ["P2"]
    assert [refused.name for refused in located.match.homeless] == ["row 3"]


def test_luna16_goes_by_the_files_name_and_leaves_other_series_alone(tmp_path):
    scan = write_scan(tmp_path / "dicom", AXIAL)
    file = write_mask(scan, tmp_path / "subset0" / f"{scan.series}.nii.gz")  # any image will do
    cases = [Case("a", f"subset0/{file.name}", file)]
    header = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
    path = write_rows(tmp_path / "annotations.csv", header, [scan.series, 1, 2, 3, 5], ["1.2.3", 4, 5, 6, 7])
    located = locate(inputs_of(tmp_path, *cases), [path])
    assert [case.center_mm for case in located.cases] == [(-1, -2, 3)]
    (refused,) = located.match.homeless
    assert refused.error.code is Code.E_MIXED_SERIES
    assert "1.2.3" not in str(refused)


def test_a_mask_belongs_to_its_name_and_to_the_only_image(tmp_path):
    scan = write_scan(tmp_path / "dicom", AXIAL)
    for name in ("a", "b"):
        write_mask(scan, tmp_path / "scans" / f"{name}.nii.gz", scan.mask.astype(np.uint8))
    write_mask(scan, tmp_path / "masks" / "b.nii.gz")
    other = write_mask(scan, tmp_path / "GTV.nii.gz")
    cases = [Case(name, f"{name}.nii.gz", tmp_path / "scans" / f"{name}.nii.gz") for name in ("a", "b")]
    located = locate(inputs_of(tmp_path / "scans", *cases), [tmp_path / "masks"])
    assert codes(located) == {"a": "E_CENTER_MISSING", "b": None}
    located = locate(inputs_of(tmp_path / "scans", *cases), [other])
    (refused,) = located.match.homeless
    assert refused.error.code is Code.E_NOT_FOUND
    assert "its name fits none of the 2 images" in refused.error.reason
    located = locate(inputs_of(tmp_path / "scans", cases[0]), [other])
    assert codes(located) == {"a": None}


def test_a_mask_on_another_grid_is_a_row_with_its_code(root, scans):
    cases = cases_of(root, "P1", "P2")
    shifted = scans[0].affine.copy()
    shifted[:3, 3] += 4.0
    write_mask(scans[0], root / "P1" / "CT_mask.nii.gz", affine=shifted)
    write_mask(scans[1], root / "P2" / "CT_mask.nii.gz")
    located = locate(inputs_of(root, *cases), [root])
    assert codes(located) == {"P1": "E_AFFINE_DISAGREE", "P2": None}
    assert located.cases[0].fault.reason.startswith("P1/CT_mask.nii.gz (1): the mask's grid lies up to")
    assert not located.without


@pytest.mark.parametrize(("first", "fits"), [(0, True), (-1, True), (-3, False), (13, False)])
def test_a_mask_of_another_size_may_not_reach_beyond_its_image(first, fits):
    image = VoxelGrid((20, 20, 20), np.eye(4))
    affine = np.eye(4)
    affine[0, 3] = first
    assert (grid_disagreement(VoxelGrid((10, 20, 20), affine), image) is None) == fits


def test_several_lesions_of_a_refused_file_are_one_row(root, scans):
    (case,) = cases_of(root, "P1")
    labels = scans[0].mask.astype(np.uint8)
    labels[2:6, 2:6, 2:6] = 2
    affine = scans[0].affine @ np.diag([1, 1, 1.1, 1])
    write_mask(scans[0], root / "P1" / "CT_mask.nii.gz", labels, affine=affine)
    located = locate(inputs_of(root, case), [root])
    assert codes(located) == {"P1": "E_AFFINE_DISAGREE"}


@pytest.mark.parametrize("count", [1, 2])
def test_another_series_or_frame_of_reference_is_refused_by_code(root, scans, tmp_path, count):
    other = write_scan(tmp_path / "other", AXIAL, seed=7)
    write_segmentation(other, tmp_path / "seg.dcm")
    cases = cases_of(root, "P1", "P2")[:count]
    located = locate(inputs_of(root, *cases), [tmp_path / "seg.dcm"])
    if count == 1:  # with one image at hand the object can be meant for no other
        assert codes(located) == {"P1": "E_MIXED_SERIES"}
    else:
        assert codes(located) == {"P1": "E_CENTER_MISSING", "P2": "E_CENTER_MISSING"}
        assert [refused.error.code for refused in located.match.homeless] == [Code.E_MIXED_SERIES]


def test_the_frame_of_reference_decides_only_where_one_image_has_it(root, scans, tmp_path):
    cases = cases_of(root, "P1", "P2")

    def silent(dataset):
        dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = []

    point = [("n", "POINT", [scans[1].lps([9, 9, 9])])]
    write_structure_set(scans[1], tmp_path / "rt.dcm", point, edit=silent)
    assert codes(locate(inputs_of(root, *cases), [tmp_path / "rt.dcm"])) == {"P1": "E_CENTER_MISSING", "P2": None}
    shutil.copytree(root / "P2", root / "P3")  # another reconstruction of the same study
    located = locate(inputs_of(root, *cases, *cases_of(root, "P3")), [tmp_path / "rt.dcm"])
    (refused,) = located.match.homeless
    assert "2 images have its frame of reference ('P2/CT', 'P3/CT')" in refused.error.reason


def test_what_fits_several_images_is_told_by_the_most_certain_sign(root):
    images = ImageIndex(cases_of(root, "P1/a", "P2/a", "P2/b"), root=root)
    _, reason = images.resolve(ImageReference(image="CT", patient="P2"), dedicated=False).error
    assert reason.startswith("3 images have that name ('P1/a/CT', 'P2/a/CT', 'P2/b/CT')")


def test_where_several_rows_name_one_image_only_a_case_id_tells(root, scans, tmp_path):
    write_segmentation(scans[0], tmp_path / "seg.dcm")
    (case,) = cases_of(root, "P1")
    rows = [replace(case, case_id="n1"), replace(case, case_id="n2")]
    located = locate(inputs_of(root, *rows), [tmp_path / "seg.dcm"])
    assert codes(located) == {"n1": "E_CENTER_MISSING", "n2": "E_CENTER_MISSING"}
    assert "2 rows name 'P1/CT'" in located.match.homeless[0].error.reason
    table = write_rows(tmp_path / "t.csv", TABLE, ["n2", 1, 2, 3, "RAS"])
    assert codes(locate(inputs_of(root, *rows), [table])) == {"n1": "E_CENTER_MISSING", "n2": None}


def test_the_same_place_in_several_files_is_one_lesion(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    write_structure_set(scans[0], tmp_path / "a" / "rt.dcm")
    write_segmentation(scans[0], tmp_path / "a" / "seg.dcm")
    write_markups(scans[0], tmp_path / "a" / "CT.mrk.json")
    located = locate(inputs_of(root, case), [tmp_path / "a"])
    assert [case.case_id for case in located.cases] == ["P1"]
    assert "2 lesions left out that another file or row marks at the same place" in located.match.notes
    assert located.lesions[0].lesion.diameter_mm == pytest.approx(8.98, abs=0.01)  # the point has none


def test_a_row_that_stands_twice_counts_once_and_near_rows_count_each(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    rows = ["P1", 1, 2, 3, "RAS"], ["P1", 1, 2, 3, "RAS"], ["P1", 1.5, 2, 3, "RAS"]
    located = locate(inputs_of(root, case), [write_rows(tmp_path / "t.csv", TABLE, *rows)])
    assert [row.center_mm for row in located.cases] == [(1, 2, 3), (1.5, 2, 3)]
    assert "1 lesion left out that another file or row marks at the same place" in located.match.notes


def test_lesions_of_two_files_that_overlap_are_said(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    write_segmentation(scans[0], tmp_path / "a" / "seg.dcm")
    near = scans[0].center_mm + np.array([2, 0, 0])
    write_rows(tmp_path / "a" / "t.csv", TABLE, ["P1", *near, "RAS"])
    located = locate(inputs_of(root, case), [tmp_path / "a"])
    assert len(located.cases) == 2
    assert "case 'P1': lesions of seg.dcm and t.csv lie 2 mm apart and count as two" in located.match.notes[-1]


def segment_of(scan, segmentation):
    """A reference to the first segment, for a measurement group."""
    from highdicom.sr import ReferencedSegmentationFrame, SourceImageForSegmentation

    source = SourceImageForSegmentation(scan.slices[0].SOPClassUID, scan.slices[0].SOPInstanceUID)
    return ReferencedSegmentationFrame(segmentation.SOPClassUID, segmentation.SOPInstanceUID, 1, 1, source)


def test_a_report_gives_its_diameter_to_the_segment_that_it_names(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    segmentation = write_segmentation(scans[0], tmp_path / "seg.dcm")
    group = planar_group(scans[0], None, diameter_mm=7.5, referenced_segment=segment_of(scans[0], segmentation))
    write_report(scans[0], tmp_path / "sr.dcm", [group], evidence=[segmentation])
    both = locate(inputs_of(root, case), [tmp_path / "sr.dcm", tmp_path / "seg.dcm"])
    assert [(row.case_id, row.extra["diameter_mm"]) for row in both.cases] == [("P1", "7.5")]
    alone = locate(inputs_of(root, case), [tmp_path / "sr.dcm"])
    assert codes(alone) == {"P1": "E_CENTER_MISSING"}
    assert "give that object as well" in alone.cases[0].fault.reason


def test_a_report_gives_no_diameter_to_a_segment_of_two_lesions(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    both = scans[0].mask | second_ellipsoid()
    segmentation = write_segmentation(scans[0], tmp_path / "seg.dcm", [both.astype(np.uint8)])
    group = planar_group(scans[0], None, diameter_mm=7.5, referenced_segment=segment_of(scans[0], segmentation))
    write_report(scans[0], tmp_path / "sr.dcm", [group], evidence=[segmentation])
    alone = locate(inputs_of(root, case), [tmp_path / "seg.dcm"])
    located = locate(inputs_of(root, case), [tmp_path / "seg.dcm", tmp_path / "sr.dcm"])
    assert len(located.cases) == 2
    assert [row.extra for row in located.cases] == [row.extra for row in alone.cases]


def test_a_damaged_file_is_a_row_of_its_image_and_the_others_go_on(root, scans, tmp_path):
    cases = cases_of(root, "P1", "P2")
    for name, scan in zip(("P1", "P2"), scans, strict=True):
        write_mask(scan, root / name / "CT_mask.nii.gz")
    path = root / "P1" / "CT_mask.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    (tmp_path / "cut.mrk.json").write_text('{"markups": [')
    located = locate(inputs_of(root, *cases), [root, tmp_path / "cut.mrk.json"])
    assert codes(located) == {"P1": "E_TRUNCATED", "P2": None}
    assert any("cut.mrk.json" in str(refused) for refused in located.match.homeless)


def test_a_lesion_beside_a_refused_one_is_numbered_and_both_are_rows(root, scans):
    (case,) = cases_of(root, "P1")
    write_mask(scans[0], root / "P1" / "CT_mask.nii.gz")
    (root / "P1" / "CT_mask_2.nii.gz").write_bytes(b"\x1f\x8b damaged")
    located = locate(inputs_of(root, case), [root])
    assert [(row.case_id, row.fault is None) for row in located.cases] == [("P1#1", True), ("P1#2", False)]
    assert [lesion.case.case_id for lesion in located.lesions] == ["P1#1"]


def test_a_case_keeps_its_fault_and_its_centre(root, scans, tmp_path):
    own, other = cases_of(root, "P1", "P2")
    own = replace(own, center_mm=(1.0, 2.0, 3.0))
    table = write_rows(tmp_path / "t.csv", TABLE, ["P2", 5, 5, 5, "RAS"])
    assert locate(inputs_of(root, own, other), [table]).cases[0] == own
    fault = CaseError(Code.E_OUTSIDE_ROOT, "P2/CT", "is elsewhere")
    faulty = replace(other, fault=fault)
    assert locate(inputs_of(root, own, faulty), [table]).cases[1].fault is fault
    bad = write_rows(tmp_path / "bad.csv", TABLE, ["P2", 5, 5, "x", "RAS"])
    assert locate(inputs_of(root, own, faulty), [bad]).cases[1].fault is fault
    assert locate(inputs_of(root, own, faulty), [tmp_path / "bad.csv"]).match.refused
    same = write_rows(tmp_path / "same.csv", TABLE, ["P1", 1, 2, 3.004, "RAS"], ["P2", 5, 5, 5, "RAS"])
    assert codes(locate(inputs_of(root, own, other), [same])) == {"P1": None, "P2": None}


def test_other_centres_than_the_tables_are_refused_with_the_way_out(root, scans, tmp_path):
    (case,) = cases_of(root, "P1", center_mm=(1.0, 2.0, 3.0))
    table = write_rows(tmp_path / "t.csv", TABLE, ["P1", 5, 5, 5, "RAS"])
    with pytest.raises(UsageError, match=r"1 cases have a centre already, and another one .*--replace"):
        locate(inputs_of(root, case), [table])
    located = locate(inputs_of(root, case), [table], replace_centers=True)
    assert located.cases[0].center_mm == (5, 5, 5)
    second = write_rows(tmp_path / "second.csv", TABLE, ["P1", 1, 2, 3, "RAS"], ["P1", 5, 5, 5, "RAS"])
    with pytest.raises(UsageError, match="1 cases have a centre already"):
        locate(inputs_of(root, case), [second])


def test_ids_that_would_stand_twice_are_refused(root, scans, tmp_path):
    one, two = cases_of(root, "P1", "P2")
    two = replace(two, case_id="P1#1")
    rows = (["P1", 1, 2, 3, "RAS"], ["P1", 5, 5, 5, "RAS"])
    table = write_rows(tmp_path / "t.csv", TABLE, *rows, ["P1#1", 9, 9, 9, "RAS"])
    with pytest.raises(TableError, match="'P1#1' would stand twice") as caught:
        locate(inputs_of(root, one, two), [table])
    assert caught.value.code is Code.E_CASE_ID


def test_a_row_whose_case_and_image_disagree_is_refused(root, scans, tmp_path):
    cases = cases_of(root, "P1", "P2")
    table = write_rows(tmp_path / "t.csv", ("case_id", "image", *TABLE[1:]), ["P1", "P2/CT", 1, 2, 3, "RAS"])
    assert codes(locate(inputs_of(root, *cases), [table])) == {"P1": "E_CASE_ID", "P2": "E_CENTER_MISSING"}


def test_a_row_of_its_own_diameter_keeps_it_for_one_lesion_and_not_for_two(root, scans, tmp_path):
    (case,) = cases_of(root, "P1", extra={"diameter_mm": "33"})
    one = write_rows(tmp_path / "one.csv", TABLE, ["P1", 1, 2, 3, "RAS"])
    two = write_rows(tmp_path / "two.csv", TABLE, ["P1", 1, 2, 3, "RAS"], ["P1", 9, 9, 9, "RAS"])
    assert [row.extra["diameter_mm"] for row in locate(inputs_of(root, case), [one]).cases] == ["33"]
    assert [row.extra["diameter_mm"] for row in locate(inputs_of(root, case), [two]).cases] == ["", ""]


def test_in_a_searched_folder_annotations_are_no_scans(root, scans):
    write_mask(scans[0], root / "n.nii.gz", (scans[0].mask * 700 - 300).astype(np.int16))  # a scan of its own
    write_mask(scans[0], root / "n_mask.nii.gz")
    write_segmentation(scans[1], root / "P2" / "SEG" / "1.dcm")
    write_structure_set(scans[1], root / "P2" / "CT" / "rt.dcm", [("n", "POINT", [scans[1].lps([9, 9, 9])])])
    inputs = read_inputs(root)
    located = locate(inputs, [root])
    series = {
        name: f"{name}/CT#{sha256_bytes(scan.series.encode())[:8]}"
        for name, scan in zip(("P1", "P2"), scans, strict=True)
    }
    assert codes(located) == {
        series["P1"]: "E_CENTER_MISSING", f"{series['P2']}#1": None, f"{series['P2']}#2": None, "n.nii.gz": None,
    }  # fmt: skip
    again = located_inputs(inputs, located)
    assert [case.case_id for case in again.cases()] == [case.case_id for case in again.cases()] == list(codes(located))
    assert again.total == 4


def test_rows_of_lesions_that_an_annotation_marks_no_more_are_superseded():
    cases = [Case(name, name, None) for name in ("a#1", "a#2", "P#1a2b3c4d", "b")]
    inputs = Inputs(lambda _: cases, "folder")
    gone = {"a", "b#1", "c", "P#12345678", "P#1a2b3c4d#1"}
    assert superseded(gone, inputs) == {"a", "b#1", "P#1a2b3c4d#1"}
    assert superseded((), inputs) == frozenset()


def test_what_was_found_is_said_by_format_with_three_examples(root, scans, tmp_path):
    cases = cases_of(root, "P1", "P2", label=1)
    write_segmentation(scans[0], tmp_path / "a" / "seg.dcm", [ellipsoid(), ellipsoid((12, 30, 6))])
    rows = [[f"X{number}", 1, 2, 3, "RAS"] for number in range(5)]
    write_rows(tmp_path / "a" / "t.csv", TABLE, *rows)
    located = locate(inputs_of(root, *cases), [tmp_path / "a"])
    lines = list(report_lines(located))
    assert lines[0] == "dicom-seg: 2 lesions in 1 file"
    assert lines[1] == "table: 5 lesions in 1 file"
    assert lines[2] == "5 annotations without an image here, the first 3:"
    assert lines[6] == "1 image without a lesion:"
    assert lines[7] == "  P2"
    assert lines[8].startswith("2 lesions have the label of their row, which has several (1 row)")


def test_a_missing_source_is_wrong_usage(root, scans):
    with pytest.raises(UsageError, match=r"none\.csv: no such file"):
        locate(inputs_of(root, *cases_of(root, "P1")), [root / "none.csv"])


def test_an_index_answers_for_images_that_cannot_be_opened(tmp_path):
    index = ImageIndex(
        [Case("a", "gone/CT", tmp_path / "gone" / "CT"), Case("b", "../out", tmp_path / ".." / "out")], root=tmp_path
    )
    assert [image.series for image in index.images] == [None, None]
    found = index.resolve(ImageReference(case_id="a", series="1.2.3"), dedicated=True)
    assert (found.case.case_id, found.error) == ("a", None)
    remote = ImageIndex([Case("a", "s3://b/a", tmp_path / "a", url="s3://b/a")])
    assert remote.images[0].series is None
    assert remote.resolve(ImageReference(), dedicated=True).case is None
    assert remote.resolve(ImageReference(), dedicated=False).error[0] is Code.E_NOT_FOUND


def test_a_diameter_of_a_report_that_no_lesion_has_is_refused(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    segmentation = write_segmentation(scans[0], tmp_path / "seg.dcm")
    group = planar_group(scans[0], None, diameter_mm=-7.5, referenced_segment=segment_of(scans[0], segmentation))
    write_report(scans[0], tmp_path / "sr.dcm", [group], evidence=[segmentation])
    located = locate(inputs_of(root, case), [tmp_path / "seg.dcm", tmp_path / "sr.dcm"])
    assert codes(located) == {"P1#1": None, "P1#2": "E_CENTER"}


def test_images_behind_a_url_go_by_id_and_name(root, scans, tmp_path):
    write_rows(root / "manifest.csv", ("case_id", "image"), ["a", "P1/CT"], ["b", "P2/CT"])
    table = write_rows(tmp_path / "t.csv", TABLE, ["b", 1, 2, 3, "RAS"])
    located = locate(read_inputs(bucket_url(root / "manifest.csv")), [table])
    assert codes(located) == {"a": "E_CENTER_MISSING", "b": None}
    write_structure_set(scans[0], tmp_path / "rt.dcm")
    located = locate(read_inputs(bucket_url(root / "manifest.csv")), [tmp_path / "rt.dcm"])
    assert [refused.error.code for refused in located.match.homeless] == [Code.E_MIXED_SERIES]


def test_one_of_several_series_in_a_folder_is_an_image_of_its_own(tmp_path):
    scans = [write_scan(tmp_path / "both" / str(seed), AXIAL, seed=seed) for seed in (1, 2)]
    codes_of = [sha256_bytes(scan.series.encode())[:8] for scan in scans]
    cases = [Case(code, f"both#{code}", tmp_path / "both", part=code) for code in codes_of]
    write_segmentation(scans[1], tmp_path / "annotations" / "seg.dcm")
    write_structure_set(scans[0], tmp_path / "annotations" / "rt.dcm")
    located = locate(inputs_of(tmp_path, *cases), [tmp_path / "annotations"])
    assert {lesion.case.case_id: lesion.lesion.format for lesion in located.lesions} == {
        codes_of[0]: "rtstruct", codes_of[1]: "dicom-seg",
    }  # fmt: skip


def test_masks_of_organs_are_left_out_and_taken_by_label(root, scans, tmp_path):
    cases = cases_of(root, "P1", "P2")
    for name, scan in zip(("P1", "P2"), scans, strict=True):
        write_mask(scan, root / "lung-masks" / f"{name}.nii.gz")
    located = locate(inputs_of(root, *cases), [root / "lung-masks"])
    assert codes(located) == {"P1": "E_CENTER_MISSING", "P2": "E_CENTER_MISSING"}
    assert located.match.notes == ("left out 2 masks of organs by name (lung); --only takes them by label",)
    located = locate(inputs_of(root, *cases), [root / "lung-masks"], options=ReadingOptions(only=frozenset({1})))
    assert codes(located) == {"P1": None, "P2": None}


def test_in_a_folder_a_case_id_may_be_the_name_of_the_scan(root, scans, tmp_path):
    write_mask(scans[0], root / "Bilder" / "0012.nii.gz", (scans[0].mask * 700 - 300).astype(np.int16))
    table = write_rows(tmp_path / "t.csv", TABLE, ["0012", 1, 2, 3, "RAS"])
    assert codes(locate(read_inputs(root), [table]))["Bilder/0012.nii.gz"] is None


def test_a_fault_of_ours_costs_one_file_and_not_the_others(root, scans, monkeypatch):
    cases = cases_of(root, "P1", "P2")
    for name, scan in zip(("P1", "P2"), scans, strict=True):
        write_mask(scan, root / name / "CT_mask.nii.gz")
    read = collect.read_lesions

    def broken(path, **options):
        if path.parent.name == "P1":
            raise ZeroDivisionError("CANARY")
        return read(path, **options)

    monkeypatch.setattr(collect, "read_lesions", broken)
    located = locate(inputs_of(root, *cases), [root])
    assert codes(located) == {"P1": "E_INTERNAL", "P2": None}
    assert "ZeroDivisionError inside the program" in located.cases[0].fault.reason
    assert "CANARY" not in str(located.cases[0].fault)


def test_options_reach_the_readers(root, scans, tmp_path):
    (case,) = cases_of(root, "P1")
    path = write_rows(tmp_path / "t.csv", ("case_id", "x", "y", "z"), ["P1", 1, 2, 3])
    assert codes(locate(inputs_of(root, case), [path])) == {"P1": "E_CENTER"}
    located = locate(inputs_of(root, case), [path], options=ReadingOptions(system="LPS"))
    assert located.cases[0].center_mm == (-1, -2, 3)
