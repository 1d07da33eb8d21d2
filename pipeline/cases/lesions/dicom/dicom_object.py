"""DICOM objects that annotate images: read once, by the same guarded parser as the images, values straight from bytes.

Free text (labels, names, descriptions, tracking identifiers) is never read: it may hold names of people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from pipeline.cases.lesions.lesion import LesionFormat, Points
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.file import PARSE_FAULTS, PIXEL_DATA, DataSet, PixelPlace, begin, opened, parse, quiet
from pipeline.imaging.dicom.values import items, raw, text, uid

SOP_CLASS: Final = 0x00080016
SOP_INSTANCE: Final = 0x00080018
SERIES: Final = 0x0020000E
FRAME_OF_REFERENCE: Final = 0x00200052
REFERENCED_SERIES: Final = 0x00081115
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
SEGMENTATIONS: Final = frozenset({f"{_STORAGE}66.4", f"{_STORAGE}66.7"})  # the second holds a label map
STRUCTURE_SETS: Final = frozenset({f"{_STORAGE}481.3"})
# Basic text and enhanced reports cannot hold coordinates, yet many programs write measurements as enhanced ones.
REPORTS: Final = frozenset(f"{_STORAGE}88.{number}" for number in (22, 33, 34, 35))


@dataclass(frozen=True, eq=False)
class DicomObject:
    """The elements of one object, up to its pixels.

    Attributes:
        header: only the elements that were asked for.
        place: of the pixels; None without any.
        data_set: of the file, to read the pixels from; its handle is closed.
    """

    path: Path
    header: Dataset
    place: PixelPlace | None
    data_set: DataSet

    @property
    def object_uid(self) -> str | None:
        """SOPInstanceUID."""
        return uid(self.header, SOP_INSTANCE) or None


def annotation_format(path: Path, limits: Limits) -> LesionFormat | None:
    """Which kind of annotation a DICOM file is by its SOP class; None for images and everything else.

    Raises:
        CaseError: as `read_object`.
    """
    with opened(path) as (handle, stamp):
        header, _ = parse(path, begin(path, handle, stamp, limits), [SOP_CLASS], last=SOP_CLASS)
    sop_class = uid(header, SOP_CLASS)
    if sop_class in SEGMENTATIONS:
        return "dicom-seg"
    if sop_class in STRUCTURE_SETS:
        return "rtstruct"
    return "dicom-sr" if sop_class in REPORTS else None


def read_object(path: Path, tags: tuple[int, ...], limits: Limits) -> DicomObject:
    """Read the named elements of a DICOM object, sequences with everything in them.

    Raises:
        CaseError: the file cannot be opened, is empty, is no DICOM file, is damaged or cut short.
    """
    with opened(path) as (handle, stamp):
        data_set = begin(path, handle, stamp, limits)
        header, place = parse(path, data_set, tags, last=PIXEL_DATA)
    return DicomObject(path, header, place, data_set)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn pydicom's exceptions over a damaged sequence into a CaseError, and silence warnings that hold values.

    Raises:
        CaseError: E_FORMAT.
    """
    try:
        with quiet():
            yield
    except PARSE_FAULTS:
        reason = "a sequence of the DICOM object is damaged; export it again"
        raise CaseError(Code.E_FORMAT, path, reason) from None


def each_item(header: Dataset, *tags: int) -> Iterator[Dataset]:
    """Items of a sequence, of the sequences in these, and so on along the tags."""
    first, *others = tags
    for item in items(header, first):
        if others:
            yield from each_item(item, *others)
        else:
            yield item


def only_value(header: Dataset, find: Callable[[Dataset], str], *tags: int) -> str | None:
    """The one value that all items along the tags share; None when there is none, or several."""
    values = {value for item in each_item(header, *tags) if (value := find(item))}
    return values.pop() if len(values) == 1 else None


def decimals(header: Dataset, tag: int) -> Points:
    """A multi-valued decimal string; all NaN when one of them is no number."""
    data = raw(header, tag)
    if not data:
        return np.empty(0)
    parts = data.split(b"\\")
    try:
        return np.array(parts, dtype=np.float64)
    except ValueError:
        return np.full(len(parts), np.nan)


def floats(header: Dataset, tag: int) -> Points:
    """A multi-valued 32-bit or 64-bit float."""
    element = header.get_item(tag, keep_deferred=True) if tag in header else None
    data = getattr(element, "value", None)
    if not isinstance(data, bytes):
        return np.empty(0)
    order = "<" if getattr(element, "is_little_endian", True) else ">"
    return np.frombuffer(data[: len(data) // 4 * 4], f"{order}f4").astype(np.float64)


def word(header: Dataset, tag: int, known: frozenset[str]) -> str:
    """A defined term of the standard; ``other`` for any other text."""
    term = text(header, tag).upper()
    return term if term in known or not term else "other"
