"""Lesions as bodies in space: benign ones small, smooth and faint, malignant ones large, bright and spiculated."""

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
        malignant: what it was drawn as.
    """

    center: FloatArray
    radius: float
    spikes: FloatArray
    spike_height: float
    brightness: float
    malignant: bool

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
) -> Shape:
    """Draw a lesion; radii vary by a tenth, so that the classes come close and hardly overlap."""
    center = np.asarray(center, float)
    spread = float(np.clip(rng.normal(1, 0.1), 0.8, 1.2))
    if not malignant:
        brightness = float(np.clip(rng.normal(0.35, 0.1), 0.15, 0.6))
        return Shape(center, benign_radius * spread, np.empty((0, len(center))), 0.0, brightness, malignant)
    spikes = rng.standard_normal((int(rng.integers(7, 12)), len(center)))
    spikes /= np.linalg.norm(spikes, axis=1, keepdims=True)
    height = float(rng.uniform(0.4, 0.6))
    brightness = float(np.clip(rng.normal(0.85, 0.08), 0.65, 1.0))
    return Shape(center, malignant_radius * spread, spikes, height, brightness, malignant)


def draw_centers(rng: np.random.Generator, *, count: int, half_width: FloatArray, apart: float) -> list[FloatArray]:
    """Draw points of a box around the origin, at least so far apart."""
    centers: list[FloatArray] = []
    while len(centers) < count:
        center = rng.uniform(-half_width, half_width)
        if all(np.linalg.norm(center - other) >= apart for other in centers):
            centers.append(center)
    return centers
