"""Patches of training scans: a stated share around lesions, a share around mined false positives, the rest anywhere.

Everything drawn for a step depends on (seed, step) and on what has been mined alone, so that a resumed training draws
what the uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.detection import DetectionGrid, DetectionTraining
from pipeline.training.detection.scans import MarkedLesion, TrainingScan
from pipeline.training.detection.targets import patch_targets

_BORDER = 6  # voxels that a patch's own lesion stays away from its border, at least
_LEVELS = 255.0


class PatchBatch(NamedTuple):
    """One step's patches.

    Attributes:
        images: (B, 1, n, n, n) in [0, 1], but for noise.
        heat: (B, C, n/2, n/2, n/2), see ``PatchTargets``.
        regression: (B, 5, n/2, n/2, n/2): offset, log diameter, weight.
        scans: (B,), which scan each is of.
    """

    images: Tensor
    heat: Tensor
    regression: Tensor
    scans: Tensor


@dataclass(frozen=True, eq=False)
class HardNegative:
    """A place where the detector has seen a lesion and there is none.

    Attributes:
        scan: position among the training scans.
        voxel: (3,) float64.
        probability: that it gave.
    """

    scan: int
    voxel: NDArray[np.float64]
    probability: float


class PatchSampler:
    """Draws the patches of a step.

    Args:
        scans: of the training split.
        grid: spacing and patch size.
        settings: batch size, shares, augmentation.
        classes: C.
        seed: of all drawing.

    Attributes:
        hard: mined so far; whoever mines replaces it.
    """

    def __init__(
        self,
        scans: Sequence[TrainingScan],
        grid: DetectionGrid,
        settings: DetectionTraining,
        *,
        classes: int,
        seed: int,
    ) -> None:
        self.scans, self.hard = scans, list[HardNegative]()
        self._grid, self._settings, self._classes, self._seed = grid, settings, classes, seed
        self._lesions = [
            (number, lesion.voxel) for number, scan in enumerate(scans) for lesion in scan.lesions if not lesion.ignore
        ]

    def batch(self, step: int) -> PatchBatch:
        """The patches of a step, counted from 0 over the whole training."""
        rng = np.random.default_rng(np.random.SeedSequence((self._seed, step)))
        settings = self._settings
        positive = round(settings.batch_size * settings.positive_share) if self._lesions else 0
        hard = round(settings.batch_size * settings.hard_share) if self.hard else 0
        patches = [
            self._patch(*(self._near(rng, number < positive) if number < positive + hard else self._anywhere(rng)), rng)
            for number in range(settings.batch_size)
        ]
        images, heats, regressions, numbers = zip(*patches, strict=True)
        return PatchBatch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(heats)),
            torch.from_numpy(np.stack(regressions)),
            torch.tensor(numbers),
        )

    def _near(self, rng: np.random.Generator, lesion: bool) -> tuple[int, NDArray[np.int64]]:
        """Scan and first voxel of a patch that holds a lesion, or a hard negative."""
        side = self._grid.patch
        if lesion:
            scan, voxel = self._lesions[rng.integers(len(self._lesions))]
        else:
            drawn = self.hard[rng.integers(len(self.hard))]
            scan, voxel = drawn.scan, drawn.voxel
        place = rng.integers(_BORDER, side - _BORDER, size=3)  # of the point in the patch
        return scan, np.rint(voxel).astype(np.int64) - place

    def _anywhere(self, rng: np.random.Generator) -> tuple[int, NDArray[np.int64]]:
        number = int(rng.integers(len(self.scans)))
        shape = self.scans[number].voxels.shape
        return number, np.array([rng.integers(0, max(length - self._grid.patch, 0) + 1) for length in shape])

    def _patch(
        self, number: int, first: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]:
        scan, side = self.scans[number], self._grid.patch
        first = np.clip(first, 0, np.array(scan.voxels.shape) - side)
        box = tuple(slice(start, start + side) for start in first)
        image = scan.voxels[box].astype(np.float32)[np.newaxis] / np.float32(_LEVELS)
        lesions = [replace(lesion, voxel=lesion.voxel - first) for lesion in scan.lesions]
        flipped = [axis for axis in self._settings.flip_axes if rng.random() < 0.5]
        if flipped:
            image = np.flip(image, tuple(1 + axis for axis in flipped))
            lesions = [_mirrored(lesion, flipped, side) for lesion in lesions]
        if self._settings.quarter_turns and rng.random() < 0.5:  # with the mirror images, all quarter turns
            image = image.swapaxes(1, 2)
            lesions = [replace(lesion, voxel=lesion.voxel[[1, 0, 2]]) for lesion in lesions]
        if self._settings.intensity_shift:
            shift = self._settings.intensity_shift
            image = image + np.float32(rng.uniform(-shift, shift))
        if self._settings.noise_std:
            spread = np.float32(rng.uniform(0, self._settings.noise_std))
            image = image + spread * rng.standard_normal(image.shape, dtype=np.float32)
        targets = patch_targets(lesions, side=side, classes=self._classes, spacing_mm=self._grid.spacing_mm)
        regression = np.concatenate([targets.offset, targets.log_diameter, targets.weight])
        return np.ascontiguousarray(image), targets.heat, regression, number


def _mirrored(lesion: MarkedLesion, axes: Sequence[int], side: int) -> MarkedLesion:
    voxel = lesion.voxel.copy()
    voxel[list(axes)] = side - 1 - voxel[list(axes)]
    return replace(lesion, voxel=voxel)
