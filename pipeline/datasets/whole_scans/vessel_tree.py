"""Trees of vessels that fill a lung: from the hilum to ends spread over the lung, thinner at every division.

A tree runs to a set of ends: its trunk goes part of the way to their centre, where it divides into two trees, each to
one half of the ends, and so on. The radius of a segment is that of an end times the cube root of the number of ends it
leads to (Murray's law), so calibres taper like those of real vessels, from 4-6 mm at the hilum to just visible ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datasets.chest_anatomy import Vector

MURRAY = 1 / 3  # exponent of the number of ends


@dataclass(frozen=True, eq=False)
class VesselTree:
    """Segments of a tree of vessels, mm.

    Attributes:
        starts: where each segment begins, shape (n, 3).
        bends: the control point between its ends, which makes it a curve, shape (n, 3).
        ends: where it ends, shape (n, 3).
        start_radii: its radius where it begins, shape (n,).
        end_radii: its radius where it ends, shape (n,).
    """

    starts: Vector
    bends: Vector
    ends: Vector
    start_radii: Vector
    end_radii: Vector

    def points(self, density: float = 0.5) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Balls that make up the vessels, every ``density`` radii, but at least 0.4 mm apart.

        Returns:
            Centres, shape (m, 3), and radii, shape (m,).
        """
        lengths = np.linalg.norm(self.ends - self.starts, axis=1)
        steps = np.ceil(lengths / np.maximum(density * self.end_radii, 0.4)).astype(int) + 1
        segment = np.repeat(np.arange(len(steps)), steps)
        number = np.arange(len(segment)) - np.repeat(np.cumsum(steps) - steps, steps)
        t = (number / steps[segment])[:, None]
        curve = (1 - t) ** 2 * self.starts[segment] + 2 * t * (1 - t) * self.bends[segment] + t**2 * self.ends[segment]
        radii = self.start_radii[segment] + t[:, 0] * (self.end_radii - self.start_radii)[segment]
        return curve.astype(np.float32), radii.astype(np.float32)


def grow_tree(root: Vector, ends: Vector, end_radius_mm: float, rng: np.random.Generator) -> VesselTree:
    """Grow a tree from a root to all ends.

    Args:
        root: mm, shape (3,).
        ends: mm, shape (n, 3).
        end_radius_mm: radius of a vessel that leads to one end.
        rng: decides where trunks divide and how they bend.
    """
    starts, stops, counts, parents = [], [], [], []
    waiting = [(root, ends, len(ends))]
    while waiting:
        start, group, parent_count = waiting.pop()
        if len(group) == 1:
            stop = group[0]
        else:
            centre = group.mean(axis=0)
            stop = start + rng.uniform(0.3, 0.6) * (centre - start)
            waiting += [(stop, half, len(group)) for half in _halves(group, rng)]
        starts.append(start)
        stops.append(stop)
        counts.append(len(group))
        parents.append(parent_count)
    begin, end = np.array(starts), np.array(stops)
    length = np.linalg.norm(end - begin, axis=1, keepdims=True)
    bends = (begin + end) / 2 + 0.12 * length * rng.standard_normal(begin.shape)
    radii, before = (end_radius_mm * np.array(n, float) ** MURRAY for n in (counts, parents))
    return VesselTree(begin, bends, end, (radii + before) / 2, radii)


def _halves(group: Vector, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """Divide points at a plane across the direction in which they are most spread, more or less in the middle."""
    spread = group - group.mean(axis=0)
    direction = np.linalg.eigh(spread.T @ spread)[1][:, -1] + 0.3 * rng.standard_normal(3)
    order = np.argsort(spread @ direction)
    cut = int(np.clip(round(len(group) * rng.uniform(0.3, 0.7)), 1, len(group) - 1))
    return group[order[:cut]], group[order[cut:]]
