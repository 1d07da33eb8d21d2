"""Check that a detector can search a scan: a whole scan of the right kind with enough slices.

Other scans are refused with a code, so that "no candidate" is only reported of a scan that was searched. A detector
of nodules takes CT of the chest; for other modalities, only the size is checked. A scan with a gantry tilt is
resampled to right angles, and flagged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from pipeline.config.body_parts import contradicts
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import nearest_axes
from pipeline.imaging.image import Scan, spacing_mm
from pipeline.imaging.region import require_modality, spacing_measures

# A slab of ten slices can be searched; of fewer, most lesions show no more than a part.
_LEAST_SLICES = 10
# Half a chest is about 150 mm wide. Crops about a lesion are smaller, and are the classifier's.
_LEAST_SIDE_MM = 100.0
# A slab of 15 mm through both lungs has more than 100 ml; an abdomen without lung bases has bowel gas, of which next to
# nothing lies in the range below over 18 mm in each direction.
_LEAST_LUNG_ML = 40.0
_LUNG_HU = (-960.0, -500.0)
_BLOCK_MM = 6.0
# What a detector's envelope judges. Not the scan's extent, which is the field of view, nor the density of what is not
# lung: its median follows how much fat a patient has (-69 to 7 HU in three slabs of real CT).
ENVELOPE_MEASURES = ("spacing_in_plane_mm", "spacing_slice_mm", "lung_hu")
_CHEST = ("CHEST",)


def require_searchable(scan: Scan, path: Path, *, modality: str) -> dict[str, float]:
    """Refuse, by its header alone, a scan that a detector cannot search.

    Args:
        scan: opened.
        path: named in errors.
        modality: that the detector takes.

    Returns:
        Measures: ``side_r_mm``, ``side_a_mm`` and ``side_s_mm``, from edge to edge of the image; of the stored grid
        ``spacing_in_plane_mm`` and ``spacing_slice_mm``.

    Raises:
        CaseError: E_GEOMETRY_MISSING without millimetres; E_SHAPE for a slice or a few; E_OUT_OF_ENVELOPE for another
            modality, for a CT of another body part, and for a crop.
    """
    if not scan.has_millimetres:
        raise CaseError(
            Code.E_GEOMETRY_MISSING, path, "does not say how far apart its voxels are; export it with its geometry"
        )
    require_modality(scan, path, modality)
    if modality == "CT" and scan.body_part is not None and contradicts(scan.body_part, _CHEST):
        raise CaseError(
            Code.E_OUT_OF_ENVELOPE, path, f"the header says {scan.body_part}; this detector takes CT of the chest"
        )
    if min(scan.shape) < _LEAST_SLICES:
        text = " x ".join(map(str, scan.shape))
        raise CaseError(
            Code.E_SHAPE, path, f"{text} voxels, expected at least {_LEAST_SLICES} slices; name the whole series"
        )
    zooms = spacing_mm(scan.affine)
    sides = [scan.shape[stored] * zooms[stored] for stored, _ in nearest_axes(scan.affine, path)]
    if sorted(sides)[1] < _LEAST_SIDE_MM:
        text = " x ".join(f"{side:.0f}" for side in sides)
        raise CaseError(
            Code.E_OUT_OF_ENVELOPE,
            path,
            f"covers {text} mm, expected at least {_LEAST_SIDE_MM:g} mm along two axes; a crop about a lesion is "
            "scored without a detector",
        )
    return dict(zip(("side_r_mm", "side_a_mm", "side_s_mm"), sides, strict=True)) | spacing_measures(zooms)


def require_lung(
    voxels: NDArray[np.uint8], path: Path, *, window: tuple[float, float], spacing: float
) -> dict[str, float]:
    """Refuse a CT that shows almost no lung.

    Args:
        voxels: (R, A, S), as `resample_whole` gives them.
        path: named in errors.
        window: HU of the lowest and the highest byte.
        spacing: mm between voxels.

    Returns:
        Measures, see `lung_measures`.

    Raises:
        CaseError: E_OUT_OF_ENVELOPE.
    """
    measures = lung_measures(voxels, window=window, spacing=spacing)
    if measures["lung_ml"] < _LEAST_LUNG_ML:
        raise CaseError(
            Code.E_OUT_OF_ENVELOPE,
            path,
            f"shows {measures['lung_ml']:.0f} ml of lung, expected at least {_LEAST_LUNG_ML:g}; "
            "this detector takes CT of the chest",
        )
    return measures


def lung_measures(voxels: NDArray[np.uint8], *, window: tuple[float, float], spacing: float) -> dict[str, float]:
    """How much lung a CT shows, and how dense it is.

    Measured on means over blocks of about 6 mm. A block counts as lung when it and its 26 neighbours lie between -960
    and -500 HU: the air around a patient does not, nor the layer between air and skin, nor most bowel gas.

    Returns:
        ``lung_ml``, the volume of lung; ``lung_hu``, its mean, absent without lung.
    """
    side = max(1, round(_BLOCK_MM / spacing))
    r, a, s = (length // side for length in voxels.shape)
    if min(r, a, s) == 0:
        return {"lung_ml": 0.0}
    trimmed = voxels[: r * side, : a * side, : s * side]
    sums = trimmed.reshape(r, side, a, side, s, side).sum(axis=(1, 3, 5), dtype=np.uint32)
    means = window[0] + (window[1] - window[0]) * sums / (np.iinfo(np.uint8).max * side**3)
    is_dense_as_lung = (means >= _LUNG_HU[0]) & (means <= _LUNG_HU[1])
    lung = means[minimum_filter(is_dense_as_lung.astype(np.uint8), size=3, mode="nearest").astype(bool)]
    measures = {"lung_ml": lung.size * (side * spacing) ** 3 / 1000}
    if lung.size:
        measures["lung_hu"] = float(lung.mean())
    return measures
