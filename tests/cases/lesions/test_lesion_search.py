"""Which files of a mixed folder are annotations."""

from __future__ import annotations

import shutil
from pathlib import Path

import openpyxl
import pytest
from lesion_files import (
    AXIAL,
    planar_group,
    region_in_space,
    write_fcsv,
    write_lidc_xml,
    write_markups,
    write_mask,
    write_report,
    write_rows,
    write_scan,
    write_segmentation,
    write_structure_set,
)

from pipeline.cases.lesions.read import lesion_format, read_lesions
from pipeline.cases.lesions.search import find_lesion_files
from pipeline.errors import CaseError, Code, TableError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as it grows: a series, its annotations in every format, and files that are neither."""
    root = tmp_path_factory.mktemp("mixed")
    scan = write_scan(root / "P1" / "CT", AXIAL)
    write_segmentation(scan, root / "P1" / "SEG" / "1.dcm")
    write_structure_set(scan, root / "P1" / "RT" / "IM1")
    write_report(
        scan, root / "P1" / "SR" / "IM1", [planar_group(scan, region_in_space(scan, "POINT", scan.lps([1, 2, 3])))]
    )
    write_markups(scan, root / "P1" / "F.mrk.json")
    write_fcsv(scan, root / "P1" / "F.fcsv")
    write_lidc_xml(scan, root / "P1" / "CT" / "069.xml")
    write_mask(scan, root / "P1" / "x_mask.nii.gz")
    write_mask(scan, root / "P1" / "scan.nii.gz")
    write_rows(root / "annotations.csv", ("seriesuid", "coordX", "coordY", "coordZ"), [scan.series, 1, 2, 3])
    write_rows(root / "centres.tsv", ("image", "x", "y", "z"), ["P1", 1, 2, 3], delimiter="\t")
    write_rows(root / "voxels.csv", ("case_id", "i", "j", "k"), ["P1", 1, 2, 3])
    book = openpyxl.Workbook()
    for row in (["Befunde"], ["case_id", "x", "y", "z", "system"], ["P1", 1, 2, 3, "RAS"]):
        book.active.append(row)
    book.save(root / "befunde.xlsx")
    write_rows(root / "gradients.csv", ("x", "y", "z"), [1, 2, 3])  # of no image
    write_rows(root / "labels.csv", ("case_id", "label"), ["P1", 1])
    write_rows(root / "made.csv", ("case_id", "image", "x", "y", "z", "lesion_source"), ["P1", "P1", 1, 2, 3, "s"])
    (root / "settings.json").write_text('{"a": 1}')
    (root / "page.xml").write_text("<html/>")
    (root / "empty.csv").write_text("")
    (root / "note.txt").write_text("hello")
    (root / ".hidden_mask.nii.gz").write_text("x")
    return root


FOUND = {
    "P1/CT/069.xml": "lidc-xml",
    "P1/F.fcsv": "fcsv",
    "P1/F.mrk.json": "slicer-markups",
    "P1/RT/IM1": "rtstruct",
    "P1/SEG/1.dcm": "dicom-seg",
    "P1/SR/IM1": "dicom-sr",
    "P1/x_mask.nii.gz": "mask",
    "annotations.csv": "luna16",
    "befunde.xlsx": "table",
    "centres.tsv": "table",
    "voxels.csv": "voxel-table",
}


def test_annotations_are_found_by_content_and_masks_by_name(folder):
    images = [(folder / "P1" / "scan.nii.gz").resolve()]
    found = find_lesion_files(folder, images=images)
    assert {file.name: file.format for file in found.files} == FOUND
    assert found.others[".dcm"] == 24
    assert found.others[".csv"] == 3
    assert found.others["(unreadable)"] == 1
    assert found.others["(hidden)"] == 1


def test_the_manifest_itself_is_no_annotation(folder):
    found = find_lesion_files(folder, leave_out=[folder / "annotations.csv"])
    assert "annotations.csv" not in {file.name for file in found.files}


def test_in_a_folder_without_scans_every_image_is_a_mask(folder, tmp_path):
    shutil.copy(folder / "P1" / "x_mask.nii.gz", tmp_path / "P1.nii.gz")
    images = [(folder / "P1" / "scan.nii.gz").resolve()]
    assert [file.format for file in find_lesion_files(tmp_path, images=images).files] == ["mask"]
    shutil.copy(folder / "P1" / "scan.nii.gz", tmp_path / "scan.nii.gz")
    images.append((tmp_path / "scan.nii.gz").resolve())
    assert find_lesion_files(tmp_path, images=images).files == ()


def test_links_that_leave_the_folder_are_not_followed(folder, tmp_path):
    (tmp_path / "x_mask.nii.gz").symlink_to(folder / "P1" / "x_mask.nii.gz")
    found = find_lesion_files(tmp_path)
    assert found.files == ()
    assert found.others["(link)"] == 1


def test_both_halves_of_a_pair_are_one_mask(tmp_path):
    for name in ("x_mask.hdr", "x_mask.img"):
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in find_lesion_files(tmp_path).files] == ["x_mask.hdr"]


def test_a_file_cannot_be_searched(folder):
    with pytest.raises(CaseError, match="expected a folder to search"):
        find_lesion_files(folder / "note.txt")


def test_a_named_file_is_read_by_its_content_whatever_its_name(folder, tmp_path):
    for number, (name, kind) in enumerate(FOUND.items()):
        suffix = Path(name).suffix if "table" in kind or kind == "luna16" else ""
        copy = tmp_path / f"{number}{suffix}"
        shutil.copy(folder / name, copy)
        assert lesion_format(copy) == kind


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("P1/CT/IM000.dcm", CaseError, Code.E_FORMAT),
        ("settings.json", CaseError, Code.E_FORMAT),
        ("page.xml", CaseError, Code.E_FORMAT),
        ("labels.csv", TableError, Code.E_LABEL_COLUMNS),
        ("empty.csv", CaseError, Code.E_EMPTY_FILE),
        ("none.csv", CaseError, Code.E_NOT_FOUND),
        ("P1", CaseError, Code.E_NOT_REGULAR),
    ],
)
def test_a_named_file_that_annotates_nothing_is_refused_in_one_line(folder, name, error, code):
    with pytest.raises(error, match=str(code)) as caught:
        read_lesions(folder / name)
    assert "\n" not in str(caught.value)
