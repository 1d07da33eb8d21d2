"""``pipeline.heat_map``: a whole scan on a detector's grid, and the detector's heat map of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.inputs import read_inputs
from pipeline.config.experiment import Tracking
from pipeline.errors import UsageError
from pipeline.tracking.registry import model_folder

if TYPE_CHECKING:
    from pipeline.imaging.image import Affine


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A whole scan on a detector's grid, and the heat map of class ``nodule``.

    Attributes:
        voxels: (R, A, S) uint8, from 0 at the lower to 255 at the upper end of the detector's window of values.
        affine: (4, 4), index of ``voxels`` → RAS+ world mm.
        spacing_mm: between voxels, the same along all axes.
        probabilities: of class ``nodule`` in each cell (r, a, s), in [0, 1], uncalibrated.
        cells_affine: (4, 4), index of ``probabilities`` → RAS+ world mm.
    """

    voxels: NDArray[np.uint8]
    affine: Affine
    spacing_mm: float
    probabilities: NDArray[np.float64]
    cells_affine: Affine

    def voxel_at(self, center_mm: Sequence[float]) -> NDArray[np.float64]:
        """Index in ``voxels``, with fractions, of a place in RAS+ world mm."""
        return _index(self.affine, center_mm)

    def cell_at(self, center_mm: Sequence[float]) -> NDArray[np.float64]:
        """Index in ``probabilities``, with fractions, of a place in RAS+ world mm."""
        return _index(self.cells_affine, center_mm)


def heat_map(detector_name: str, source: str) -> HeatMap:
    """Read one scan onto a detector's grid and compute its heat map.

    Args:
        detector_name: a detector's directory, or an MLflow model URI.
        source: one scan, a folder that holds one DICOM series, or a table of one row.

    Raises:
        CaseError: for a scan that cannot be searched.
        ModelError: when the detector is damaged, or none.
        UsageError: when ``source`` names no scan, or several.
    """
    from pipeline.evaluation.calibration.calibrator import sigmoid
    from pipeline.models.detector import STRIDE
    from pipeline.scoring.finding.detector_directory import load_detector
    from pipeline.scoring.finding.finder import Finder

    detector = load_detector(model_folder(detector_name, Tracking()))
    inputs = read_inputs(source)
    cases = list(islice(inputs.cases(), 2))
    if len(cases) != 1:
        raise UsageError(f"{source}: holds {'several scans' if cases else 'no scan'}, expected one; name one scan")
    finder = Finder(detector, root=inputs.root)
    scan = finder.read(cases[0])
    cells_affine = scan.affine.copy()
    cells_affine[:3, :3] *= STRIDE  # the first cell lies on the first voxel
    return HeatMap(
        voxels=scan.voxels,
        affine=scan.affine,
        spacing_mm=detector.description.grid.spacing_mm,
        probabilities=sigmoid(finder.heat_logits(scan.voxels)[0]),
        cells_affine=cells_affine,
    )


def _index(affine: Affine, center_mm: Sequence[float]) -> NDArray[np.float64]:
    return np.linalg.solve(affine, np.array([*center_mm, 1.0]))[:3]
