"""DICOM objects as scanners send them: CT series, localizers, mammograms and captured screens."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from made_folders.geometry import FloatArray, Grid

FAMILY_NAMES = {
    "english": ("Smith", "O'Connor", "Patel", "Nguyen", "Müller", "García", "Jones", "Łukasz"),
    "german": ("Schmidt", "Jäger", "Özdemir", "Groß", "Weiß", "Kowalski", "Böhm", "Vogt"),
}
GIVEN_NAMES = {"F": ("Anna", "Zoë", "Maria", "Priya"), "M": ("John", "Jörg", "Wei", "André")}


def uid(*entropy: object) -> str:
    """A UID that depends on these values alone."""
    return str(generate_uid(entropy_srcs=["/".join(map(str, entropy))]))


@dataclass(frozen=True)
class Person:
    """A made-up patient, as headers name one."""

    patient_id: str
    name: str
    sex: Literal["F", "M"]
    birth_date: str
    age: str

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        *,
        patient_id: str,
        sex: Literal["F", "M"] | None = None,
        language: str = "english",
    ) -> Person:
        """Draw a name and an age of 35 to 85 in 2023."""
        sex = sex or ("F" if rng.random() < 0.5 else "M")
        name = f"{rng.choice(FAMILY_NAMES[language])}^{rng.choice(GIVEN_NAMES[sex])}"
        years = int(rng.integers(35, 86))
        birth = f"{2022 - years}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}"
        return cls(patient_id, name, sex, birth, f"{years:03d}Y")


@dataclass(frozen=True)
class Study:
    """One examination of a person."""

    person: Person
    study_uid: str
    accession: str
    date: str
    manufacturer: str
    model: str


def blank(
    study: Study, *, sop_class: str, modality: str, series_uid: str, series_number: int, number: int
) -> FileDataset:
    """All of an image but its pixels: patient, study, series and equipment."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = uid(series_uid, number)
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID, image.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    image.Modality, image.Manufacturer, image.ManufacturerModelName = modality, study.manufacturer, study.model
    image.InstitutionName, image.ReferringPhysicianName = "St. Elsewhere Hospital", ""
    image.PatientName, image.PatientID = study.person.name, study.person.patient_id
    image.PatientBirthDate, image.PatientSex, image.PatientAge = (
        study.person.birth_date,
        study.person.sex,
        study.person.age,
    )
    image.StudyInstanceUID, image.StudyID, image.AccessionNumber = study.study_uid, "1", study.accession
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = study.date
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "093015.000000"
    image.SeriesInstanceUID, image.SeriesNumber, image.InstanceNumber = series_uid, series_number, number
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    return image


def set_pixels(image: Dataset, pixels: npt.NDArray[np.generic]) -> None:
    """Put pixels, shape (rows, columns) or (rows, columns, 3), into an image."""
    image.Rows, image.Columns = pixels.shape[:2]
    image.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    image["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"


@dataclass(frozen=True)
class SeriesName:
    """What tells a CT series from the study's others."""

    series_uid: str
    number: int
    description: str
    kernel: str


def ct_slices(study: Study, series: SeriesName, voxels: npt.NDArray[np.int16], grid: Grid) -> Iterator[FileDataset]:
    """A series' slices by rising position; voxels in HU, shape (columns, rows, slices)."""
    buffer = io.BytesIO()
    first = _first_slice(study, series, grid)
    first.save_as(buffer, enforce_file_format=True)
    for number in range(grid.shape[2]):
        # Read anew, so that no slice shares an element with another one.
        image = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
        image.InstanceNumber = number + 1
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid(series.series_uid, number + 1)
        position = _position(grid.lps, number)
        image.ImagePositionPatient, image.SliceLocation = position, position[2]
        set_pixels(image, (voxels[:, :, number].T.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16))
        yield image


def _first_slice(study: Study, series: SeriesName, grid: Grid) -> FileDataset:
    """What all slices of a series share."""
    image = blank(
        study,
        sop_class=CTImageStorage,
        modality="CT",
        series_uid=series.series_uid,
        series_number=series.number,
        number=1,
    )
    directions = (grid.lps[:3, :3] / grid.spacing_mm).T
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SeriesDescription, image.ConvolutionKernel = series.description, series.kernel
    image.BodyPartExamined, image.PatientPosition, image.KVP = "CHEST", "HFS", "120"
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = uid(study.study_uid, "frame"), "SN"
    image.SliceThickness = round(float(grid.spacing_mm[2]), 4)
    image.PixelSpacing = [round(float(grid.spacing_mm[axis]), 4) for axis in (1, 0)]
    image.ImageOrientationPatient = [round(float(value), 6) for value in directions[:2].ravel()]
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    image.WindowCenter, image.WindowWidth, image.AcquisitionNumber = -600, 1500, 1
    return image


def _position(lps: FloatArray, number: int) -> list[float]:
    return [round(float(value), 4) for value in lps[:3, :3] @ (0, 0, number) + lps[:3, 3]]


def localizers(study: Study, series_uid: str, hu: FloatArray, grid: Grid) -> Iterator[FileDataset]:
    """A frontal and a lateral projection of a volume of HU, shape (columns, rows, slices)."""
    for number, axis in enumerate((1, 0), start=1):
        image = blank(
            study, sop_class=CTImageStorage, modality="CT", series_uid=series_uid, series_number=1, number=number
        )
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        image.SeriesDescription, image.BodyPartExamined, image.PatientPosition = "Topogram 0.6 T20s", "CHEST", "HFS"
        image.FrameOfReferenceUID, image.PositionReferenceIndicator = uid(study.study_uid, "frame"), ""
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if axis == 1 else [0, 1, 0, 0, 0, -1]
        image.ImagePositionPatient = _position(grid.lps, grid.shape[2] - 1)
        image.PixelSpacing = [round(float(grid.spacing_mm[2]), 4), round(float(grid.spacing_mm[1 - axis]), 4)]
        image.SliceThickness, image.KVP = "", "120"
        image.RescaleIntercept, image.RescaleSlope = -1024, 1
        projection = hu.mean(axis)[:, ::-1].T  # the top of the picture is the head
        set_pixels(image, np.clip(projection + 1024, 0, 4095).astype(np.uint16))
        yield image


def captured_screen(study: Study, series_uid: str, rng: np.random.Generator) -> FileDataset:
    """A dose protocol as a scanner saves it: a colour picture of text."""
    image = blank(
        study, sop_class=SecondaryCaptureImageStorage, modality="CT", series_uid=series_uid, series_number=501, number=1
    )
    image.ImageType, image.SeriesDescription = ["DERIVED", "SECONDARY", "OTHER"], "Patient Protocol"
    image.ConversionType, image.SamplesPerPixel, image.PlanarConfiguration = "WSD", 3, 0
    image.PhotometricInterpretation, image.BitsAllocated, image.BitsStored, image.HighBit = "RGB", 8, 8, 7
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[8:56:6, 4:60] = 255 * (rng.random((8, 56, 1)) < 0.6)
    set_pixels(image, pixels)
    return image


def mammogram(
    stored: npt.NDArray[np.uint16],
    person: Person,
    *,
    photometric: str,
    manufacturer: str,
    side: str,
    view: str,
    series_uid: str,
) -> FileDataset:
    """One view FOR PRESENTATION, 12 bits; ``side`` is L or R, ``view`` CC or MLO."""
    study = Study(person, uid(person.patient_id, "study"), "", "20230511", manufacturer, "Mammography")
    number = ("LCC", "LMLO", "RCC", "RMLO").index(side + view) + 1
    image = blank(
        study, sop_class=DigitalMammographyXRayImageStorageForPresentation, modality="MG", series_uid=series_uid,
        series_number=number, number=1,
    )  # fmt: skip
    image.ImageType, image.PresentationIntentType = ["DERIVED", "PRIMARY"], "FOR PRESENTATION"
    image.BodyPartExamined, image.ImageLaterality, image.ViewPosition = "BREAST", side, view
    forward, down = ("A", "R" if side == "L" else "L") if view == "CC" else ("A", "F")
    image.PatientOrientation = [forward if side == "L" else "P", down]
    image.ImagerPixelSpacing = [2.0, 2.0]
    image.PhotometricInterpretation = photometric
    image.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = (
        "LOG",
        1 if photometric == "MONOCHROME2" else -1,
    )
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.WindowCenter, image.WindowWidth = 2048, 4096
    image.BurnedInAnnotation, image.LossyImageCompression = "NO", "00"
    set_pixels(image, stored)
    return image
