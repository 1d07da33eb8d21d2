"""Lesions as bodies in space: benign ones small, smooth and faint, malignant ones large, bright and spiculated.

A few are atypical and lie in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from made_folders.geometry import FloatArray


@dataclass(frozen=True, eq=False)
class Shape:
    """A body around a centre, in two or three dimensions.

    Attributes:
        center: in the unit and frame of the points that it is painted on, shape (d,).
        radius: of the body without its spikes.
        spikes: unit vectors along which spikes stick out, shape (n, d).
        spike_height: how far the spikes reach beyond the body, as a share of the radius.
        brightness: 0 to 1; what it means is the painter's.
        looks: from 0, as benign as can be, to 1. Whatever a painter adds to a lesion follows from this and not from
            the label, or it would give the label of atypical lesions away.
    """

    center: FloatArray
    radius: float
    spikes: FloatArray
    spike_height: float
    brightness: float
    looks: float

    def cover(self, points: FloatArray, *, edge: float) -> FloatArray:
        """How full each point is, 0 to 1 over an edge of a width; points (..., d) give shares (...)."""
        offset = points - self.center
        distance = np.linalg.norm(offset, axis=-1)
        filled = np.zeros(distance.shape)
        near = distance < self.radius * (1 + self.spike_height) + edge
        direction = offset[near] / np.maximum(distance[near], 1e-9)[:, None]
        reach = np.full(direction.shape[0], self.radius)
        if len(self.spikes):
            # A spike is a narrow peak of the reach over the angle to its axis.
            reach *= 1 + self.spike_height * np.exp(14 * (direction @ self.spikes.T - 1)).max(-1)
        filled[near] = np.clip((reach - distance[near]) / edge + 0.5, 0, 1)
        return filled


def draw_shape(
    rng: np.random.Generator,
    *,
    malignant: bool,
    center: Sequence[float] | FloatArray,
    benign_radius: float = 4.6,
    malignant_radius: float = 8.6,
    atypical: bool = False,
) -> Shape:
    """Draw a lesion; radii vary by a tenth.

    Args:
        atypical: it lies between the classes, as some in every clinic do. Without any, the classes would separate
            perfectly, and no finite calibration would fit.
    """
    looks = float(malignant)
    if atypical:
        looks = float(rng.uniform(0.42, 0.55) if malignant else rng.uniform(0.45, 0.58))
    center = np.asarray(center, float)
    radius = benign_radius * (malignant_radius / benign_radius) ** looks * float(np.clip(rng.normal(1, 0.1), 0.8, 1.2))
    brightness = float(np.clip(rng.normal(0.35 + 0.5 * looks, 0.09), 0.15, 1.0))
    spikes = rng.standard_normal((int(rng.integers(7, 12)) if looks else 0, len(center)))
    spikes /= np.linalg.norm(spikes, axis=1, keepdims=True)
    return Shape(center, radius, spikes, looks * float(rng.uniform(0.4, 0.6)), brightness, looks)


def draw_centers(rng: np.random.Generator, *, count: int, half_width: FloatArray, apart: float) -> FloatArray:
    """Draw one or two points of a box around the origin, two at least so far apart; shape (count, d)."""
    assert count < 2 or apart < 1.3 * np.linalg.norm(half_width), "two points so far apart hardly exist in this box"
    while True:  # both anew: a first point in the middle may leave no room for a second
        centers = rng.uniform(-half_width, half_width, (count, len(half_width)))
        if count < 2 or np.linalg.norm(centers[0] - centers[1]) >= apart:
            return centers
