"""Find pairs of images that look the same among thousands: a hash of 63 bits proposes them, correlation decides.

The hash is the signs of low spatial frequencies (a discrete cosine transform) around the median of all images, so that
what all images of a kind have in common, as the outline of a chest, does not count. It is compared under shifts and
mirrorings. Of each pair that it proposes, the normalised correlation of the two views is computed at the best shift.

Source: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010 (the hash).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from pipeline.cases.audit.views import VIEW_PIXELS
from pipeline.imaging.image import Float32Array

Index = NDArray[np.int64]
Images = tuple[Float32Array, Float32Array]
ViewShift = tuple[int, int, int]  # view pixels along R, A and S

SAME_IMAGE = 0.99
_AXES = ((0, 1), (0, 2), (1, 2))  # of R, A and S: rows and columns of each view
MIRRORINGS = ((False, False), (True, False), (False, True), (True, True))  # along R and A
_BITS = 63
_MOST_BITS_APART = 15
_ALL_PAIRS_BELOW = 300  # images; with fewer every pair is compared, because a median of few depends on each of them
_UNMOVED: ViewShift = (0, 0, 0)
_STEP = 2  # pixels of a view between the shifts of the hash
_REACH = 2  # pixels of a view by which the correlation looks further
_MARGIN = _STEP + _REACH
# Standard deviations in pixels of a view, so that aliasing of images that were made smaller does not count.
_FINE, _SMOOTH = 0.5, 1.0
_WORTH_A_STEP, _WORTH_A_SEARCH = 0.75, 0.96  # correlations of smooth views
_CONSTANT = 1e-6
_ROWS, _BATCH = 512, 256  # images, and pairs, at a time
MOST_PAIRS = 100_000


@dataclass(frozen=True)
class SimilarPair:
    """Two images that look the same.

    Attributes:
        first: index of the one.
        second: index of the other, above ``first``.
        similarity: normalised correlation at the best shift, at most 1.
        mirrored: whether the other is mirrored.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool


def similar_pairs(views: Float32Array, *, least: float = SAME_IMAGE) -> list[SimilarPair]:
    """Find the pairs.

    Args:
        views: (N, 1, 32, 32) of pictures or (N, 3, 32, 32) of volumes, see `pipeline.cases.audit.views.views_of`.
        least: similarity from which two images are the same.

    Returns:
        In order of their indices; the best of each pair. The search ends once there are `MOST_PAIRS`.
    """
    best: dict[tuple[int, int], SimilarPair] = {}
    for mirror in MIRRORINGS:
        mirrored = _changed(views, _UNMOVED, mirror)
        fine, smooth = ((_blurred(views, width), _blurred(mirrored, width)) for width in (_FINE, _SMOOTH))
        for first, second, shift in _candidates(views, mirrored):
            similarity = _similarity((fine[0][first], fine[1][second]), (smooth[0][first], smooth[1][second]), shift)
            for place in np.flatnonzero(similarity >= least):
                pair = SimilarPair(int(first[place]), int(second[place]), float(similarity[place]), any(mirror))
                known = best.get((pair.first, pair.second))
                if known is None or known.similarity < pair.similarity:
                    best[pair.first, pair.second] = pair
            if len(best) >= MOST_PAIRS:
                break
    return [best[key] for key in sorted(best)]


def _candidates(views: Float32Array, mirrored: Float32Array) -> Iterator[tuple[Index, Index, ViewShift]]:
    """Pairs, the smaller index first, that a shift brings near each other, in batches (B,) of one shift."""
    count, shifts = len(views), _shifts(views.shape[1])
    if count < _ALL_PAIRS_BELOW:
        first, second = np.triu_indices(count, 1)
        for shift in shifts:
            yield from _batches(first, second, shift)
        return
    coefficients = _coefficients(views)
    middle = np.median(coefficients, axis=0)
    plain = _hashes(coefficients, middle)
    for shift in shifts:
        hashes = _hashes(_coefficients(_changed(mirrored, shift, (False, False))), middle)
        for start in range(0, count, _ROWS):
            apart = np.bitwise_count(plain[start : start + _ROWS, None] ^ hashes[start:])
            first, second = np.nonzero(apart <= _MOST_BITS_APART)
            above = second > first
            yield from _batches(first[above] + start, second[above] + start, shift)


def _batches(first: Index, second: Index, shift: ViewShift) -> Iterator[tuple[Index, Index, ViewShift]]:
    for start in range(0, len(first), _BATCH):
        part = slice(start, start + _BATCH)
        yield first[part], second[part], shift


def _shifts(view_count: int) -> Sequence[ViewShift]:
    """Shifts along R, A and S that are tried; a picture has no S."""
    steps = (-_STEP, 0, _STEP)
    plane = [(r, a, 0) for r in steps for a in steps]
    return plane if view_count == 1 else [*plane, (0, 0, -_STEP), (0, 0, _STEP)]


def _changed(views: Float32Array, shift: ViewShift, mirror: tuple[bool, bool]) -> Float32Array:
    """Views of the images mirrored along R and A, then shifted; what comes in from outside repeats the edge."""
    pixels = np.arange(VIEW_PIXELS)
    changed = np.empty_like(views)
    for view, (row, column) in enumerate(_AXES[: views.shape[1]]):
        rows, columns = ((pixels - shift[axis]).clip(0, VIEW_PIXELS - 1) for axis in (row, column))
        rows, columns = (
            VIEW_PIXELS - 1 - places if (*mirror, False)[axis] else places
            for axis, places in ((row, rows), (column, columns))
        )
        changed[:, view] = views[:, view][:, rows[:, None], columns]
    return changed


def _blurred(views: Float32Array, width: float) -> Float32Array:
    blurred: Float32Array = gaussian_filter(views, (0, 0, width, width), mode="nearest")
    return blurred


def _coefficients(views: Float32Array) -> Float32Array:
    """The 63 lowest spatial frequencies of an image but for its mean, shared out among its views: (N, 63)."""
    share = _BITS // views.shape[1]
    order = sorted(itertools.product(range(12), repeat=2), key=lambda place: (sum(place), place))[1 : share + 1]
    rows, columns = np.array(order).T
    spectrum = dctn(views, axes=(2, 3), norm="ortho")
    chosen: Float32Array = spectrum[:, :, rows, columns].reshape(len(views), -1)
    return chosen


def _hashes(coefficients: Float32Array, middle: Float32Array) -> NDArray[np.uint64]:
    bits = np.zeros((len(coefficients), 64), np.uint8)
    bits[:, :_BITS] = coefficients > middle
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _similarity(fine: Images, smooth: Images, shift: ViewShift) -> NDArray[np.float64]:
    """Normalised correlation of pairs of images near a shift, (B,); of volumes the lowest over the views.

    Args:
        fine: the pairs, each (B, views, 32, 32), that are compared.
        smooth: the same, smoothed so that they are alike at a wrong shift too: the result is -1 for pairs that these
            rule out.
        shift: by which the other one is moved.
    """
    similarity = np.full(len(fine[0]), -1.0)
    promising = np.flatnonzero(_correlation(*smooth, shift, (0, 0)).min(axis=1) >= _WORTH_A_STEP)
    if promising.size:
        near = _correlations(smooth[0][promising], smooth[1][promising], shift, reach=1)
        promising = promising[near.max(axis=(0, 1)).min(axis=1) >= _WORTH_A_SEARCH]
    if promising.size:
        similarity[promising] = _peak(_correlations(fine[0][promising], fine[1][promising], shift, reach=_REACH)).min(
            axis=1
        )
    return similarity


def _correlations(first: Float32Array, second: Float32Array, shift: ViewShift, *, reach: int) -> NDArray[np.float64]:
    """At every place so many pixels around a shift, in rows and columns of each view: (rows, columns, B, views)."""
    places = range(-reach, reach + 1)
    return np.array([[_correlation(first, second, shift, (row, column)) for column in places] for row in places], float)


def _correlation(images: Float32Array, others: Float32Array, shift: ViewShift, aside: tuple[int, int]) -> Float32Array:
    """Of the middle of one image's views with as much of the other's: (B, views).

    Args:
        images: (B, views, 32, 32).
        others: of the same shape.
        shift: by which the other is moved.
        aside: rows and columns by which each of its views is moved further.
    """
    correlation = np.empty(images.shape[:2], np.float32)
    inner = slice(_MARGIN, VIEW_PIXELS - _MARGIN)
    for view, (row, column) in enumerate(_AXES[: images.shape[1]]):
        first = _standardised(images[:, view, inner, inner])
        rows, columns = shift[row] + aside[0], shift[column] + aside[1]
        moved = others[
            :, view, _MARGIN - rows : VIEW_PIXELS - _MARGIN - rows, _MARGIN - columns : VIEW_PIXELS - _MARGIN - columns
        ]
        correlation[:, view] = np.einsum("bp,bp->b", first, _standardised(moved))
    return correlation


def _standardised(images: Float32Array) -> Float32Array:
    """Each of mean 0 and length 1, (B, pixels); one that is constant stays 0."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.sqrt(np.einsum("bp,bp->b", flat, flat))[:, None]
    standardised: Float32Array = flat / np.maximum(lengths, _CONSTANT)
    return standardised


def _peak(correlations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the highest peak of (rows, columns, …), between pixels by a parabola along each axis; at most 1."""
    side = len(correlations)
    rest = np.indices(correlations.shape[2:])
    highest_place = correlations.reshape(side * side, *correlations.shape[2:]).argmax(axis=0)
    row, column = highest_place // side, highest_place % side
    highest = correlations[(row, column, *rest)]
    height = highest.copy()
    for down, right in ((1, 0), (0, 1)):
        inside = (row >= down) & (row < side - down) & (column >= right) & (column < side - right)
        before, after = (
            correlations[((row + sign * down) % side, (column + sign * right) % side, *rest)] for sign in (-1, 1)
        )
        curvature = 2 * highest - before - after
        gain = (after - before) ** 2 / (8 * np.maximum(curvature, _CONSTANT))
        height += np.where(inside & (curvature > _CONSTANT), gain, 0.0)
    limited: NDArray[np.float64] = np.minimum(height, 1.0)
    return limited
