"""Small DICOM series written on the fly: a CT-like phantom of 24 × 20 × 16 voxels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from shared_data import SHARED

SHAPE = (24, 20, 16)  # columns, rows, slices
SPACING = (1.5, 1.25, 2.0)  # mm between columns, rows, slices
ORIGIN = (-16.5, -13.5, -16.0)  # LPS
SERIES, STUDY, FRAME = "1.2.826.0.1.1", "1.2.826.0.1.2", "1.2.826.0.1.3"
ALL = (slice(None), slice(None), slice(None))
Edit = Callable[[Dataset, int], None]


@cache
def phantom() -> np.ndarray:
    """HU, shape (columns, rows, slices), every voxel different from its neighbours."""
    values = np.random.default_rng(0).integers(-900, 900, SHAPE)
    values[8:14, 6:12, 5:10] = 700
    values = values.astype(np.int16)
    values.setflags(write=False)
    return values


def affine() -> np.ndarray:
    """Index -> RAS mm of the phantom."""
    matrix = np.diag([*SPACING, 1.0])
    matrix[:3, 3] = ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def blank(number: int = 0, *, sop_class: str = CTImageStorage, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    """All of a CT slice but its pixels and place."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, syntax
    meta.MediaStorageSOPInstanceUID = f"{SERIES}.{number + 1}"
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = sop_class, f"{SERIES}.{number + 1}"
    image.Modality, image.PatientID, image.PatientName = "CT", "MRN-CANARY-1", "CANARY^ANNE"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = STUDY, SERIES, FRAME
    image.Rows, image.Columns, image.SamplesPerPixel = SHAPE[1], SHAPE[0], 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    return image


def ct_slice(number: int, values: np.ndarray | None = None, *, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    """One uncompressed slice of the phantom."""
    values = phantom() if values is None else values
    image = blank(number, syntax=syntax)
    image.InstanceNumber, image.SliceThickness = number + 1, SPACING[2]
    image.PixelSpacing, image.ImageOrientationPatient = [SPACING[1], SPACING[0]], [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[2] * number]
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    stored = values[:, :, number].T.astype(np.int32) + 1024
    image.PixelData = stored.astype("<u2").tobytes()
    return image


def save(image: Dataset, path: Path) -> Path:
    syntax = image.file_meta.TransferSyntaxUID
    path.parent.mkdir(parents=True, exist_ok=True)
    image["PixelData"].VR = "OW" if not syntax.is_compressed or syntax.is_deflated else "OB"
    image.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, edit: Edit | None = None, *, skip: tuple[int, ...] = (), syntax: str = ExplicitVRLittleEndian
) -> Path:
    """Write the phantom as a series, one file a slice, in an order of names that is not that of positions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SHAPE[2]):
        path = folder / f"IM{(number * 7) % SHAPE[2]:03d}"
        if number in skip:
            continue
        if edit:
            image = ct_slice(number, syntax=syntax)
            edit(image, number)
            save(image, path)
        else:
            path.write_bytes(_plain_slice(number, syntax))
    return folder


@cache
def _plain_slice(number: int, syntax: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return save(ct_slice(number, syntax=syntax), Path(folder) / "slice").read_bytes()


def write_multiframe(path: Path, edit: Callable[[Dataset], None] | None = None, *, slopes: bool = False) -> Path:
    """The phantom as one Enhanced CT object, its frames in the reverse order of positions."""
    image = blank(sop_class=EnhancedCTImageStorage)
    order = list(reversed(range(SHAPE[2])))
    image.NumberOfFrames = len(order)
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [SPACING[1], SPACING[0]]
    shared.PixelMeasuresSequence[0].SliceThickness = SPACING[2]
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values = phantom().astype(np.int32) + 1024
    stored = []
    for place, number in enumerate(order):
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([Dataset()])
        frame.PlanePositionSequence[0].ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[2] * number]
        slope = 2 if slopes and place % 2 else 1
        frame.PixelValueTransformationSequence = Sequence([Dataset()])
        frame.PixelValueTransformationSequence[0].RescaleSlope = slope
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -1024
        frame.PixelValueTransformationSequence[0].RescaleType = "HU"
        stored.append(values[:, :, number].T // slope)
        frames.append(frame)
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    image.PerFrameFunctionalGroupsSequence = Sequence(frames)
    image.PixelData = np.stack(stored).astype("<u2").tobytes()
    if edit:
        edit(image)
    return save(image, path)


def bad_scans(kind: str) -> list[dict[str, str]]:
    """Cases of the shared corpus; none where it is absent."""
    manifest = SHARED / "bad_scans" / "manifest.json"
    return [case for case in json.loads(manifest.read_text()) if case["kind"] == kind] if manifest.exists() else []


__all__ = [
    "ALL",
    "FRAME",
    "ORIGIN",
    "SERIES",
    "SHAPE",
    "SPACING",
    "STUDY",
    "ImplicitVRLittleEndian",
    "affine",
    "bad_scans",
    "blank",
    "ct_slice",
    "generate_uid",
    "phantom",
    "save",
    "write_multiframe",
    "write_series",
]  # fmt: skip
