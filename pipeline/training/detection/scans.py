"""What a detector is trained on: whole scans in memory, a byte a voxel, and the lesions marked in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MarkedLesion:
    """A lesion in voxels of a scan's grid.

    Attributes:
        voxel: (3,) float64, its centre.
        diameter_mm: above 0.
        ignore: whether finding it is neither right nor wrong; nothing is learnt there.
        attributes: of the classes after ``nodule``: 1, 0, or NaN where it is unknown.
    """

    voxel: NDArray[np.float64]
    diameter_mm: float
    ignore: bool
    attributes: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class TrainingScan:
    """A scan on the detector's grid.

    Attributes:
        scan_id: for messages.
        voxels: (R, A, S) uint8.
        lesions: marked in it.
    """

    scan_id: str
    voxels: NDArray[np.uint8]
    lesions: tuple[MarkedLesion, ...]
