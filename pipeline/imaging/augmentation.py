"""Random changes of training inputs: MONAI's transforms, drawn for every (seed, epoch, case)."""

from __future__ import annotations

import math

from monai.transforms import (
    Compose,
    RandAffine,
    RandFlip,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandRotate90,
    RandScaleIntensity,
    RandShiftIntensity,
    Transform,
)

from pipeline.config.training import Augmentation


def build_augmentation(config: Augmentation, *, dimensions: int) -> Compose:
    """Compose the configured transforms; an empty Compose when all are off.

    Args:
        config: strengths; a strength of 0 leaves the transform out.
        dimensions: 2 or 3.

    The result takes and returns one input (1, R, A[, S]). ``set_random_state`` makes it repeatable.
    """
    chance = config.probability
    steps: list[Transform] = [RandFlip(prob=chance, spatial_axis=axis) for axis in config.flip_axes]
    if config.quarter_turns:  # exact and almost free, where a rotation by any angle resamples every voxel
        steps.append(RandRotate90(prob=0.75, max_k=3, spatial_axes=(0, 1)))
    if config.rotate_degrees or config.scale or config.translate_voxels:
        steps.append(
            RandAffine(
                prob=1.0,
                rotate_range=(math.radians(config.rotate_degrees),) * (3 if dimensions == 3 else 1),
                scale_range=(config.scale,) * dimensions,
                translate_range=(config.translate_voxels,) * dimensions,
                mode="bilinear",
                padding_mode="border",
            )
        )
    if config.blur_sigma:
        sigma = (0.1, max(config.blur_sigma, 0.1))
        steps.append(RandGaussianSmooth(prob=chance, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma))
    if config.intensity_scale:
        steps.append(RandScaleIntensity(prob=chance, factors=config.intensity_scale))
    if config.intensity_shift:
        steps.append(RandShiftIntensity(prob=chance, offsets=config.intensity_shift))
    if config.noise_std:
        steps.append(RandGaussianNoise(prob=chance, std=config.noise_std))
    return Compose(steps)
