"""The tables of whole scans and of the lesions in them."""

from __future__ import annotations

import pytest

from pipeline.cases.scan_table import is_ignored, lesion_diameter_mm, lesion_flag, read_scan_table
from pipeline.errors import TableError, UsageError

SCANS = "case_id,image,patient_id,label,split\na,scans/a.nii.gz,p1,1,test\nb,scans/b.nii.gz,p2,0,train\n"
HEADER = "case_id,patient_id,image,label,center_x_mm,center_y_mm,center_z_mm,coordinate_system,diameter_mm,ignore,solid"
LESION = "l1,p1,scans/a.nii.gz,1,1,2,3,LPS,8.5,0,1"


def write(folder, scans=SCANS, *lesions):
    (folder / "scans.csv").write_text(scans)
    (folder / "lesions.csv").write_text("\n".join([HEADER, *(lesions or (LESION,))]) + "\n")
    return folder / "scans.csv"


def test_lesions_come_with_their_scan_and_a_scan_without_has_none(tmp_path):
    table = read_scan_table(write(tmp_path, SCANS, LESION, "l2,p1,./scans/a.nii.gz,,4,5,6,RAS,,1,"))
    assert [lesion.case_id for lesion in table.lesions_of["a"]] == ["l1", "l2"]
    assert table.lesions_of["b"] == ()
    first, second = table.lesions_of["a"]
    assert (first.center_mm, lesion_diameter_mm(first), is_ignored(first)) == ((-1, -2, 3), 8.5, False)
    assert (lesion_diameter_mm(second), is_ignored(second)) == (None, True)
    assert (lesion_flag(first, "solid"), lesion_flag(second, "solid"), lesion_flag(first, "calcified")) == (
        True,
        None,
        None,
    )


def test_unlabelled_scans_are_no_fault(tmp_path):
    table = read_scan_table(write(tmp_path, "case_id,image,patient_id\na,scans/a.nii.gz,p1\n"))
    assert table.scans.cases[0].label is None


@pytest.mark.parametrize(
    ("lesion", "message"),
    [
        ("l1,p1,scans/a.nii.gz,1,,,,,8.5,0,1", "lesion 'l1' has no centre"),
        ("l1,p1,scans/a.nii.gz,1,1,2,x,RAS,8.5,0,1", "lesion 'l1': lesion centre"),
        ("l1,p1,scans/a.nii.gz,1,1,2,3,RAS,-1,0,1", "diameter_mm is '-1'; expected mm above 0"),
        ("l1,p1,scans/a.nii.gz,1,1,2,3,RAS,large,0,1", "diameter_mm is 'large'"),
        ("l1,p1,scans/a.nii.gz,1,1,2,3,RAS,8,perhaps,1", "ignore is 'perhaps'; expected 1, 0 or blank"),
        ("l1,p1,scans/c.nii.gz,1,1,2,3,RAS,8,0,1", "'scans/c.nii.gz', which scans.csv does not name"),
        ("l1,p2,scans/a.nii.gz,1,1,2,3,RAS,8,0,1", "has another patient_id than its scan"),
    ],
)
def test_lesions_that_cannot_be_meant_are_refused(tmp_path, lesion, message):
    with pytest.raises(TableError, match=message):
        read_scan_table(write(tmp_path, SCANS, lesion))


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        (SCANS.replace(",p2,", ",p1,"), r"patient is in several splits"),
        (SCANS.replace(",p1,", ",,"), "has no patient_id"),
        (SCANS.replace("b.nii.gz", "a.nii.gz"), "stands 2 times; expected a row a scan"),
        (SCANS.replace(",train", ",training"), "did you mean 'train'"),
    ],
)
def test_scans_that_cannot_be_meant_are_refused(tmp_path, scans, message):
    with pytest.raises(TableError, match=message):
        read_scan_table(write(tmp_path, scans))


def test_missing_table_of_lesions_is_wrong_usage(tmp_path):
    path = write(tmp_path)
    (tmp_path / "lesions.csv").unlink()
    with pytest.raises(UsageError, match=r"has no lesions\.csv beside it"):
        read_scan_table(path)
