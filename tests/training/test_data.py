"""What training sees depends on (seed, epoch, case) alone."""

import numpy as np
import pytest
import torch

from pipeline.config import Augmentation
from pipeline.imaging.augmentation import build_augmentation
from pipeline.training.data import AugmentedCases, CaseTensors, EpochSampler

STRONG = Augmentation(
    flip_axes=(0, 1, 2),
    rotate_degrees=30,
    scale=0.1,
    translate_voxels=2,
    intensity_scale=0.1,
    intensity_shift=0.1,
    noise_std=0.02,
    blur_sigma=1.0,
)


@pytest.fixture
def cases():
    images = np.random.default_rng(0).random((6, 1, 16, 16, 16), np.float32)
    return CaseTensors.from_arrays(list(images), [0, 1] * 3, list("abcdef"))


def augmented(cases, seed=0):
    return AugmentedCases(cases, build_augmentation(STRONG, dimensions=3), seed=seed)


def test_same_place_gives_the_same_input_whatever_was_drawn_before(cases):
    one, two = augmented(cases), augmented(cases)
    [two[3, index] for index in range(6)]
    assert torch.equal(one[5, 2][0], two[5, 2][0])


def test_network_gets_plain_tensors(cases):
    assert type(augmented(cases)[0, 0][0]) is torch.Tensor  # MONAI's MetaTensor made training several times slower


def test_epoch_seed_and_case_each_change_the_draw(cases):
    first = augmented(cases)[0, 0][0]
    assert not torch.equal(first, augmented(cases)[1, 0][0])
    assert not torch.equal(first, augmented(cases, seed=1)[0, 0][0])


def test_augmentation_leaves_the_prepared_case_alone(cases):
    before = cases.images.clone()
    [augmented(cases)[0, index] for index in range(6)]
    assert torch.equal(before, cases.images)


def test_augmentation_off_is_the_identity(cases):
    data = AugmentedCases(cases, build_augmentation(Augmentation(), dimensions=3), seed=0)
    assert torch.equal(data[4, 1][0], cases.images[1])


def test_flips_mirror_only_the_named_axes():
    image = torch.arange(8.0).reshape(1, 2, 2, 2)
    transform = build_augmentation(Augmentation(flip_axes=(1,), probability=1.0), dimensions=3)
    assert torch.equal(torch.as_tensor(transform(image)), image.flip(2))


def test_sampler_shows_each_case_once_in_a_new_order_each_epoch():
    sampler = EpochSampler(torch.tensor([0.0, 1.0] * 20), seed=3, balanced=False)
    first = list(sampler)
    assert sorted(index for _, index in first) == list(range(40))
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [index for _, index in first] != [index for _, index in second]


def test_balanced_sampler_draws_both_classes_equally_often():
    labels = torch.tensor([1.0] * 10 + [0.0] * 990)
    drawn = [labels[index] for _, index in EpochSampler(labels, seed=0, balanced=True)]
    assert 0.4 < float(torch.stack(drawn).mean()) < 0.6
