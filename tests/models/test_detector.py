"""The detector's network and its peaks."""

import numpy as np
import pytest
import torch
from small_detectors import small_detector

from pipeline.config.detection import CandidateRules, DetectorNetwork
from pipeline.models.detector import Detector, DetectorOutput
from pipeline.models.peaks import find_peaks
from pipeline.models.search_volume import search_volume


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_outputs_have_half_the_resolution_and_a_part_each(levels):
    network = Detector(DetectorNetwork(width=4, levels=levels), classes=2).eval()
    side = network.side_multiple
    output = network(torch.rand(1, 1, side, 2 * side, side))
    for part, channels in zip(output, (2, 3, 1), strict=True):
        assert part.shape == (1, channels, side // 2, side, side // 2)


def test_a_gradient_reaches_every_weight():
    network = small_detector().train()
    output = network(torch.rand(2, 1, 16, 16, 16))
    sum(part.square().sum() for part in output).backward()
    assert [name for name, weight in network.named_parameters() if not weight.grad.abs().sum() > 0] == []


def test_before_training_nearly_nothing_is_a_lesion():
    output = small_detector()(torch.rand(1, 1, 32, 32, 32))
    assert torch.sigmoid(output.heat[:, 0]).median() < 0.1


def test_a_window_with_its_halo_gives_what_the_whole_scan_gives():
    network = small_detector().double()
    halo, image = network.halo, torch.rand(1, 1, 112, 32, 32, dtype=torch.float64)
    assert 48 + halo < 112
    whole = network(image)
    window = network(image[:, :, : 48 + halo])
    for left, right in zip(whole, window, strict=True):
        np.testing.assert_allclose(left[:, :, :24].detach(), right[:, :, :24].detach(), rtol=0, atol=1e-12)


def output_with(peaks, *, shape=(16, 16, 16)):
    """Heat of class 0 with a logit at each cell; class 1 the negative of it."""
    heat = torch.full((2, *shape), -9.0)
    for cell, logit in peaks.items():
        heat[0][cell], heat[1][cell] = logit, -logit
    return DetectorOutput(heat, torch.zeros(3, *shape), torch.full((1, *shape), float(np.log(6.0))))


RULES = CandidateRules(lowest_probability=0.1, separation_mm=5.0, most=10)


def test_peaks_are_placed_by_offset_and_sorted_by_logit():
    output = output_with({(2, 3, 4): 1.0, (10, 3, 4): 2.0})
    output.offset[:, 2, 3, 4] = torch.tensor([0.25, -0.5, 0.0])
    peaks = find_peaks(output, RULES, spacing_mm=1.5)
    np.testing.assert_allclose(peaks.voxels, [[20, 6, 8], [4.5, 5, 8]])
    np.testing.assert_allclose(peaks.logits, [[2, -2], [1, -1]])
    np.testing.assert_allclose(peaks.diameters_mm, [6, 6], rtol=1e-6)


def test_of_two_close_peaks_the_stronger_one_stays():
    output = output_with({(4, 4, 4): 1.0, (6, 4, 4): 2.0, (12, 4, 4): 0.0})  # 4 voxels between the first two
    assert len(find_peaks(output, RULES, spacing_mm=1.0).voxels) == 2
    assert len(find_peaks(output, RULES, spacing_mm=1.5).voxels) == 3
    output.log_diameter[:, 6, 4, 4] = float(np.log(14.0))  # its radius, 7 mm, reaches the weaker one
    assert len(find_peaks(output, RULES, spacing_mm=1.5).voxels) == 2


def test_weak_peaks_and_those_beyond_the_most_are_left_out():
    output = output_with({(2, 2, 2): -3.0, (2, 8, 8): 0.0, (8, 8, 8): 1.0})
    assert len(find_peaks(output, RULES, spacing_mm=1.5).voxels) == 2
    few = RULES.model_copy(update={"most": 1})
    np.testing.assert_allclose(find_peaks(output, few, spacing_mm=1.5).logits[:, 0], [1.0])


def test_no_peaks_is_an_empty_answer():
    peaks = find_peaks(output_with({}), RULES, spacing_mm=1.5)
    assert peaks.voxels.shape == (0, 3)
    assert peaks.logits.shape == (0, 2)
    assert peaks.diameters_mm.shape == (0,)


def test_a_volume_in_slabs_gives_what_one_pass_gives():
    network = small_detector()
    voxels = np.random.default_rng(0).integers(0, 256, (30, 21, 150), np.uint8)
    whole = search_volume(network, voxels)
    assert whole.heat.shape == (3, 15, 11, 75)
    slabs = search_volume(network, voxels, most_voxels=32 * 24 * 120)
    for left, right in zip(whole, slabs, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-4)
