"""Centres in the wrong one of RAS and LPS, seen from the headers."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from lesion_files import AXIAL, write_scan

from pipeline.cases.case import Case
from pipeline.cases.lesions.sign_trap import swapped_signs

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
AFFINE[:3, 3] = (20, -90, 5)  # x from 20 to 58, y from -90 to -52: right and posterior alone


@pytest.fixture
def cases(tmp_path):
    found = []
    for number in range(4):
        path = tmp_path / f"{number}.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros((20, 20, 10), np.int16), AFFINE), path)
        found.append((f"c{number}", path))
    return found


def at(cases, *centers):
    return [Case(name, path.name, path, center_mm=center) for (name, path), center in zip(cases, centers, strict=False)]


RIGHT, TURNED, NOWHERE = (30.0, -60.0, 10.0), (-30.0, 60.0, 10.0), (0.0, 0.0, 500.0)


def test_right_centres_are_no_trap(cases, tmp_path):
    assert swapped_signs(at(cases, RIGHT, RIGHT), root=tmp_path) is None
    assert swapped_signs([], root=tmp_path) is None


def test_centres_that_all_lie_in_their_image_after_a_change_of_sign_are_said_in_one_line(cases, tmp_path):
    line = swapped_signs(at(cases, TURNED, TURNED, TURNED), root=tmp_path)
    assert line.startswith("3 of 3 lesion centres lie in their image only after x and y change sign (first: 'c0'):")
    assert "change RAS to LPS, or LPS to RAS" in line
    assert "\n" not in line


def test_one_case_alone_is_enough_and_one_right_one_speaks_against_it(cases, tmp_path):
    assert swapped_signs(at(cases, TURNED), root=tmp_path).startswith("the only lesion centre lies")
    assert swapped_signs(at(cases, TURNED, TURNED, RIGHT), root=tmp_path) is None


def test_centres_for_which_the_sign_makes_no_difference_do_not_hide_it(cases, tmp_path):
    line = swapped_signs(at(cases, TURNED, NOWHERE, TURNED), root=tmp_path)
    assert "2 of 3 lesion centres" in line
    assert "none of them as given" in line


def test_near_the_middle_nothing_can_be_said(tmp_path):
    path = tmp_path / "m.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 10), np.int16), np.diag([-1.0, 1, 1, 1]) @ np.eye(4)), path)
    assert swapped_signs([Case("m", path.name, path, center_mm=(0.0, 0.0, 4.0))], root=tmp_path) is None


def test_series_and_unreadable_images_count_as_they_can(cases, tmp_path):
    scan = write_scan(tmp_path / "ct", AXIAL)
    x, y, z = scan.center_mm
    series = Case("s", "ct", scan.folder, center_mm=(-x, -y, z))
    lost = Case("l", "gone.nii", tmp_path / "gone.nii", center_mm=RIGHT)
    assert swapped_signs([lost, series], root=tmp_path).startswith("the only lesion centre")
    assert swapped_signs([lost], root=tmp_path) is None


def test_no_voxel_is_read(cases, tmp_path, monkeypatch):
    monkeypatch.delattr("pipeline.imaging.nifti.scan.NiftiScan.read")
    assert swapped_signs(at(cases, TURNED, TURNED), root=tmp_path)
