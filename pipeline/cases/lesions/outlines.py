"""Planar outlines: the pixels inside contours with holes, area, centroid and extent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.lesions.lesion import Points

PixelMask = NDArray[np.bool_]
# Pixels; a centre this near to an outline lies on it. Coordinates are often written with two decimals of a millimetre.
_ON_OUTLINE: Final = 0.02


def fill(outlines: Sequence[Points], shape: tuple[int, int]) -> tuple[PixelMask, tuple[int, int]]:
    """Pixels whose centres lie inside or on closed outlines.

    A pixel within an odd number of outlines is inside, so an outline within another is a hole, and one that runs into
    itself through a channel encloses what it goes around. Centres on an outline belong to the inside, on either side
    of a hole too: programs draw outlines through the centres of the outermost pixels as well as along their edges.

    Args:
        outlines: points (N, 2) in pixels, pixel centres at whole numbers.
        shape: of the picture; what lies beyond is cut off.

    Returns:
        The pixels of a box that holds the outlines, and the box's first pixel.
    """
    every = np.concatenate(outlines)
    first = np.clip(np.floor(every.min(axis=0)), 0, np.array(shape) - 1).astype(int)
    last = np.clip(np.ceil(every.max(axis=0)), 0, np.array(shape) - 1).astype(int)
    inside = np.zeros(last - first + 1, dtype=bool)
    on_outline = np.zeros_like(inside)
    for points in outlines:
        moved = points - first
        inside ^= _odd_crossings(moved, inside.shape)
        _mark_outline(moved, on_outline)
    return inside | on_outline, (int(first[0]), int(first[1]))


def _odd_crossings(points: Points, shape: tuple[int, ...]) -> PixelMask:
    """Pixels from which an odd number of edges is crossed on the way to the second axis' end."""
    starts, ends = points, np.roll(points, -1, axis=0)
    low, high = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    # Each edge holds its lower end and not its upper one, so that a corner is crossed once.
    rows, edges = _whole_numbers(np.ceil(low), np.ceil(high) - 1, shape[0])
    run = ends[edges] - starts[edges]
    crossing = starts[edges, 1] + (rows - starts[edges, 0]) * run[:, 1] / run[:, 0]
    toggles = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    columns = np.clip(np.floor(crossing) + 1, 0, shape[1]).astype(np.intp)
    np.add.at(toggles, (rows, columns), 1)
    return np.asarray(np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1)


def _mark_outline(points: Points, on_outline: PixelMask) -> None:
    """Mark the pixels whose centres lie on an edge."""
    starts, ends = points, np.roll(points, -1, axis=0)
    run = ends - starts
    for along in (0, 1):
        across_axis = 1 - along
        flat = np.abs(run[:, along]) > np.abs(run[:, across_axis]) if along else np.abs(run[:, 0]) >= np.abs(run[:, 1])
        a, b, direction = starts[flat], ends[flat], run[flat]
        low = np.minimum(a[:, along], b[:, along]) - _ON_OUTLINE
        high = np.maximum(a[:, along], b[:, along]) + _ON_OUTLINE
        steps, edges = _whole_numbers(np.ceil(low), np.floor(high), on_outline.shape[along])
        length = direction[edges, along]
        share = np.divide(steps - a[edges, along], length, out=np.zeros(len(edges)), where=length != 0)
        across = a[edges, across_axis] + np.clip(share, 0, 1) * direction[edges, across_axis]
        nearest = np.round(across)
        hit = (np.abs(across - nearest) <= _ON_OUTLINE) & (nearest >= 0) & (nearest < on_outline.shape[across_axis])
        place = [steps[hit], nearest[hit].astype(np.intp)]
        on_outline[tuple(place if along == 0 else place[::-1])] = True


def _whole_numbers(low: Points, high: Points, limit: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every whole number from low to high of each edge, within 0 and the limit, and the edge that it belongs to."""
    first = np.clip(low, 0, limit).astype(np.intp)
    counts = np.maximum(np.clip(high, -1, limit - 1).astype(np.intp) - first + 1, 0)
    edges = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return first[edges] + within, edges


def area_and_centroid(points: Points) -> tuple[float, Points]:
    """Area and centroid of a closed planar polygon, points (N, 3).

    Without an area (fewer than three points, or all on one line) the centroid is the mean of the ends of the extent.
    """
    origin = points.mean(axis=0)
    moved = points - origin
    following = np.roll(moved, -1, axis=0)
    doubles = np.cross(moved, following)  # of the triangles with the mean of the points as a corner
    normal = doubles.sum(axis=0)
    twice = float(np.linalg.norm(normal))
    if twice <= 1e-9:
        return 0.0, np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)
    weights = doubles @ (normal / twice)  # signed, so that dents count against
    center = (weights[:, np.newaxis] * (moved + following)).sum(axis=0) / (3 * twice)
    return twice / 2, np.asarray(origin + center)
