"""A whole scan on a detector's grid: fine voxels are averaged, and nothing moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.imaging.decoded import DecodedScan
from pipeline.imaging.whole_scans.resampled import average_fine_axes, resample_whole


def test_noise_of_fine_voxels_is_averaged_and_their_mean_stays():
    noise = np.random.default_rng(0).normal(40, 20, (60, 60, 40)).astype(np.float32)
    smooth = average_fine_axes(noise, (0.7, 0.7, 2.5), 1.5)
    assert smooth.dtype == np.float32
    assert smooth.std() == pytest.approx(0.53 * 20, rel=0.03)
    assert smooth.mean() == pytest.approx(noise.mean(), abs=0.1)


def test_a_lesion_stays_where_it_is_and_keeps_what_it_holds():
    voxels = np.zeros((30, 30, 30), np.float32)
    voxels[9:12, 14:19, 20:22] = 100
    smooth = average_fine_axes(voxels, (0.5, 0.6, 0.7), 1.5)
    assert smooth.sum() == pytest.approx(voxels.sum(), rel=1e-5)
    for axis, centre in enumerate((10, 16, 20.5)):
        others = tuple(other for other in range(3) if other != axis)
        profile = smooth.sum(axis=others)
        assert (profile * np.arange(30)).sum() / profile.sum() == pytest.approx(centre, abs=1e-4)


def test_only_the_fine_axis_is_smoothed():
    voxels = np.zeros((20, 20, 20), np.float32)
    voxels[10, 10, 10] = 1
    smooth = average_fine_axes(voxels, (2.0, 0.5, 1.5), 1.5)
    assert set(zip(*np.nonzero(smooth), strict=True)) == {(10, column, 10) for column in range(7, 14)}


def test_coarse_voxels_are_handed_back_and_a_view_is_never_written_to():
    voxels = np.random.default_rng(1).normal(size=(12, 12, 12)).astype(np.float32)
    assert average_fine_axes(voxels, (1.5, 1.6, 3.0), 1.5) is voxels
    before = voxels.copy()
    average_fine_axes(voxels, (0.5, 0.5, 0.5), 1.5)
    np.testing.assert_array_equal(voxels, before)


def test_one_slice_has_no_neighbours():
    voxels = np.ones((12, 12, 1), np.float32)
    np.testing.assert_allclose(average_fine_axes(voxels, (0.5, 0.5, 0.5), 1.5), 1)


def test_a_scan_of_fine_noisy_voxels_reaches_the_grid_with_less_noise_and_is_left_as_it_was():
    noise = np.random.default_rng(0).normal(-300, 100, (80, 80, 60)).astype(np.float32)
    before, path = noise.copy(), Path("scan.nii.gz")
    affine = np.diag([0.7, 0.7, 1.5, 1.0])
    scan = DecodedScan(path, noise.shape, noise, affine, "CT", (), True, "CHEST", "0" * 64)  # noqa: FBT003
    voxels, _ = resample_whole(scan, path, spacing=1.5, window=(-1000.0, 400.0), modality="CT")
    step = 1400 / 255  # HU; linear interpolation alone leaves about two thirds of the noise, and averaging half of it
    assert voxels.std() * step < 45
    np.testing.assert_array_equal(noise, before)
