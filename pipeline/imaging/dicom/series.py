"""Check that DICOM files are the slices of one volume, and put them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.uid import UID

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import check_size
from pipeline.imaging.dicom.fragments import JPEG, JPEG_2000, SUPPORTED_COMPRESSION
from pipeline.imaging.dicom.frames import Frame
from pipeline.imaging.dicom.geometry import check_places, flat_affine, is_projection, place_slices
from pipeline.imaging.dicom.header import NATIVE, DicomFile
from pipeline.imaging.dicom.pixels import Slice, frame_bytes
from pipeline.imaging.image import Affine, Warning

# "US" is "unspecified", which many scanners write for HU; words outside of the standard are treated as unknown.
_HOUNSFIELD = frozenset({"", "HU", "HU_MOD", "US", "other"})
_DIRECTION_TOLERANCE = 1e-3  # of a cosine; over 300 mm it moves a voxel by 0.3 mm


@dataclass(frozen=True)
class Series:
    """A checked series, slices in order along the normal."""

    shape: tuple[int, int, int]
    affine: Affine
    modality: str | None
    warnings: tuple[Warning, ...]
    slices: tuple[Slice, ...]
    has_millimetres: bool
    body_part: str | None


def arrange(
    path: Path,
    files: Sequence[DicomFile],
    *,
    limits: Limits,
    modality: str | None,
    frame: int | None,
    digest: Callable[[DicomFile], str],
) -> Series:
    """Check files against each other and put their slices in order.

    Args:
        path: named in errors.
        files: images of one series, in any order.
        limits: what may be allocated.
        modality: the declared one.
        frame: the one frame of the one file that is meant, from 1; None for all.
        digest: of a file's bytes, called only where two files claim to be the same object.

    Raises:
        CaseError: with the code of the first thing that is wrong.
    """
    _check_identity(path, files)
    files, warnings = _drop_copies(files, digest)
    _check_pixels(path, files, limits)
    pairs = [(file, image) for file in files for image in file.frames] if frame is None else [_only(files[0], frame)]
    count = sum(file.frame_count for file in files) if frame is None else 1
    warnings += check_size(path, (*_size(files[0]), count), 4, limits)
    _check_lengths(files, warnings)
    flat = is_projection(path, pairs, count)
    if not flat:
        check_places(pairs, whole=frame is None)
    slices = _rescales(pairs, modality, warnings)
    if flat:
        affine = flat_affine(slices[0])
    else:
        slices, affine = place_slices(path, slices, warnings)
    shape = (*_size(files[0]), len(slices))
    has_millimetres = not flat or slices[0].frame.pixel_spacing is not None
    parts = {file.body_part for file in files}
    body_part = parts.pop() if len(parts) == 1 else None
    return Series(shape, affine, files[0].modality, tuple(warnings), tuple(slices), has_millimetres, body_part)


def _only(file: DicomFile, frame: int) -> tuple[DicomFile, Frame]:
    """One frame of a file; without functional groups its description is that of the whole file."""
    described = file.frames[frame - 1] if len(file.frames) == file.frame_count else file.frames[0]
    return file, replace(described, index=frame - 1)


def _size(file: DicomFile) -> tuple[int, int]:
    return file.pixel_format.columns, file.pixel_format.rows


def _check_identity(path: Path, files: Sequence[DicomFile]) -> None:
    """Refuse files of several series or patients. Messages give their number, never their ids."""
    patients = {file.patient for file in files}
    if len(patients) > 1:
        raise CaseError(Code.E_MIXED_PATIENT, path, f"{len(patients)} patient ids in one series; separate them")
    for name, values in (
        ("studies", {file.study for file in files}),
        ("modalities", {file.modality for file in files}),
        ("frames of reference", {file.frame_of_reference for file in files}),
    ):
        if len(values) > 1:
            reason = f"one series UID in {len(values)} {name}; export the series again"
            raise CaseError(Code.E_MIXED_SERIES, path, reason)


def _drop_copies(
    files: Sequence[DicomFile], digest: Callable[[DicomFile], str]
) -> tuple[list[DicomFile], list[Warning]]:
    """Byte-identical copies of an object count once; other repetitions are left for the check of positions."""
    groups: dict[str, list[DicomFile]] = {}
    for file in files:
        groups.setdefault(file.sop_instance or str(file.path), []).append(file)
    distinct: list[DicomFile] = []
    for group in groups.values():
        distinct += group if len(group) == 1 else {digest(file): file for file in reversed(group)}.values()
    copies = len(files) - len(distinct)
    return distinct, [Warning(Code.W_DUPLICATE_FILE, f"{copies} identical copies of slices left out")] if copies else []


def _check_pixels(path: Path, files: Sequence[DicomFile], limits: Limits) -> None:
    sizes = {_size(file) for file in files}
    localizers = sum(frame.localizer for file in files for frame in file.frames)
    frames = sum(len(file.frames) for file in files)
    if localizers and localizers == frames:
        raise CaseError(Code.E_NO_IMAGES, path, f"holds nothing but {localizers} localizers; name a series of slices")
    if localizers:
        raise CaseError(Code.E_MIXED_ORIENTATION, path, f"{localizers} localizers among {frames} slices; remove them")
    if any(frame.mosaic for file in files for frame in file.frames):
        reason = "a mosaic, the slices of a volume side by side in one picture; convert it with dcm2niix"
        raise CaseError(Code.E_SHAPE, path, reason)
    _check_orientation(path, files)
    if len(sizes) > 1:
        raise CaseError(Code.E_MIXED_SHAPE, path, f"slices of {len(sizes)} different sizes; separate them")
    for file in files:
        check_size(file.path, (*_size(file), max(file.frame_count, 1)), 4, limits)
        _check_format(file)


def _check_format(file: DicomFile) -> None:
    pixel_format, path = file.pixel_format, file.path
    if min(pixel_format.rows, pixel_format.columns, file.frame_count) < 1:
        size = f"{pixel_format.columns} × {pixel_format.rows} × {file.frame_count}"
        raise CaseError(Code.E_SHAPE, path, f"the header claims {size} pixels; export the series again")
    if file.transfer_syntax not in (*NATIVE, *SUPPORTED_COMPRESSION):
        name = UID(file.transfer_syntax).name
        named = file.transfer_syntax if name == file.transfer_syntax else f"{file.transfer_syntax} ({name})"
        reason = f"transfer syntax {named} is not read; export as explicit VR little endian"
        raise CaseError(Code.E_CODEC, path, reason)
    _check_colours(file)
    bits = (pixel_format.bits_allocated, pixel_format.bits_stored, pixel_format.high_bit)
    fits = 0 < bits[1] <= bits[2] + 1 <= bits[0] and bits[0] in (8, 16, 32)
    if not fits or (file.transfer_syntax in SUPPORTED_COMPRESSION and bits[2] + 1 != bits[1]):
        reason = f"bits (allocated, stored, highest) are {bits}; expected 8, 16 or 32 allocated, the stored ones lowest"
        raise CaseError(Code.E_DTYPE, path, reason)


def _check_colours(file: DicomFile) -> None:
    """Grey, or such colours as ultrasound, radiographs and photographs are stored in."""
    pixel_format, compressed = file.pixel_format, file.transfer_syntax in SUPPORTED_COMPRESSION
    grey = pixel_format.samples == 1 and pixel_format.photometric.startswith("MONOCHROME")
    known = {"RGB", "YBR_FULL"}
    if file.transfer_syntax in JPEG_2000:
        known |= {"YBR_ICT", "YBR_RCT"}
    elif file.transfer_syntax in JPEG or (not compressed and pixel_format.columns % 2 == 0):
        known.add("YBR_FULL_422")
    shown = file.modality in ("US", "XR", "other") and not file.is_pet
    is_plain = (pixel_format.bits_stored, pixel_format.signed) == (pixel_format.bits_allocated, False)
    if grey or (shown and is_plain and pixel_format.samples == 3 and pixel_format.photometric in known):
        return
    photometric = pixel_format.photometric or "unknown"
    reason = f"{pixel_format.samples} samples a pixel, {photometric}; grey images (MONOCHROME2) are read"
    if pixel_format.samples == 3:
        reason += ", and unsigned RGB or YBR_FULL of whole bytes in ultrasound, radiographs and photographs"
    raise CaseError(Code.E_PHOTOMETRIC, file.path, reason)


def _check_lengths(files: Sequence[DicomFile], warnings: list[Warning]) -> None:
    """Uncompressed pixel data must be as long as the header's size says."""
    trailing = 0
    for file in files:
        assert file.pixels is not None
        if file.pixels.length is None:
            trailing += file.pixels.padding > 0
            continue
        expected = frame_bytes(file.pixel_format) * file.frame_count
        excess = file.pixels.length - expected - expected % 2
        if file.pixels.length < expected:
            reason = f"pixel data of {file.pixels.length} bytes, expected {expected}; copy the file again"
            raise CaseError(Code.E_TRUNCATED, file.path, reason)
        if excess >= file.pixel_format.columns * file.pixel_format.bits_allocated // 8:
            reason = (
                f"pixel data of {file.pixels.length} bytes, expected {expected}; size and pixels do not belong together"
            )
            raise CaseError(Code.E_SHAPE, file.path, reason)
        trailing += excess > 0 or file.pixels.padding > 0
    if trailing:
        warnings.append(Warning(Code.W_TRAILING_BYTES, f"bytes after the pixels of {trailing} files"))


def _rescales(pairs: Sequence[tuple[DicomFile, Frame]], modality: str | None, warnings: list[Warning]) -> list[Slice]:
    slices = [_rescale(file, frame, is_ct="CT" in (modality, file.modality)) for file, frame in pairs]
    if len({(image.slope, image.intercept) for image in slices}) > 1 and not pairs[0][0].is_pet:
        detail = "slices have different slopes or intercepts; each has its own applied"
        warnings.append(Warning(Code.W_RESCALE_VARIES, detail))
    if pairs[0][0].modality == "CT" and any(frame.rescale_type == "other" for _, frame in pairs):
        warnings.append(Warning(Code.W_UNITS, "the type of the rescale is no word of the standard; taken as HU"))
    warnings += _display_warnings([file for file, _ in pairs], mirrored=any(image.inverted for image in slices))
    return slices


def _display_warnings(files: Sequence[DicomFile], *, mirrored: bool) -> list[Warning]:
    """Warnings about brightness settings in the header that a model does not take into account."""
    monochrome1 = sum(file.pixel_format.photometric == "MONOCHROME1" for file in files)
    monochrome2 = sum(file.pixel_format.photometric == "MONOCHROME2" and file.inverse_lut for file in files)
    for_processing = sum(file.for_processing for file in files)
    details = []
    if monochrome1:
        done = "values mirrored" if mirrored else "HU kept: it only concerns display"
        details.append(f"{monochrome1} slices are MONOCHROME1; {done}")
    if monochrome2:
        details.append(
            f"{monochrome2} slices are MONOCHROME2 with an inverse presentation LUT, a contradiction; values kept"
        )
    if for_processing:
        details.append(
            f"{for_processing} images are for processing, not for presentation: what the detector measured; values kept"
        )
    return [Warning(Code.W_PHOTOMETRIC, text) for text in details]


def _rescale(file: DicomFile, frame: Frame, *, is_ct: bool) -> Slice:
    """A slice with its rescale, which CT and PET must have."""
    absent = frame.slope is None or frame.intercept is None
    half = (frame.slope is None) != (frame.intercept is None)
    if absent and (is_ct or file.is_pet or half or file.modality_lut):
        raise CaseError(Code.E_RESCALE_MISSING, file.path, "no rescale slope and intercept, so its unit is unknown")
    if is_ct and frame.rescale_type not in _HOUNSFIELD:
        reason = f"the rescale gives {frame.rescale_type}, not Hounsfield units; name the ordinary CT series"
        raise CaseError(Code.E_SCALING, file.path, reason)
    slope = 1.0 if frame.slope is None else frame.slope
    intercept = 0.0 if frame.intercept is None else frame.intercept
    if not (np.isfinite([slope, intercept]).all() and slope != 0 and (slope > 0 or not is_ct)):
        rescale = f"rescale slope {slope:g}, intercept {intercept:g}"
        raise CaseError(Code.E_SCALING, file.path, f"{rescale}; expected a slope above 0; export the series again")
    inverted = file.pixel_format.photometric == "MONOCHROME1" and not is_ct
    return Slice(file, frame, slope, intercept, inverted)


def _check_orientation(path: Path, files: Sequence[DicomFile]) -> None:
    orientations = [
        np.array(frame.orientation) for file in files for frame in file.frames if frame.orientation is not None
    ]
    if (
        orientations
        and max(float(np.abs(orientation - orientations[0]).max()) for orientation in orientations)
        > _DIRECTION_TOLERANCE
    ):
        count = len({tuple(np.round(orientation, 2)) for orientation in orientations})
        reason = f"slices of at least {max(count, 2)} orientations, as of a localizer; separate them"
        raise CaseError(Code.E_MIXED_ORIENTATION, path, reason)
