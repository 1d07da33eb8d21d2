"""A few simple measures of a network's input, for a regression that the network is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

RINGS_MM = tuple(itertools.pairwise((0.0, 2.0, 4.0, 6.0, 9.0, 13.0)))
MEASURES = (
    *(f"ring_mean_{low:g}_{high:g}_mm" for low, high in RINGS_MM),
    *(f"ring_std_{low:g}_{high:g}_mm" for low, high in RINGS_MM),
    "lesion_log_size",
    "lesion_mean",
    "lesion_std",
    "lesion_elongation",
    "edge_gradient",
)


def image_measures(voxels: npt.NDArray[np.float32], spacing_mm: Sequence[float]) -> dict[str, float]:
    """Measure an input around its centre: rings of brightness, and the bright spot in the middle.

    The spot is what is connected to the centre above the mean of the centre's and the background's brightness (the 10th
    percentile). A spot that touches bright tissue includes it: these measures are simple on purpose.

    Args:
        voxels: as the network gets them, shape (1, R, A[, S]), scaled.
        spacing_mm: of the voxels.

    Returns:
        By name, as ``MEASURES``: ring means and standard deviations and the lesion's in scaled intensity;
        ``lesion_log_size`` the logarithm of the diameter in mm of the disc or
        ball of its extent; ``lesion_elongation`` the ratio of its
        longest to its shortest standard deviation; ``edge_gradient`` in scaled intensity per mm along its border.
    """
    image, spacing = voxels[0].astype(np.float64), np.asarray(spacing_mm, dtype=np.float64)
    axes = [(np.arange(size) - (size - 1) / 2) * step for size, step in zip(image.shape, spacing, strict=True)]
    distance = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
    rings = [image[(distance >= low) & (distance < high)] for low, high in RINGS_MM]
    means = [_mean(ring) for ring in rings]
    lesion = _spot(image, distance, means[0])
    border = lesion & ~ndimage.binary_erosion(lesion)
    gradient = np.sqrt(sum(np.square(slope) for slope in np.gradient(image, *spacing)))
    values = (
        *means,
        *(float(ring.std()) if ring.size else 0.0 for ring in rings),
        float(np.log(_size(lesion, spacing))),
        _mean(image[lesion]),
        float(image[lesion].std()),
        _elongation(lesion, spacing),
        _mean(gradient[border]),
    )
    return dict(zip(MEASURES, values, strict=True))


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else 0.0


def _spot(image: npt.NDArray[np.float64], distance: npt.NDArray[np.float64], center: float) -> npt.NDArray[np.bool_]:
    """The part nearest to the centre that is brighter than half-way from the background to it."""
    above = image >= (np.quantile(image, 0.1) + center) / 2
    parts, _ = ndimage.label(above)
    nearest = np.unravel_index(np.argmin(np.where(above, distance, np.inf)), image.shape)
    return np.asarray(parts == parts[nearest])


def _size(lesion: npt.NDArray[np.bool_], spacing: npt.NDArray[np.float64]) -> float:
    """Diameter of the disc (2D) or ball (3D) of the same area or volume."""
    extent = float(lesion.sum() * np.prod(spacing))
    return 2 * float(np.sqrt(extent / np.pi)) if lesion.ndim == 2 else float(np.cbrt(6 * extent / np.pi))


def _elongation(lesion: npt.NDArray[np.bool_], spacing: npt.NDArray[np.float64]) -> float:
    places = np.argwhere(lesion) * spacing
    if len(places) <= lesion.ndim:
        return 1.0
    half = np.diag(np.square(spacing) / 12)  # a voxel's own extent, so that flat lesions stay finite
    spread = np.linalg.eigvalsh(np.cov(places.T) + half)
    return float(np.sqrt(spread[-1] / spread[0]))
