"""One DICOM file: what its header says about its slices, and where its pixels lie. No pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.dicom.file import PARSE_FAULTS, PIXEL_DATA, DataSet, PixelPlace, begin, opened, parse, quiet
from pipeline.imaging.dicom.fragments import (
    EXPLICIT_BIG,
    EXPLICIT_DEFLATED,
    EXPLICIT_LITTLE,
    IMPLICIT,
    Frames,
    locate_frames,
)
from pipeline.imaging.dicom.values import Numbers, items, number, numbers, raw, text, uid, unsigned

_NATIVE: Final = (IMPLICIT, EXPLICIT_LITTLE, EXPLICIT_DEFLATED, EXPLICIT_BIG)
_MODALITIES: Final = {
    "CT": "CT", "MR": "MR", "US": "US", "IVUS": "US", "SEG": "mask",
    **dict.fromkeys(("CR", "DX", "RG", "XA", "RF", "MG", "PX", "IO"), "XR"),
}  # fmt: skip
_RESCALE_TYPES: Final = frozenset({"", "HU", "HU_MOD", "US", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"})
_PHOTOMETRIC: Final = frozenset(
    {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
)


class Tag:
    """The elements that are read, and no others."""

    IMAGE_TYPE = 0x00080008
    FRAME_TYPE = 0x00089007
    SOP_INSTANCE = 0x00080018
    MODALITY = 0x00080060
    PATIENT_ID = 0x00100020
    THICKNESS = 0x00180050
    SPACING_BETWEEN = 0x00180088
    IMAGER_SPACING = 0x00181164
    STUDY = 0x0020000D
    SERIES = 0x0020000E
    INSTANCE_NUMBER = 0x00200013
    POSITION = 0x00200032
    ORIENTATION = 0x00200037
    FRAME_OF_REFERENCE = 0x00200052
    SAMPLES = 0x00280002
    PHOTOMETRIC = 0x00280004
    FRAMES = 0x00280008
    ROWS = 0x00280010
    COLUMNS = 0x00280011
    PIXEL_SPACING = 0x00280030
    BITS_ALLOCATED = 0x00280100
    BITS_STORED = 0x00280101
    HIGH_BIT = 0x00280102
    PIXEL_REPRESENTATION = 0x00280103
    INTERCEPT = 0x00281052
    SLOPE = 0x00281053
    RESCALE_TYPE = 0x00281054
    MODALITY_LUT = 0x00283000
    SHARED_GROUPS = 0x52009229
    FRAME_GROUPS = 0x52009230
    CT_FRAME_TYPE = 0x00189329
    PLANE_POSITION = 0x00209113
    PLANE_ORIENTATION = 0x00209116
    PIXEL_MEASURES = 0x00289110
    VALUE_TRANSFORMATION = 0x00289145


_TOP_LEVEL: Final = [value for name, value in vars(Tag).items() if name.isupper()]


@dataclass(frozen=True)
class Frame:
    """One slice as its header describes it; None is absent, NaN is present but not a number.

    Attributes:
        index: of the frame in its file, from 0.
        position: of the first pixel's centre, LPS mm.
        orientation: directions of a row and of a column, LPS.
        pixel_spacing: mm between rows, mm between columns.
        thickness: of the slice, mm.
        spacing_between: neighbouring slices, mm, as declared.
        slope: of the rescale.
        intercept: of the rescale.
        rescale_type: unit of the rescaled values by the standard's word, '' when absent, ``other`` for any other text.
        localizer: a scout view.
    """

    index: int
    position: Numbers | None
    orientation: Numbers | None
    pixel_spacing: Numbers | None
    thickness: float | None
    spacing_between: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    localizer: bool


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


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data lie.

    Attributes:
        offset: of the value in the file (deflated: in the inflated data set).
        length: bytes of the value; None for encapsulated data.
        big_endian_words: stored as big-endian 16-bit words, also when the pixels have 8 bits.
        frames: for encapsulated data, the fragments (offset, length) of each frame.
        deflated_at: where the deflated data set begins in the file; None when it is not deflated.
    """

    offset: int
    length: int | None
    big_endian_words: bool = False
    frames: Frames = ()
    deflated_at: int | None = None


@dataclass(frozen=True)
class DicomFile:
    """One file of a series.

    Attributes:
        stamp: size and modification time when the header was read, so that a change is noticed.
        patient: digest of the PatientID; the value itself is never kept.
        modality: in the words of the configuration, None when absent.
        is_image: has rows and columns.
        pixels: None when the file holds no pixel data.
    """

    path: Path
    stamp: tuple[int, int]
    transfer_syntax: str
    sop_instance: str
    series: str
    study: str
    frame_of_reference: str
    patient: str
    modality: str | None
    is_pet: bool
    modality_lut: bool
    instance_number: float | None
    pixel_format: PixelFormat
    frame_count: int
    frames: tuple[Frame, ...]
    pixels: PixelElement | None

    @property
    def is_image(self) -> bool:
        """Whether the object claims rows and columns; reports, plans and directories do not."""
        return self.pixel_format.rows > 0 or self.pixel_format.columns > 0 or self.pixels is not None


def read_header(path: Path, *, limits: Limits) -> DicomFile:
    """Read a file's header and find its pixels.

    Raises:
        CaseError: the file cannot be opened, is empty, is no DICOM file, is damaged or cut short.
    """
    with opened(path) as (handle, stamp):
        data_set = begin(path, handle, stamp, limits)
        header, place = parse(path, data_set, _TOP_LEVEL)
        try:
            with quiet():
                return _describe(path, data_set, header, place)
        except PARSE_FAULTS:
            raise CaseError(Code.E_FORMAT, path, "a sequence of the DICOM header is damaged; export it again") from None


def read_identity(path: Path, *, limits: Limits) -> tuple[str, str]:
    """Series UID ('' when absent) and a digest of the PatientID, from the first part of the header.

    Raises:
        CaseError: as ``read_header``.
    """
    with opened(path) as (handle, stamp):
        header, _ = parse(path, begin(path, handle, stamp, limits), [Tag.PATIENT_ID, Tag.SERIES], last=Tag.SERIES)
        return uid(header, Tag.SERIES), sha256_bytes(raw(header, Tag.PATIENT_ID))


def _describe(path: Path, data_set: DataSet, header: Dataset, place: PixelPlace | None) -> DicomFile:
    frames = number(header, Tag.FRAMES)
    count = 1 if frames is None else 0 if not frames >= 1 else int(min(frames, 2**31))
    pixel_format = _pixel_format(header)
    modality = text(header, Tag.MODALITY)
    return DicomFile(
        path=path,
        stamp=data_set.stamp,
        transfer_syntax=data_set.syntax,
        sop_instance=uid(header, Tag.SOP_INSTANCE),
        series=uid(header, Tag.SERIES),
        study=uid(header, Tag.STUDY),
        frame_of_reference=uid(header, Tag.FRAME_OF_REFERENCE),
        patient=sha256_bytes(raw(header, Tag.PATIENT_ID)),
        modality=(_MODALITIES.get(modality, "other") if modality else None),
        is_pet=modality == "PT",
        modality_lut=Tag.MODALITY_LUT in header,
        instance_number=number(header, Tag.INSTANCE_NUMBER),
        pixel_format=pixel_format,
        frame_count=count,
        frames=_frames(path, header, count, projection=_MODALITIES.get(modality) == "XR"),
        pixels=_pixel_element(path, data_set, place, count),
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
    )


def _pixel_element(path: Path, data_set: DataSet, place: PixelPlace | None, count: int) -> PixelElement | None:
    if place is None:
        return None
    if place.tag != PIXEL_DATA:
        raise CaseError(Code.E_DTYPE, path, "holds floating-point pixel data; integers are read, so convert it")
    size = data_set.stamp[0]
    encapsulated = place.length == 0xFFFFFFFF
    if encapsulated == (data_set.syntax in _NATIVE):
        kind = "compressed" if encapsulated else "uncompressed"
        raise CaseError(Code.E_CODEC, path, f"pixel data are {kind}, against the transfer syntax; export it again")
    if encapsulated:
        frames = locate_frames(path, data_set.handle, place.offset, size, count)
        return PixelElement(place.offset, None, frames=frames)
    size = size if data_set.inflated is None else data_set.inflated
    if place.offset + place.length > size:
        reason = f"pixel data of {place.length} bytes, {max(size - place.offset, 0)} are there; copy the file again"
        raise CaseError(Code.E_TRUNCATED, path, reason)
    words = data_set.syntax == EXPLICIT_BIG and place.vr != "OB"
    return PixelElement(place.offset, place.length, big_endian_words=words, deflated_at=data_set.deflated_at)


def _frames(path: Path, header: Dataset, count: int, *, projection: bool) -> tuple[Frame, ...]:
    """Descriptions of the frames; without functional groups there is one, that of the whole file."""
    # What lies between the detector's elements is no distance in the patient, except roughly in a projection.
    spacings = (Tag.PIXEL_SPACING, Tag.IMAGER_SPACING)[: 1 + projection]
    if count < 1 or (Tag.FRAME_GROUPS not in header and Tag.SHARED_GROUPS not in header):
        return (_frame(0, [header], spacings, localizer=_is_localizer(header, Tag.IMAGE_TYPE)),)
    shared, each = items(header, Tag.SHARED_GROUPS), items(header, Tag.FRAME_GROUPS)
    if each and len(each) != count:
        raise CaseError(Code.E_FORMAT, path, f"{count} frames but {len(each)} frame descriptions; export it again")
    groups = each or [Dataset()] * min(count, 1)
    localizer = _is_localizer(header, Tag.IMAGE_TYPE)
    common = _macros(*shared[:1])
    return tuple(
        _frame(index, [*_macros(group), *common], spacings, localizer=localizer) for index, group in enumerate(groups)
    )


def _macros(*groups: Dataset) -> list[Dataset]:
    names = (Tag.PLANE_POSITION, Tag.PLANE_ORIENTATION, Tag.PIXEL_MEASURES, Tag.VALUE_TRANSFORMATION, Tag.CT_FRAME_TYPE)
    return [item for group in groups for name in names for item in items(group, name)[:1]]


def _frame(index: int, sources: list[Dataset], spacings: Sequence[int], *, localizer: bool) -> Frame:
    """The first source that has a value gives it: the frame's own groups stand before the shared ones."""

    def several(tag: int, size: int) -> Numbers | None:
        return next((found for source in sources if (found := numbers(source, tag, size)) is not None), None)

    def one(tag: int) -> float | None:
        return next((found for source in sources if (found := number(source, tag)) is not None), None)

    unit = next((found for source in sources if (found := text(source, Tag.RESCALE_TYPE))), "")
    return Frame(
        index=index,
        position=several(Tag.POSITION, 3),
        orientation=several(Tag.ORIENTATION, 6),
        pixel_spacing=next((pair for tag in spacings if (pair := several(tag, 2))), None),
        thickness=one(Tag.THICKNESS),
        spacing_between=one(Tag.SPACING_BETWEEN),
        slope=one(Tag.SLOPE),
        intercept=one(Tag.INTERCEPT),
        rescale_type=unit if unit in _RESCALE_TYPES else "other",
        localizer=localizer or any(_is_localizer(source, Tag.FRAME_TYPE) for source in sources),
    )


def _is_localizer(header: Dataset, tag: int) -> bool:
    return b"LOCALIZER" in raw(header, tag).upper().split(b"\\")
