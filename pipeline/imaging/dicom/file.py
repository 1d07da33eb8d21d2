"""A DICOM file as bytes: opened without waiting, checked for its mark, and parsed element by element by pydicom."""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import open_regular
from pipeline.imaging.dicom.bare import DICOM_HEAD_BYTES, beginning
from pipeline.imaging.dicom.deflated import inflate
from pipeline.imaging.dicom.fragments import EXPLICIT_BIG, EXPLICIT_DEFLATED, EXPLICIT_LITTLE, IMPLICIT
from pipeline.imaging.dicom.tags import Tag
from pipeline.imaging.dicom.values import uid

PIXEL_DATA: Final = 0x7FE00010
# What pydicom, struct and the like raise on damaged elements.
PARSE_FAULTS: Final = (
    ValueError, TypeError, AttributeError, OverflowError, NotImplementedError, LookupError,
    struct.error, EOFError, OSError, RecursionError, AssertionError,
)  # fmt: skip
_MAX_READS: Final = 1_000_000  # of a header; an Enhanced series of 10,000 frames needs fewer
MAX_HEADER: Final = 64 * 2**20
_LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})


class Window:
    """A file that never reads past its end, never allocates what a header claims, and notices truncation."""

    def __init__(self, handle: IO[bytes], size: int) -> None:
        self._handle, self.size = handle, size
        self.short = False
        self._at = handle.tell()  # kept here, because asking the file costs a system call each time
        self._moved = False
        self._reads = self._bytes = 0

    def read(self, count: int = -1) -> bytes:
        """At most ``count`` bytes; fewer only at the end of the file."""
        left = max(self.size - self._at, 0)
        if count < 0 or count > left:
            self.short |= left > 0 or count > 8  # the eight bytes of a next element may well be missing
            count = left
        self._reads += 1
        self._bytes += count
        if self._reads > _MAX_READS or self._bytes > MAX_HEADER:
            raise _HeaderTooLargeError
        if self._moved:
            self._handle.seek(self._at)
            self._moved = False
        data = self._handle.read(count)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; beyond the end is noted as truncation."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at, self._moved = base + offset, True
        if self._at < 0:
            raise ValueError("a position before the file's beginning")
        self.short |= self._at > self.size
        return self._at

    def tell(self) -> int:
        """Current position."""
        return self._at


class _HeaderTooLargeError(Exception):
    """A header with more elements than any scan has."""


class ForeignElementError(Exception):
    """An element that is out of place; raised by callbacks that look at each element."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, int]]]:
    """Open a regular file for reading, with its size and modification time; never waits on a pipe.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION, E_NOT_REGULAR, E_EMPTY_FILE, and E_SLICE_UNREADABLE when the disk fails.
    """
    with open_regular(path) as raw:
        status = os.fstat(raw.fileno())
        try:
            yield io.BufferedReader(raw), (status.st_size, status.st_mtime_ns)  # type: ignore[type-var]
        except OSError as error:
            reason = f"reading failed ({os.strerror(error.errno or 0)}); check the disk or the network"
            raise CaseError(Code.E_SLICE_UNREADABLE, path, reason) from None


_QUIET_LOCKS: dict[int, threading.Lock] = {}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom: its warnings and log lines may quote patients' data.

    Warning filters belong to the process, so only one thread may change them at a time; the lock is one per
    process id, because a child forked while another thread held it could never acquire it.
    """
    logger = logging.getLogger("pydicom")
    with _QUIET_LOCKS.setdefault(os.getpid(), threading.Lock()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = before


def is_dicom(path: Path) -> bool:
    """Whether a regular file begins as DICOM: with its mark, or as a data set beyond doubt (see ``bare``).

    Raises:
        CaseError: when it cannot be opened.
    """
    with opened(path) as (handle, _):
        return beginning(handle.read(DICOM_HEAD_BYTES)) is not None


@dataclass(frozen=True)
class DataSet:
    """A file whose meta group has been read, standing before its data set.

    Attributes:
        stamp: size and modification time.
        syntax: transfer syntax UID.
        guessed: no file meta group says the transfer syntax; it was told from the first elements.
        media_class: SOP class UID of the file meta group, '' when absent.
        source: what the elements are read from.
        deflated_at: where a deflated data set begins in the file, else None.
        inflated: its length when inflated, else None.
    """

    handle: IO[bytes]
    stamp: tuple[int, int]
    syntax: str
    source: Window
    guessed: bool = False
    media_class: str = ""
    deflated_at: int | None = None
    inflated: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the file, or of a deflated data set when inflated."""
        return self.stamp[0] if self.inflated is None else self.inflated


@dataclass(frozen=True)
class PixelPlace:
    """Header of the element that holds the pixels; ``offset`` is that of its value."""

    tag: int
    vr: str | None
    offset: int
    length: int


def begin(path: Path, handle: IO[bytes], stamp: tuple[int, int], limits: Limits) -> DataSet:
    """Check the mark, read the file meta group, and stop before the data set.

    Raises:
        CaseError: E_FORMAT, E_TRUNCATED; for a deflated data set also E_CODEC and E_TOO_LARGE.
    """
    start = beginning(handle.read(DICOM_HEAD_BYTES))
    if start is None:
        raise CaseError(Code.E_FORMAT, path, "no DICM mark at byte 128, so not a DICOM file (Part 10); export it again")
    handle.seek(start.offset)
    source = Window(handle, stamp[0])
    if start.syntax is not None:
        return DataSet(handle, stamp, start.syntax, source, guessed=True)
    tags = [Tag.MEDIA_SOP_CLASS, Tag.TRANSFER_SYNTAX]
    meta = read_elements(path, source, EXPLICIT_LITTLE, tags, lambda tag, _vr, _length: tag >> 16 != 2)
    syntax, media_class = uid(meta, Tag.TRANSFER_SYNTAX), uid(meta, Tag.MEDIA_SOP_CLASS)
    if not syntax:
        _refuse_short(path, source)
        raise CaseError(Code.E_FORMAT, path, "the file meta group names no transfer syntax; export it again")
    if syntax != EXPLICIT_DEFLATED:
        return DataSet(handle, stamp, syntax, source, media_class=media_class)
    place = source.tell()
    handle.seek(place)
    data, length = inflate(path, handle, keep=MAX_HEADER, limits=limits)
    window = Window(io.BytesIO(data), len(data))
    return DataSet(handle, stamp, syntax, window, media_class=media_class, deflated_at=place, inflated=length)


def parse(
    path: Path, data_set: DataSet, tags: Sequence[int], *, last: int = PIXEL_DATA
) -> tuple[Dataset, PixelPlace | None]:
    """Elements up to the pixels, or to ``last``, and the place of the pixels.

    Raises:
        CaseError: E_FORMAT, E_TRUNCATED.
    """
    pixel_elements: list[tuple[int, str | None, int]] = []
    numbers: set[int] = set()
    twice = False

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal twice
        number = int(tag)  # pydicom's tags compare slowly
        twice |= number in numbers and len(numbers) > 1  # the first is shown twice where its encoding is in doubt
        numbers.add(number)
        if number in _PIXEL_TAGS and number <= last:
            pixel_elements.append((number, vr, length))
        return bool(pixel_elements) or number > last

    header = read_elements(path, data_set.source, data_set.syntax, tags, stop)
    if not pixel_elements:
        _refuse_short(path, data_set.source)
    if twice:
        raise CaseError(Code.E_FORMAT, path, "an element stands twice in the DICOM header; copy or export it again")
    if not pixel_elements:
        return header, None
    tag, vr, length = pixel_elements[0]
    return header, PixelPlace(tag, vr, data_set.source.tell() + (12 if vr in _LONG_VRS else 8), length)


def read_elements(
    path: Path, source: Window, syntax: str, tags: Sequence[int], stop: Callable[[int, str | None, int], bool]
) -> Dataset:
    """Elements from where ``source`` stands until ``stop(tag, vr, length)`` or the end; only ``tags`` are kept.

    Raises:
        CaseError: E_FORMAT, E_TRUNCATED.
    """
    try:
        with quiet():
            header: Dataset = read_dataset(
                source,  # type: ignore[arg-type]  # pydicom needs no more of a file than Window has
                syntax == IMPLICIT,
                syntax != EXPLICIT_BIG,
                stop_when=stop,
                specific_tags=list(tags),
            )
            return header
    except _HeaderTooLargeError:
        raise CaseError(Code.E_FORMAT, path, f"a header of over {_MAX_READS} elements or {MAX_HEADER} bytes") from None
    except ForeignElementError:
        raise CaseError(Code.E_FORMAT, path, "an element stands where it cannot stand; export it again") from None
    except RecursionError:
        raise CaseError(Code.E_FORMAT, path, "sequences are nested too deep for any scan; export it again") from None
    except PARSE_FAULTS:
        if source.short:
            raise CaseError(Code.E_TRUNCATED, path, "ends inside its header; copy it again") from None
        raise CaseError(Code.E_FORMAT, path, "the DICOM header is damaged; export it again") from None


def _refuse_short(path: Path, source: Window) -> None:
    if source.short:
        raise CaseError(Code.E_TRUNCATED, path, "ends inside its header; copy it again")
