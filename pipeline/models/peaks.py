"""From heat maps to points: local maxima, moved by their offsets, the weaker one of two that are close dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.config.detection import CandidateRules
from pipeline.models.detector import STRIDE, DetectorOutput

_LOG_DIAMETER = (0.0, 5.0)  # 1 to 148 mm; beyond it an untrained network overflows


@dataclass(frozen=True, eq=False)
class Peaks:
    """Points of one scan by falling logit of class 0.

    Attributes:
        voxels: (N, 3) float64, place in voxels of the detector's input.
        logits: (N, C) float64, of every class at the peak.
        diameters_mm: (N,) float64.
    """

    voxels: NDArray[np.float64]
    logits: NDArray[np.float64]
    diameters_mm: NDArray[np.float64]


def find_peaks(output: DetectorOutput, rules: CandidateRules, *, spacing_mm: float) -> Peaks:
    """The peaks of one image's heat map of class 0.

    Args:
        output: of one image, each part without its batch axis: (C, r, a, s), (3, r, a, s), (1, r, a, s).
        rules: lowest probability, separation and number.
        spacing_mm: between voxels of the detector's input.
    """
    heat = output.heat.float()
    nodule = heat[:1]  # (1, r, a, s)
    highest = functional.max_pool3d(nodule, kernel_size=3, stride=1, padding=1)
    strong = (nodule == highest) & (torch.sigmoid(nodule) >= rules.lowest_probability)
    cells = strong[0].nonzero()  # (N, 3), in the order of memory
    order = torch.argsort(nodule[0][tuple(cells.T)], descending=True, stable=True)
    cells = cells[order[: 8 * rules.most]]  # most of the close ones are dropped below
    at = tuple(cells.T)
    offsets = output.offset.float()[(slice(None), *at)].T  # (N, 3)
    logs = output.log_diameter.float()[0][at].clamp(*_LOG_DIAMETER)
    return _separated(
        Peaks(
            voxels=_array(cells + offsets) * STRIDE,
            logits=_array(heat[(slice(None), *at)].T),
            diameters_mm=_array(logs.exp()),
        ),
        rules,
        spacing_mm=spacing_mm,
    )


def _separated(peaks: Peaks, rules: CandidateRules, *, spacing_mm: float) -> Peaks:
    """Drop peaks that are close to a stronger one, and keep at most ``rules.most``."""
    chosen: list[int] = []
    for index, place in enumerate(peaks.voxels):
        distances = np.linalg.norm(peaks.voxels[chosen] - place, axis=1) * spacing_mm
        if (distances >= np.maximum(rules.separation_mm, peaks.diameters_mm[chosen] / 2)).all():
            chosen.append(index)
        if len(chosen) == rules.most:
            break
    return Peaks(peaks.voxels[chosen], peaks.logits[chosen], peaks.diameters_mm[chosen])


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
