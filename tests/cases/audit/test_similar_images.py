import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from pipeline.cases.audit.similar import similar_pairs
from pipeline.cases.audit.views import VIEW_PIXELS, views_of


def pictures(count, *, size=96, seed=0):
    """Smooth random pictures on a common background, as an anatomy is."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(rng.normal(size=(size, size)), size / 8) * size / 4
    own = [gaussian_filter(rng.normal(size=(size, size)), size / 24) * size / 12 for _ in range(count)]
    return [100 + 40 * (common + each) for each in own]


def volumes(count, *, size=40, seed=0):
    rng = np.random.default_rng(seed)
    return [100 + 400 * gaussian_filter(rng.normal(size=(size,) * 3), 3.0) for _ in range(count)]


def found(images):
    views = [views_of(np.float32(image[..., None] if image.ndim == 2 else image)) for image in images]
    return similar_pairs(np.stack(views))


def moved(image, *shift):
    shift = (*shift, *(0,) * (image.ndim - len(shift)))
    padded = np.pad(image, 3, mode="edge")
    starts = [3 - step for step in shift]
    return padded[tuple(slice(start, start + length) for start, length in zip(starts, image.shape, strict=True))]


CHANGES = {
    "brightness and contrast": lambda image: 0.7 * image + 25,
    "eight bits": lambda image: np.round(image.clip(0, 255)),
    "noise": lambda image: image + np.random.default_rng(1).normal(0, 2, image.shape),
    "half as large": lambda image: zoom(gaussian_filter(image, 0.7), 0.5, order=1, grid_mode=True, mode="nearest"),
    "twice as large": lambda image: zoom(image, 2, order=1, grid_mode=True, mode="nearest"),
    "shifted by a pixel": lambda image: moved(image, 1, 0),
    "shifted by two pixels": lambda image: moved(image, -2, 2),
    "mirrored": lambda image: image[::-1],
    "turned by half": lambda image: image[::-1, ::-1],
}


@pytest.mark.parametrize("count", [12, 400])  # every pair, and those that the hash proposes
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_copy_is_found_among_pictures_and_nothing_else_is(count, change):
    images = pictures(count)
    images.append(CHANGES[change](images[5]))
    (pair,) = found(images)
    assert (pair.first, pair.second) == (5, count)
    assert pair.mirrored == (change in ("mirrored", "turned by half"))
    assert 0.99 <= pair.similarity <= 1


@pytest.mark.parametrize("count", [12, 320])
@pytest.mark.parametrize("change", ["brightness and contrast", "noise", "shifted by a pixel", "mirrored"])
def test_a_changed_copy_is_found_among_volumes_and_nothing_else_is(count, change):
    images = volumes(count)
    images.append(CHANGES[change](images[3]))
    (pair,) = found(images)
    assert (pair.first, pair.second) == (3, count)


def test_images_that_share_their_anatomy_are_not_the_same():
    assert found(pictures(600)) == []


def test_a_constant_image_has_no_views():
    assert views_of(np.full((20, 20, 1), 7, np.float32)) is None


def test_views_are_the_means_of_what_lies_under_their_pixels():
    image = np.random.default_rng(0).normal(size=(64, 96, 1)).astype(np.float32)
    means = image[..., 0].reshape(32, 2, 32, 3).mean(axis=(1, 3))
    expected = (means - means.mean()) / means.std()
    np.testing.assert_allclose(views_of(image), expected[None], atol=1e-5)
    assert views_of(image).shape == (1, VIEW_PIXELS, VIEW_PIXELS)


def test_the_padding_of_a_ct_makes_no_difference():
    image = np.random.default_rng(0).normal(-500, 200, size=(40, 40, 1)).astype(np.float32)
    other = image.copy()
    image[:4], other[:4] = -1024, -3024
    np.testing.assert_allclose(views_of(image), views_of(other), atol=1e-6)
