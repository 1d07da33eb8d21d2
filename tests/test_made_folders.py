"""The made folders are readable by the programs they imitate, their lesions lie where stated, and classes separate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_folders import FEW, MAKERS, Why, write_forty_cases
from made_folders.geometry import make_grid
from made_folders.reading import around, in_units, read, separation

IN_LESION = {"CT": -450.0, "MR": 1.7, "US": -75.0, "MG": 1500.0}  # US counts down: lesions are dark
BESIDE_SCANS = {".raw", ".zraw", ".mrml", ".csv", ".tsv", ".json", ".txt", ".xlsx", ".stats", ".log"}
NAMES = pytest.mark.parametrize("name", MAKERS)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- all folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "dicom_study_tree" else ()) for name in MAKERS]
)
def test_same_seed_writes_same_bytes_and_another_seed_other_images(name, made_folder, tmp_path):
    first = made_folder(name)
    again = MAKERS[name](tmp_path / "again", cases=FEW[name])
    other = MAKERS[name](tmp_path / "other", cases=12, seed=1)
    assert digests(first.folder) == digests(again.folder)
    assert again.expected == first.expected
    scan, changed = first.expected.scans[0], other.expected.scans[0]
    assert not np.array_equal(read(first, scan)[0], read(other, changed)[0])


@NAMES
def test_every_file_is_a_scan_left_out_or_beside_scans(name, made_folder):
    folder = made_folder(name)
    told = {scan.path for scan in folder.expected.scans} | {item.path for item in folder.expected.left_out}
    for path in told:
        assert (folder.folder / path).exists(), path
    for path in folder.folder.rglob("*"):
        if path.is_file():
            place = path.relative_to(folder.folder)
            known = place.as_posix() in told or place.parent.as_posix() in told
            assert known or path.suffix in BESIDE_SCANS, place
    sources = {scan.path for scan in folder.expected.scans} | set(folder.expected.left_out_because(Why.NO_LESION))
    assert {item.of for item in folder.expected.left_out if item.of} <= sources


@NAMES
def test_scans_are_small_and_their_lesions_lie_in_them(name, made_folder):
    folder = made_folder(name)
    expected = folder.expected
    assert len(expected.scans) == (2 if name == "mammography" else 1) * FEW[name]
    for scan in expected.scans:
        values, affine = read(folder, scan)
        assert values.ndim == (2 if affine is None else 3), scan.path
        assert 24 <= min(values.shape) <= max(values.shape) <= 110, scan.path
        bright = in_units(values, expected.modality)
        for lesion in scan.lesions:
            assert (lesion.center_mm is None) == (affine is None)
            assert np.all(np.array(lesion.center_voxel) > 2)
            assert np.all(np.array(lesion.center_voxel) < np.array(values.shape) - 3)
            if affine is not None:
                world = affine @ (*lesion.center_voxel, 1)
                assert world[:3] == pytest.approx(lesion.center_mm, abs=0.01), scan.path
            inside = around(bright, lesion.center_voxel, 1).mean()
            assert inside > IN_LESION[expected.modality], scan.path
            # A lesion stands out of what is around it, also where it fills most of that.
            assert inside > np.percentile(around(bright, lesion.center_voxel, 14), 25), scan.path


@NAMES
def test_values_are_those_of_the_modality(name, made_folder):
    folder = made_folder(name)
    for scan in folder.expected.scans:
        values, _ = read(folder, scan)
        low, high = values.min(), values.max()
        if folder.expected.modality == "CT":
            assert np.all(values == np.rint(values))
            assert low == -3024 or -1024 <= low < -950
            assert 100 < high <= 3071
            assert -900 < np.median(values[values > -950]) < -750  # most of the body shown is lung
        elif folder.expected.modality == "MR":
            assert low >= 0
            assert 80 < high < 8000
        else:
            assert low >= 0
            assert high <= (255 if folder.expected.modality == "US" else 4095)


@NAMES
def test_half_of_the_patients_are_malignant_and_some_come_twice(name, made_folder):
    expected = made_folder(name).expected
    labels = [scan.malignant for scan in expected.labelled]
    assert 0.3 <= np.mean(labels) <= 0.65
    assert (expected.patients is None) == (name in {"busi_tree", "forty_cases"})
    if name not in {"busi_tree", "forty_cases", "luna16_like"}:
        assert expected.patients < len(expected.scans)
    assert len(expected.stated_lesions) > len(expected.scans) or expected.region == "image"


@NAMES
def test_size_and_brightness_separate_the_classes(name, made_folder):
    assert separation(made_folder(name)) >= (0.97 if name == "forty_cases" else 0.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MAKERS))
def test_folder_of_default_size_is_below_40_mb_and_separable(name, write_made_folder, tmp_path):
    folder = write_made_folder(name, tmp_path / name)
    assert 40 <= len(folder.expected.scans) <= 96
    assert sum(path.stat().st_size for path in folder.folder.rglob("*") if path.is_file()) < 40e6
    assert separation(folder) >= (0.97 if name == "forty_cases" else 0.9)


def test_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write_forty_cases(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_too_few_cases_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cases: 11 is below 12"):
        write_forty_cases(tmp_path, cases=11)


def test_grid_axes_are_what_nibabel_calls_them():
    for axes in ("LAS", "LPS", "RAS", "LIA"):
        grid = make_grid((5, 6, 7), (1.0, 2.0, 3.0), center_mm=(1, 2, 3), axes=axes)
        assert "".join(nib.aff2axcodes(grid.affine)) == axes
        assert grid.center_mm == pytest.approx((1, 2, 3))
        assert grid.to_voxel(grid.to_mm((1, 2, 3))) == pytest.approx((1, 2, 3))
