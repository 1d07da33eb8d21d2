"""The header of one DICOM file: descriptions of its slices and the place of its pixels. No pixel is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pipeline.config.body_parts import body_part_term
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.dicom.classes import FOR_PROCESSING, MEDIA_DIRECTORY, no_image
from pipeline.imaging.dicom.file import PARSE_FAULTS, PIXEL_DATA, DataSet, PixelPlace, begin, opened, parse, quiet
from pipeline.imaging.dicom.fragments import (
    EXPLICIT_BIG,
    EXPLICIT_DEFLATED,
    EXPLICIT_LITTLE,
    IMPLICIT,
    SUPPORTED_COMPRESSION,
    Frames,
    locate_frames,
)
from pipeline.imaging.dicom.frames import Frame, describe_frames
from pipeline.imaging.dicom.tags import TOP_LEVEL, Tag
from pipeline.imaging.dicom.tail import padding_after
from pipeline.imaging.dicom.values import number, raw, text, uid, unsigned

NATIVE: Final = (IMPLICIT, EXPLICIT_LITTLE, EXPLICIT_DEFLATED, EXPLICIT_BIG)
_MODALITIES: Final = {
    "CT": "CT", "MR": "MR", "US": "US", "IVUS": "US", "SEG": "mask",
    **dict.fromkeys(("CR", "DX", "RG", "XA", "RF", "MG", "PX", "IO"), "XR"),
}  # fmt: skip
_PHOTOMETRIC: Final = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
)


@dataclass(frozen=True)
class PixelFormat:
    """How pixels are stored; 0 stands for an absent value."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data lie.

    Attributes:
        offset: of the value in the file (deflated: in the inflated data set).
        length: bytes of the value; None for encapsulated data.
        big_endian_words: stored as big-endian 16-bit words, also when the pixels have 8 bits.
        frames: for encapsulated data, the fragments (offset, length) of each frame.
        deflated_at: where the deflated data set begins in the file; None when it is not deflated.
        padding: zero bytes after the last element of the file.
    """

    offset: int
    length: int | None
    big_endian_words: bool = False
    frames: Frames = ()
    deflated_at: int | None = None
    padding: int = 0


@dataclass(frozen=True)
class DicomFile:
    """One file of a series.

    Attributes:
        stamp: size and modification time when the header was read, so that a change is noticed.
        word: what the object is when its class is known to be no image (a report, a segmentation), else None.
        sop_class: UID, '' when absent.
        patient: digest of the PatientID; the value itself is never kept.
        modality: in the words of the configuration, None when absent.
        body_part: a defined term, None when there is none.
        for_processing: raw values of the detector, before the processing for display.
        inverse_lut: declares that low values are shown bright (PresentationLUTShape).
        pixels: None when the file holds no pixel data.
    """

    path: Path
    stamp: tuple[int, int]
    transfer_syntax: str
    word: str | None
    sop_class: str
    sop_instance: str
    series: str
    study: str
    frame_of_reference: str
    patient: str
    modality: str | None
    body_part: str | None
    is_pet: bool
    modality_lut: bool
    for_processing: bool
    inverse_lut: bool
    instance_number: float | None
    pixel_format: PixelFormat
    frame_count: int
    frames: tuple[Frame, ...]
    pixels: PixelElement | None

    @property
    def claims_pixels(self) -> bool:
        """Whether the object has rows and columns; reports, plans and directories have not."""
        return self.pixel_format.rows > 0 or self.pixel_format.columns > 0 or self.pixels is not None


def read_header(path: Path, *, limits: Limits) -> DicomFile:
    """Read a file's header and find its pixels.

    Raises:
        CaseError: the file cannot be opened, is empty, is no DICOM file, is damaged or cut short.
    """
    with opened(path) as (handle, stamp):
        data_set = begin(path, handle, stamp, limits)
        header, place = parse(path, data_set, TOP_LEVEL)
        try:
            with quiet():
                file = _describe(path, data_set, header)
        except PARSE_FAULTS:
            raise CaseError(Code.E_FORMAT, path, "a sequence of the DICOM header is damaged; export it again") from None
        return replace(file, pixels=_pixel_element(path, data_set, place, file.frame_count, limits))


@dataclass(frozen=True)
class Identity:
    """Identifies the series that a file belongs to.

    Attributes:
        series: UID, '' when absent.
        patient: digest of the PatientID.
        word: what the object is when its class is known to be no image, else None.
    """

    series: str
    patient: str
    word: str | None


def read_identity(path: Path, *, limits: Limits) -> Identity:
    """Which series a file belongs to, from the first part of its header.

    Raises:
        CaseError: as ``read_header``.
    """
    with opened(path) as (handle, stamp):
        data_set = begin(path, handle, stamp, limits)
        if data_set.media_class == MEDIA_DIRECTORY:  # its records may be many, and are no slices
            return Identity("", "", no_image(MEDIA_DIRECTORY))
        header, _ = parse(path, data_set, [Tag.SOP_CLASS, Tag.PATIENT_ID, Tag.SERIES], last=Tag.SERIES)
        word = no_image(uid(header, Tag.SOP_CLASS) or data_set.media_class)
        return Identity(uid(header, Tag.SERIES), sha256_bytes(raw(header, Tag.PATIENT_ID)), word)


def _describe(path: Path, data_set: DataSet, header: Dataset) -> DicomFile:
    frames = number(header, Tag.FRAMES)
    count = 1 if frames is None else 0 if not frames >= 1 else int(min(frames, 2**31))
    pixel_format = _pixel_format(header)
    modality = text(header, Tag.MODALITY)
    sop_class = uid(header, Tag.SOP_CLASS) or data_set.media_class
    return DicomFile(
        path=path,
        stamp=data_set.stamp,
        transfer_syntax=data_set.syntax,
        word=no_image(sop_class),
        sop_class=sop_class,
        sop_instance=uid(header, Tag.SOP_INSTANCE),
        series=uid(header, Tag.SERIES),
        study=uid(header, Tag.STUDY),
        frame_of_reference=uid(header, Tag.FRAME_OF_REFERENCE),
        patient=sha256_bytes(raw(header, Tag.PATIENT_ID)),
        modality=(_MODALITIES.get(modality, "other") if modality else None),
        body_part=body_part_term(text(header, Tag.BODY_PART)),
        is_pet=modality == "PT",
        modality_lut=Tag.MODALITY_LUT in header,
        for_processing=sop_class in FOR_PROCESSING or text(header, Tag.INTENT) == "FOR PROCESSING",
        inverse_lut=text(header, Tag.LUT_SHAPE) == "INVERSE",
        instance_number=number(header, Tag.INSTANCE_NUMBER),
        pixel_format=pixel_format,
        frame_count=count,
        frames=describe_frames(path, header, count, projection=_MODALITIES.get(modality) == "XR"),
        pixels=None,
    )


def _pixel_format(header: Dataset) -> PixelFormat:
    photometric = text(header, Tag.PHOTOMETRIC)
    return PixelFormat(
        rows=unsigned(header, Tag.ROWS),
        columns=unsigned(header, Tag.COLUMNS),
        samples=unsigned(header, Tag.SAMPLES, absent=1),
        bits_allocated=unsigned(header, Tag.BITS_ALLOCATED),
        bits_stored=unsigned(header, Tag.BITS_STORED),
        high_bit=unsigned(header, Tag.HIGH_BIT, absent=unsigned(header, Tag.BITS_STORED) - 1),
        signed=unsigned(header, Tag.PIXEL_REPRESENTATION) == 1,
        photometric=photometric if photometric in _PHOTOMETRIC else "",  # free text stays out of messages
        planar=unsigned(header, Tag.PLANAR) == 1,
    )


def _pixel_element(
    path: Path, data_set: DataSet, place: PixelPlace | None, count: int, limits: Limits
) -> PixelElement | None:
    if place is None:
        return None
    if place.tag != PIXEL_DATA:
        raise CaseError(Code.E_DTYPE, path, "holds floating-point pixel data; integers are read, so convert it")
    encapsulated = place.length == 0xFFFFFFFF
    if data_set.syntax not in (*NATIVE, *SUPPORTED_COMPRESSION):
        return PixelElement(place.offset, None)  # of an unknown encoding, which is refused when its pixels are needed
    if encapsulated == (data_set.syntax in NATIVE):
        kind = "compressed" if encapsulated else "uncompressed"
        against = "and no file meta group says how" if data_set.guessed else "against the transfer syntax"
        raise CaseError(Code.E_CODEC, path, f"pixel data are {kind}, {against}; export it again")
    if encapsulated:
        frames, end = locate_frames(path, data_set.handle, place.offset, data_set.size, count, syntax=data_set.syntax)
        padding = padding_after(path, data_set, place, end, limits=limits)
        return PixelElement(place.offset, None, frames=frames, padding=padding)
    end = place.offset + place.length
    if end > data_set.size:
        present = max(data_set.size - place.offset, 0)
        reason = f"pixel data of {place.length} bytes, {present} are there; copy the file again"
        raise CaseError(Code.E_TRUNCATED, path, reason)
    return PixelElement(
        place.offset,
        place.length,
        big_endian_words=data_set.syntax == EXPLICIT_BIG and place.vr != "OB",
        deflated_at=data_set.deflated_at,
        padding=padding_after(path, data_set, place, end, limits=limits),
    )
