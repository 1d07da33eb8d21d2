"""Centres, long axes and outlines against slow definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lesion_files import pixel_edges
from matplotlib.path import Path as Polygon

from pipeline.cases.lesions.lesion import VoxelGrid, world_point
from pipeline.cases.lesions.outlines import area_and_centroid, fill
from pipeline.cases.lesions.shape import (
    VoxelSet,
    label_sets,
    largest_distance,
    long_axis_mm,
    longest_extent,
    slice_axis,
)
from pipeline.errors import CaseError, Code

AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def blob(rng, shape=(9, 8)):
    """A connected 2D mask without gaps in its columns of pixels: what a reader outlines."""
    rows = np.sort(rng.choice(shape[1], 2, replace=False))
    mask = np.zeros(shape, bool)
    low, high = sorted(rng.choice(shape[0], 2, replace=False))
    for row in range(rows[0], rows[1] + 1):
        low = int(np.clip(low + rng.integers(-1, 2), 0, high))
        high = int(np.clip(high + rng.integers(-1, 2), low, shape[0] - 1))
        mask[low : high + 1, row] = True
    return mask


def rasterised(outlines, shape):
    inside, (column, row) = fill(outlines, shape)
    whole = np.zeros(shape, bool)
    whole[column : column + inside.shape[0], row : row + inside.shape[1]] = inside
    return whole


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_an_outline_along_pixel_edges_gives_back_the_mask(seed):
    mask = blob(np.random.default_rng(seed))
    assert np.array_equal(rasterised([pixel_edges(mask)], mask.shape), mask)


@given(st.integers(0, 10_000))
@example(4884)
@settings(max_examples=60, deadline=None)
def test_filling_agrees_with_matplotlib_away_from_the_outline(seed):
    rng = np.random.default_rng(seed)
    outlines = [rng.uniform(-3, 15, (rng.integers(3, 12), 2)) for _ in range(rng.integers(1, 4))]
    shape = (13, 11)
    centers = np.array(list(itertools.product(range(shape[0]), range(shape[1]))), float)
    expected = np.zeros(len(centers), bool)
    near = np.zeros(len(centers), bool)
    for points in outlines:
        closed = np.vstack([points, points[:1]])
        with_crossings = np.array([_crossings(center, points) % 2 == 1 for center in centers])
        if len(points) == 3:  # for triangles another library agrees; it fills others by winding
            assert np.array_equal(with_crossings, Polygon(closed).contains_points(centers))
        expected ^= with_crossings
        for a, b in itertools.pairwise(closed):
            along = np.clip(((centers - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
            # On an outline is what lies within 0.02 along and across an edge: 0.0283 away beyond its end.
            near |= np.linalg.norm(centers - a - along[:, None] * (b - a), axis=1) < 0.0285
    found = rasterised(outlines, shape).ravel()
    assert np.array_equal(found[~near], expected[~near])


def _crossings(center, points):
    """Edges crossed on the way to the right, one by one."""
    count = 0
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (a[0] <= center[0]) != (b[0] <= center[0]):
            count += a[1] + (center[0] - a[0]) * (b[1] - a[1]) / (b[0] - a[0]) > center[1]
    return count


def test_an_outline_through_pixel_centres_holds_the_pixels_that_it_runs_through():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:6] = True
    through_centers = np.array([(2, 3), (6, 3), (6, 5), (2, 5)], float)
    assert np.array_equal(rasterised([through_centers], mask.shape), mask)
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, through_centers.shape)  # two decimals of a millimetre
    assert np.array_equal(rasterised([through_centers + noise], mask.shape), mask)


def test_holes_are_cut_by_an_inner_outline_and_by_a_channel_alike():
    outer, inner = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    outer[1:11, 2:10], inner[4:7, 5:8] = True, True
    expected = outer & ~inner
    assert np.array_equal(rasterised([pixel_edges(outer), pixel_edges(inner)], outer.shape), expected)
    ring, hole = pixel_edges(outer), pixel_edges(inner)
    keyhole = np.vstack([ring, ring[:1], hole, hole[:1]])  # to the hole and back through a channel without a width
    assert np.array_equal(rasterised([keyhole], outer.shape), expected)


def test_what_lies_beyond_the_picture_is_cut_off_without_moving_the_rest():
    square = np.array([(-4.5, 2.5), (3.5, 2.5), (3.5, 30.5), (-4.5, 30.5)])
    expected = np.zeros((8, 8), bool)
    expected[:4, 3:] = True
    assert np.array_equal(rasterised([square], (8, 8)), expected)
    assert not rasterised([square + 100], (8, 8)).any()


def test_the_centroid_of_a_polygon_is_that_of_its_pixels():
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = blob(rng)
        edges = np.column_stack([pixel_edges(mask), np.full(len(pixel_edges(mask)), 4.0)])
        area, center = area_and_centroid(edges[:: rng.choice([-1, 1])])
        assert area == pytest.approx(mask.sum())
        assert center == pytest.approx([*np.argwhere(mask).mean(0), 4.0])
    assert area_and_centroid(np.array([[0.0, 0, 0], [4, 2, 0]])) == (0.0, pytest.approx([2, 1, 0]))


@pytest.mark.parametrize("seed", range(8))
def test_the_long_axis_is_the_largest_distance_of_edge_midpoints_in_any_slice(seed):
    rng = np.random.default_rng(seed)
    indices = np.argwhere(rng.random((7, 6, 4)) < 0.3).astype(float)
    affine = np.eye(4)
    affine[:3, :3] = rng.normal(size=(3, 3))
    expected = 0.0
    for number in np.unique(indices[:, 1]):  # the slices lie along the second axis
        pixels = indices[indices[:, 1] == number]
        steps = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, 0, 0.5], [0, 0, -0.5]])
        points = (pixels[:, None] + steps).reshape(-1, 3) @ affine[:3, :3].T
        expected = max(expected, max(np.linalg.norm(a - b) for a in points for b in points))
    assert long_axis_mm(indices, affine, 1) == pytest.approx(expected)


def test_one_voxel_is_as_long_as_it_is_wide_and_a_disc_as_its_diameter():
    assert long_axis_mm(np.array([[3.0, 4.0, 5.0]]), AFFINE, 2) == pytest.approx(0.8)
    grid = np.argwhere(np.hypot(*np.mgrid[-30:31, -30:31]) <= 20.3) * 1.0
    disc = np.column_stack([grid, np.zeros(len(grid))])
    assert long_axis_mm(disc, np.eye(4), 2) == pytest.approx(2 * 20.3, abs=1.0)


def test_extents_of_points_on_one_line_and_in_any_plane():
    line = np.outer(np.linspace(0, 1, 200), [3.0, 4.0, 12.0])
    assert longest_extent(line) == pytest.approx(13)
    assert longest_extent(line[:1]) == 0.0
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(50, 2))
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    expected = max(np.linalg.norm(a - b) for a in flat for b in flat)
    assert longest_extent(flat @ axes + [5, 6, 7]) == pytest.approx(expected)
    assert largest_distance(flat) == pytest.approx(expected)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_components_partition_the_voxels_and_do_not_touch(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((6, 5, 7)) < 0.12).astype(np.int32)
    for voxels in label_sets(labels):
        parts = voxels.components()
        together = np.concatenate([part.indices for part in parts])
        assert sorted(map(tuple, together)) == sorted(map(tuple, np.argwhere(labels == 1)))
        for one, other in itertools.combinations(parts, 2):
            gaps = np.abs(one.indices[:, None] - other.indices).max(-1)
            assert gaps.min() > 1  # neither a face, an edge nor a corner
        for part in parts:
            reached = {0}
            for _ in part.indices:
                reached |= {
                    other
                    for known in reached
                    for other in np.flatnonzero(np.abs(part.indices - part.indices[known]).max(-1) == 1)
                }
            assert len(reached) == len(part.indices)


def test_components_far_apart_take_no_memory_for_what_lies_between():
    far = VoxelSet("1", np.array([[0, 0, 0], [0, 0, 1], [2**40, 0, 0], [2**40, 1, 1]]))
    assert [len(part.indices) for part in far.components()] == [2, 2]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((0.7, 0.7, 2.5), 2), ((2.5, 0.7, 0.7), 0), ((0.7, 2.5, 0.7), 1), ((0.5, 0.9, 0.9), 0), ((1, 1, 1), 2)],
)
def test_slices_lie_across_the_spacing_that_is_unlike_the_others_and_else_are_axial(spacing, expected):
    assert slice_axis(np.diag([*spacing, 1.0])) == expected


def test_a_turned_cube_has_axial_slices():
    assert slice_axis(np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])) == 1


def test_a_grid_maps_indices_to_millimetres_and_back():
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    grid, points = VoxelGrid((4, 5, 6), affine), rng.normal(size=(7, 3))
    assert grid.world(points)[2] == pytest.approx((affine @ [*points[2], 1])[:3])
    assert grid.index(grid.world(points)) == pytest.approx(points)
    assert grid.holds(tuple(grid.world(np.array([[0, 4, 5]]))[0]))
    assert not grid.holds(tuple(grid.world(np.array([[0, 4, 6]]))[0]))


def test_centres_are_rounded_alike_on_both_sides_of_zero_and_nonsense_is_refused(tmp_path):
    assert world_point([1.23449999999, -2.00051, 3], tmp_path) == (1.234, -2.001, 3.0)
    assert world_point([1.2345, 2, 3], tmp_path, system="LPS") == (-1.234, -2.0, 3.0)
    for nonsense in ([np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 2e4], [1, 2]):
        with pytest.raises(CaseError, match="expected three finite numbers") as caught:
            world_point(nonsense, tmp_path)
        assert caught.value.code is Code.E_CENTER
