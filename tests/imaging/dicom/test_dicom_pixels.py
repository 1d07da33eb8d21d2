"""Every way of storing pixels gives the same values; damage of a compressed frame is noticed where it can be."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_writing import ALL, SHAPE, blank, ct_slice, phantom, save, write_multiframe, write_series
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)  # fmt: skip

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.codestream import CodestreamError, inspect_jpeg, inspect_jpeg_2000, unpack_rle
from pipeline.imaging.dicom.scan import open_series

LIMITS = Limits()
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
JPEG_LS_FILE = PYDICOM_FILES / "MR_small_jpeg_ls_lossless.dcm"
needs_jpeg_ls = pytest.mark.skipif(not JPEG_LS_FILE.exists(), reason="this pydicom brings no test files")
COMPRESSED = [JPEG2000Lossless, JPEGLosslessSV1, RLELossless, pytest.param(JPEGLSLossless, marks=needs_jpeg_ls)]


def read(path: Path) -> np.ndarray:
    return open_series(path, limits=LIMITS).read(ALL)


def refused(path: Path, code: Code, match: str, limits: Limits = LIMITS) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        open_series(path, limits=limits).read(ALL)
    assert caught.value.code == code, caught.value


def compress(image: Dataset, syntax: str) -> Dataset:
    """In place. Nothing here can write JPEG-LS, so that frame is one of pydicom's, of the same size as ``noise``."""
    if syntax in (JPEG2000Lossless, RLELossless):
        image.compress(syntax, generate_instance_uid=False)
        return image
    stored = np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns)
    frame = _jpeg_lossless(stored) if syntax == JPEGLosslessSV1 else _frame(pydicom.dcmread(JPEG_LS_FILE))
    image.PixelData = encapsulate([frame])
    image.file_meta.TransferSyntaxUID = syntax
    return image


def _frame(image: Dataset) -> bytes:
    return next(generate_frames(image.PixelData, number_of_frames=1))


def _jpeg_lossless(stored: np.ndarray) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(f"{folder}/x.dcm")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(stored[np.newaxis]))
        written = pydicom.dcmread(f"{folder}/x.dcm")
    assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return _frame(written)


def noise(rows: int = 64, columns: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(100, 3000, (rows, columns)).astype("<u2")


def frame_slice(stored: np.ndarray) -> Dataset:
    image = ct_slice(0)
    image.Rows, image.Columns = stored.shape
    image.PixelData = stored.astype("<u2").tobytes()
    return image


# The same values however they are stored


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, RLELossless],
)
def test_series_in_any_transfer_syntax_has_the_same_voxels(tmp_path: Path, syntax: str) -> None:
    def edit(image: Dataset, index: int) -> None:
        if stored_as != syntax:
            compress(image, syntax)

    stored_as = ExplicitVRLittleEndian if syntax in (JPEGLosslessSV1, RLELossless) else syntax
    np.testing.assert_array_equal(read(write_series(tmp_path / "s", edit, syntax=stored_as)), phantom())


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_compressed_frame_decodes_to_what_was_compressed(tmp_path: Path, syntax: str) -> None:
    stored = pydicom.dcmread(JPEG_LS_FILE).pixel_array if syntax == JPEGLSLossless else noise()
    path = save(compress(frame_slice(stored), syntax), tmp_path / "x.dcm")
    np.testing.assert_array_equal(read(path)[:, :, 0].T, stored.astype(int) - 1024)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_big_endian_words_are_put_right(tmp_path: Path, bits: int) -> None:
    stored = np.random.default_rng(0).integers(0, 200, (5, 7)).astype(f">u{bits // 8}")
    image = ct_slice(0, syntax=ExplicitVRBigEndian)
    image.Rows, image.Columns, image.BitsAllocated, image.BitsStored, image.HighBit = 5, 7, bits, bits, bits - 1
    data = stored.tobytes() + b"\0" * (bits == 8)
    if bits == 8:  # 16-bit words: each pair of pixels is swapped
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    image.PixelData = data
    image["PixelData"].VR = "OW"
    plain = Dataset()  # a FileDataset remembers that it began as little endian
    plain.update(image)
    plain.file_meta = image.file_meta
    plain.save_as(tmp_path / "x.dcm", little_endian=False, implicit_vr=False, enforce_file_format=True)
    np.testing.assert_array_equal(read(tmp_path / "x.dcm")[:, :, 0].T, stored.astype(int) - 1024)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("stored_bits", "high"), [(16, 15), (12, 11), (12, 15), (10, 12), (1, 0)])
def test_stored_bits_alone_count(tmp_path: Path, stored_bits: int, high: int, signed: int) -> None:
    """Oracle: shift up and down in Python integers; the other bits hold overlays or junk."""
    words = np.random.default_rng(3).integers(0, 65536, (20, 24))
    image = frame_slice(words)
    image.BitsStored, image.HighBit, image.PixelRepresentation = stored_bits, high, signed
    expected = np.empty(words.shape)
    for place, word in np.ndenumerate(words):
        value = (int(word) >> (high + 1 - stored_bits)) % (1 << stored_bits)
        if signed and value >= 1 << (stored_bits - 1):
            value -= 1 << stored_bits
        expected[place] = value - 1024
    np.testing.assert_array_equal(read(save(image, tmp_path / "x.dcm"))[:, :, 0].T, expected)


@pytest.mark.parametrize(
    ("stored_bits", "signed", "values", "flagged"),
    [
        (12, 0, [0, 4095], False),
        (12, 0, [0, 4096], True),
        (12, 1, [-2048, 2047], False),  # the sign repeated in the upper bits
        (12, 1, [2048, 4095], False),  # or not, as in 12-bit files of some scanners
        (12, 1, [-2049, 0], True),
        (8, 0, [0, 1724], True),
    ],
)
def test_bits_beyond_the_stored_ones_are_flagged(
    tmp_path: Path, stored_bits: int, signed: int, values: list[int], flagged: bool
) -> None:
    image = frame_slice(np.resize(np.array(values, "<i2").view("<u2"), (20, 24)))
    image.BitsStored, image.HighBit, image.PixelRepresentation = stored_bits, stored_bits - 1, signed
    scan = open_series(save(image, tmp_path / "x.dcm"), limits=LIMITS)
    assert scan.warnings == ()
    scan.read(ALL)
    scan.read(ALL)
    assert [warning.code for warning in scan.warnings] == [Code.W_BITPIX] * flagged


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1])
def test_codestream_values_beyond_the_stored_bits_are_refused(tmp_path: Path, syntax: str) -> None:
    """Too few bits in the header, or an overlay in the codestream: nothing says which, and the values differ."""
    image = compress(frame_slice(noise()), syntax)
    image.BitsStored, image.HighBit = 10, 9
    refused(save(image, tmp_path / "x.dcm"), Code.E_CODEC, "holds values from .* where the header says 10 bits")


def test_signed_values_survive_compression(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(-2000, 2000, (64, 64)).astype("<i2")
    for syntax in (JPEG2000Lossless, RLELossless):
        image = frame_slice(values.view("<u2"))
        image.PixelRepresentation, image.RescaleIntercept = 1, 0
        image.compress(syntax, generate_instance_uid=False)
        np.testing.assert_array_equal(read(save(image, tmp_path / f"{syntax}.dcm"))[:, :, 0].T, values)


def test_eight_bit_frames_of_odd_length_are_read(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype("u1")
    image = blank(sop_class="1.2.840.10008.5.1.4.1.1.2")
    for number in range(3):
        image = ct_slice(number)
        image.Rows, image.Columns, image.BitsAllocated, image.BitsStored, image.HighBit = 5, 7, 8, 8, 7
        image.PixelData = stored[number].tobytes() + b"\0"
        save(image, tmp_path / "s" / f"{number}")
    np.testing.assert_array_equal(read(tmp_path / "s").transpose(2, 1, 0), stored.astype(int) - 1024)


@pytest.mark.parametrize("table", [True, False])
def test_compressed_multiframe_is_read(tmp_path: Path, table: bool) -> None:
    def edit(image: Dataset) -> None:
        image.compress(RLELossless, generate_instance_uid=False)
        frames = list(generate_frames(image.PixelData, number_of_frames=SHAPE[2]))
        image.PixelData = encapsulate(frames, fragments_per_frame=2 if table else 1, has_bot=table)

    np.testing.assert_array_equal(read(write_multiframe(tmp_path / "m.dcm", edit)), phantom())


def test_fragments_without_a_table_cannot_be_told_apart(tmp_path: Path) -> None:
    def edit(image: Dataset) -> None:
        image.compress(RLELossless, generate_instance_uid=False)
        frames = list(generate_frames(image.PixelData, number_of_frames=SHAPE[2]))
        image.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)

    refused(write_multiframe(tmp_path / "m.dcm", edit), Code.E_CODEC, "32 pixel fragments for 16 frames")


@pytest.mark.parametrize(
    "name",
    ["693_J2KI", "CT_small", "J2K_pixelrep_mismatch", "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_expb",
     "MR_small_implicit", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "examples_overlay", "image_dfl"],
)  # fmt: skip
def test_pydicoms_own_files_read_as_pydicom_reads_them(name: str) -> None:
    path = PYDICOM_FILES / f"{name}.dcm"
    if not path.exists():
        pytest.skip("this pydicom brings no test files")
    image = pydicom.dcmread(path)
    expected = image.pixel_array * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))
    np.testing.assert_allclose(read(path)[:, :, 0].T, expected, atol=1e-3)


# Damage


@pytest.mark.parametrize("syntax", COMPRESSED)
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_frame_cut_short_is_refused(tmp_path: Path, syntax: str, keep: float) -> None:
    image = compress(frame_slice(noise()), syntax)
    frame = _frame(image)
    image.PixelData = encapsulate([frame[: int(len(frame) * keep)]])
    refused(save(image, tmp_path / "x.dcm"), Code.E_CODEC, "the compressed frame")


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_codestream_of_another_size_is_refused_before_decoding(tmp_path: Path, syntax: str) -> None:
    image = compress(frame_slice(noise()), syntax)
    image.Rows = 32
    refused(save(image, tmp_path / "x.dcm"), Code.E_CODEC, "64 × 64 × 1|does not decode to 2048")


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, JPEGLosslessSV1, pytest.param(JPEGLSLossless, marks=needs_jpeg_ls)]
)
def test_marker_inside_coded_pixels_is_noticed(tmp_path: Path, syntax: str) -> None:
    image = compress(frame_slice(noise()), syntax)
    frame = bytearray(_frame(image))
    frame[-40:-38] = b"\xff\xd8" if syntax != JPEG2000Lossless else b"\xff\xa0"
    image.PixelData = encapsulate([bytes(frame)])
    refused(save(image, tmp_path / "x.dcm"), Code.E_CODEC, "marker inside its coded pixels")


def test_codestream_that_lacks_a_tile_is_refused(tmp_path: Path) -> None:
    image = compress(frame_slice(noise()), JPEG2000Lossless)
    frame = bytearray(_frame(image))
    frame[24:28] = struct.pack(">L", 32)  # tiles half as wide: there should be two
    image.PixelData = encapsulate([bytes(frame)])
    refused(save(image, tmp_path / "x.dcm"), Code.E_CODEC, "holds 1 of 2 tiles")


def test_codestream_claiming_a_huge_picture_allocates_nothing(tmp_path: Path) -> None:
    image = compress(frame_slice(noise()), JPEG2000Lossless)
    frame = bytearray(_frame(image))
    frame[8:16] = struct.pack(">LL", 60000, 60000)
    image.PixelData = encapsulate([bytes(frame)])
    path = save(image, tmp_path / "x.dcm")
    tracemalloc.start()
    started = time.process_time()
    refused(path, Code.E_CODEC, "60000 × 60000|tiles")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    assert time.process_time() - started < 2  # a promise of the design about bombs, not a benchmark


def test_rle_bomb_is_stopped_at_the_size_of_the_picture(tmp_path: Path) -> None:
    image = compress(frame_slice(noise()), RLELossless)
    segments = [b"\x81\x00" * 500_000] * 2  # 64 MB each
    head = struct.pack("<16L", 2, 64, 64 + len(segments[0]), *[0] * 13)
    image.PixelData = encapsulate([head + segments[0] + segments[1]])
    path = save(image, tmp_path / "x.dcm")
    tracemalloc.start()
    refused(path, Code.E_CODEC, "does not decode to 4096 bytes")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_deflate_bomb_is_stopped(tmp_path: Path) -> None:
    path = save(ct_slice(0), tmp_path / "x.dcm")
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    meta = data[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta[:140] + struct.pack("<L", len(meta) - 144) + meta[144:]
    place = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: place - 2] + struct.pack("<H", 22) + meta[place:]
    engine = zlib.compressobj(9, wbits=-15)
    body = engine.compress(data[start:]) + b"".join(engine.compress(b"\0" * 2**20) for _ in range(100)) + engine.flush()
    path.write_bytes(meta + body)
    tracemalloc.start()
    refused(path, Code.E_TOO_LARGE, "inflates beyond")
    assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(("keep", "code"), [(0.5, Code.E_TRUNCATED), (0.97, Code.E_TRUNCATED)])
def test_deflated_file_cut_short_is_refused(tmp_path: Path, keep: float, code: Code) -> None:
    path = save(ct_slice(0, syntax=DeflatedExplicitVRLittleEndian), tmp_path / "x.dcm")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, code, "deflated data set ends early")


def test_deflated_junk_is_refused(tmp_path: Path) -> None:
    path = save(ct_slice(0, syntax=DeflatedExplicitVRLittleEndian), tmp_path / "x.dcm")
    data = bytearray(path.read_bytes())
    start = 144 + int.from_bytes(data[140:144], "little")
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    refused(path, Code.E_CODEC, "deflated data set is damaged")


def _cut_end(data: bytes) -> bytes:
    return data[:-8]


def _inside_fragment(data: bytes) -> bytes:
    return data[:-40]


@pytest.mark.parametrize("damage", [_cut_end, _inside_fragment])
def test_encapsulated_file_cut_short_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = save(compress(frame_slice(noise()), JPEG2000Lossless), tmp_path / "x.dcm")
    path.write_bytes(damage(path.read_bytes()))
    refused(path, Code.E_TRUNCATED, "copy the file again")


def test_compressed_pixels_against_the_transfer_syntax_are_refused(tmp_path: Path) -> None:
    path = save(compress(frame_slice(noise()), JPEG2000Lossless), tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.1\0\0\0"))
    refused(path, Code.E_CODEC, "against the transfer syntax")


def test_unknown_transfer_syntax_is_refused(tmp_path: Path) -> None:
    image = compress(frame_slice(noise()), JPEG2000Lossless)
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
    refused(save(image, tmp_path / "x.dcm"), Code.E_CODEC, "is not read")


def test_missing_transfer_syntax_is_refused(tmp_path: Path) -> None:
    path = save(ct_slice(0), tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x11\x00UI"))
    refused(path, Code.E_FORMAT, "no transfer syntax")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    image = ct_slice(0)
    del image.PixelData
    image.BitsAllocated = 32
    image.FloatPixelData = np.zeros((20, 24), "<f4").tobytes()
    image.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    refused(tmp_path / "x.dcm", Code.E_DTYPE, "floating-point")


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"", "does not begin"), (b"\xff\xd8", "no marker"), (b"\xff\xd8\xff\xd9", "segment of 0"),
     (b"\xff\xd8\xff\xda\x00\x02", "no frame header"), (b"\xff\xd8\xff\xc3\x00\x04\x10\x00", "too short"),
     (b"\xff\xd8\xff\xff\xff", "inside its header")],
)  # fmt: skip
def test_broken_jpeg_header_is_named(data: bytes, match: str) -> None:
    with pytest.raises(CodestreamError, match=match):
        inspect_jpeg(data, jpeg_ls=False)


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"", "does not begin"), (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2 file"), (b"\xff\x4f\xff\x51\0\4\0\0", "too short"),
     (b"\xff\x4f\xff\x51\0\x29" + bytes(39), "impossible")],
)  # fmt: skip
def test_broken_jpeg_2000_header_is_named(data: bytes, match: str) -> None:
    with pytest.raises(CodestreamError, match=match):
        inspect_jpeg_2000(data)


@pytest.mark.parametrize(
    ("data", "match"),
    [(b"", "RLE header"), (struct.pack("<16L", 3, 64, 66, 68, *[0] * 12) + bytes(8), "3 RLE segments"),
     (struct.pack("<16L", 2, 64, 64, *[0] * 13) + bytes(8), "out of order"),
     (struct.pack("<16L", 2, 64, 66, *[0] * 13) + b"\xff\1\xfe\1", "does not decode to 2 bytes")],
)  # fmt: skip
def test_broken_rle_is_named(data: bytes, match: str) -> None:
    with pytest.raises(CodestreamError, match=match):
        unpack_rle(data, pixels=2, planes=2)
