"""Hard negatives: where a detector in training sees lesions that nobody marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config.detection import DetectionConfig
from pipeline.models.detector import Detector
from pipeline.models.peaks import find_peaks
from pipeline.models.search_volume import search_volume
from pipeline.training.detection.patches import HardNegative
from pipeline.training.detection.scans import TrainingScan
from pipeline.training.precision import precision_of

_LEAST_PROBABILITY = 0.1  # below it a peak teaches little
_AROUND_MM = 3.0  # beyond a lesion's radius a peak may still mean the lesion
_MOST_OF_A_SCAN = 12


def mine(
    network: Detector, scans: Sequence[TrainingScan], chosen: Sequence[int], config: DetectionConfig
) -> list[HardNegative]:
    """The strongest false positives of some scans.

    Args:
        network: in evaluation mode.
        scans: of the training split.
        chosen: which of them are searched.
        config: names spacing, peaks and precision.
    """
    hard, spacing_mm = [], config.grid.spacing_mm
    bf16 = precision_of(config.training) == "bf16-mixed"
    for number in chosen:
        scan = scans[number]
        peaks = find_peaks(search_volume(network, scan.voxels, bf16=bf16), config.candidates, spacing_mm=spacing_mm)
        strong = peaks.logits[:, 0] > np.log(_LEAST_PROBABILITY / (1 - _LEAST_PROBABILITY))
        free = [
            HardNegative(number, voxel, float(1 / (1 + np.exp(-logit))))
            for voxel, logit in zip(peaks.voxels[strong], peaks.logits[strong, 0], strict=True)
            if not any(
                np.linalg.norm(voxel - lesion.voxel) * spacing_mm < lesion.diameter_mm / 2 + _AROUND_MM
                for lesion in scan.lesions
            )
        ]
        hard += free[:_MOST_OF_A_SCAN]
    return hard
