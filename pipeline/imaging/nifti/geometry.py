"""Affine of a NIfTI file: the sform when its code is set, else the qform, and whether the two agree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import quaternions

from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import (
    LARGEST_SPACING_MM,
    SMALLEST_SPACING_MM,
    check_affine,
    is_tilted,
    nearest_axes,
    right_angles,
)
from pipeline.imaging.image import Affine, Warning, spacing_mm

_QUATERNIONS: Any = quaternions  # not annotated
_UNITS = {1: "metres", 3: "micrometres"}
_ROUNDED = 3 * float(np.finfo(np.float32).eps)  # as nibabel
_ALIKE_VOXELS = 0.01  # sform and qform agree when no corner moves by more than this share of a voxel
_NEAR_VOXELS = 1.0  # and are still the same place, roughly, within one


def geometry(header: Any, shape: tuple[int, int, int], path: Path) -> tuple[Affine, list[Warning]]:
    """The affine (stored voxel index → RAS+ mm) by nibabel's rules, checked.

    Raises:
        CaseError: E_GEOMETRY_MISSING, E_SPACING, E_AFFINE, E_AFFINE_DISAGREE or E_ORIENTATION.
    """
    codes = int(header["sform_code"]), int(header["qform_code"])
    if codes[0] > 0:
        affine: Affine = np.asarray(header.get_sform(), dtype=np.float64)
    elif codes[1] > 0:
        _check_zooms(header, path)
        affine = _qform(header, path)
    else:
        raise CaseError(
            Code.E_GEOMETRY_MISSING,
            path,
            "neither sform nor qform is set, so left and right are unknown; export with orientation",
        )
    warnings = check_affine(path, affine) + _units(header)
    if codes[0] > 0:
        warnings += _compare_zooms(header, affine)
        if codes[1] > 0:
            warnings += _compare_forms(header, affine, shape, codes, path)
    return affine, warnings


def _qform(header: Any, path: Path) -> Affine:
    """The quaternion's affine; NIfTI reads any pixdim[0] below 0 as -1 and any other as 1."""
    quaternion = np.array([float(header[name]) for name in ("quatern_b", "quatern_c", "quatern_d")])
    offset = np.array([float(header[name]) for name in ("qoffset_x", "qoffset_y", "qoffset_z")])
    if not (np.isfinite(quaternion).all() and np.isfinite(offset).all() and not np.isnan(header["pixdim"][0])):
        raise CaseError(Code.E_AFFINE, path, "the qform holds NaN or infinity; export the scan again with its geometry")
    if quaternion @ quaternion > 1 + 1e-3:
        raise CaseError(
            Code.E_AFFINE,
            path,
            f"the qform's quaternion has length {np.linalg.norm(quaternion):.3g}, expected at most 1",
        )
    # The file leaves out the first part, which the others give. Only what float32 rounds may be taken for 0: for an
    # image turned by nearly 180 degrees, as LPS axes are, a square of 0.002 is a turn of 5 degrees.
    square = 1 - float(quaternion @ quaternion)
    full = [math.sqrt(square) if square > _ROUNDED else 0.0, *quaternion]
    zooms = np.array(header["pixdim"][1:4], dtype=np.float64)
    if header["pixdim"][0] < 0:
        zooms[2] = -zooms[2]
    affine = np.eye(4)
    affine[:3, :3] = _QUATERNIONS.quat2mat(full) * zooms
    affine[:3, 3] = offset
    return affine


def _check_zooms(header: Any, path: Path) -> None:
    zooms = [float(value) for value in header["pixdim"][1:4]]
    if not all(SMALLEST_SPACING_MM <= zoom <= LARGEST_SPACING_MM for zoom in zooms):  # also refuses NaN
        raise CaseError(
            Code.E_SPACING,
            path,
            f"pixdim {zooms[0]:g} x {zooms[1]:g} x {zooms[2]:g} mm, "
            f"expected {SMALLEST_SPACING_MM:g} to {LARGEST_SPACING_MM:g} mm",
        )


def _units(header: Any) -> list[Warning]:
    """The spacing has passed as millimetres by now, so that another unit contradicts the numbers."""
    unit = int(header["xyzt_units"]) & 0x07
    if unit in (0, 2):
        return []
    return [
        Warning(
            Code.W_UNITS, f"the unit code says {_UNITS.get(unit, f'{unit} (unknown)')}, but the numbers are millimetres"
        )
    ]


def _compare_zooms(header: Any, affine: Affine) -> list[Warning]:
    zooms = np.array(header["pixdim"][1:4], dtype=np.float64)
    spacing = np.array(spacing_mm(affine))
    if np.allclose(np.abs(zooms), spacing, rtol=0.01, atol=1e-3):
        return []
    if is_tilted(affine) and np.allclose(np.abs(zooms[:2]), spacing[:2], rtol=0.01, atol=1e-3):
        return []  # pixdim then holds the distance between slices, which a tilt lengthens; W_SHEAR says so
    declared, used = (" x ".join(f"{value:.4g}" for value in values) for values in (zooms, spacing))
    return [Warning(Code.W_SPACING, f"pixdim says {declared} mm, the sform {used} mm; the sform is followed")]


def _compare_forms(
    header: Any, sform: Affine, shape: tuple[int, int, int], codes: tuple[int, int], path: Path
) -> list[Warning]:
    """Whether the qform puts the corners where the sform puts them.

    Forms of different codes (scanner and template) may differ by a shift or a turn; mirrored, they cannot both hold.
    """
    zooms = [float(value) for value in header["pixdim"][1:4]]
    if not all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        return []  # W_SPACING has been given; there is nothing to compare with
    qform = _qform(header, path)
    if not is_tilted(qform) and nearest_axes(qform, path) != nearest_axes(sform, path):
        raise CaseError(
            Code.E_AFFINE_DISAGREE,
            path,
            f"sform says {_codes(sform)}, qform {_codes(qform)}; find out which is right, and clear the other",
        )
    expected = _without_shear(sform) if is_tilted(sform) else sform
    corners = np.stack(np.meshgrid(*([0.0, length - 1.0] for length in shape), indexing="ij"), -1).reshape(-1, 3)
    shifts = corners @ (qform - expected)[:3, :3].T + (qform - expected)[:3, 3]
    worst = float(np.linalg.norm(shifts, axis=1).max())
    voxel = min(spacing_mm(sform))
    if worst <= _ALIKE_VOXELS * voxel:
        return []
    if codes[0] == codes[1] and worst > _NEAR_VOXELS * max(spacing_mm(sform)):
        raise CaseError(
            Code.E_AFFINE_DISAGREE,
            path,
            f"sform and qform put a corner {worst:.1f} mm apart; find out which is right, and clear the other",
        )
    return [
        Warning(Code.W_AFFINE_DISAGREE, f"sform and qform put a corner {worst:.2g} mm apart; the sform is followed")
    ]


def _without_shear(affine: Affine) -> Affine:
    """The nearest affine with right angles, which is what a qform can hold of a tilted sform."""
    straight = affine.copy()
    straight[:3, :3] = right_angles(affine) * np.array(spacing_mm(affine))
    return straight


def _codes(affine: Affine) -> str:
    return "".join(("LR", "PA", "IS")[world][sign > 0] for world, (_, sign) in _by_stored(affine))


def _by_stored(affine: Affine) -> list[tuple[int, tuple[int, int]]]:
    return sorted(enumerate(nearest_axes(affine)), key=lambda item: item[1][0])
