"""Where the slices of a DICOM series lie: one after the other on a straight line, evenly, or the series is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import LARGEST_SPACING_MM, SMALLEST_SPACING_MM, check_affine
from pipeline.imaging.dicom.header import DicomFile, Frame
from pipeline.imaging.dicom.pixels import Slice
from pipeline.imaging.image import Affine, Warning

_SPACING_TOLERANCE = 1e-4  # relative; pixel spacing is written with 4 digits and more
_STEP_TOLERANCE = 0.05  # relative, of the distance of slices; positions are often written with 2 decimals
_STEP_NOTICED = 0.01
_LINE_TOLERANCE_MM = 0.1  # of a slice's place beside the line of all slices


def is_projection(files: Sequence[DicomFile]) -> bool:
    """One picture of a modality that need not say where it lies (radiograph, ultrasound, photograph)."""
    alone = len(files) == 1 and files[0].frame_count == 1
    frame = files[0].frames[0]
    return alone and files[0].modality in ("XR", "US", "other") and frame.position is None and frame.orientation is None


def flat_affine(image: Slice) -> Affine:
    """As of a 2D picture: columns run to the left, rows to posterior; a pixel is 1 mm wide where no spacing is given.

    Whoever needs millimetres refuses such a scan (``Scan.has_millimetres``).
    """
    spacing = image.frame.pixel_spacing or (1.0, 1.0)
    _check_spacing(image.file.path, spacing)
    affine = np.diag([-spacing[1], -spacing[0], 1.0, 1.0])
    check_affine(image.file.path, affine)
    return affine


def _check_spacing(path: Path, spacing: Sequence[float]) -> None:
    if not all(SMALLEST_SPACING_MM <= value <= LARGEST_SPACING_MM for value in spacing):  # also refuses NaN
        found = " × ".join(f"{value:g}" for value in spacing)
        limits = f"{SMALLEST_SPACING_MM:g} to {LARGEST_SPACING_MM:g}"
        raise CaseError(Code.E_SPACING, path, f"pixel spacing {found} mm, expected {limits} mm; check the export")


def check_places(pairs: Sequence[tuple[DicomFile, Frame]]) -> None:
    """Every slice says where it lies."""
    for file, frame in pairs:
        if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
            places = {"position": frame.position, "orientation": frame.orientation, "spacing": frame.pixel_spacing}
            missing = ", ".join(name for name, value in places.items() if value is None)
            raise CaseError(Code.E_GEOMETRY_MISSING, file.path, f"no {missing} of a slice; export the series again")
        if len(file.frames) != file.frame_count:
            found = f"{file.frame_count} frames, {len(file.frames)} of them with a position"
            raise CaseError(Code.E_GEOMETRY_MISSING, file.path, f"{found}; export the series again")
        if not np.isfinite([*frame.position, *frame.orientation]).all():
            raise CaseError(
                Code.E_AFFINE, file.path, "position or orientation is not a number; export the series again"
            )
        _check_spacing(file.path, frame.pixel_spacing)


def place_slices(path: Path, slices: list[Slice], warnings: list[Warning]) -> tuple[list[Slice], Affine]:
    """Slices in order along the normal, and the affine to RAS+ mm."""
    spacings = np.array([image.frame.pixel_spacing for image in slices])
    if (np.abs(spacings - spacings[0]) > _SPACING_TOLERANCE * spacings[0]).any():
        found = f"pixel spacing from {spacings.min():g} to {spacings.max():g} mm"
        raise CaseError(Code.E_MIXED_SPACING, path, f"{found}; separate the slices")
    row, column = _directions(path, slices)
    normal = np.cross(row, column)
    positions = np.array([image.frame.position for image in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[number] for number in order], positions[order]
    step = _step(path, slices, positions, normal, warnings)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * spacings[0, 1], column * spacings[0, 0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS
    warnings += check_affine(path, affine)
    return slices, affine


def _directions(path: Path, slices: Sequence[Slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along a row and along a column, LPS."""
    cosines = np.array(slices[0].frame.orientation).reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(cosines[0] @ cosines[1]) > 0.01:
        reason = "directions of row and column are not perpendicular unit vectors; export the series again"
        raise CaseError(Code.E_ORIENTATION, path, reason)
    row, column = cosines / lengths[:, np.newaxis]
    return row, column


def _step(
    path: Path,
    slices: Sequence[Slice],
    positions: NDArray[np.float64],
    normal: NDArray[np.float64],
    warnings: list[Warning],
) -> NDArray[np.float64]:
    """Vector from one slice to the next, LPS mm; slices lie evenly on a line, or the series is refused."""
    if len(slices) == 1:
        return normal * _alone(slices[0], warnings)
    depths = positions @ normal
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    same = int((gaps < max(1e-3, 0.01 * usual)).sum())
    if same or usual <= 1e-3:
        raise CaseError(
            Code.E_SLICE_DUPLICATE, path, f"{same} slices lie where another lies; separate phases or copies"
        )
    worst = float(np.abs(gaps - usual).max())
    if worst > max(_STEP_TOLERANCE * usual, 0.02):
        found = f"slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart, usually {usual:.4g} mm"
        raise CaseError(Code.E_SLICE_GAP, path, f"{found}; copy the missing slices or resample")
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(slices) - 1)
    beside = positions - (positions[0] + np.arange(len(slices))[:, np.newaxis] * step)
    across = beside - np.outer(beside @ normal, normal)
    if np.linalg.norm(across, axis=1).max() > _LINE_TOLERANCE_MM:
        raise CaseError(Code.E_AFFINE, path, "slices do not lie on one straight line; export the series again")
    _contradictions(slices, usual, worst, warnings)
    return step


def _alone(image: Slice, warnings: list[Warning]) -> float:
    """Thickness of a lone slice, mm."""
    declared = image.frame.spacing_between or image.frame.thickness
    if declared is not None and SMALLEST_SPACING_MM <= declared <= LARGEST_SPACING_MM:
        return declared
    warnings.append(Warning(Code.W_SPACING, "one slice without a usable thickness; taken as 1 mm"))
    return 1.0


def _contradictions(slices: Sequence[Slice], usual: float, worst: float, warnings: list[Warning]) -> None:
    """Even distances that something else in the headers contradicts: a series thinned out evenly looks like this."""
    frame = slices[0].frame
    between, thickness = frame.spacing_between, frame.thickness
    numbers = np.sort([image.file.instance_number or 0 for image in slices])
    if worst > max(_STEP_NOTICED * usual, 0.01):
        warnings.append(Warning(Code.W_SPACING, f"distances of slices differ by up to {worst:.3g} mm"))
    elif between is not None and abs(abs(between) - usual) > _STEP_TOLERANCE * usual:
        warnings.append(Warning(Code.W_SPACING, f"slices lie {usual:.4g} mm apart, their headers say {between:.4g} mm"))
    elif thickness is not None and 0 < thickness < 0.55 * usual:
        warnings.append(Warning(Code.W_SPACING, f"slices lie {usual:.4g} mm apart and are {thickness:.4g} mm thick"))
    elif (
        len(slices) > 2 and len(slices) == len({image.file.path for image in slices}) and (np.diff(numbers) == 2).all()
    ):
        warnings.append(Warning(Code.W_SPACING, "every second instance number is missing"))
