"""Rules on the voxel values that the declared modality can have; they run before a model's own envelope.

They refuse values that no scan of the modality has (a label map, a picture scaled to 0-1, unrescaled numbers), and
accept merely unusual ones: padding at -1024, -2000 or -3024, metal at 3071 or 30000, a cyst without contrast.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Float32Array

# Hounsfield units.
_LOWEST_TISSUE, _HIGHEST_BONE = -1100.0, 3100.0
_ABSURD_HIGH, _ABSURD_LOW = 32_000.0, -33_000.0  # metal on the extended scale ends at 30710, padding at -32768
_UNSIGNED_SOFT_TISSUE = 850.0  # where water, 1024 without its offset, certainly is in sight
_FAT = -150.0
_CUT_OFF = 0.01  # share of exact zeros, below which nothing lies; water is 0, but with noise to both sides
_LEAST_SPREAD = 20.0  # noise alone spreads a real region more, from end to end
_NOTHING_BELOW, _MOST_BELOW = -1200.0, 0.2  # noise reaches beneath air, but not with this share of the voxels
_SAMPLE = 400_000  # voxels that the slower rules look at


def check_range(path: Path, voxels: Float32Array, modality: str) -> None:
    """Refuse voxels that cannot be of the modality.

    Args:
        path: named in errors.
        voxels: as stored, rescaled, before any resampling or windowing; those that the region touches.
        modality: ``CT``, ``MR``, ``US``, ``XR``, ``mask`` or ``other``.

    Raises:
        CaseError: E_CONSTANT, E_RANGE.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise CaseError(Code.E_CONSTANT, path, f"every voxel of the region is {low:g}; expected an image")
    sample = voxels.ravel(order="K")
    sample = sample[:: max(1, sample.size // _SAMPLE)]
    reason = _RULES.get(modality, _no_rule)(sample, low, high)
    if reason:
        raise CaseError(Code.E_RANGE, path, f"voxels from {low:.6g} to {high:.6g}: {reason}")


def _ct(sample: NDArray[np.float32], low: float, high: float) -> str | None:
    if high > _ABSURD_HIGH or low < _ABSURD_LOW:
        return "beyond any Hounsfield scale; check the slope and intercept"
    if high - low < _LEAST_SPREAD:
        return f"a spread below {_LEAST_SPREAD:g}, as of a mask or a scaled image; expected Hounsfield units"
    if low >= 0:
        if _is_label_map(sample):
            return "few whole numbers from 0, as of a label map; expected Hounsfield units"
        if low == 0 and (high == 255 or float(np.mean(sample == 0)) > _CUT_OFF):
            return "cut off at 0, as in a picture or without the rescale intercept; expected Hounsfield units"
        if high > _UNSIGNED_SOFT_TISSUE:
            return "nothing below 0, and some as bright as bone, as without rescaling; expected Hounsfield units"
    return _ct_bulk(sample)


def _ct_bulk(sample: NDArray[np.float32]) -> str | None:
    """Where most voxels lie, without padding and clipped air, which are low values that many voxels share."""
    values, counts = np.unique(sample, return_counts=True)
    constants = values[(values <= -1000) & (counts > 0.01 * sample.size)]
    rest = sample[~np.isin(sample, constants)]
    if rest.size == 0:
        return None
    median = float(np.median(rest))
    if not _LOWEST_TISSUE <= median <= _HIGHEST_BONE:
        return f"median {median:.6g}, outside {_LOWEST_TISSUE:g} to {_HIGHEST_BONE:g}; check the slope and intercept"
    if float(np.mean(rest < _NOTHING_BELOW)) > _MOST_BELOW:
        return f"many different values below {_NOTHING_BELOW:g}, where nothing is; check the slope and intercept"
    if median > _UNSIGNED_SOFT_TISSUE and float(sample.min()) > _FAT:
        return "most as bright as bone, and no fat or air, as without rescaling; expected Hounsfield units"
    return None


def _mr(sample: NDArray[np.float32], low: float, high: float) -> str | None:
    del high
    if low >= 0 and _is_label_map(sample):
        return "few whole numbers from 0, as of a label map; expected MR intensities"
    if low <= -900 and float(np.mean(sample <= -500)) > 0.05:
        return "many around -1000, as of air in CT; expected MR intensities"
    return None


def _picture(sample: NDArray[np.float32], low: float, high: float) -> str | None:
    del high
    if low >= 0 and _is_label_map(sample):
        return "few whole numbers from 0, as of a label map; expected grey values"
    return None


def _mask(sample: NDArray[np.float32], low: float, high: float) -> str | None:
    if low < 0:
        return "negative; expected a mask"
    if high <= 1 or (low == 0 and high == 255 and not ((sample > 0) & (sample < 255)).any()):
        return None
    if (sample != np.floor(sample)).any() or np.unique(sample).size > 256:
        return "not whole numbers; expected a mask"
    return None


def _no_rule(sample: NDArray[np.float32], low: float, high: float) -> str | None:
    del sample, low, high
    return None


def _is_label_map(sample: NDArray[np.float32]) -> bool:
    """Few distinct whole numbers, one of which fills much of the region."""
    if (sample[:4096] != np.floor(sample[:4096])).any():
        return False
    values, counts = np.unique(sample, return_counts=True)
    if values.size > 128 or (values != np.floor(values)).any():
        return False
    return values.size <= 4 or bool(values.size <= 16 and counts.max() > 0.3 * sample.size)


_RULES = {"CT": _ct, "MR": _mr, "US": _picture, "XR": _picture, "mask": _mask}
