"""Readings of LIDC-IDRI: outlines of one nodule by one reader, and their grouping into nodules.

Used by ``tools/build_lidc_nodules.py`` for the annotations that the package holds, and for LIDC's XML files, so that a
nodule has the same centre from either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.cases.lesions.lesion import Points

READERS = 4  # LIDC had four readers look at each scan
_SMALLEST_TOLERANCE, _SHRINK = 0.1, 0.9


@dataclass(frozen=True, eq=False)
class Contour:
    """One outline on one slice: points (n, 2) as (column, row), z in mm; an exclusion cuts a hole."""

    inclusion: bool
    z_mm: float
    points: Points


@dataclass(frozen=True, eq=False)
class Reading:
    """One reader's ratings and outlines of one nodule."""

    ratings: tuple[int, ...]
    contours: tuple[Contour, ...]


def cluster_readings(
    readings: Sequence[Reading], *, slice_z_mm: Points, slice_thickness_mm: float
) -> list[list[Reading]]:
    """Group a scan's readings into nodules by pylidc's rule, in order of rising mean z.

    Connected components of readings whose contour points come within one slice thickness, in index units (columns,
    rows, slices); while a nodule has more than 4 readings, the tolerance is lowered by a tenth.

    Args:
        readings: of one scan.
        slice_z_mm: of its slices, rising.
        slice_thickness_mm: as its header says.
    """
    if not readings:
        return []
    clouds = [
        np.vstack([np.insert(c.points, 2, np.abs(slice_z_mm - c.z_mm).argmin(), axis=1) for c in reading.contours])
        for reading in readings
    ]
    trees = [cKDTree(cloud) for cloud in clouds]
    size = len(trees)
    distances = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1, size):
            distances[i, j] = distances[j, i] = np.min(trees[i].query(clouds[j])[0])
    tolerance = slice_thickness_mm
    while True:
        _, group = connected_components(distances <= tolerance, directed=False)
        if np.bincount(group).max() <= READERS or tolerance * _SHRINK < _SMALLEST_TOLERANCE:
            break
        tolerance *= _SHRINK
    clusters = [[r for r, g in zip(readings, group, strict=True) if g == key] for key in np.unique(group)]
    return sorted(clusters, key=lambda nodule: float(np.mean([bounding_box(r)[:, 2].mean() for r in nodule])))


def bounding_box(reading: Reading) -> Points:
    """Lowest and highest (column, row, z mm) of a reading's outlines, shape (2, 3)."""
    points = np.vstack([np.insert(c.points, 2, c.z_mm, axis=1) for c in reading.contours])
    return np.stack([points.min(0), points.max(0)])


def centroid(readings: Sequence[Reading]) -> Points:
    """Mean over the readings of the centre of their outlines' bounding box: column, row, z mm."""
    return np.asarray(np.stack([bounding_box(reading) for reading in readings]).mean((0, 1)))
