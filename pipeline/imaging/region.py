"""Reading the region that the network sees, as an ordinary MONAI dictionary transform.

``ReadRegiond`` fits into any ``Compose``::

    Compose([
        ReadRegiond("image", size=(64, 64, 64), spacing_mm=(1, 1, 1), modality="CT"),
        ScaleIntensityRanged("image", a_min=-1000, a_max=400, b_min=0, b_max=1, clip=True),
    ])({"image": "scan.nii.gz", "center_mm": (-9.75, 4.5, 6.0)})
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Resize
from numpy.typing import NDArray

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import nearest_axes
from pipeline.imaging.image import Affine, Box, Float32Array, Scan, ScanFacts, Warning, carrying, scan_facts, spacing_mm
from pipeline.imaging.ranges import check_range
from pipeline.imaging.read import open_scan
from pipeline.imaging.roi import Grid, image_grid, lesion_grid
from pipeline.imaging.roi_tilted import TiltedGrid

_WHOLE: Box = (slice(None), slice(None), slice(None))
QUANTILES = (1, 5, 25, 50, 75, 95, 99)
AIR_HU = -1000.0
_AIR_BELOW_HU, _TISSUE_ABOVE_HU = -700.0, -200.0
# Padding and metal are no anatomy: measures use values within the range of an ordinary scanner.
_SCANNER_HU = (-1024.0, 3071.0)
_MOST_PADDING = 0.25  # share of the nodes outside the image from which a lesion case is flagged
# A ball that fits into the smallest lesions. Of the demonstration's centres, 0.3 % are flagged; moved by 14 mm, 59 %.
_CENTER_MM, _CENTER_AIR_HU = 1.5, -800.0
# Smoothing before shrinking takes time in proportion to it; no scan is that much finer than a network's input.
_MOST_SHRINKING = 100


@dataclass(frozen=True, eq=False)
class RegionFacts:
    """Facts about a region that was read; see `pipeline.imaging.preprocess.ModelInput`."""

    warnings: tuple[Warning, ...]
    measures: dict[str, float]
    scan: ScanFacts


@dataclass(frozen=True)
class _Source:
    """What to open; see ``open_scan``. A scan that is open already is not opened again."""

    path: Path
    files: Sequence[Path] | None
    part: str | None
    opened: Scan | None


class ReadRegiond(MapTransform):
    """Read, check and resample the region of a scan; replaces a path by voxels (1, *size), float32, in RAS order.

    With a path under each key, the lesion's centre (RAS mm) under ``center_key`` and, for one DICOM series of a folder
    that holds several, its slices under ``<key>_files`` or its name under ``<key>_part``, which also names a page or
    frame of a file. What lies at the path may stand opened under ``<key>_scan``. Facts (warnings, measures, digest) are
    put under ``<key>_facts``. Intensities are not scaled; nodes outside the image hold air (CT) or its minimum.

    Raises:
        CaseError: with the code of what is wrong; a MONAI ``Compose`` wraps it into a ``RuntimeError``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: Sequence[int],
        spacing_mm: Sequence[float] | None,
        region: str = "lesion",
        modality: str = "CT",
        center_key: str = "center_mm",
        limits: Limits | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.region, self.modality = tuple(size), region, modality
        self.spacing_mm = None if spacing_mm is None else tuple(spacing_mm)
        self.center_key, self.limits = center_key, limits or Limits()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the path under each key."""
        result = dict(data)
        for key in self.key_iterator(result):
            path = Path(os.fspath(result[key]))
            source = _Source(path, *(result.get(f"{key}_{name}") for name in ("files", "part", "scan")))
            voxels, affine, facts = self._read(source, result.get(self.center_key))
            result[key] = MetaTensor(torch.from_numpy(voxels[np.newaxis]), affine=torch.from_numpy(affine))
            result[f"{key}_facts"] = facts
        return result

    def _read(self, source: _Source, center_mm: Any) -> tuple[Float32Array, Affine, RegionFacts]:
        if self.region == "lesion" and center_mm is None:
            raise CaseError(
                Code.E_CENTER_MISSING,
                source.path,
                "no lesion centre; fill in center_x_mm, center_y_mm, center_z_mm and coordinate_system",
            )
        scan = source.opened or open_scan(
            source.path, limits=self.limits, modality=self.modality, files=source.files, part=source.part
        )
        with carrying(scan.warnings):
            return self._read_opened(scan, source.path, center_mm)

    def _read_opened(self, scan: Scan, path: Path, center_mm: Any) -> tuple[Float32Array, Affine, RegionFacts]:
        slice_axis = self._check_kind(scan, path)
        size, spacing = self._in_3d(scan, slice_axis)
        if spacing is None:
            voxels, affine, share, box_voxels = self._resized(scan, path, size)
            measured, lesion_warnings = voxels, []
        else:
            grid = self._grid(scan, path, center_mm, size, spacing)
            box_voxels = scan.read(grid.box)
            check_range(path, box_voxels, self.modality)
            measured = grid.resample(box_voxels)
            constant = AIR_HU if self.modality == "CT" else float(measured.min())
            voxels, affine, share = grid.pad(measured, constant), grid.affine, grid.share_inside
            lesion_warnings = self._lesion_warnings(measured, grid, spacing) if self.region == "lesion" else []
        if slice_axis is not None:
            voxels = voxels.squeeze(slice_axis)
        facts = RegionFacts(
            warnings=(*scan.warnings, *lesion_warnings),
            measures=_measures(measured, self.modality)
            | {"share_inside": share}
            | _geometry_measures(scan, slice_axis),
            scan=scan_facts(scan, modality=self.modality),
        )
        return np.ascontiguousarray(voxels, dtype=np.float32), affine, facts

    def _check_kind(self, scan: Scan, path: Path) -> int | None:
        """The world axis across the slice, for a 2D model; None for a 3D model."""
        flat = [world for world, length in enumerate(self._ras_shape(scan, path)) if length == 1]
        text = " x ".join(str(length) for length in scan.shape)
        if len(self.size) == 3 and flat:
            raise CaseError(Code.E_SHAPE, path, f"{text} voxels, a slice; this model takes volumes")
        if len(self.size) == 2 and len(flat) != 1:
            raise CaseError(Code.E_SHAPE, path, f"{text} voxels; this model takes single slices and pictures")
        if self.spacing_mm is not None and not scan.has_millimetres:
            reason = (
                "says nothing of the distance between its pixels, and preprocessing.spacing_mm asks for millimetres; "
                "export it with a pixel spacing, or train with spacing_mm: null"
            )
            raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
        require_modality(scan, path, self.modality)
        return flat[0] if flat else None

    def _in_3d(self, scan: Scan, slice_axis: int | None) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
        """Size and spacing along R, A and S; across a slice there is one node."""
        if slice_axis is None:
            return self.size, self.spacing_mm
        size = list(self.size)
        size.insert(slice_axis, 1)
        if self.spacing_mm is None:
            return tuple(size), None
        spacing = list(self.spacing_mm)
        spacing.insert(slice_axis, spacing_mm(scan.affine)[nearest_axes(scan.affine)[slice_axis][0]])
        return tuple(size), tuple(spacing)

    def _grid(
        self, scan: Scan, path: Path, center_mm: Any, size: tuple[int, ...], spacing: tuple[float, ...]
    ) -> Grid | TiltedGrid:
        if self.region == "lesion":
            center = _three([float(value) for value in center_mm])
            return lesion_grid(path, scan.shape, scan.affine, center_mm=center, size=size, spacing=spacing)
        return image_grid(path, scan.shape, scan.affine, size=size, spacing=spacing)

    def _resized(
        self, scan: Scan, path: Path, size: tuple[int, ...]
    ) -> tuple[Float32Array, Affine, float, Float32Array]:
        """The whole image, brought to the size; smoothed first where it shrinks."""
        if max(length / size[world] for world, length in enumerate(self._ras_shape(scan, path))) > _MOST_SHRINKING:
            text = " x ".join(str(length) for length in scan.shape)
            raise CaseError(Code.E_SHAPE, path, f"{text} voxels, more than {_MOST_SHRINKING} for one of the input's")
        stored = scan.read(_WHOLE)
        check_range(path, stored, self.modality)
        axes = nearest_axes(scan.affine, path)
        flips = tuple(slice(None, None, sign) for _, sign in axes)
        values = np.ascontiguousarray(stored.transpose([axis for axis, _ in axes])[flips])
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1
        for world, (axis, sign) in enumerate(axes):
            ratio = scan.shape[axis] / size[world]
            first = (ratio - 1) / 2  # MONAI resizes with align_corners=False: the edges of both grids coincide
            to_stored[axis, world] = sign * ratio
            to_stored[axis, 3] = first if sign > 0 else scan.shape[axis] - 1 - first
        if values.shape != size:
            flat = [axis for axis in range(3) if size[axis] == 1 and values.shape[axis] == 1]
            image = torch.from_numpy(values.squeeze(tuple(flat)) if len(flat) == 1 else values)[None]
            target = [length for axis, length in enumerate(size) if len(flat) != 1 or axis not in flat]
            mode = "trilinear" if len(target) == 3 else "bilinear"
            resized = Resize(target, mode=mode, anti_aliasing=True)(image)
            values = np.asarray(resized[0], dtype=np.float32).reshape(size)
        return values, scan.affine @ to_stored, 1.0, stored

    def _ras_shape(self, scan: Scan, path: Path) -> list[int]:
        return [scan.shape[stored] for stored, _ in nearest_axes(scan.affine, path)]

    def _lesion_warnings(
        self, measured: Float32Array, grid: Grid | TiltedGrid, spacing: tuple[float, ...]
    ) -> list[Warning]:
        warnings = []
        outside = 1 - grid.share_inside
        if outside > _MOST_PADDING:
            warnings.append(
                Warning(Code.W_PADDING, f"{outside:.0%} of the region lies outside the image and is padded")
            )
        if self.modality == "CT":
            distance = grid.distances_mm(spacing)
            mean = float(measured[distance <= max(_CENTER_MM, float(distance.min()))].mean())
            if mean < _CENTER_AIR_HU:
                warnings.append(
                    Warning(
                        Code.W_CENTER_IN_AIR,
                        f"{mean:.0f} HU around the lesion centre; check its coordinates and coordinate_system",
                    )
                )
        return warnings


# DICOM's modality → ours.
_DECLARED = {
    "CT": "CT",
    "MR": "MR",
    "US": "US",
    "CR": "XR",
    "DX": "XR",
    "MG": "XR",
    "RF": "XR",
    "XA": "XR",
    "SEG": "mask",
}


def require_modality(scan: Scan, path: Path, modality: str) -> None:
    """Refuse a scan whose header declares another modality than the one that a model takes.

    Raises:
        CaseError: E_OUT_OF_ENVELOPE.
    """
    declared = _DECLARED.get(scan.modality or "", scan.modality)
    if declared is not None and modality not in (declared, "other"):
        raise CaseError(
            Code.E_OUT_OF_ENVELOPE, path, f"the file declares modality {declared}, the model takes {modality}"
        )


def _measures(values: Float32Array, modality: str) -> dict[str, float]:
    """Intensity quantiles of the region inside the image; for CT also the fractions of air and of tissue."""
    flat: NDArray[np.float32] = values.ravel()
    if modality == "CT":
        flat = flat.clip(*_SCANNER_HU)
    levels = np.quantile(flat, [level / 100 for level in QUANTILES])
    measures = {f"intensity_q{level:02d}": float(value) for level, value in zip(QUANTILES, levels, strict=True)}
    if modality == "CT":
        measures["air_fraction"] = float(np.mean(flat < _AIR_BELOW_HU))
        # Noise leaves few voxels at exactly 0 HU: many are the rest of a half-copied file, or a mask's outside.
        measures["zero_fraction"] = float(np.mean(flat == 0))
        measures["tissue_fraction"] = float(np.mean(flat > _TISSUE_ABOVE_HU))
    return measures


def _geometry_measures(scan: Scan, slice_axis: int | None) -> dict[str, float]:
    """Stored spacing. Without millimetres there is none."""
    if not scan.has_millimetres:
        return {}
    spacing = spacing_mm(scan.affine)
    if slice_axis is not None:  # a slice's thickness is nominal
        across = nearest_axes(scan.affine)[slice_axis][0]
        plane = [value for axis, value in enumerate(spacing) if axis != across]
        return {"spacing_in_plane_mm": float(np.sqrt(plane[0] * plane[1])), "slice_axis": float(slice_axis)}
    return spacing_measures(spacing)


def spacing_measures(spacing: Sequence[float]) -> dict[str, float]:
    """``spacing_in_plane_mm`` and ``spacing_slice_mm`` of a volume; the two spacings most alike are in-plane.

    Args:
        spacing: mm between voxels along the three stored axes.
    """
    a, b, c = sorted(spacing)
    plane, across_mm = ([a, b], c) if b / a <= c / b else ([b, c], a)
    return {"spacing_in_plane_mm": float(np.sqrt(plane[0] * plane[1])), "spacing_slice_mm": across_mm}


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, c = values
    return float(a), float(b), float(c)
