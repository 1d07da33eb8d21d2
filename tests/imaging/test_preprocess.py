"""One function from path to network input: its promises as a whole."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import AFFINE, CENTER_MM, LESION, lesion, phantom, save

from pipeline.config.inputs import Preprocessing
from pipeline.errors import CaseError
from pipeline.files import sha256_file
from pipeline.imaging.preprocess import ScanRequest, preprocess

ZSCORE = {"scaling": "zscore", "lower": None, "upper": None}
RANGE = {"scaling": "range", "lower": None, "upper": None}


def test_input_is_ready_for_the_network(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", phantom())
    found = lesion(path)
    assert found.voxels.shape == (1, 12, 12, 12)
    assert found.voxels.dtype == np.float32
    assert found.voxels.flags.c_contiguous
    assert type(found.voxels) is np.ndarray
    assert 0 <= found.voxels.min() < found.voxels.max() <= 1
    assert found.scan.digest == sha256_file(path)
    assert (found.scan.shape, found.scan.spacing_mm, found.scan.orientation, found.scan.modality) == (
        (24, 20, 16),
        (1.5, 1.5, 2.0),
        "RAS",
        "CT",
    )


def test_measures_are_of_the_region_before_scaling(tmp_path: Path) -> None:
    found = lesion(save(tmp_path / "a.nii.gz", phantom()))
    assert found.measures["intensity_q01"] < -800
    assert 60 < found.measures["intensity_q99"] < 120
    assert 0.6 < found.measures["air_fraction"] + found.measures["tissue_fraction"] <= 1
    assert found.measures["spacing_in_plane_mm"] == pytest.approx(1.5)
    assert found.measures["spacing_slice_mm"] == pytest.approx(2.0)
    assert all(type(value) is float for value in found.measures.values())


def test_scaling_is_the_configurations(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", phantom())
    zscore = lesion(path, intensity=ZSCORE).voxels
    assert zscore.mean() == pytest.approx(0, abs=1e-5)
    assert zscore.std() == pytest.approx(1, abs=1e-5)
    stretched = lesion(path, intensity=RANGE).voxels
    assert (stretched.min(), stretched.max()) == (0, 1)


def test_the_same_bits_every_time_in_every_thread(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{seed}.nii.gz", phantom(seed)) for seed in range(4)] * 4
    alone = [lesion(path).voxels.tobytes() for path in paths]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda path: lesion(path).voxels.tobytes(), paths)) == alone


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = save(tmp_path / "a.nii", phantom())
    inside = save(root / "b.nii", phantom())
    (root / "out.nii").symlink_to(outside)
    (root / "in.nii").symlink_to(inside)
    (root / "up").symlink_to(tmp_path)
    reference = preprocess(ScanRequest(inside, CENTER_MM, root), LESION, modality="CT").voxels
    linked = preprocess(ScanRequest(root / "in.nii", CENTER_MM, root), LESION, modality="CT").voxels
    np.testing.assert_array_equal(linked, reference)
    for path in (outside, root / "out.nii", root / ".." / "a.nii", root / "up" / "a.nii", Path("/dev/zero")):
        with pytest.raises(CaseError, match="E_OUTSIDE_ROOT"):
            preprocess(ScanRequest(path, CENTER_MM, root), LESION, modality="CT")
    (root / "loop.nii").symlink_to(root / "loop.nii")
    for path in (root / "none.nii", root / "loop.nii", root / "a\0.nii"):
        with pytest.raises(CaseError, match="E_NOT_FOUND"):
            preprocess(ScanRequest(path, CENTER_MM, root), LESION, modality="CT")


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii.gz")
    with pytest.raises(CaseError, match="E_NOT_REGULAR"):
        preprocess(ScanRequest(tmp_path / "a.nii.gz", CENTER_MM, tmp_path), LESION, modality="CT")


def test_errors_name_the_path_once_and_are_one_line(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", (phantom() > 0).astype(np.uint8))
    with pytest.raises(CaseError, match="E_RANGE") as caught:
        lesion(path)
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_window_that_leaves_one_value_is_refused(tmp_path: Path) -> None:
    window = {"scaling": "window", "lower": 2000.0, "upper": 3000.0}
    with pytest.raises(CaseError, match=r"E_CONSTANT.*preprocessing.intensity"):
        lesion(save(tmp_path / "a.nii", phantom()), intensity=window)


def test_range_rules_see_only_the_region(tmp_path: Path) -> None:
    voxels = phantom(0, (60, 40, 30)).astype(np.float32)
    voxels[50:] = np.nan
    center = tuple(AFFINE[:3, :3] @ (5, 13, 11) + AFFINE[:3, 3])
    assert lesion(save(tmp_path / "a.nii.gz", voxels), center).voxels.shape == (1, 12, 12, 12)
    voxels[4, 12, 10] = np.nan
    with pytest.raises(CaseError, match="E_NONFINITE"):
        lesion(save(tmp_path / "b.nii.gz", voxels), center)


def test_masks_train_without_geometry_tricks(tmp_path: Path) -> None:
    ball = (np.linalg.norm(np.indices((28, 28, 28)) - 13.5, axis=0) < 9).astype(np.uint8)
    nib.save(nib.Nifti1Image(ball, np.eye(4)), tmp_path / "a.nii.gz")
    config = Preprocessing(region="image", size=(28, 28, 28), spacing_mm=None, intensity=RANGE)
    np.testing.assert_array_equal(
        preprocess(ScanRequest(tmp_path / "a.nii.gz", None), config, modality="mask").voxels[0], ball
    )
    with pytest.raises(CaseError, match="E_RANGE"):
        preprocess(ScanRequest(tmp_path / "a.nii.gz", None), config, modality="CT")


def test_padding_values_do_not_reach_the_measures(tmp_path: Path) -> None:
    voxels = phantom()
    usual = save(tmp_path / "a.nii", np.where(voxels < -950, -1024, voxels).astype(np.int16), AFFINE)
    padded = save(tmp_path / "b.nii", np.where(voxels < -950, -3024, voxels).astype(np.int16), AFFINE)
    at_nodes = {"size": (16, 14, 10), "spacing_mm": (1.5, 1.5, 2.0)}  # on voxels, so that nothing is mixed
    assert lesion(padded, (-9.0, 0.0, 6.0), **at_nodes).measures == lesion(usual, (-9.0, 0.0, 6.0), **at_nodes).measures
