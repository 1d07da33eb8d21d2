"""Geometry of the slices of a DICOM series, which must lie evenly on a straight line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import LARGEST_SPACING_MM, SMALLEST_SPACING_MM, check_affine
from pipeline.imaging.dicom.frames import Frame
from pipeline.imaging.dicom.header import DicomFile
from pipeline.imaging.dicom.mixture import check_one_volume
from pipeline.imaging.dicom.pixels import Slice
from pipeline.imaging.image import Affine, Warning

_SPACING_TOLERANCE = 1e-4  # relative; pixel spacing is written with 4 digits and more
_STEP_TOLERANCE = 0.05  # relative, of the distance of slices; positions are often written with 2 decimals
_STEP_NOTICED = 0.01
_LINE_TOLERANCE_MM = 0.1  # of a slice's place beside the line of all slices
_ROUNDED_TO_MM = (1.0, 0.1, 0.01, 0.001)  # units in which exporters cut their positions off


def is_projection(path: Path, pairs: Sequence[tuple[DicomFile, Frame]], count: int) -> bool:
    """One picture of a modality that need not state its position (radiograph, ultrasound, photograph).

    Args:
        path: named in errors.
        pairs: files and descriptions of frames.
        count: of the frames.

    Raises:
        CaseError: E_GEOMETRY_MISSING for several such pictures, which are no volume.
    """
    placed = any(frame.position is not None or frame.orientation is not None for _, frame in pairs)
    file = pairs[0][0]
    if placed or file.modality not in ("XR", "US", "other"):
        return False
    if count == 1:
        return True
    if file.frame_count == count:
        name = file.path.name
        reason = f"{count} frames without positions are no volume; name one of #1 to #{count}, as image: {name}#1"
    else:
        reason = f"{count} pictures without positions in one series are no volume; name one file, as {file.path.name}"
    raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)


def flat_affine(image: Slice) -> Affine:
    """As of a 2D picture: columns run to the left, rows to posterior; a pixel is 1 mm wide where no spacing is given.

    Callers that need millimetres must refuse such a scan (``Scan.has_millimetres``).
    """
    spacing = image.frame.pixel_spacing or (1.0, 1.0)
    _check_spacing(image.file.path, spacing)
    affine = np.diag([-spacing[1], -spacing[0], 1.0, 1.0])
    check_affine(image.file.path, affine)
    return affine


def _check_spacing(path: Path, spacing: Sequence[float]) -> None:
    if not all(SMALLEST_SPACING_MM <= value <= LARGEST_SPACING_MM for value in spacing):  # also refuses NaN
        spacing_text = " × ".join(f"{value:g}" for value in spacing)
        limits = f"{SMALLEST_SPACING_MM:g} to {LARGEST_SPACING_MM:g}"
        raise CaseError(
            Code.E_SPACING, path, f"pixel spacing {spacing_text} mm, expected {limits} mm; check the export"
        )


def check_places(pairs: Sequence[tuple[DicomFile, Frame]], *, whole: bool) -> None:
    """Check that every slice, and every frame of a whole file, states its position."""
    for file, frame in pairs:
        if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
            places = {"position": frame.position, "orientation": frame.orientation, "spacing": frame.pixel_spacing}
            missing = ", ".join(name for name, value in places.items() if value is None)
            raise CaseError(Code.E_GEOMETRY_MISSING, file.path, f"no {missing} of a slice; export the series again")
        if whole and len(file.frames) != file.frame_count:
            counts = f"{file.frame_count} frames, {len(file.frames)} of them with a position"
            raise CaseError(Code.E_GEOMETRY_MISSING, file.path, f"{counts}; export the series again")
        if not np.isfinite([*frame.position, *frame.orientation]).all():
            raise CaseError(
                Code.E_AFFINE, file.path, "position or orientation is not a number; export the series again"
            )
        _check_spacing(file.path, frame.pixel_spacing)


def place_slices(path: Path, slices: list[Slice], warnings: list[Warning]) -> tuple[list[Slice], Affine]:
    """Slices in order along the normal, and the affine to RAS+ mm."""
    spacings = np.array([image.frame.pixel_spacing for image in slices])
    if (np.abs(spacings - spacings[0]) > _SPACING_TOLERANCE * spacings[0]).any():
        differing = f"pixel spacing from {spacings.min():g} to {spacings.max():g} mm"
        raise CaseError(Code.E_MIXED_SPACING, path, f"{differing}; separate the slices")
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
    check_one_volume(path, slices, usual)
    worst = float(np.abs(gaps - usual).max())
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(slices) - 1)
    if worst > max(_STEP_TOLERANCE * usual, 0.02):
        even = _even_distance(slices, positions, normal)
        if even is not None:
            step *= even / (step @ normal)
            warnings.append(Warning(Code.W_SPACING, f"positions are rounded; an even {even:.4g} mm gives them all"))
            return _on_a_line(path, positions, step, normal)
        distances = f"slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart, usually {usual:.4g} mm"
        raise CaseError(Code.E_SLICE_GAP, path, f"{distances}; copy the missing slices or resample")
    _contradictions(slices, usual, worst, warnings)
    return _on_a_line(path, positions, step, normal)


def _on_a_line(
    path: Path, positions: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The step from slice to slice, when all slices lie on one line."""
    beside = positions - (positions[0] + np.arange(len(positions))[:, np.newaxis] * step)
    across = beside - np.outer(beside @ normal, normal)
    if np.linalg.norm(across, axis=1).max() > _LINE_TOLERANCE_MM:
        raise CaseError(Code.E_AFFINE, path, "slices do not lie on one straight line; export the series again")
    return step


def _even_distance(
    slices: Sequence[Slice], positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> float | None:
    """The even distance of slices whose rounding gives these positions, mm; None when there is none.

    Rounded to a unit, even positions have gaps that differ by one unit at most, and some even distance reproduces all
    of them to half a unit. Where a slice is missing, a gap is longer by the distance itself and the line has a jump of
    it; so nothing is taken for rounding unless the unit is below half of the distance (less for few slices).
    """
    depths, count = positions @ normal, len(positions)
    gaps = np.diff(depths)
    first, second = np.triu_indices(count, 1)
    apart, steps = depths[second] - depths[first], second - first
    for unit_mm in _ROUNDED_TO_MM:
        if np.abs(positions / unit_mm - np.round(positions / unit_mm)).max() > 1e-6:
            continue
        unit = unit_mm * float(np.abs(normal).sum()) + 1e-6
        lowest, highest = float(((apart - unit) / steps).max()), float(((apart + unit) / steps).min())
        fine = unit < 0.475 * lowest * (count - 2) / (count - 1)
        if lowest <= highest and gaps.max() - gaps.min() <= unit and fine:
            frame = slices[0].frame
            declared = [value for value in (frame.spacing_between, frame.thickness) if value]
            return next((value for value in declared if lowest <= value <= highest), (lowest + highest) / 2)
    return None


def _alone(image: Slice, warnings: list[Warning]) -> float:
    """Thickness of a lone slice, mm."""
    declared = image.frame.spacing_between or image.frame.thickness
    if declared is not None and SMALLEST_SPACING_MM <= declared <= LARGEST_SPACING_MM:
        return declared
    warnings.append(Warning(Code.W_SPACING, "one slice without a usable thickness; taken as 1 mm"))
    return 1.0


def _contradictions(slices: Sequence[Slice], usual: float, worst: float, warnings: list[Warning]) -> None:
    """Warn of even distances that other header values contradict, as where every second slice is missing."""
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
