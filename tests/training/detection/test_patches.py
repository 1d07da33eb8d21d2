"""Patches, their targets and losses."""

import numpy as np
import pytest
import torch

from pipeline.config.detection import DetectionGrid, DetectionTraining
from pipeline.models.detector import DetectorOutput
from pipeline.training.detection.losses import detection_loss, heat_loss
from pipeline.training.detection.patches import HardNegative, PatchSampler
from pipeline.training.detection.scans import MarkedLesion, TrainingScan
from pipeline.training.detection.targets import patch_targets

NAN = float("nan")
GRID = DetectionGrid(spacing_mm=2.0, patch=32)


def lesion(voxel, diameter_mm=8.0, *, ignore=False, attributes=(1.0, 0.0)):
    return MarkedLesion(np.array(voxel, np.float64), diameter_mm, ignore, attributes)


def scan(*lesions, shape=(64, 48, 40), value=40):
    voxels = np.full(shape, value, np.uint8)
    for marked in lesions:
        voxels[tuple(np.rint(marked.voxel).astype(int))] = 255
    return TrainingScan("scan", voxels, lesions)


def sampler(*scans, seed=0, **settings):
    values = {
        "noise_std": 0.0,
        "intensity_shift": 0.0,
        "batch_size": 8,
        "positive_share": 0.5,
        "hard_share": 0.25,
    } | settings
    return PatchSampler(scans, GRID, DetectionTraining(**values), classes=3, seed=seed)


def test_a_lesions_cell_says_its_classes_place_and_diameter():
    targets = patch_targets([lesion((9.0, 12.5, 20.0))], side=32, classes=3, spacing_mm=2.0)
    cell = (4, 6, 10)  # voxel 9 is cell 4.5, which rounds to the even one
    assert targets.heat[:, *cell].tolist() == [1.0, 1.0, 0.0]
    np.testing.assert_allclose(targets.offset[:, *cell], [0.5, 0.25, 0.0])
    np.testing.assert_allclose(np.exp(targets.log_diameter[0][cell]), 8.0, rtol=1e-6)
    assert (targets.heat[0] == 1).sum() == 1
    assert targets.weight[0][cell] == 1.0
    assert targets.weight[0, 15, 15, 0] == 0.0


def test_unknown_attributes_and_ignored_lesions_teach_nothing():
    marked = [lesion((8, 8, 8), attributes=(NAN, 1.0)), lesion((24, 24, 24), ignore=True)]
    targets = patch_targets(marked, side=32, classes=3, spacing_mm=2.0)
    assert np.isnan(targets.heat[1, 4, 4, 4])
    assert targets.heat[0, 4, 4, 4] == targets.heat[2, 4, 4, 4] == 1.0
    assert np.isnan(targets.heat[:, 12, 12, 12]).all()
    assert targets.weight[0, 12, 12, 12] == 0.0
    assert np.isfinite(targets.heat[0, 4, 12, 12])


def test_a_lesion_beyond_the_border_reaches_in_without_a_peak():
    targets = patch_targets([lesion((-1.6, 8, 8), 20.0)], side=32, classes=3, spacing_mm=2.0)
    assert 0.3 < targets.heat[0].max() < 1.0
    np.testing.assert_allclose(targets.offset[0, 0, 4, 4], -0.8, rtol=1e-6)


def test_a_larger_lesion_has_a_wider_heat():
    heat = [patch_targets([lesion((16, 16, 16), mm)], side=32, classes=3, spacing_mm=2.0).heat[0] for mm in (4, 24)]
    assert (heat[1] > 0.3).sum() > 4 * (heat[0] > 0.3).sum()


def test_the_stated_share_of_patches_holds_a_lesion():
    drawn = sampler(scan(lesion((50, 30, 30)), shape=(200, 200, 200)))
    held = [int((batch.heat[:, 0] == 1).flatten(1).any(1).sum()) for batch in map(drawn.batch, range(10))]
    assert min(held) >= 4
    assert sum(held) < 50  # and the others hardly ever, in so large a scan


def test_images_and_targets_are_cut_and_mirrored_together():
    drawn = sampler(scan(lesion((20, 20, 20)), lesion((40, 30, 22))), flip_axes=(0, 1, 2))
    for step in range(6):
        batch = drawn.batch(step)
        for image, heat, regression in zip(batch.images, batch.heat, batch.regression, strict=True):
            bright = (image[0] > 0.9).nonzero().double()
            cells = (heat[0] == 1).nonzero()
            for place in (cells + regression[:3][:, *cells.T].T) * 2:
                if place.min() >= 0 and place.max() <= 31:  # a lesion just beyond the border rounds to a cell inside
                    assert (bright - place).abs().sum(1).min() < 1e-5


def test_hard_negatives_have_their_share_once_there_are_some():
    drawn = sampler(scan(shape=(200, 200, 200)), scan(shape=(200, 200, 200)), positive_share=0.0)
    assert {number for step in range(6) for number in drawn.batch(step).scans[:2].tolist()} == {0, 1}
    drawn.hard = [HardNegative(1, np.array([100.0, 100, 100]), 0.9)]
    assert [drawn.batch(step).scans[:2].tolist() for step in range(6)] == [[1, 1]] * 6


def test_a_step_draws_the_same_whatever_came_before():
    one, two = sampler(scan(lesion((20, 20, 20)))), sampler(scan(lesion((20, 20, 20))))
    two.batch(0)
    assert torch.equal(one.batch(3).images, two.batch(3).images)
    assert not torch.equal(one.batch(3).images, one.batch(4).images)


def test_focal_loss_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(1, 1, 2, 2, 2)), rng.uniform(0, 0.9, (1, 1, 2, 2, 2))
    targets[0, 0, 0, 0, 0], targets[0, 0, 1, 1, 1] = 1.0, NAN
    expected = 0.0
    for logit, target in zip(logits.ravel(), targets.ravel(), strict=True):
        p = 1 / (1 + np.exp(-logit))
        if target == 1:
            expected -= (1 - p) ** 2 * np.log(p)
        elif not np.isnan(target):
            expected -= (1 - target) ** 4 * p**2 * np.log(1 - p)
    found = heat_loss(torch.from_numpy(logits), torch.from_numpy(targets))
    np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-5)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_right_answer_costs_least(part):
    targets = patch_targets([lesion((9.0, 12.5, 20.0))], side=32, classes=3, spacing_mm=2.0)
    heat = torch.from_numpy(targets.heat)[None]
    regression = torch.from_numpy(np.concatenate([targets.offset, targets.log_diameter, targets.weight]))[None]
    right = [torch.logit(heat.clamp(1e-4, 1 - 1e-4)), regression[:, :3].clone(), regression[:, 3:4].clone()]
    wrong = [answer.clone() for answer in right]
    wrong[part] += 1.0
    losses = [float(detection_loss(DetectorOutput(*answer), heat, regression)["loss"]) for answer in (right, wrong)]
    assert losses[0] < losses[1]
