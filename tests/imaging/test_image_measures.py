"""Simple measures of an input: known shapes have known sizes, and the numbers follow what is changed."""

import numpy as np
import pytest

from pipeline.imaging.image_measures import MEASURES, image_measures


def ball(*, diameter, spacing=(1.0, 1.0, 1.0), size=(40, 40, 40), stretch=1.0, edge=0.3, bright=0.8):
    """A ball in the middle, wider along the first axis by ``stretch``, with a soft edge in mm."""
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    scaled = [
        axis * step / (stretch if place == 0 else 1)
        for place, (axis, step) in enumerate(zip(axes, spacing, strict=True))
    ]
    distance = np.sqrt(sum(np.square(each) for each in scaled))
    return (0.1 + (bright - 0.1) / (1 + np.exp((distance - diameter / 2) / edge)))[None].astype(np.float32)


@pytest.mark.parametrize("diameter", [6, 12, 24])
@pytest.mark.parametrize(("spacing", "size"), [((1.0, 1.0, 1.0), (40, 40, 40)), ((0.7, 0.7), (48, 48))])
def test_a_ball_or_disc_has_its_diameter(diameter, spacing, size):
    found = image_measures(ball(diameter=diameter, spacing=spacing, size=size), spacing)
    assert tuple(found) == MEASURES
    assert found["lesion_log_size"] == pytest.approx(np.log(diameter), abs=0.1)
    assert found["lesion_elongation"] == pytest.approx(1, abs=0.02)
    assert 0.6 < found["lesion_mean"] < 0.8  # of 0.8, less at the edge, of which a small ball has more


def test_a_stretched_ball_is_longer_by_as_much():
    found = image_measures(ball(diameter=10, stretch=2.0), (1.0, 1.0, 1.0))
    assert found["lesion_elongation"] == pytest.approx(2, abs=0.1)


def test_a_soft_edge_is_less_steep():
    sharp, soft = (image_measures(ball(diameter=12, edge=edge), (1.0, 1.0, 1.0)) for edge in (0.3, 2.0))
    assert sharp["edge_gradient"] > 2 * soft["edge_gradient"]


def test_rings_tell_a_small_spot_from_a_large_one():
    small, large = (image_measures(ball(diameter=each), (1.0, 1.0, 1.0)) for each in (5, 20))
    assert small["ring_mean_0_2_mm"] == pytest.approx(large["ring_mean_0_2_mm"], abs=0.1)
    assert large["ring_mean_6_9_mm"] > small["ring_mean_6_9_mm"] + 0.5


@pytest.mark.parametrize("voxels", [np.zeros((1, 8, 8)), np.ones((1, 8, 8, 8)), ball(diameter=8, bright=0.0)])
def test_an_image_without_a_bright_spot_still_has_finite_measures(voxels):
    found = image_measures(voxels.astype(np.float32), (1.0,) * (voxels.ndim - 1))
    assert np.isfinite(list(found.values())).all()
