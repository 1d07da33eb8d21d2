"""A batch, augmented at once, is what MONAI's transforms make of its cases one by one."""

import copy

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandAffine, RandGaussianNoise, RandZoom
from scipy import stats

from pipeline.config.training import Augmentation
from pipeline.imaging.augmentation import build_augmentation
from pipeline.imaging.batch_augmentation import BatchAugmentation

CASES = list(range(12))
SETTINGS = {  # one strength at a time, so that a failure names its transform
    "flips": {"flip_axes": (0, 1)},
    "quarter turns": {"quarter_turns": True},
    "rotation": {"rotate_degrees": 40.0},
    "zoom": {"scale": 0.3},
    "translation": {"translate_voxels": 4.0},
    "affine": {"rotate_degrees": 40.0, "scale": 0.3, "translate_voxels": 4.0},
    "blur": {"blur_sigma": 1.7},
    "intensity scale": {"intensity_scale": 0.3},
    "intensity shift": {"intensity_shift": 0.3},
    "all but noise": {
        "flip_axes": (0, 1),
        "quarter_turns": True,
        "rotate_degrees": 40.0,
        "scale": 0.3,
        "translate_voxels": 4.0,
        "blur_sigma": 1.7,
        "intensity_scale": 0.3,
        "intensity_shift": 0.3,
    },
}


def images(*sides):
    return torch.from_numpy(np.random.default_rng(0).random((len(CASES), 1, *sides), np.float32))


def one_by_one(transforms: Compose, batch, *, seed, epoch):
    """MONAI's own calls, given the random state of each case."""
    changed = []
    for case, image in zip(CASES, batch, strict=True):
        state = np.random.RandomState(np.random.PCG64(np.random.SeedSequence((seed, epoch, case))))
        for transform in transforms.transforms:
            transform.set_random_state(state=state)
            transform.randomize(image)
            image = transform(image, randomize=False)
        changed.append(torch.as_tensor(image))
    return torch.stack(changed)


@pytest.mark.parametrize("sides", [(18, 18), (18, 18, 13)])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_batch_is_what_monai_makes_of_each_case(name, sides):
    batch, config = images(*sides), Augmentation(**SETTINGS[name])
    transforms = build_augmentation(config, dimensions=len(sides))
    expected = one_by_one(copy.deepcopy(transforms), batch, seed=3, epoch=2)
    changed = BatchAugmentation(transforms, seed=3)(batch, epoch=2, cases=CASES)
    torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)
    assert not torch.equal(changed, batch)


def test_an_affine_transform_that_does_not_act_leaves_the_case_alone():
    batch = images(9, 9, 9)
    transforms = Compose([RandAffine(prob=0.0, rotate_range=1.0)])
    torch.testing.assert_close(BatchAugmentation(transforms, seed=0)(batch, epoch=0, cases=CASES), batch)


def noise_of(cases, *, seed=0, shape=(1, 12, 12), **settings):
    augmentation = BatchAugmentation(Compose([RandGaussianNoise(std=0.2, **settings)]), seed=seed)
    return augmentation(torch.zeros(len(cases), *shape), epoch=0, cases=cases)


def test_noise_is_drawn_from_the_distribution_of_monais():
    """Spread of a case, values within one, and the share of cases left alone: two-sample tests, 2000 cases a side."""
    ours = noise_of(range(2000), prob=0.6).flatten(1).numpy()
    transform = RandGaussianNoise(prob=0.6, std=0.2).set_random_state(seed=1)
    monais = np.stack([np.asarray(transform(np.zeros(144, np.float32))) for _ in range(2000)])
    spreads = [each.std(axis=1) for each in (ours, monais)]
    assert abs((spreads[0] > 0).mean() - 0.6) < 0.05
    assert stats.ks_2samp(*[spread[spread > 0] for spread in spreads]).pvalue > 0.01
    standard = [
        each[spread > 0] / spread[spread > 0, None] for each, spread in zip((ours, monais), spreads, strict=True)
    ]
    assert stats.ks_2samp(*[each[:, 0] for each in standard]).pvalue > 0.01


def test_noise_has_the_spread_that_monai_draws_from_the_same_state():
    """MONAI's first voxel, over the standard normal that the state gives next, is its standard deviation."""
    expected = []
    for case in range(300):
        transform = RandGaussianNoise(prob=0.6, std=0.2)
        states = [np.random.RandomState(np.random.PCG64(np.random.SeedSequence((0, 0, case)))) for _ in range(2)]
        transform.set_random_state(state=states[0])
        changed = transform(np.zeros(1, np.float32))
        states[1].rand(), states[1].rand()
        expected.append(float(changed[0]) / states[1].normal())
    spreads = noise_of(range(300), prob=0.6, shape=(1, 100, 100)).flatten(1).std(dim=1)
    np.testing.assert_allclose(spreads, expected, rtol=0.05, atol=1e-6)


def test_neighbouring_voxels_and_cases_have_independent_noise():
    noise = noise_of(range(200), prob=1.0, sample_std=False).flatten(1).numpy()
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.03


EVERYTHING = Augmentation(**SETTINGS["all but noise"], noise_std=0.1)


def augmented(batch, *, seed=0, epoch=0, cases=CASES):
    return BatchAugmentation(build_augmentation(EVERYTHING, dimensions=3), seed=seed)(batch, epoch=epoch, cases=cases)


def test_what_happens_to_a_case_does_not_depend_on_its_batch():
    batch = images(12, 12, 12)
    whole = augmented(batch)
    chosen = [7, 2, 11]
    torch.testing.assert_close(augmented(batch[chosen], cases=chosen), whole[chosen], rtol=0, atol=1e-6)


def test_seed_epoch_and_case_each_change_the_draw():
    batch = images(12, 12, 12)
    first = augmented(batch)
    for other in (augmented(batch, seed=1), augmented(batch, epoch=1), augmented(batch, cases=CASES[::-1])):
        assert all(not torch.allclose(one, two, atol=1e-3) for one, two in zip(first, other, strict=True))
    assert torch.equal(first, augmented(batch))


def test_the_prepared_batch_is_left_alone():
    batch = images(12, 12, 12)
    before = batch.clone()
    augmented(batch)
    assert torch.equal(batch, before)


def test_augmentation_off_is_the_identity():
    batch = images(12, 12)
    off = BatchAugmentation(build_augmentation(Augmentation(), dimensions=2), seed=0)
    assert torch.equal(off(batch, epoch=3, cases=CASES), batch)


def test_flips_mirror_only_the_named_axes():
    batch = images(4, 5, 6)
    flip = build_augmentation(Augmentation(flip_axes=(1,), probability=1.0), dimensions=3)
    assert torch.equal(BatchAugmentation(flip, seed=0)(batch, epoch=0, cases=CASES), batch.flip(3))


def test_a_transform_without_a_form_for_batches_is_refused():
    with pytest.raises(TypeError, match="RandZoom has no form for batches"):
        BatchAugmentation(Compose([RandZoom()]), seed=0)
