"""Place a patient's nodules in the simulated lung: in the parenchyma, at the pleura, or beside a vessel.

Places are simulated: drawn from the nodule's size and the lung's shape, never from a rating or label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.datasets.chest_anatomy import Vector
from pipeline.datasets.lidc import NoduleMask
from pipeline.datasets.whole_scans.thorax import STEP_MM, THORAX_SIZE_MM, Thorax
from pipeline.datasets.whole_scans.vessel_tree import VesselTree

Place = Literal["parenchyma", "pleura", "vessel"]
PLACE_SHARES: dict[Place, float] = {"parenchyma": 0.5, "pleura": 0.25, "vessel": 0.25}
MARGIN_MM = 21.0  # from every face of the volume, so that a region around the nodule lies in the scan
APART_MM = 6.0  # between the surfaces of two nodules
TRIES = 400


@dataclass(frozen=True, eq=False)
class PlacedNodule:
    """Where one nodule lies.

    Attributes:
        centre_mm: its centroid, in mm from the volume's middle, shape (3,).
        place: what it lies beside.
    """

    centre_mm: Vector
    place: Place


def radius_mm(mask: NoduleMask) -> float:
    """Half of the shape's largest extent."""
    return float(max(mask.voxels.shape)) * mask.spacing_mm / 2


def place_nodules(
    masks: Sequence[NoduleMask], thorax: Thorax, vessels: Sequence[VesselTree], rng: np.random.Generator
) -> list[PlacedNodule]:
    """Place nodules, the largest first, so that none touches another.

    Args:
        masks: the nodules' shapes.
        thorax: the lung they lie in.
        vessels: its vessels.
        rng: the scan's randomness for places.

    Returns:
        One place a mask, in their order.
    """
    sizes = [radius_mm(mask) for mask in masks]
    points, depths = thorax.lung_points(0)
    within = np.all(np.abs(points) < np.array(THORAX_SIZE_MM) / 2 - MARGIN_MM, axis=1)
    points, depths = points[within], depths[within]
    placed: dict[int, PlacedNodule] = {}
    for number in sorted(range(len(masks)), key=lambda n: -sizes[n]):
        kind: Place = rng.choice(list(PLACE_SHARES), p=list(PLACE_SHARES.values()))
        radius = sizes[number]
        wanted = _candidates(kind, radius, points, depths, thorax, vessels, rng)
        others = [(nodule.centre_mm, sizes[n]) for n, nodule in placed.items()]
        gaps = [
            min((float(np.linalg.norm(place - centre)) - radius - size for centre, size in others), default=np.inf)
            for place in wanted
        ]
        first = next((n for n, gap in enumerate(gaps) if gap >= APART_MM), int(np.argmax(gaps)))
        placed[number] = PlacedNodule(wanted[first], kind)
    return [placed[number] for number in range(len(masks))]


def _candidates(
    kind: Place,
    radius: float,
    points: Vector,
    depths: Vector,
    thorax: Thorax,
    vessels: Sequence[VesselTree],
    rng: np.random.Generator,
) -> Vector:
    """Places of a kind for a nodule of a radius, in random order; the deepest ones where none is deep enough."""
    if kind == "pleura":
        depth = radius * rng.uniform(0.35, 0.9)
        near = np.abs(depths - depth) < STEP_MM / 2
    else:
        near = depths > radius + 2
    if not near.any():
        near = depths >= np.quantile(depths, 0.98)
    chosen = points[near][rng.permutation(int(near.sum()))[:TRIES]]
    chosen = chosen + rng.uniform(-0.5, 0.5, chosen.shape) * STEP_MM * (kind != "pleura")
    if kind != "vessel":
        return chosen
    beside = _beside_vessels(radius, vessels, rng)
    deep = thorax.lung.at(beside) > min(radius + 2, float(depths.max()) / 2)
    within = np.all(np.abs(beside) < np.array(THORAX_SIZE_MM) / 2 - MARGIN_MM, axis=1)
    return np.concatenate([beside[deep & within][:TRIES], chosen])


def _beside_vessels(radius: float, vessels: Sequence[VesselTree], rng: np.random.Generator) -> Vector:
    """Centres of balls that touch a vessel of 2-5 mm."""
    ends = np.concatenate([tree.ends for tree in vessels])
    sizes = np.concatenate([tree.end_radii for tree in vessels])
    middle = np.flatnonzero((sizes > 0.9) & (sizes < 2.5))
    chosen = rng.permutation(middle)[: 2 * TRIES]
    direction = rng.standard_normal((len(chosen), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.asarray(ends[chosen] + direction * (0.9 * radius + sizes[chosen])[:, None])
