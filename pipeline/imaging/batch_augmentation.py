"""Random changes of whole batches: parameters are drawn by MONAI's transforms, and applied to the batch at once.

Sample by sample in Python, these transforms take as long as a small network does; here a batch of any size costs a few
tensor operations on whatever device holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAffine,
    RandFlip,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandRotate90,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.transforms.utils import create_rotate, create_scale, create_translate
from torch import Tensor
from torch.nn import functional

_Parameters = np.ndarray[Any, np.dtype[np.float64]]


class BatchAugmentation:
    """The transforms of a Compose, applied to a batch (B, C, R, A[, S]) at once.

    The parameters of a case are drawn by the transforms' own ``randomize``, from a random state that depends on (seed,
    epoch, case) alone, and neither on the case's batch nor on its process or device. Two things differ from MONAI: an
    affine transform draws once (MONAI's draws twice and keeps the second), and noise is drawn by torch, on the batch's
    device.

    Args:
        transforms: as :func:`pipeline.imaging.augmentation.build_augmentation` composes them.
        seed: of the run.

    Raises:
        TypeError: for a transform without an implementation for batches.
    """

    def __init__(self, transforms: Compose, *, seed: int) -> None:
        self._steps = [(transform, _step(transform)) for transform in transforms.transforms]
        self._seed = seed

    def __call__(self, images: Tensor, *, epoch: int, cases: Sequence[int]) -> Tensor:
        """The changed batch; ``images`` itself is left as it is.

        Args:
            images: (B, C, R, A[, S]) float32.
            epoch: counted from 0.
            cases: B places in the training set.
        """
        if not self._steps:
            return images
        drawn = [self._draw(images.ndim - 2, epoch, case) for case in cases]
        images = images.clone()
        for (_, step), parameters in zip(self._steps, zip(*drawn, strict=True), strict=True):
            images = step.apply(images, np.array(parameters))
        return images

    def _draw(self, dimensions: int, epoch: int, case: int) -> list[list[float]]:
        """Parameters of every transform for one case; the transforms share one random state, in their order."""
        # PCG64 because MONAI's usual Mersenne Twister takes ten times as long to seed.
        state = np.random.RandomState(np.random.PCG64(np.random.SeedSequence((self._seed, epoch, case))))
        drawn = []
        for transform, step in self._steps:
            transform.set_random_state(state=state)
            drawn.append(step.draw(transform, dimensions))
        return drawn


class _Step(NamedTuple):
    """How a transform is drawn for one case, and applied to a batch.

    ``draw`` gives parameters that change nothing where MONAI's transform decides not to act; ``apply`` gets them as
    (B, parameters), and may write into the images.
    """

    draw: Callable[[Any, int], list[float]]
    apply: Callable[[Tensor, _Parameters], Tensor]


def _step(transform: object) -> _Step:
    if isinstance(transform, RandFlip):
        axis = transform.flipper.spatial_axis
        return _Step(_draw_flip, lambda images, flips: _flip(images, flips, axis + 2))
    if isinstance(transform, RandRotate90):
        first, second = transform.spatial_axes
        return _Step(_draw_turns, lambda images, turns: _turn(images, turns, (first + 2, second + 2)))
    for kind, step in _STEPS.items():
        if isinstance(transform, kind):
            return step
    raise TypeError(f"{type(transform).__name__} has no form for batches")


def _draw_flip(transform: RandFlip, _: int) -> list[float]:
    transform.randomize(None)
    return [float(transform._do_transform)]


def _flip(images: Tensor, flips: _Parameters, axis: int) -> Tensor:
    if flips.any():
        rows = _beside(np.flatnonzero(flips), images)
        images[rows] = images[rows].flip(axis)
    return images


def _draw_turns(transform: RandRotate90, _: int) -> list[float]:
    transform.randomize(None)
    return [float(transform._rand_k if transform._do_transform else 0)]


def _turn(images: Tensor, turns: _Parameters, axes: tuple[int, int]) -> Tensor:
    for count in (1, 2, 3):
        if not (turns == count).any():
            continue
        rows = _beside(np.flatnonzero(turns == count), images)
        images[rows] = torch.rot90(images[rows], count, axes)
    return images


def _draw_affine(transform: RandAffine, dimensions: int) -> list[float]:
    """The first rows of the matrix that MONAI's AffineGrid makes, row by row."""
    transform.randomize(None)
    matrix = np.eye(dimensions + 1)
    if transform._do_transform:
        grid = transform.rand_affine_grid
        matrix = create_rotate(dimensions, grid.rotate_params) @ create_translate(dimensions, grid.translate_params)
        matrix = matrix @ create_scale(dimensions, grid.scale_params)
    return list(matrix[:-1].flat)


def _affine(images: Tensor, parameters: _Parameters) -> Tensor:
    dimensions = images.ndim - 2
    matrices = parameters.reshape(-1, dimensions, dimensions + 1)
    # MONAI counts voxels from the centre along R, A, S; grid_sample counts half sides, last axis first.
    half = np.array(images.shape[2:]) / 2
    matrices = matrices * np.append(half, 1.0) / half[:, None]
    theta = np.concatenate([matrices[:, ::-1, -2::-1], matrices[:, ::-1, -1:]], axis=2)
    grid = functional.affine_grid(_beside(theta, images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _draw_sigmas(transform: RandGaussianSmooth, dimensions: int) -> list[float]:
    transform.randomize(None)
    return [transform.x, transform.y, transform.z][:dimensions] if transform._do_transform else [0.0] * dimensions


def _smooth(images: Tensor, sigmas: _Parameters) -> Tensor:
    blurs = np.flatnonzero(sigmas[:, 0])
    if not blurs.size:
        return images
    rows = _beside(blurs, images)
    blurred = images[rows]
    for axis in range(sigmas.shape[1]):
        kernels = _kernel_matrices(_beside(sigmas[blurs, axis], images), images.shape[axis + 2])
        lines = blurred.movedim(axis + 2, -1)
        blurred = (lines.flatten(1, -2) @ kernels).view(lines.shape).movedim(-1, axis + 2)
    images[rows] = blurred
    return images


def _kernel_matrices(sigmas: Tensor, size: int) -> Tensor:
    """MONAI's Gaussian kernels ("erf", cut at four sigma, zeros outside the image) as symmetric matrices.

    For sides as short as these, a matrix product is faster than a convolution whose kernel differs from case to case.

    Args:
        sigmas: (B,) voxels.
        size: voxels N of the axis.

    Returns:
        (B, N, N).
    """
    nodes = torch.arange(size, device=sigmas.device)
    distance = (nodes[:, None] - nodes).to(sigmas)
    scale = (0.5**0.5 / sigmas)[:, None, None]
    kernels: Tensor = 0.5 * ((scale * (distance + 0.5)).erf() - (scale * (distance - 0.5)).erf())
    tails = ((4.0 * sigmas).clamp(min=0.5) + 0.5).floor()[:, None, None]
    return kernels.clamp(min=0).masked_fill(distance.abs() > tails, 0.0)


def _draw_factor(transform: RandScaleIntensity, _: int) -> list[float]:
    transform.randomize(None)
    return [1 + transform.factor if transform._do_transform else 1.0]


def _draw_offset(transform: RandShiftIntensity, _: int) -> list[float]:
    transform.randomize(None)
    return [transform._offset if transform._do_transform else 0.0]


def _draw_noise(transform: RandGaussianNoise, _: int) -> list[float]:
    """Standard deviation, as the transform draws it (before every voxel, which torch draws here), and torch's seed."""
    state = transform.R
    if state.rand() >= transform.prob:
        return [0.0, 0.0]
    std = state.uniform(0, transform.std) if transform.sample_std else transform.std
    return [std, float(state.randint(2**32, dtype=np.uint32))]


def _noise(images: Tensor, parameters: _Parameters) -> Tensor:
    generator = torch.Generator(images.device)
    noise = torch.empty_like(images[0])
    for image, (std, seed) in zip(images, parameters, strict=True):
        if std:
            image += noise.normal_(0.0, float(std), generator=generator.manual_seed(int(seed)))
    return images


def _beside(values: np.ndarray[Any, np.dtype[Any]], images: Tensor) -> Tensor:
    """Parameters in the images' number format, or places as they are, on the images' device.

    A plain copy to a GPU waits until the GPU has finished its queue; one from pinned memory does not.
    """
    tensor = torch.from_numpy(values)
    if tensor.is_floating_point():
        tensor = tensor.to(images.dtype)
    return tensor.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else tensor.to(images.device)


def _per_case(values: _Parameters, images: Tensor) -> Tensor:
    """(B, 1) → (B, 1, 1, 1[, 1]), to broadcast over the images."""
    return _beside(values, images).reshape(-1, *[1] * (images.ndim - 1))


_STEPS: dict[type, _Step] = {
    RandAffine: _Step(_draw_affine, _affine),
    RandGaussianSmooth: _Step(_draw_sigmas, _smooth),
    RandScaleIntensity: _Step(_draw_factor, lambda images, factors: images.mul_(_per_case(factors, images))),
    RandShiftIntensity: _Step(_draw_offset, lambda images, offsets: images.add_(_per_case(offsets, images))),
    RandGaussianNoise: _Step(_draw_noise, _noise),
}
