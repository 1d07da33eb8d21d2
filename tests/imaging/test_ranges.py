"""Values that no scan of the modality has are refused; unusual but real ones never."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scan_files import phantom
from shared_data import shared

from pipeline.errors import CaseError
from pipeline.imaging.ranges import check_range

RNG = np.random.default_rng(0)
HU = phantom().astype(np.float32)
SOFT = (60 + RNG.normal(0, 15, HU.shape)).round().astype(np.float32)


def judge(voxels: np.ndarray, modality: str = "CT") -> None:
    check_range(Path("scan.nii"), np.asarray(voxels, dtype=np.float32), modality)


def painted(value: float, base: np.ndarray = HU, share: int = 4) -> np.ndarray:
    changed = base.copy()
    changed[: changed.shape[0] // share] = value
    return changed


REAL_CT = {
    "lung and wall": HU,
    "soft tissue only": SOFT,
    "contrast, nothing below 0": np.abs(SOFT) + 120,
    "padding -1024": painted(-1024),
    "padding -2000": painted(-2000, share=2),
    "padding -3024": painted(-3024),
    "mostly padding -3024": np.where(np.arange(HU.shape[0])[:, None, None] < 20, -3024, HU),
    "padding -32768": painted(-32768),
    "air without noise beside padding": np.where(painted(-2000, share=3) == -2000, -2000, np.maximum(HU, -1000)),
    "metal 3071": painted(3071, share=8),
    "metal 30000": painted(30000, share=12),
    "two densities, no noise": np.where(HU > -500, 40.0, -1000.0),
    "fat only": -100 + SOFT / 3,
    "interpolated": HU * 0.987 + 0.33,
    "lung only": -860 + RNG.normal(0, 34, HU.shape),
    "emphysema, sharp kernel": np.maximum(-970 + RNG.normal(0, 90, HU.shape), -1024),
    "cortical bone": 900 + RNG.normal(0, 300, HU.shape),
}


@pytest.mark.parametrize("name", REAL_CT)
def test_unusual_ct_is_accepted(name: str) -> None:
    judge(REAL_CT[name])


NO_CT = {
    "binary mask": (HU > 0) * 1.0,
    "mask of 255": (HU > 0) * 255.0,
    "label map": np.digitize(HU, (-900, -500, 0, 50)) * 7.0,
    "segments up to 117": np.digitize(HU, (-900, -500, 0, 50)) * 29.0,
    "scaled to 0-1": np.clip((HU + 1000) / 1400, 0, 1),
    "scaled to -1-1": np.clip((HU + 1000) / 700 - 1, -1, 1),
    "z-score": (HU - HU.mean()) / HU.std(),
    "8-bit picture": np.clip((HU + 1000) / 1400 * 255, 0, 255).round(),
    "unsigned offset": np.maximum(HU + 1024, 0),
    "unsigned offset, no air": np.maximum(SOFT + 1024, 0),
    "offset of 32768": HU + 32768,
    "rescaled twice": np.maximum(HU, -1024) - 1024,
    "slope of 100": HU * 100,
    "slope of 4": HU * 4,
    "offset of 1024, noise around 0": np.concatenate([SOFT + 1024, HU + 1024]),
    "in 1/1000": HU / 1000,
    "minus 10 000": HU - 10_000,
    "absurd": HU * 1e30,
}


@pytest.mark.parametrize("name", NO_CT)
def test_what_is_no_ct_is_refused(name: str) -> None:
    with pytest.raises(CaseError, match=r"E_RANGE: voxels from .*(expected|check)"):
        judge(NO_CT[name])


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "XR", "mask", "other"])
def test_one_value_is_no_image(modality: str) -> None:
    with pytest.raises(CaseError, match="E_CONSTANT: every voxel of the region is 1;"):
        judge(np.ones((4, 4, 4)), modality)


@pytest.mark.parametrize("modality", ["MR", "US", "XR"])
def test_masks_are_no_scan_of_any_modality(modality: str) -> None:
    for name in ("binary mask", "mask of 255", "label map"):
        with pytest.raises(CaseError, match=r"E_RANGE.*label map"):
            judge(NO_CT[name], modality)
    grey = RNG.integers(0, 255, (32, 32, 1))
    grey[:20] = 0
    judge(grey, modality)
    judge(grey / 255, modality)


def test_ct_is_no_mr() -> None:
    with pytest.raises(CaseError, match=r"E_RANGE.*air in CT"):
        judge(HU, "MR")
    judge(np.abs(HU), "MR")
    judge((HU - HU.mean()) / HU.std(), "MR")


def test_masks_are_masks_and_scans_are_not() -> None:
    for name in ("binary mask", "mask of 255", "label map", "segments up to 117", "scaled to 0-1"):
        judge(NO_CT[name], "mask")  # values in [0, 1] are what resampling makes of a mask
    for voxels in (HU, SOFT / 7, NO_CT["scaled to -1-1"]):
        with pytest.raises(CaseError, match=r"E_RANGE.*expected a mask"):
            judge(voxels, "mask")


def test_no_rule_for_other() -> None:
    for voxels in (*REAL_CT.values(), *NO_CT.values()):
        judge(voxels, "other")


def test_medmnist_shapes_are_masks() -> None:
    with np.load(shared("data/medmnist/adrenalmnist3d.npz")) as arrays:
        for volume in arrays["train_images"][:100]:
            judge(volume, "mask")
