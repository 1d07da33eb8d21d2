"""The pixels of a DICOM segmentation, frame by frame: packed bits, bytes, or compressed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.lesions.dicom.dicom_object import DicomObject
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.deflated import inflate
from pipeline.imaging.dicom.file import opened
from pipeline.imaging.dicom.fragments import EXPLICIT_BIG, SUPPORTED_COMPRESSION
from pipeline.imaging.dicom.header import DicomFile, read_header
from pipeline.imaging.dicom.pixels import read_frame

_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_BITS: Final = {"BINARY": (1, 8), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}


@dataclass(frozen=True)
class PixelLayout:
    """How the pixels of a segmentation are stored.

    Attributes:
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        rows: of a frame.
        columns: of a frame.
        frames: how many there are.
        bits: of a pixel.
        maximum: of a fractional one, which stands for 1.
    """

    kind: str
    rows: int
    columns: int
    frames: int
    bits: int
    maximum: int


class FrameReader:
    """Reads frames of one object.

    Args:
        segmentation: the object.
        layout: of its pixels.
        limits: of inflation.

    Raises:
        CaseError: E_DTYPE, E_NO_PIXELS, E_CODEC, E_TRUNCATED or E_SHAPE.
    """

    def __init__(self, segmentation: DicomObject, layout: PixelLayout, limits: Limits) -> None:
        self.path: Path = segmentation.path
        self._segmentation, self._layout, self._limits = segmentation, layout, limits
        allowed = _BITS[layout.kind]
        if layout.bits not in allowed or (layout.kind == "FRACTIONAL" and not 1 <= layout.maximum <= 255):
            claim = f"{layout.bits} bits a pixel, maximum {layout.maximum}" if layout.maximum else f"{layout.bits} bits"
            reason = f"a {layout.kind} segmentation of {claim}; export the segmentation again"
            raise CaseError(Code.E_DTYPE, self.path, reason)
        if segmentation.place is None:
            raise CaseError(Code.E_NO_PIXELS, self.path, "a segmentation without pixel data; copy it again")
        self._compressed = segmentation.place.length == _UNDEFINED_LENGTH
        if self._compressed and (layout.bits == 1 or segmentation.data_set.syntax not in SUPPORTED_COMPRESSION):
            syntax = segmentation.data_set.syntax
            reason = f"transfer syntax {syntax} is not read for it; export as explicit VR little endian"
            raise CaseError(Code.E_CODEC, self.path, reason)
        if not self._compressed:
            self._check_length(segmentation.place.length)

    def _check_length(self, length: int) -> None:
        layout = self._layout
        bits = layout.frames * layout.rows * layout.columns * layout.bits
        expected = (bits + 7) // 8
        if length < expected:
            reason = f"pixel data of {length} bytes, {layout.frames} frames need {expected}; export it again"
            raise CaseError(Code.E_TRUNCATED, self.path, reason)
        if length > expected + 1:  # the length is even
            reason = (
                f"pixel data of {length} bytes, {layout.frames} frames need {expected}: they do not belong together"
            )
            raise CaseError(Code.E_SHAPE, self.path, reason)

    def read(self, place: int) -> NDArray[np.int32]:
        """One frame, (rows, columns): 0 outside; inside 1, in a label map the segment's number."""
        layout = self._layout
        if self._compressed:
            values = read_frame(self._file, place, limits=self._limits).values.astype(np.int32)
        else:
            values = self._native(place).reshape(layout.rows, layout.columns).astype(np.int32)
        if layout.kind == "FRACTIONAL":
            return (2 * values >= layout.maximum).astype(np.int32)
        return values if layout.kind == "LABELMAP" else (values != 0).astype(np.int32)

    def _native(self, place: int) -> NDArray[np.unsignedinteger]:
        """One uncompressed frame; frames of single bits follow each other without filling up bytes."""
        bits, size = self._layout.bits, self._layout.rows * self._layout.columns
        first = place * size * bits
        data = self._bytes(first // 8, (first + size * bits + 7) // 8)
        if bits == 1:
            unpacked = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            return np.asarray(unpacked[first % 8 : first % 8 + size])
        order = ">" if self._segmentation.data_set.syntax == EXPLICIT_BIG else "<"
        return np.frombuffer(data, f"{order}u{bits // 8}")

    def _bytes(self, first: int, last: int) -> bytes:
        """Bytes of the pixel element."""
        place, data_set = self._segmentation.place, self._segmentation.data_set
        assert place is not None
        if data_set.deflated_at is not None:
            return self._inflated[first:last]
        with opened(self.path) as (handle, stamp):
            self._refuse_changed(stamp)
            handle.seek(place.offset + first)
            data = handle.read(last - first)
        if len(data) < last - first:
            raise CaseError(Code.E_TRUNCATED, self.path, "the pixel data end early; copy the file again")
        return data

    def _refuse_changed(self, stamp: tuple[int, int]) -> None:
        if stamp != self._segmentation.data_set.stamp:
            raise CaseError(Code.E_SLICE_UNREADABLE, self.path, "changed while it was being read; read it again")

    @cached_property
    def _inflated(self) -> bytes:
        """The pixel element of a deflated object, which is inflated only once."""
        place, data_set = self._segmentation.place, self._segmentation.data_set
        assert place is not None
        assert data_set.deflated_at is not None
        with opened(self.path) as (handle, stamp):
            self._refuse_changed(stamp)
            handle.seek(data_set.deflated_at)
            data, _ = inflate(self.path, handle, keep=place.length, limits=self._limits, skip=place.offset)
        if len(data) < place.length:
            raise CaseError(Code.E_TRUNCATED, self.path, "the pixel data end early; copy the file again")
        return data

    @cached_property
    def _file(self) -> DicomFile:
        file = read_header(self.path, limits=self._limits)
        if file.pixels is None or len(file.pixels.frames) != self._layout.frames:
            raise CaseError(Code.E_TRUNCATED, self.path, "frames of the pixel data are missing; export it again")
        return file
