"""Read the stored integers of one frame from a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.colour import grey_of_rgb, grey_of_ybr
from pipeline.imaging.dicom.codestream import (
    Codestream,
    CodestreamError,
    inspect_jpeg,
    inspect_jpeg_2000,
    unpack_rle,
)
from pipeline.imaging.dicom.deflated import inflate
from pipeline.imaging.dicom.file import opened
from pipeline.imaging.dicom.fragments import JPEG_2000, JPEG_LS, RLE
from pipeline.imaging.dicom.frames import Frame
from pipeline.imaging.dicom.header import DicomFile, PixelElement, PixelFormat

Stored = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Slice:
    """One slice: a frame of a file, and how its stored values become values."""

    file: DicomFile
    frame: Frame
    slope: float
    intercept: float
    inverted: bool

    def rescale(self, stored: Stored) -> NDArray[np.float64]:
        """Values of stored integers, any shape."""
        if self.inverted:
            signed, bits = self.file.pixel_format.signed, self.file.pixel_format.bits_stored
            stored = (-1 if signed else (1 << bits) - 1) - stored.astype(np.int64)
        return np.asarray(stored.astype(np.float64) * self.slope + self.intercept, dtype=np.float64)


@dataclass(frozen=True)
class StoredFrame:
    """Stored integers of one frame, before the rescale.

    Attributes:
        values: shape (rows, columns), of the stored bits alone, sign extended.
        stray_bits: bits beyond the stored ones are set and left out: an overlay, junk, or a header that says too few.
        coloured: the values are luminances of something coloured.
    """

    values: Stored
    stray_bits: bool = False
    coloured: bool = False


def read_frame(file: DicomFile, index: int, *, limits: Limits) -> StoredFrame:
    """Read and decode one frame.

    Args:
        file: as read before; the file must not have changed since.
        index: of the frame in the file.
        limits: of inflation.

    Raises:
        CaseError: E_SLICE_UNREADABLE, E_TRUNCATED, E_CODEC.
    """
    assert file.pixels is not None
    with opened(file.path) as (handle, stamp):
        if stamp != file.stamp:
            reason = "changed while the series was being read; read it again"
            raise CaseError(Code.E_SLICE_UNREADABLE, file.path, reason)
        if file.pixels.length is None:
            return _decompress(file, _join(file, handle, file.pixels.frames[index]))
        data = _native(file, handle, file.pixels, index, limits)
    return _unpack(file.pixel_format, data, swapped=file.pixels.big_endian_words)


def frame_bytes(pixel_format: PixelFormat) -> int:
    """Bytes of one uncompressed frame; YBR_FULL_422 has its chrominance once for two pixels."""
    samples = 2 if pixel_format.photometric == "YBR_FULL_422" else pixel_format.samples
    return pixel_format.rows * pixel_format.columns * samples * pixel_format.bits_allocated // 8


def _native(file: DicomFile, handle: IO[bytes], pixels: PixelElement, index: int, limits: Limits) -> bytes:
    size = frame_bytes(file.pixel_format)
    start = pixels.offset + index * size
    odd = start % 2 if pixels.big_endian_words else 0  # 8-bit pixels in 16-bit words: read whole words
    start, length = start - odd, size + odd + (size + odd) % 2 * pixels.big_endian_words
    if pixels.deflated_at is not None:
        handle.seek(pixels.deflated_at)
        data, _ = inflate(file.path, handle, keep=length, limits=limits, skip=start)
    else:
        handle.seek(start)
        data = handle.read(length)
    if len(data) < size + odd:
        reason = f"a frame of {size} bytes, {len(data)} are there; copy the file again"
        raise CaseError(Code.E_TRUNCATED, file.path, reason)
    if pixels.big_endian_words and file.pixel_format.bits_allocated == 8:
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    return data[odd : odd + size]


def _unpack(pixel_format: PixelFormat, data: bytes, *, swapped: bool) -> StoredFrame:
    """Bytes of an uncompressed frame -> values: the stored bits alone, whatever stands in the others."""
    if pixel_format.samples > 1:
        return _unpack_colours(pixel_format, data, swapped=swapped)
    size, stored, signed = pixel_format.bits_allocated // 8, pixel_format.bits_stored, pixel_format.signed
    order = ">" if swapped and size > 1 else "<"
    fills_word = stored == pixel_format.bits_allocated
    raw = np.frombuffer(data, f"{order}{'i' if fills_word and signed else 'u'}{size}")
    raw = raw.reshape(pixel_format.rows, pixel_format.columns)
    if fills_word:
        return StoredFrame(raw, stray_bits=False)
    shift = pixel_format.high_bit + 1 - stored
    values = _extend(raw >> shift, stored, signed=signed)
    wide = raw.astype(np.int64)
    bare = wide == (values & ((1 << stored) - 1)) << shift
    extended = wide == (values.astype(np.int64) << shift) & ((1 << 8 * size) - 1)  # the sign repeated above the value
    return StoredFrame(values, stray_bits=not bool((bare | extended).all()))


def _unpack_colours(pixel_format: PixelFormat, data: bytes, *, swapped: bool) -> StoredFrame:
    size, rows, columns = pixel_format.bits_allocated // 8, pixel_format.rows, pixel_format.columns
    raw = np.frombuffer(data, f"{'>' if swapped and size > 1 else '<'}u{size}")
    if pixel_format.photometric == "YBR_FULL_422":
        pairs = raw.reshape(rows, columns // 2, 4)  # Y, Y, Cb, Cr
        values, coloured = grey_of_ybr(pairs[..., :2].reshape(rows, columns), pairs[..., 2:], 8 * size)
        return StoredFrame(values, coloured=coloured)
    planes = raw.reshape(3, rows, columns).transpose(1, 2, 0) if pixel_format.planar else raw.reshape(rows, columns, 3)
    return _grey(planes, pixel_format)


def _grey(channels: Stored, pixel_format: PixelFormat) -> StoredFrame:
    """Decoded channels (rows, columns, 3) -> grey; the decoder of JPEG 2000 has turned its own kinds of YBR to RGB."""
    if pixel_format.photometric in ("YBR_FULL", "YBR_FULL_422"):
        values, coloured = grey_of_ybr(channels[..., 0], channels[..., 1:], pixel_format.bits_stored)
    else:
        values, coloured = grey_of_rgb(channels)
    return StoredFrame(values, coloured=coloured)


def _extend(values: Stored, bits: int, *, signed: bool) -> Stored:
    """Keep the lowest ``bits`` bits; the highest of them is the sign of signed values."""
    wide: Stored = np.bitwise_and(values.astype(np.int32 if bits < 31 else np.int64), (1 << bits) - 1)
    half = 1 << (bits - 1)
    return np.bitwise_xor(wide, half) - half if signed else wide


def _join(file: DicomFile, handle: IO[bytes], fragments: tuple[tuple[int, int], ...]) -> bytes:
    parts = []
    for offset, length in fragments:
        handle.seek(offset)
        parts.append(handle.read(length))
        if len(parts[-1]) < length:
            raise CaseError(Code.E_TRUNCATED, file.path, "a pixel fragment ends early; copy the file again")
    return b"".join(parts)


def _decompress(file: DicomFile, data: bytes) -> StoredFrame:
    pixel_format = file.pixel_format
    try:
        if file.transfer_syntax == RLE:
            pixels = pixel_format.rows * pixel_format.columns
            planes = pixel_format.samples * pixel_format.bits_allocated // 8
            return _unpack(
                replace(pixel_format, planar=False), unpack_rle(data, pixels=pixels, planes=planes), swapped=True
            )
        stream = _inspect(file.transfer_syntax, data)
        _agree(stream, pixel_format)
        out = _run_codec(file.transfer_syntax, data)
        container = 1 if stream.precision <= 8 else 2 if stream.precision <= 16 else 4
        if len(out) != stream.rows * stream.columns * stream.components * container:
            raise CodestreamError(f"decoded to {len(out)} bytes")
        raw = np.frombuffer(out, f"{'<' if sys.byteorder == 'little' else '>'}u{container}")
        if stream.components > 1:
            return _grey(raw.reshape(stream.rows, stream.columns, stream.components), pixel_format)
        return StoredFrame(_reconcile(raw.reshape(stream.rows, stream.columns), stream, pixel_format))
    except CodestreamError as error:
        raise CaseError(Code.E_CODEC, file.path, f"the compressed frame {error}; export the series again") from None


def _reconcile(raw: Stored, stream: Codestream, pixel_format: PixelFormat) -> Stored:
    """Values of a codestream whose precision and sign may differ from the header's, when only one reading fits both.

    Values as the codestream has them are right when the header can hold them. Where the header declares a sign that
    the codestream does not know (JPEG and JPEG-LS know none, and some JPEG 2000 encoders are not told), its bits are
    those of a negative number in as many bits as are stored.

    Raises:
        CodestreamError: when the two contradict each other.
    """
    bits = pixel_format.bits_stored
    values = _extend(raw, stream.precision, signed=stream.signed)
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if pixel_format.signed else (0, (1 << bits) - 1)
    low, high = int(values.min()), int(values.max())
    unsure = pixel_format.signed and not stream.signed and stream.precision < bits and high >= 1 << stream.precision - 1
    if lowest <= low and high <= highest and not unsure:
        return values
    if pixel_format.signed and not stream.signed and stream.precision >= bits:
        negative = _extend(raw, bits, signed=True).astype(np.int64)
        mask = (1 << stream.precision) - 1
        bare, extended = negative & ((1 << bits) - 1), negative & mask
        if ((values == bare) | (values == extended)).all():
            return negative
    declared = f"{bits} bits, {'' if pixel_format.signed else 'un'}signed"
    held = f"{stream.precision} bits, {'' if stream.signed else 'un'}signed"
    raise CodestreamError(f"holds values from {low} to {high} in {held}, where the header says {declared}")


def _inspect(syntax: str, data: bytes) -> Codestream:
    if syntax in JPEG_2000:
        return inspect_jpeg_2000(data)
    return inspect_jpeg(data, jpeg_ls=syntax in JPEG_LS)


def _agree(stream: Codestream, pixel_format: PixelFormat) -> None:
    """Refuse before the codec allocates what a codestream claims against the header."""
    shape = (pixel_format.columns, pixel_format.rows, pixel_format.samples)
    if (stream.columns, stream.rows, stream.components) != shape:
        size, declared = f"{stream.columns} × {stream.rows} × {stream.components}", " × ".join(map(str, shape))
        raise CodestreamError(f"is {size}, where the header says {declared}")
    if stream.components > 1:
        colours = "YBR" if pixel_format.photometric in ("YBR_FULL", "YBR_FULL_422") else "RGB"
        if (stream.precision, stream.signed) != (pixel_format.bits_stored, False):
            raise CodestreamError(f"has {stream.precision} bits a channel, where the header says otherwise")
        if stream.colours not in (None, colours):
            raise CodestreamError(f"says that its channels are {stream.colours}, the header {pixel_format.photometric}")
    if not 2 <= stream.precision <= pixel_format.bits_allocated:
        raise CodestreamError(f"has {stream.precision} bits a pixel in {pixel_format.bits_allocated} allocated ones")


def _run_codec(syntax: str, data: bytes) -> bytes:
    codec: Any
    if syntax in JPEG_2000:
        import openjpeg as codec
    else:
        import libjpeg as codec
    try:
        return bytes(codec.decode_pixel_data(data, version=2))
    except (RuntimeError, ValueError, TypeError, UnicodeDecodeError, MemoryError) as error:
        # RuntimeError is the codecs' own; the others leave their Python layer when a status is not as expected.
        raise CodestreamError(f"cannot be decoded ({type(error).__name__} of the codec)") from None
