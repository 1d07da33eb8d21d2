"""The simulated half of a chest: vessels reach everywhere, nodules lie apart and are seen, slabs do not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.chest_anatomy import make_grid
from pipeline.datasets.demo import choose_cases
from pipeline.datasets.lidc import load_nodules
from pipeline.datasets.rendering import Painted, Scanner, draw_scanner
from pipeline.datasets.whole_scans import render
from pipeline.datasets.whole_scans.placing import APART_MM, MARGIN_MM, place_nodules, radius_mm
from pipeline.datasets.whole_scans.render import MOST_GRANULOMA_MM, render_scan
from pipeline.datasets.whole_scans.thorax import THORAX_SIZE_MM, draw_thorax
from pipeline.datasets.whole_scans.tissues import draw_tissues
from pipeline.datasets.whole_scans.vessel_tree import grow_tree

SOLID = Painted(texture=5, calcification=6, margin=5)
HALF = np.array(THORAX_SIZE_MM) / 2
GRID = make_grid(1.6, 4.0, 4.0, -HALF, HALF)


def scanner() -> Scanner:
    return replace(draw_scanner(np.random.default_rng(0), contrast=False), noise_sd_hu=10.0)


def masks(count: int, *, least_mm: float = 0.0):
    cases = choose_cases(load_nodules(), cases=None, seed=0)
    return [case.mask for case in cases if case.nodule.diameter_mm >= least_mm][:count]


def test_every_end_of_a_tree_is_reached_and_calibres_follow_murrays_law():
    rng = np.random.default_rng(0)
    root, ends = np.zeros(3), rng.uniform(20, 80, (200, 3))
    tree = grow_tree(root, ends, 0.4, rng)
    assert len(tree.ends) == 2 * len(ends) - 1
    stops = {tuple(point) for point in tree.ends}
    assert {tuple(point) for point in ends} <= stops
    # Every segment begins at the root or where another one ends.
    assert {tuple(point) for point in tree.starts} <= stops | {tuple(root)}
    assert np.isclose(tree.end_radii.max(), 0.4 * 200 ** (1 / 3))
    for stop, radius in zip(tree.ends, tree.end_radii, strict=True):
        children = tree.end_radii[(tree.starts == stop).all(axis=1)]
        if len(children):
            assert np.isclose((children**3).sum(), radius**3)
    centres, radii = tree.points()
    assert radii.min() >= 0.4 - 1e-6
    assert len(centres) == len(radii) > len(tree.ends)


@pytest.mark.parametrize("seed", range(4))
def test_nodules_lie_apart_within_the_lung_and_away_from_the_faces(seed):
    rng = np.random.default_rng(seed)
    thorax = draw_thorax(rng)
    vessels = render._grow_vessels(thorax, rng)
    shapes = masks(8)
    placed = place_nodules(shapes, thorax, vessels, rng)
    centres = np.array([nodule.centre_mm for nodule in placed])
    assert (np.abs(centres) <= HALF - MARGIN_MM).all()
    assert (thorax.lung.at(centres) > 0).all()
    for number, (one, mask) in enumerate(zip(centres, shapes, strict=True)):
        for other, second in zip(centres[:number], shapes[:number], strict=True):
            assert np.linalg.norm(one - other) >= radius_mm(mask) + radius_mm(second) + APART_MM
        depth = thorax.lung.at(one[None])[0]
        if placed[number].place == "pleura":
            assert depth < radius_mm(mask) + 3


def test_places_depend_on_shapes_and_not_on_ratings():
    nodules = [(mask, SOLID) for mask in masks(3)]
    other = [(mask, Painted(texture=1, calcification=3, margin=1)) for mask in masks(3)]
    one, two = (
        render_scan(given, scanner(), GRID, np.random.default_rng(5), contrast=False) for given in (nodules, other)
    )
    for first, second in zip(one.nodules, two.nodules, strict=True):
        assert np.array_equal(first.centre_mm, second.centre_mm)
    assert not np.array_equal(one.hu, two.hu)
    # Nothing but the nodules differs.
    far = np.ones(one.hu.shape, bool)
    for nodule, (mask, _) in zip(one.nodules, nodules, strict=True):
        x, y, z = nodule.centre_mm
        reach = radius_mm(mask) + 12
        far &= ~(
            (np.abs(GRID.x - x) < reach)[:, None, None]
            & (np.abs(GRID.y - y) < reach)[:, None]
            & (np.abs(GRID.slices - z) < reach)
        )
    assert np.array_equal(one.hu[far], two.hu[far])


def test_a_solid_nodule_is_bright_in_a_lung_that_is_dark():
    for seed in range(3):
        shapes = masks(2, least_mm=15)
        scan = render_scan(
            [(mask, SOLID) for mask in shapes], scanner(), GRID, np.random.default_rng(seed), contrast=False
        )
        assert (scan.hu < -1000).mean() < 0.2
        assert 0.15 < ((scan.hu > -980) & (scan.hu < -600)).mean() < 0.6
        for nodule in scan.nodules:
            x, y, z = (
                int(np.argmin(np.abs(axis - place)))
                for axis, place in zip((GRID.x, GRID.y, GRID.slices), nodule.centre_mm, strict=True)
            )
            assert scan.hu[x, y, z] > -250


def test_the_picture_does_not_depend_on_where_slabs_begin(monkeypatch):
    rng = np.random.default_rng(2)
    thorax = draw_thorax(rng)
    tissues = draw_tissues(thorax, contrast=True, rng=rng)
    tubes = render._tubes(thorax, render._grow_vessels(thorax, rng), scanner(), rng)
    whole = render._paint(thorax, tissues, scanner(), tubes, GRID)
    monkeypatch.setattr(render, "SLAB_PLANES", 7)
    np.testing.assert_allclose(render._paint(thorax, tissues, scanner(), tubes, GRID), whole, atol=0.2)
    assert whole.min() >= -1150
    assert whole.max() < 1500


def test_granulomas_are_smaller_than_nodules_and_calcified():
    rng = np.random.default_rng(0)
    thorax = draw_thorax(rng)
    found = [render._granulomas(thorax, np.random.default_rng(seed)) for seed in range(40)]
    assert 1 < np.mean([len(tubes.radii) for tubes in found]) < 3
    for tubes in found:
        assert (tubes.radii <= MOST_GRANULOMA_MM).all()
        assert tubes.hu >= 400
        assert (thorax.lung.at(tubes.centres) > 0).all()


def test_both_halves_of_the_chest_are_drawn():
    assert {draw_thorax(np.random.default_rng(seed)).side for seed in range(8)} == {-1, 1}
