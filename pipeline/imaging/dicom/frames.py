"""Descriptions of the slices of a DICOM file: one of the whole file, or one a frame from its functional groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.tags import MACROS, Tag
from pipeline.imaging.dicom.values import Numbers, items, mark, number, numbers, raw, text

_RESCALE_TYPES: Final = frozenset({"", "HU", "HU_MOD", "US", "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"})

_DOUBLES: Final = (Tag.EFFECTIVE_ECHO_TIME, Tag.B_VALUE, Tag.CARDIAC_PHASE)
# What all slices of one volume have in common, in the words of messages, and where it stands: in the file's header, and
# in the functional groups of a frame. The first two words of an image type say how it was made, and may differ.
MARKS: Final = {
    "echo times": (Tag.ECHO_TIME, Tag.EFFECTIVE_ECHO_TIME),
    "echoes": (Tag.ECHO_NUMBERS,),
    "inversion times": (Tag.INVERSION_TIME,),
    "flip angles": (Tag.FLIP_ANGLE,),
    "b-values": (Tag.B_VALUE,),
    "temporal positions": (Tag.TEMPORAL_POSITION, Tag.TEMPORAL_INDEX),
    "cardiac phases": (Tag.CARDIAC_PHASE,),
    "stacks": (Tag.STACK,),
    "kernels": (Tag.KERNEL,),
    "tube voltages": (Tag.KVP,),
    "contrast agents": (Tag.CONTRAST_AGENT,),
    "image types": (Tag.IMAGE_TYPE, Tag.FRAME_TYPE),
}
WEAK_MARKS: Final = {
    "acquisitions": (Tag.ACQUISITION_NUMBER, Tag.FRAME_ACQUISITION),
    "acquisition times": (Tag.ACQUISITION_TIME,),
    "trigger times": (Tag.TRIGGER_TIME,),
}


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
        mosaic: slices side by side in one picture, as a scanner's way to store a volume.
        marks: values that slices of one volume share, in the order of ``MARKS``; compared, never shown.
        weak_marks: values that the passes of one acquisition may differ in, in the order of ``WEAK_MARKS``; likewise.
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
    mosaic: bool = False
    marks: tuple[object, ...] = ()
    weak_marks: tuple[object, ...] = ()


def describe_frames(path: Path, header: Dataset, count: int, *, projection: bool) -> tuple[Frame, ...]:
    """Descriptions of the frames; without functional groups there is one, that of the whole file.

    Raises:
        CaseError: E_FORMAT when there are fewer descriptions than frames.
    """
    # The spacing of the detector's elements is no distance in the patient, except roughly in a projection.
    spacings = (Tag.PIXEL_SPACING, Tag.IMAGER_SPACING)[: 1 + projection]
    localizer = _has_word(header, Tag.IMAGE_TYPE, b"LOCALIZER")
    if count < 1 or (Tag.FRAME_GROUPS not in header and Tag.SHARED_GROUPS not in header):
        return (_frame(0, [header], spacings, localizer=localizer),)
    shared, groups = items(header, Tag.SHARED_GROUPS), items(header, Tag.FRAME_GROUPS)
    if groups and len(groups) != count:
        raise CaseError(Code.E_FORMAT, path, f"{count} frames but {len(groups)} frame descriptions; export it again")
    groups = groups or [Dataset()] * min(count, 1)
    common = _macros(*shared[:1])
    return tuple(
        _frame(index, [*_macros(group), *common], spacings, localizer=localizer) for index, group in enumerate(groups)
    )


def _macros(*groups: Dataset) -> list[Dataset]:
    return [item for group in groups for name in MACROS for item in items(group, name)[:1]]


def _frame(index: int, sources: list[Dataset], spacings: Sequence[int], *, localizer: bool) -> Frame:
    """The value from the first source that has one: the frame's own groups come before the shared ones."""

    def first_numbers(tag: int, size: int) -> Numbers | None:
        return next((value for source in sources if (value := numbers(source, tag, size)) is not None), None)

    def first_number(tag: int) -> float | None:
        return next((value for source in sources if (value := number(source, tag)) is not None), None)

    unit = next((value for source in sources if (value := text(source, Tag.RESCALE_TYPE))), "")
    return Frame(
        index=index,
        position=first_numbers(Tag.POSITION, 3),
        orientation=first_numbers(Tag.ORIENTATION, 6),
        pixel_spacing=next((pair for tag in spacings if (pair := first_numbers(tag, 2))), None),
        thickness=first_number(Tag.THICKNESS),
        spacing_between=first_number(Tag.SPACING_BETWEEN),
        slope=first_number(Tag.SLOPE),
        intercept=first_number(Tag.INTERCEPT),
        rescale_type=unit if unit in _RESCALE_TYPES else "other",
        localizer=localizer or any(_has_word(source, Tag.FRAME_TYPE, b"LOCALIZER") for source in sources),
        mosaic=any(_has_word(source, Tag.IMAGE_TYPE, b"MOSAIC") for source in sources),
        marks=tuple(_mark(sources, tags) for tags in MARKS.values()),
        weak_marks=tuple(_mark(sources, tags) for tags in WEAK_MARKS.values()),
    )


def _has_word(header: Dataset, tag: int, word: bytes) -> bool:
    return word in raw(header, tag).upper().split(b"\\")


def _mark(sources: Sequence[Dataset], tags: Sequence[int]) -> object:
    if Tag.IMAGE_TYPE in tags:
        words = next((words for source in sources for tag in tags if (words := raw(source, tag))), b"")
        return tuple(word.strip() for word in words.split(b"\\")[2:])
    values = (mark(source, tag, double=tag in _DOUBLES) for source in sources for tag in tags)
    return next((value for value in values if value is not None), None)
