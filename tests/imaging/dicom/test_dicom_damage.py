"""Damage that shifts pixels: bytes too many or too few are noticed at the file's end, where nothing else shows them."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import ALL, SHAPE, ct_slice, phantom, save, write_multiframe, write_series
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.scan import open_series

LIMITS = Limits()
TRAILING = b"\xfc\xff\xfc\xffOB\0\0\x06\0\0\0\0\0\0\0\0\0"  # data set trailing padding, as the standard has it
SIGNED = b"\xfa\xff\xfa\xffSQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def read(path: Path) -> tuple[np.ndarray, list[Code]]:
    scan = open_series(path, limits=LIMITS)
    return scan.read(ALL), [warning.code for warning in scan.warnings]


def refused(path: Path, code: Code, match: str) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        read(path)
    assert caught.value.code == code, caught.value


def varied(number: int = 7) -> Dataset:
    """A slice whose edge is all zeros, as outside the field of view: a shift shows nowhere but at the end."""
    image = ct_slice(number)
    stored = np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns).copy()
    stored[:3], stored[-3:], stored[:, :3], stored[:, -3:] = 0, 0, 0, 0
    image.PixelData = stored.tobytes()
    return image


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kept", [b"", TRAILING], ids=["nothing after", "elements after"])
def test_bytes_inserted_among_the_pixels_are_noticed(tmp_path: Path, syntax: str, kept: bytes) -> None:
    """Of 54 such files, 12 were read as other voxels without a word; now none is."""
    path = save(ct_slice(7, syntax=syntax), tmp_path / "x.dcm")
    if syntax == ImplicitVRLittleEndian:
        kept = kept and kept[:4] + struct.pack("<L", 6) + bytes(6)
    data = path.read_bytes() + kept
    path.write_bytes(data)
    assert read(path)[1] == []
    rng, begin = random.Random(0), len(data) - len(kept) - 960
    for _ in range(300):
        place, count = rng.randrange(begin, begin + 960), rng.choice([1, 2, 3, 4, 8, 12, 48, rng.randint(1, 900)])
        inserted = rng.choice([data[place : place + count], bytes(count), rng.randbytes(count)])
        path.write_bytes(data[:place] + inserted + data[place:])
        with pytest.raises(CaseError, match="E_FORMAT|E_TRUNCATED"):  # noqa: RUF043
            read(path)


def test_shift_over_a_black_edge_is_noticed(tmp_path: Path) -> None:
    path = save(varied(), tmp_path / "x.dcm")
    data = path.read_bytes()
    place = len(data) - 500
    for count in (1, 2, 24, 48, 60):
        path.write_bytes(data[:place] + bytes(range(count)) + data[place:])
        refused(path, Code.E_FORMAT, f"{count} bytes after the pixel data are no DICOM elements")


def test_bytes_lost_among_the_pixels_are_noticed(tmp_path: Path) -> None:
    """With elements after them, the pixels' element reaches into these, and what is left of them makes no sense."""
    path = save(ct_slice(7), tmp_path / "x.dcm")
    for kept in (b"", TRAILING, SIGNED):
        data = path.read_bytes()[: path.stat().st_size] + kept
        for count in (1, 2, 4, 8, 11, len(TRAILING)):
            (tmp_path / "y.dcm").write_bytes(data[:-700] + data[-700 + count :])
            if kept and count == len(kept):
                continue  # exactly as much is lost as there is after: nothing shows it
            with pytest.raises(CaseError, match="E_FORMAT|E_TRUNCATED"):  # noqa: RUF043
                read(tmp_path / "y.dcm")


@pytest.mark.parametrize("kept", [TRAILING, SIGNED, SIGNED + TRAILING], ids=["padding", "signature", "both"])
def test_elements_after_the_pixels_are_no_fault(tmp_path: Path, kept: bytes) -> None:
    path = save(ct_slice(7), tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes() + kept)
    values, warnings = read(path)
    np.testing.assert_array_equal(values[:, :, 0], phantom()[:, :, 7])
    assert warnings == []


@pytest.mark.parametrize(
    "kept", [TRAILING[:-1], TRAILING[:9], b"\x00\x00\x10\x00OB\0\0", TRAILING + b"\x01", b"\n", b"x" * 64]
)
def test_what_is_no_element_after_the_pixels_is_refused(tmp_path: Path, kept: bytes) -> None:
    path = save(ct_slice(7), tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes() + kept)
    refused(path, Code.E_FORMAT, "no DICOM elements")


def test_zeros_that_fill_a_sector_are_flagged(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    for path in folder.iterdir():
        data = path.read_bytes()
        path.write_bytes(data + bytes(-len(data) % 512))
    values, warnings = read(folder)
    np.testing.assert_array_equal(values, phantom())
    assert warnings == [Code.W_TRAILING_BYTES]
    path.write_bytes(data + bytes(-len(data) % 512 - 2))
    refused(path, Code.E_FORMAT, "no DICOM elements")


def test_encapsulated_file_is_checked_to_its_end(tmp_path: Path) -> None:
    image = ct_slice(7)
    image.compress(RLELossless, generate_instance_uid=False)
    path = save(image, tmp_path / "x.dcm")
    data = path.read_bytes()
    path.write_bytes(data + TRAILING)
    assert read(path)[1] == []
    path.write_bytes(data + b"\1\2\3")
    refused(path, Code.E_FORMAT, "3 bytes after the pixel data")


def deflated(path: Path, *, edit: bytes = b"", trailer: bytes | None = None) -> Path:
    """A deflated slice whose data set ends with ``edit``, and whose file ends with ``trailer``."""
    data = save(ct_slice(7, syntax=DeflatedExplicitVRLittleEndian), path).read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    body = zlib.decompress(data[start:], -15) + edit
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = packed.compress(body) + packed.flush()
    if trailer is None:
        trailer = struct.pack("<LL", zlib.crc32(body), len(body))
    path.write_bytes(data[:start] + stream + trailer)
    return path


@pytest.mark.parametrize("trailer", [b"", b"\0", None], ids=["none", "pad", "gzip"])
def test_deflated_file_may_end_in_a_pad_or_in_a_checksum(tmp_path: Path, trailer: bytes | None) -> None:
    values, warnings = read(deflated(tmp_path / "x.dcm", trailer=trailer))
    np.testing.assert_array_equal(values[:, :, 0], phantom()[:, :, 7])
    assert warnings == []


@pytest.mark.parametrize(
    ("edit", "trailer", "code", "match"),
    [
        (b"", b"\1", Code.E_FORMAT, "bytes follow the deflated data set"),
        (b"", b"\0\0", Code.E_FORMAT, "bytes follow the deflated data set"),
        (b"", b"x" * 40, Code.E_FORMAT, "bytes follow the deflated data set"),
        (b"\1\2", b"", Code.E_FORMAT, "2 bytes after the pixel data"),
        (bytes(600), b"", Code.E_FORMAT, "600 bytes after the pixel data"),
    ],
)
def test_bytes_after_a_deflated_data_set_are_refused(
    tmp_path: Path, edit: bytes, trailer: bytes, code: Code, match: str
) -> None:
    refused(deflated(tmp_path / "x.dcm", edit=edit, trailer=trailer), code, match)


def test_checksum_after_a_deflated_data_set_must_hold(tmp_path: Path) -> None:
    path = deflated(tmp_path / "x.dcm")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    refused(path, Code.E_CHECKSUM, "checksum of the deflated data set")


def test_most_damage_of_a_deflated_file_is_noticed(tmp_path: Path) -> None:
    """Deflate carries no checksum: what changes lengths or makes no code is seen, a changed literal is not."""
    path = deflated(tmp_path / "x.dcm", trailer=b"")
    data, rng, seen, whole = path.read_bytes(), random.Random(1), 0, read(path)[0]
    start = 144 + int.from_bytes(data[140:144], "little")
    for _ in range(200):
        flipped = bytearray(data)
        flipped[rng.randrange(start, len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            seen += np.array_equal(read(path)[0], whole)  # a flip may change nothing, as in an unused code
        except CaseError:
            seen += 1
    assert seen > 80


# Codestreams that contradict the header


def j2k(values: np.ndarray, *, bits: int, header: tuple[int, int], path: Path) -> Path:
    """A slice in JPEG 2000 of ``bits`` bits (signed as the values are), under a header of (bits stored, sign)."""
    from pydicom.uid import JPEG2000Lossless

    image = ct_slice(0)
    image.Rows, image.Columns = values.shape
    image.BitsStored, image.HighBit, image.PixelRepresentation = bits, bits - 1, int(values.dtype.kind == "i")
    image.PixelData = values.tobytes()
    image.RescaleIntercept = 0
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    image.BitsStored, image.HighBit, image.PixelRepresentation = header[0], header[0] - 1, header[1]
    return save(image, path)


def picture(low: int, high: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (64, 64)).astype(dtype)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bits", "header"),
    [
        (0, 4000, "<u2", 16, (12, 0)),  # more bits than needed
        (0, 4000, "<u2", 12, (16, 0)),  # fewer bits than declared
        (0, 2000, "<u2", 12, (16, 1)),
        (0, 2000, "<u2", 16, (12, 1)),
        (-2000, 2000, "<i2", 16, (12, 1)),
        (-2000, 2000, "<i2", 12, (16, 1)),
        (0, 2000, "<i2", 16, (12, 0)),  # a sign that nothing uses
    ],
)
def test_codestream_of_another_precision_is_read_when_both_agree(
    tmp_path: Path, low: int, high: int, dtype: str, bits: int, header: tuple[int, int]
) -> None:
    values = picture(low, high, dtype)
    found, warnings = read(j2k(values, bits=bits, header=header, path=tmp_path / "x.dcm"))
    np.testing.assert_array_equal(found[:, :, 0].T, values)
    assert warnings == []


@pytest.mark.parametrize(("stored", "extended"), [(12, False), (12, True), (16, False)])
def test_negative_numbers_in_an_unsigned_codestream_are_negative(tmp_path: Path, stored: int, extended: bool) -> None:
    """The encoder was not told of the sign; values were off by 4,096 and 65,536."""
    values = picture(-2000, 2000, "<i2")
    bits = values.view("<u2") if extended or stored == 16 else (values.view("<u2") & 0xFFF)
    found, warnings = read(j2k(bits, bits=16, header=(stored, 1), path=tmp_path / "x.dcm"))
    np.testing.assert_array_equal(found[:, :, 0].T, values)
    assert warnings == []


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bits", "header"),
    [
        (-1000, 1000, "<i2", 16, (16, 0)),  # a sign that the header does not know
        (0, 5000, "<u2", 16, (12, 0)),
        (-3000, 3000, "<i2", 16, (12, 1)),
        (0, 4000, "<u2", 12, (16, 1)),  # negative in 12 bits, or not
        (0, 60000, "<u2", 16, (12, 1)),
    ],
)
def test_codestream_that_contradicts_the_header_is_refused(
    tmp_path: Path, low: int, high: int, dtype: str, bits: int, header: tuple[int, int]
) -> None:
    path = j2k(picture(low, high, dtype), bits=bits, header=header, path=tmp_path / "x.dcm")
    refused(path, Code.E_CODEC, f"holds values from .* where the header says {header[0]} bits")


# Fragments without an offset table


@pytest.mark.parametrize("pieces", [2, 3])
def test_fragments_are_told_apart_by_their_marks(tmp_path: Path, pieces: int) -> None:
    path = fragmented(tmp_path / "m.dcm", pieces)
    np.testing.assert_array_equal(read(path)[0][: SHAPE[0], : SHAPE[1]], phantom())


def fragmented(path: Path, pieces: int, *, drop: int | None = None) -> Path:
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import JPEG2000Lossless

    def edit(image: Dataset) -> None:
        image.Rows = image.Columns = 64
        small = np.frombuffer(image.PixelData, "<u2").reshape(16, 20, 24)
        image.PixelData = np.pad(small, ((0, 0), (0, 44), (0, 40))).tobytes()
        image.compress(JPEG2000Lossless, generate_instance_uid=False)
        frames = list(generate_frames(image.PixelData, number_of_frames=16))
        image.PixelData = encapsulate(frames, fragments_per_frame=pieces, has_bot=False)

    write_multiframe(path, edit)
    return path


def test_frame_that_does_not_end_before_the_next_begins_is_refused(tmp_path: Path) -> None:
    path = fragmented(tmp_path / "m.dcm", 2)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\xff\xd9", b"\xff\xd8", 1))
    with pytest.raises(CaseError, match=r"E_CODEC.*32 pixel fragments for 16 frames"):
        read(path)
