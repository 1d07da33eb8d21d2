"""Small pictures of a case, by which images are compared: one of a slice or picture, three of a volume."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.image import Float32Array

VIEW_PIXELS = 32  # pixels of a view along each side
_CT_BELOW = -900.0  # only CT has such values; what scanners and exports pad it with differs
_CT_RANGE = (-1024.0, 3071.0)


def views_of(voxels: Float32Array) -> Float32Array | None:
    """Views of an image, each of mean 0 and standard deviation 1.

    Args:
        voxels: (R, A, S); one axis of length 1 makes it a slice or picture.

    Returns:
        Shape (1, 32, 32) of a picture, in the order of its two axes; (3, 32, 32) of a volume: means along S (R, A),
        along A (R, S) and along R (A, S). None when a view is constant: there is nothing to compare.
    """
    if voxels.min() < _CT_BELOW:
        voxels = voxels.clip(*_CT_RANGE)
    flat = [axis for axis in range(3) if voxels.shape[axis] == 1]
    planes = (
        [voxels.squeeze(flat[0])]
        if len(flat) == 1
        else [voxels.mean(axis=axis, dtype=np.float64) for axis in (2, 1, 0)]
    )
    views = np.stack([_resized(plane) for plane in planes])
    views -= views.mean(axis=(1, 2), keepdims=True)
    spread = views.std(axis=(1, 2), keepdims=True)
    if not np.isfinite(spread).all() or (spread < 1e-6 * max(float(np.abs(voxels).max()), 1e-6)).any():
        return None
    result: Float32Array = (views / spread).astype(np.float32)
    return result


def _resized(plane: Float32Array) -> NDArray[np.float64]:
    rows, columns = (_weights(length) for length in plane.shape)
    resized: NDArray[np.float64] = rows @ plane.astype(np.float64) @ columns.T
    return resized


@cache
def _weights(length: int) -> NDArray[np.float64]:
    """Weights (32, length) that average the pixels under each new one; of fewer than 32, linear interpolation."""
    if length >= VIEW_PIXELS:
        edges = np.arange(VIEW_PIXELS + 1) * (length / VIEW_PIXELS)
        old = np.arange(length)
        overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
        weights: NDArray[np.float64] = overlap.clip(0) / (length / VIEW_PIXELS)
        return weights
    places = ((np.arange(VIEW_PIXELS) + 0.5) * (length / VIEW_PIXELS) - 0.5).clip(0, length - 1)
    distance = np.abs(places[:, None] - np.arange(length))
    return (1 - distance).clip(0)
