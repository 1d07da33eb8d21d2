"""Masks: components or values, specks, grey levels, and whether the mask lies on its image."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from lesion_files import SHAPE, ellipsoid, rotation, write_mask, write_scan
from PIL import Image

from pipeline.cases.lesions.files.mask import read_mask
from pipeline.cases.lesions.grids import grid_disagreement
from pipeline.cases.lesions.lesion import ReadingOptions, VoxelGrid
from pipeline.errors import CaseError, Code

AFFINE = np.array([[0.8, 0, 0, -20], [0, 0.9, 0, 7], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def save(path, labels, affine=AFFINE):
    nib.save(nib.Nifti1Image(labels, affine, dtype=labels.dtype), path)
    return path


def three_blobs(values=(1, 1, 1)):
    """Three blobs, the second touching no other; and where their centres lie, RAS mm."""
    labels = np.zeros((30, 28, 12), np.uint8)
    places = [(6, 6, 3), (20, 9, 5), (12, 20, 8)]
    for value, (i, j, k) in zip(values, places, strict=True):
        labels[i - 2 : i + 3, j - 1 : j + 2, k - 1 : k + 2] = value
    return labels, [tuple(np.round(AFFINE[:3] @ [*place, 1], 3)) for place in places]


def centers(found):
    return [lesion.center_mm for lesion in found.lesions]


def test_of_a_binary_mask_each_component_is_a_lesion(tmp_path):
    labels, expected = three_blobs()
    found = read_mask(save(tmp_path / "m.nii.gz", labels))
    assert sorted(centers(found)) == sorted(expected)
    assert [lesion.name for lesion in found.lesions] == ["1.1", "1.2", "1.3"]
    assert found.lesions[0].diameter_mm == pytest.approx(np.hypot(4 * 0.8 + 0.8, 2 * 0.9), abs=1e-3)


def test_voxels_that_touch_by_a_corner_are_one_component(tmp_path):
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2:4, 2:4, 2:4], labels[4:6, 4:6, 4:6] = 1, 1
    assert len(read_mask(save(tmp_path / "m.nii.gz", labels)).lesions) == 1
    labels[4, 4, 4] = 0
    assert len(read_mask(save(tmp_path / "m.nii.gz", labels)).lesions) == 2


def test_of_a_label_map_each_value_is_a_lesion_and_pieces_are_said(tmp_path):
    labels, expected = three_blobs((1, 7, 7))
    path = save(tmp_path / "m.nii.gz", labels)
    found = read_mask(path)
    assert [lesion.name for lesion in found.lesions] == ["1", "7"]
    assert found.lesions[1].center_mm == pytest.approx(np.mean(expected[1:], 0), abs=1e-3)
    assert "1 of 2 labels lie in several pieces and count as one lesion each" in found.notes[0]
    split = read_mask(path, ReadingOptions(labels="components"))
    assert [lesion.name for lesion in split.lesions] == ["1", "7.1", "7.2"]
    assert sorted(centers(split)) == sorted(expected)
    assert not split.notes


def test_one_value_of_several_can_be_the_lesion_and_its_components_count(tmp_path):
    labels, expected = three_blobs((2, 1, 2))  # 1 the organ, 2 its lesions, as in many challenges
    path = save(tmp_path / "m.nii.gz", labels)
    found = read_mask(path, ReadingOptions(only=frozenset({2})))
    assert centers(found) == [expected[0], expected[2]]
    (refused,) = read_mask(path, ReadingOptions(only=frozenset({3}))).refused
    assert refused.error.code is Code.E_CENTER_MISSING
    assert "labels 1, 2, and none that --only asks for" in refused.error.reason


def test_the_centre_does_not_depend_on_how_the_mask_is_stored(tmp_path):
    scan = write_scan(tmp_path / "ct", rotation(12, 5))
    plain = read_mask(save(tmp_path / "p.nii.gz", scan.mask.astype(np.uint8), scan.affine)).lesions[0]
    turned = read_mask(write_mask(scan, tmp_path / "t.nii.gz")).lesions[0]
    assert plain.center_mm == turned.center_mm == pytest.approx(scan.center_mm, abs=5e-4)
    assert plain.diameter_mm == turned.diameter_mm


def test_specks_are_left_out_and_said(tmp_path):
    labels, expected = three_blobs()
    labels[1, 25, 1] = labels[2, 25, 1] = 1
    labels[27, 2, 10] = 1
    found = read_mask(save(tmp_path / "m.nii.gz", labels))
    assert sorted(centers(found)) == sorted(expected)
    assert "left out 2 specks of fewer than 3 voxels or 1 mm3" in found.notes[0]


def test_a_mask_of_nothing_but_specks_and_an_empty_one_are_refused(tmp_path):
    labels = np.zeros((10, 10, 10), np.uint8)
    (refused,) = read_mask(save(tmp_path / "m.nii.gz", labels)).refused
    assert refused.error.code is Code.E_CENTER_MISSING
    assert "marks no voxel" in refused.error.reason
    labels[3, 3, 3] = 1
    (refused,) = read_mask(save(tmp_path / "m.nii.gz", labels)).refused
    assert "nothing but 1 speck of" in refused.error.reason
    fine = np.diag([0.05, 0.05, 0.05, 1])  # 64 voxels, and far below a cubic millimetre
    labels[3:7, 3:7, 3:7] = 1
    assert read_mask(save(tmp_path / "m.nii.gz", labels, fine)).refused


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.linspace(0, 1, 1000).reshape(10, 10, 10).astype(np.float32), "holds fractions"),
        (np.arange(-500, 500).reshape(10, 10, 10).astype(np.int16), "holds values from -500 to 499, as a scan does"),
        (np.arange(1000).reshape(10, 10, 10).astype(np.int16), "holds 999 different values"),
        (np.full((10, 10, 10), 3, np.uint8), "no background"),
        (np.arange(1000).reshape(10, 10, 10).astype(np.float64) * 1e6, "as a scan does"),
        ((np.arange(1000) % 5 * 63.75).reshape(10, 10, 10).round().astype(np.uint8), "4 grey levels up to 255"),
    ],
)
def test_what_is_no_label_map_is_refused_and_not_read_as_lesions(tmp_path, values, says):
    with pytest.raises(CaseError, match=says) as caught:
        read_mask(save(tmp_path / "m.nii.gz", values))
    assert caught.value.code is Code.E_RANGE


def test_a_probability_map_is_read_from_the_threshold_that_is_asked_for(tmp_path):
    labels, expected = three_blobs()
    map_ = labels * 0.8 + 0.1
    path = save(tmp_path / "m.nii.gz", map_.astype(np.float32))
    assert sorted(centers(read_mask(path, ReadingOptions(threshold=0.5)))) == sorted(expected)
    at_threshold = save(tmp_path / "half.nii.gz", ((labels > 0) * 0.5).astype(np.float32))
    assert sorted(centers(read_mask(at_threshold, ReadingOptions(threshold=0.5)))) == sorted(expected)
    with pytest.raises(CaseError, match=r"every voxel is at or above --threshold 0\.05"):
        read_mask(path, ReadingOptions(threshold=0.05))


def test_grey_levels_up_to_255_are_labels_when_that_is_said(tmp_path):
    labels, expected = three_blobs((127, 255, 127))
    path = save(tmp_path / "m.nii.gz", labels)
    with pytest.raises(CaseError, match="2 grey levels up to 255"):
        read_mask(path)
    found = read_mask(path, ReadingOptions(labels="values"))
    assert [lesion.name for lesion in found.lesions] == ["127", "255"]
    assert found.lesions[1].center_mm == expected[1]


def test_a_mask_that_went_through_jpeg_is_no_label_map(tmp_path):
    pixels = np.zeros((64, 96), np.uint8)
    pixels[13:35, 31:66] = 255
    Image.fromarray(pixels).save(tmp_path / "m.jpg", quality=60)
    with pytest.raises(CaseError, match="grey levels up to") as caught:
        read_mask(tmp_path / "m.jpg")
    assert caught.value.code is Code.E_RANGE
    (lesion,) = read_mask(tmp_path / "m.jpg", ReadingOptions(threshold=128)).lesions
    assert lesion.center_mm == (-48.0, -23.5, 0.0)


def test_many_labels_counted_from_one_are_labels(tmp_path):
    labels = np.zeros((45, 45, 24), np.uint8)
    for number in range(200):
        i, j = divmod(number % 100, 10)
        labels[4 * i : 4 * i + 3, 4 * j : 4 * j + 3, 12 * (number // 100)] = number + 1
    assert len(read_mask(save(tmp_path / "m.nii.gz", labels)).lesions) == 200


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd", "nii"])
def test_masks_in_other_formats_have_the_same_lesion(tmp_path, suffix):
    scan = write_scan(tmp_path / "ct", rotation(12, 5))
    image = SimpleITK.GetImageFromArray(scan.mask.astype(np.uint8).transpose(2, 1, 0))
    directions = np.diag([-1.0, -1, 1]) @ scan.affine[:3, :3]  # LPS, as ITK has it
    image.SetSpacing(np.linalg.norm(directions, axis=0).tolist())
    image.SetDirection((directions / np.linalg.norm(directions, axis=0)).ravel().tolist())
    image.SetOrigin((scan.affine[:3, 3] * [-1, -1, 1]).tolist())
    SimpleITK.WriteImage(image, str(tmp_path / f"m.{suffix}"))
    (lesion,) = read_mask(tmp_path / f"m.{suffix}").lesions
    assert lesion.center_mm == pytest.approx(scan.center_mm, abs=1e-3)


def test_masks_are_pictures_too_without_millimetres(tmp_path):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[10:15, 30:41] = 255
    Image.fromarray(pixels).save(tmp_path / "m.png")
    (lesion,) = read_mask(tmp_path / "m.png").lesions
    assert lesion.center_mm == (-35.0, -12.0, 0.0)  # columns run to the left, rows to posterior
    assert lesion.diameter_mm is None


def test_a_damaged_mask_has_the_code_of_its_reader(tmp_path):
    path = save(tmp_path / "m.nii.gz", three_blobs()[0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CaseError, match="ends early") as caught:
        read_mask(path)
    assert caught.value.code is Code.E_TRUNCATED


def grid(affine=AFFINE, shape=(30, 28, 12), **more):
    return VoxelGrid(shape, np.asarray(affine, float), **more)


def moved(*by):
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


def test_the_same_grid_in_another_storage_order_is_no_disagreement():
    turn = np.array([[0, 0, -1, 29], [1, 0, 0, 0], [0, -1, 0, 11], [0, 0, 0, 1.0]])
    assert grid_disagreement(grid(AFFINE @ turn, (28, 12, 30)), grid()) is None
    assert grid_disagreement(grid(moved(0.04, 0, 0)), grid()) is None  # rounding of a converter


@pytest.mark.parametrize("by", [(3.0, 0, 0), (0, -0.2, 0), (0, 0, 2.5)])
def test_a_mask_of_the_same_size_elsewhere_is_refused(by):
    assert "lies up to" in grid_disagreement(grid(moved(*by)), grid())


def test_a_mirrored_or_identity_affine_is_refused():
    assert "lies up to" in grid_disagreement(grid(np.diag([-1, -1, 1, 1]) @ AFFINE), grid())
    assert "lies up to" in grid_disagreement(grid(np.eye(4)), grid())


def test_a_part_of_the_image_or_another_resolution_of_it_is_no_disagreement():
    part = grid(AFFINE @ np.array([[1, 0, 0, 5], [0, 1, 0, 4], [0, 0, 1, 2], [0, 0, 0, 1.0]]), (10, 9, 6))
    assert grid_disagreement(part, grid()) is None
    halved = AFFINE @ np.diag([0.5, 0.5, 1, 1.0])
    halved[:3, 3] -= AFFINE[:3, :3] @ [0.25, 0.25, 0]
    assert grid_disagreement(grid(halved, (60, 56, 12)), grid()) is None
    beyond = AFFINE @ np.array([[1, 0, 0, 25], [0, 1, 0, 4], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    assert "reaches 5 voxels beyond" in grid_disagreement(grid(beyond, (10, 9, 6)), grid())


def test_pictures_agree_by_their_size_alone():
    flat = {"affine": np.diag([-1, -1, 1, 1]), "has_millimetres": False}
    assert grid_disagreement(grid(shape=(64, 48, 1), **flat), grid(shape=(64, 48, 1), **flat)) is None
    assert "64 x 32 x 1 voxels" in grid_disagreement(grid(shape=(64, 32, 1), **flat), grid(shape=(64, 48, 1), **flat))
    assert grid_disagreement(grid(shape=(64, 48, 1), **flat), grid(shape=(64, 48, 1))) is not None


def test_the_made_lesion_is_where_the_tests_think_it_is():
    assert np.argwhere(ellipsoid()).mean(0) == pytest.approx([30, 17, 14])
    assert SHAPE == (48, 44, 24)
