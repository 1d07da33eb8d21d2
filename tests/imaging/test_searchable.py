"""Which scans a detector can search, and with which code the others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CaseError
from pipeline.imaging.decoded import DecodedScan
from pipeline.imaging.whole_scans.searchable import lung_measures, require_lung, require_searchable

WINDOW = (-1000.0, 400.0)
PATH = Path("scan.nii.gz")


def scan(shape=(200, 200, 100), spacing=(1.0, 1.0, 2.0), *, modality=None, body_part=None, has_millimetres=True):
    affine = np.diag([*spacing, 1.0])
    voxels = np.broadcast_to(np.float32(0), shape)
    return DecodedScan(PATH, shape, voxels, affine, modality, (), has_millimetres, body_part, "0" * 64)


def test_a_chest_ct_has_its_sides_measured():
    measures = require_searchable(scan(modality="CT", body_part="CHEST"), PATH, modality="CT")
    assert measures == {
        "side_r_mm": 200.0,
        "side_a_mm": 200.0,
        "side_s_mm": 200.0,
        "spacing_in_plane_mm": 1.0,
        "spacing_slice_mm": 2.0,
    }


def test_a_thin_slab_of_a_whole_chest_can_be_searched():
    assert require_searchable(scan((400, 400, 11)), PATH, modality="CT")["side_s_mm"] == 22.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (200, 200, 5)}, r"E_SHAPE: 200 x 200 x 5 voxels, expected at least 10 slices"),
        ({"shape": (5, 200, 200)}, r"E_SHAPE: 5 x 200 x 200 voxels"),
        ({"shape": (64, 64, 60)}, r"E_OUT_OF_ENVELOPE: covers 64 x 64 x 120 mm, expected at least 100 mm along two"),
        ({"modality": "MR"}, r"E_OUT_OF_ENVELOPE: the file declares modality MR, the model takes CT"),
        ({"body_part": "ABDOMEN"}, r"E_OUT_OF_ENVELOPE: the header says ABDOMEN; this detector takes CT of the chest"),
        ({"has_millimetres": False}, r"E_GEOMETRY_MISSING"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_code(settings, message):
    with pytest.raises(CaseError, match=message):
        require_searchable(scan(**settings), PATH, modality="CT")


def test_only_ct_must_be_of_the_chest():
    require_searchable(scan(modality="MR", body_part="BREAST"), PATH, modality="MR")


def bytes_of(hu):
    return np.rint(np.clip((hu + 1000) / 1400, 0, 1) * 255).astype(np.uint8)


def body(noise, inside_hu, *, seed=0):
    """Air with noise around an ellipsoid of tissue that holds an ellipsoid of something, at 2 mm."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 120),) * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    hu = np.where(radius < 0.8, 40.0, -1000.0)
    hu[radius < 0.5] = inside_hu
    return bytes_of(hu + rng.normal(0, noise, hu.shape))


@pytest.mark.parametrize("noise", [0, 30, 80])
def test_lung_is_measured_and_neither_outside_air_nor_skin_nor_bowel_gas_is_lung(noise):
    measures = lung_measures(body(noise, -820), window=WINDOW, spacing=2.0)
    truth = 4 / 3 * np.pi * (0.5 * 119 / 2 * 2.0) ** 3 / 1000
    assert 0.5 * truth < measures["lung_ml"] < truth
    assert measures["lung_hu"] == pytest.approx(-820, abs=5)
    assert require_lung(body(noise, -820), PATH, window=WINDOW, spacing=2.0) == measures
    for other in (40, -1000):
        with pytest.raises(CaseError, match=r"E_OUT_OF_ENVELOPE: shows \d+ ml of lung, expected at least 40"):
            require_lung(body(noise, other), PATH, window=WINDOW, spacing=2.0)


def test_a_volume_smaller_than_a_block_shows_no_lung():
    assert lung_measures(np.zeros((2, 50, 50), np.uint8), window=WINDOW, spacing=2.0) == {"lung_ml": 0.0}
