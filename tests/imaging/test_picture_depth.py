"""Pictures keep their depth and their turn in every format: what Pillow cuts to 8 bits, or leaves on its side."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image as Pillow
from PIL import PngImagePlugin
from scan_files import LIMITS, WHOLE, codes
from shared_data import shared

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.image import part_digest
from pipeline.imaging.pictures.png import decode_deep_png, png_header
from pipeline.imaging.read import open_scan

RNG = np.random.default_rng(0)
DEEP = (RNG.integers(0, 65536, (20, 30)) // 3 * 3 + 1).astype(np.uint16)  # no value repeats its byte
COLOURS = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
LUMINANCE = np.floor(COLOURS.astype(np.int64) @ np.array([19595, 38470, 7471]) / 65536 + 0.5)
EQUAL = np.repeat(DEEP[..., None], 3, axis=2)
OPAQUE = np.full((20, 30, 1), 65535, np.uint16)
GREY8 = RNG.integers(1, 250, (20, 30)).astype(np.uint8)


def grey(path: Path, part: str | None = None, limits: Limits = LIMITS) -> tuple[np.ndarray, list[str]]:
    """(row, column) values and warnings."""
    scan = open_scan(path, limits=limits, part=part)
    values = scan.read(WHOLE)[:, :, 0].T
    assert scan.shape == (*values.shape[::-1], 1)
    scan.read(WHOLE)
    return values, codes(scan.warnings)


def refused(path: Path, code: Code, match: str, part: str | None = None) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        grey(path, part)
    assert caught.value.code == code, caught.value


# PNG, written as the standard says


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def filtered(rows: np.ndarray, kinds: list[int]) -> bytes:
    """Rows of pixels (row, column, byte), each with one of the five filters in turn; slow, as the standard has it."""
    out = bytearray()
    for number, row in enumerate(rows.astype(int)):
        kind = kinds[number % len(kinds)]
        out.append(kind)
        for place, lane in itertools.product(range(row.shape[0]), range(row.shape[1])):
            left = row[place - 1, lane] if place else 0
            above = rows[number - 1, place, lane] if number else 0
            corner = rows[number - 1, place - 1, lane] if number and place else 0
            guesses = (0, left, above, (left + int(above)) // 2, paeth(left, int(above), int(corner)))
            out.append((row[place, lane] - guesses[kind]) % 256)
    return bytes(out)


def paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    return min(((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c)))[2]


def png(samples: np.ndarray, *, kinds: list[int] | None = None, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A 16-bit PNG of (row, column, sample) values."""
    height, width, count = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    data = b""
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for column, row, across, down in passes:
        part = samples[row::down, column::across]
        if part.size:
            as_bytes = np.ascontiguousarray(part.astype(">u2")).view(np.uint8).reshape(*part.shape[:2], 2 * count)
            data += filtered(as_bytes, kinds or [0, 1, 2, 3, 4])
    head = struct.pack(">LLBBBBB", width, height, 16, colour_type, 0, 0, int(interlaced))
    packed = zlib.compress(data)
    halves = packed[: len(packed) // 2], packed[len(packed) // 2 :]
    body = b"".join(chunk(b"IDAT", half) for half in halves)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body + chunk(b"IEND", b"")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


SIXTEEN = {
    "rgb": (EQUAL, DEEP, True),
    "rgba": (np.concatenate([EQUAL, OPAQUE], axis=2), DEEP, True),
    "grey and alpha": (np.concatenate([DEEP[..., None], OPAQUE], axis=2), DEEP, True),
    "colours": (COLOURS, LUMINANCE, False),
    "colours and alpha": (np.concatenate([COLOURS, OPAQUE], axis=2), LUMINANCE, False),
}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("name", SIXTEEN)
def test_sixteen_bit_png_keeps_its_depth(tmp_path: Path, name: str, interlaced: bool) -> None:
    samples, values, equal = SIXTEEN[name]
    found, warnings = grey(write(tmp_path / "a.png", png(samples, interlaced=interlaced)))
    np.testing.assert_array_equal(found, values)
    assert warnings == ([] if equal else ["W_PHOTOMETRIC"])


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 3), (3, 17)])
def test_each_filter_is_undone_in_any_shape(kind: int, shape: tuple[int, int]) -> None:
    samples = RNG.integers(0, 65536, (*shape, 3)).astype(np.uint16)
    for interlaced in (False, True):
        content = png(samples, kinds=[kind], interlaced=interlaced)
        header = png_header(content, Path("a"))
        np.testing.assert_array_equal(decode_deep_png(content, header, Path("a")), samples)


def test_bands_of_rows_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.imaging.pictures import png as module

    samples = RNG.integers(0, 65536, (11, 6, 3)).astype(np.uint16)
    for kind in range(5):
        content = png(samples, kinds=[kind])
        for band in (1, 2, 4, 11, 100):
            monkeypatch.setattr(module, "_BAND", band)
            np.testing.assert_array_equal(decode_deep_png(content, png_header(content, Path("a")), Path("a")), samples)


def test_simpleitk_writes_what_is_read(tmp_path: Path) -> None:
    """Its encoder chooses the filters."""
    image = sitk.GetImageFromArray(COLOURS, isVector=True)
    for name in ("a.png", "a.tif"):
        sitk.WriteImage(image, str(tmp_path / name))
        np.testing.assert_array_equal(grey(tmp_path / name)[0], LUMINANCE)


def test_shared_sixteen_bit_rgb_is_the_grey_reference() -> None:
    folder = shared("odd_scans") / "pics"
    values, warnings = grey(folder / "rgb16.png")
    np.testing.assert_array_equal(values, grey(folder / "ref16.png")[0])
    assert warnings == []
    turned = grey(folder / "orient6.png")[0]
    np.testing.assert_array_equal(turned, grey(folder / "orient6.tif")[0])
    for name in ("bmp.bmp", "webp.png"):
        assert grey(folder / name)[0].std() > 10


@pytest.mark.parametrize("samples", [SIXTEEN["rgb"][0], SIXTEEN["rgba"][0]], ids=["rgb", "rgba"])
def test_flips_in_a_deep_png_are_seen(tmp_path: Path, samples: np.ndarray) -> None:
    content = png(samples)
    rng = np.random.default_rng(0)
    for place in rng.integers(8, len(content) - 12, 60):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        with pytest.raises(CaseError, match="E_"):
            grey(write(tmp_path / "b.png", bytes(flipped)))


def test_deep_png_of_other_than_its_pixels_is_refused(tmp_path: Path) -> None:
    content = png(EQUAL)
    for size in ((30, 19), (30, 21), (29, 20), (31, 20)):
        head = struct.pack(">LLBBBBB", *size, 16, 2, 0, 0, 0)
        wrong = content[:8] + chunk(b"IHDR", head) + content[33:]
        refused(write(tmp_path / "a.png", wrong), Code.E_TRUNCATED, "other than its number of pixels")
    for keep in range(9, len(content) - 1, 97):
        with pytest.raises(CaseError, match=r"E_TRUNCATED|E_FORMAT|E_CHECKSUM"):
            grey(write(tmp_path / "b.png", content[:keep]))


@pytest.mark.parametrize(
    "samples",
    [np.concatenate([EQUAL, OPAQUE - 1], axis=2), np.concatenate([DEEP[..., None], OPAQUE - 1], axis=2)],
    ids=["rgb", "grey"],
)
def test_deep_transparency_is_refused(tmp_path: Path, samples: np.ndarray) -> None:
    refused(write(tmp_path / "a.png", png(samples)), Code.E_PHOTOMETRIC, "transparent")


def test_colour_that_stands_for_transparency_is_refused_where_it_occurs(tmp_path: Path) -> None:
    """A grey picture with such a key was read as if it were opaque."""
    for samples in (EQUAL, DEEP[..., None]):
        count = samples.shape[2]
        used, unused = (chunk(b"tRNS", struct.pack(f">{count}H", *[value] * count)) for value in (int(DEEP[3, 4]), 0))
        refused(write(tmp_path / "a.png", png(samples, extra=used)), Code.E_PHOTOMETRIC, "transparent")
        np.testing.assert_array_equal(grey(write(tmp_path / "b.png", png(samples, extra=unused)))[0], DEEP)
    Pillow.fromarray(GREY8).save(tmp_path / "c.png", transparency=int(GREY8[1, 2]))
    refused(tmp_path / "c.png", Code.E_PHOTOMETRIC, "transparent")


def test_deep_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    head = struct.pack(">LLBBBBB", 20_000, 20_000, 16, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    refused(write(tmp_path / "a.png", content), Code.E_TOO_LARGE, "pixels")


# TIFF, written as its revision 6.0 says


def tiff(
    *pages: np.ndarray,
    order: str = "<",
    big: bool = False,
    compression: int = 1,
    predictor: int = 1,
    planar: int = 1,
    tile: int | None = None,
    rows_per_strip: int = 7,
    tags: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """Pages of (row, column, sample) values, 16-bit or float; strips, or square tiles."""
    offset, room = ("Q", 8) if big else ("L", 4)
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(f"{order}HHHQ", 43, 8, 0, 0) if big else struct.pack(f"{order}HL", 42, 0)
    link = 8 if big else 4
    for page in pages:
        height, width, count = page.shape
        planes = [page] if planar == 1 else [page[..., number : number + 1] for number in range(count)]
        blocks = []
        for plane in planes:
            if tile:
                padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
                corners = itertools.product(range(0, height, tile), range(0, width, tile))
                blocks += [padded[row : row + tile, column : column + tile] for row, column in corners]
            else:
                blocks += [plane[row : row + rows_per_strip] for row in range(0, height, rows_per_strip)]
        offsets, lengths = [], []
        for block in blocks:
            if predictor == 2:
                block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
            data = block.astype(block.dtype.newbyteorder(order)).tobytes()
            data = zlib.compress(data) if compression == 8 else data
            offsets.append(len(out))
            lengths.append(len(data))
            out += data
        entries: dict[int, tuple[int, ...]] = {
            256: (width,), 257: (height,), 258: (page.dtype.itemsize * 8,) * count, 259: (compression,),
            262: (2 if count > 2 else 1,), 277: (count,), 284: (planar,), 317: (predictor,),
            339: (3 if page.dtype.kind == "f" else 1,) * count,
        }  # fmt: skip
        if count in (2, 4):
            entries[338] = (2,)
        pieces = {322: (tile,), 323: (tile,)} if tile else {278: (rows_per_strip,)}
        entries |= pieces | {324 if tile else 273: tuple(offsets), 325 if tile else 279: tuple(lengths)} | (tags or {})
        fields = bytearray()
        for tag, numbers in sorted(entries.items()):
            kind, letter = (4, "L") if tag in (273, 279, 324, 325) else (3, "H")
            packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
            fields += struct.pack(f"{order}HH{offset}", tag, kind, len(numbers))
            if len(packed) > room:
                out += bytes(-len(out) % 8)
                fields += struct.pack(f"{order}{offset}", len(out))
                out += packed
            else:
                fields += packed.ljust(room, b"\0")
        out += bytes(-len(out) % 8)
        struct.pack_into(f"{order}{offset}", out, link, len(out))
        out += struct.pack(f"{order}{'Q' if big else 'H'}", len(entries)) + fields
        link = len(out)
        out += bytes(room)
    return bytes(out)


@pytest.mark.parametrize("name", SIXTEEN)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": ">"},
        {"big": True},
        {"big": True, "order": ">", "compression": 8, "predictor": 2},
        {"compression": 8},
        {"compression": 8, "predictor": 2},
        {"compression": 8, "predictor": 2, "order": ">"},
        {"planar": 2},
        {"planar": 2, "compression": 8, "predictor": 2},
        {"tile": 16},
        {"tile": 16, "compression": 8, "predictor": 2},
        {"tile": 16, "planar": 2, "compression": 8, "predictor": 2, "order": ">"},
    ],
    ids=str,
)
def test_sixteen_bit_tiff_keeps_its_depth(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    samples, values, equal = SIXTEEN[name]
    found, warnings = grey(write(tmp_path / "a.tif", tiff(samples, **options)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, values)
    assert warnings == ([] if equal else ["W_PHOTOMETRIC"])


@pytest.mark.parametrize("compressor", ["LZW", "Deflate", "PackBits"])
def test_compressed_colour_of_another_writer_keeps_its_depth(tmp_path: Path, compressor: str) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.tif"))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(COLOURS, isVector=True))
    np.testing.assert_array_equal(grey(tmp_path / "a.tif")[0], LUMINANCE)


def test_float_colour_keeps_its_values(tmp_path: Path) -> None:
    values = (DEEP / 7).astype(np.float32)
    path = write(tmp_path / "a.tif", tiff(np.repeat(values[..., None], 3, axis=2)))
    np.testing.assert_array_equal(grey(path)[0], values)
    coloured = RNG.random((20, 30, 3)).astype(np.float32)
    found, warnings = grey(write(tmp_path / "b.tif", tiff(coloured, compression=8)))
    np.testing.assert_allclose(found, coloured @ (0.299, 0.587, 0.114), atol=1e-5)
    assert warnings == ["W_PHOTOMETRIC"]


@pytest.mark.parametrize(
    ("samples", "options", "code", "match"),
    [
        (np.concatenate([EQUAL, OPAQUE - 1], axis=2), {}, Code.E_PHOTOMETRIC, "transparent"),
        (EQUAL, {"tags": {262: (0,)}}, Code.E_PHOTOMETRIC, "no certain grey"),
        (np.concatenate([EQUAL, OPAQUE], axis=2), {"tags": {262: (5,)}}, Code.E_PHOTOMETRIC, "no certain grey"),
        (EQUAL.astype(np.uint32), {}, Code.E_PHOTOMETRIC, "3 samples of 32 bits"),
        (EQUAL, {"tags": {259: (7,)}}, Code.E_CODEC, "compression 7"),
        (EQUAL.astype(np.float32), {"tags": {317: (3,)}}, Code.E_CODEC, "is not read"),
        (EQUAL, {"tags": {279: (9,)}}, Code.E_FORMAT, "no lengths"),
    ],
)
def test_deep_tiff_without_certain_grey_is_refused(
    tmp_path: Path, samples: np.ndarray, options: dict[str, object], code: Code, match: str
) -> None:
    refused(write(tmp_path / "a.tif", tiff(samples, **options)), code, match)  # type: ignore[arg-type]


def test_cut_deep_tiff_is_refused(tmp_path: Path) -> None:
    content = tiff(EQUAL, compression=8, predictor=2)
    for keep in range(9, len(content) - 1, 61):
        with pytest.raises(CaseError, match=r"E_TRUNCATED|E_FORMAT"):
            grey(write(tmp_path / "a.tif", content[:keep]))


def test_directories_that_lead_back_are_refused(tmp_path: Path) -> None:
    content = bytearray(tiff(EQUAL))
    content[-4:] = content[4:8]
    refused(write(tmp_path / "a.tif", bytes(content)), Code.E_FORMAT, "lead back")


def test_palette_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    ramp = tuple(int(value) for value in np.linspace(0, 65535, 256))
    deep = tuple(min(value + 3, 65535) for value in ramp)

    def page(colours: tuple[int, ...]) -> bytes:
        return tiff(GREY8[..., None], tags={262: (3,), 320: colours * 3})

    refused(write(tmp_path / "a.tif", page(deep)), Code.E_PHOTOMETRIC, "palette of 16-bit colours")
    np.testing.assert_array_equal(grey(write(tmp_path / "b.tif", page(ramp)))[0], GREY8)


# Pages


@pytest.mark.parametrize("deep", [False, True])
def test_page_of_a_tiff_is_chosen_by_number(tmp_path: Path, deep: bool) -> None:
    pages = [np.roll(DEEP, number, axis=0) for number in range(3)]
    shaped = [np.repeat(page[..., None], 3 if deep else 1, axis=2) for page in pages]
    path = write(tmp_path / "a.tif", tiff(*shaped))
    for number, page in enumerate(pages, start=1):
        np.testing.assert_array_equal(grey(path, str(number))[0], page)
        digest = open_scan(path, limits=LIMITS, part=str(number)).digest
        assert digest == part_digest(sha256_bytes(path.read_bytes()), number)
    refused(path, Code.E_SHAPE, "3 pictures in one file, expected one; name one of #1 to #3, as image: a.tif#1")
    for part in ("0", "4", "x", "1.5", "1a2b3c4d"):
        refused(path, Code.E_NOT_FOUND, "pages #1 to #3", part)


def test_only_picture_of_a_file_may_be_named(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.bmp", "a.webp"):
        Pillow.fromarray(GREY8).convert("RGB").save(tmp_path / name, lossless=True)
        np.testing.assert_array_equal(grey(tmp_path / name, "1")[0], GREY8)
        refused(tmp_path / name, Code.E_NOT_FOUND, "one picture, #1", "2")


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_animation_is_refused(tmp_path: Path, name: str) -> None:
    frames = [Pillow.fromarray(np.roll(GREY8, number)) for number in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    refused(tmp_path / name, Code.E_SHAPE, "animation of 3 pictures")


# Other formats


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("name", ["a.bmp", "a.webp"])
def test_bmp_and_lossless_webp_are_exact(tmp_path: Path, name: str, mode: str) -> None:
    Pillow.fromarray(GREY8).convert(mode).save(tmp_path / name, lossless=True, exact=True)
    values, warnings = grey(tmp_path / name)
    np.testing.assert_array_equal(values, GREY8)
    assert warnings == []


@pytest.mark.parametrize("name", ["a.bmp", "a.webp"])
def test_length_that_the_file_states_is_checked(tmp_path: Path, name: str) -> None:
    Pillow.fromarray(GREY8).convert("RGB").save(tmp_path / name, lossless=True)
    content = (tmp_path / name).read_bytes()
    refused(write(tmp_path / name, content[:-4]), Code.E_TRUNCATED, f"bytes of {len(content)}")
    values, warnings = grey(write(tmp_path / name, content + b"1234"))
    np.testing.assert_array_equal(values, GREY8)
    assert warnings == ["W_TRAILING_BYTES"]


def jpeg2000(path: Path, values: np.ndarray, **options: object) -> Path:
    Pillow.fromarray(values).save(path, "JPEG2000", irreversible=False, **options)
    return path


@pytest.mark.parametrize("no_jp2", [False, True], ids=["jp2", "codestream"])
def test_jpeg_2000_picture_is_exact(tmp_path: Path, no_jp2: bool) -> None:
    name = "a.j2k" if no_jp2 else "a.jp2"
    for values in (
        GREY8,
        DEEP,
        np.repeat(GREY8[..., None], 3, axis=2),
        np.repeat(GREY8[..., None], 4, axis=2) * 0 + 255,
    ):
        found, warnings = grey(jpeg2000(tmp_path / name, values, no_jp2=no_jp2))
        np.testing.assert_array_equal(found, values if values.ndim == 2 else values[..., 0])
        assert warnings == []


def test_sixteen_bit_colour_of_jpeg_2000_keeps_its_depth(tmp_path: Path) -> None:
    """Pillow has 8 of its bits."""
    from dicom_writing import blank
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEG2000Lossless

    image = blank()
    image.Rows, image.Columns, image.SamplesPerPixel, image.PlanarConfiguration = 40, 48, 3, 0
    image.PhotometricInterpretation = "RGB"
    samples = RNG.integers(0, 65536, (40, 48, 3)).astype("<u2")
    image.PixelData = samples.tobytes()
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    path = write(tmp_path / "a.j2k", next(generate_frames(image.PixelData, number_of_frames=1)))
    found, warnings = grey(path)
    np.testing.assert_array_equal(
        found, np.floor(samples.astype(np.int64) @ np.array([19595, 38470, 7471]) / 65536 + 0.5)
    )
    assert warnings == ["W_PHOTOMETRIC"]


def test_damaged_jpeg_2000_is_refused(tmp_path: Path) -> None:
    path = jpeg2000(tmp_path / "a.jp2", GREY8)
    content = path.read_bytes()
    for keep in (20, 60, len(content) // 2, len(content) - 1):
        with pytest.raises(CaseError, match=r"E_TRUNCATED|E_CODEC|E_FORMAT"):
            grey(write(path, content[:keep]))
    palette = content.replace(b"colr", b"pclr")
    refused(write(path, palette), Code.E_PHOTOMETRIC, "palette")


# The turn that EXIF asks for


def exif(orientation: int) -> bytes:
    found = Pillow.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def expected_turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """Where EXIF's words put the stored rows and columns; slow."""
    first_row, first_column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    height, width = values.shape
    shape = (height, width) if orientation < 5 else (width, height)
    out = np.empty(shape, values.dtype)
    for row, column in itertools.product(range(height), range(width)):
        place = {
            "top": (row, None),
            "bottom": (shape[0] - 1 - row, None),
            "left": (None, row),
            "right": (None, shape[1] - 1 - row),
        }
        other = {
            "left": (None, column),
            "right": (None, shape[1] - 1 - column),
            "top": (column, None),
            "bottom": (shape[0] - 1 - column, None),
        }
        by_row, by_column = place[first_row], other[first_column]
        out[
            by_row[0] if by_row[0] is not None else by_column[0],
            by_row[1] if by_row[1] is not None else by_column[1],
        ] = values[row, column]
    return out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "name", ["a.png", "late.png", "deep.png", "a.tif", "deep.tif", "sixteen.tif", "sixteen.png", "a.webp"]
)
def test_every_format_is_turned_alike(tmp_path: Path, name: str, orientation: int) -> None:
    """The turn of a PNG was ignored."""
    path, values = tmp_path / name, DEEP if "deep" in name or "sixteen" in name else GREY8
    tag = {274: (orientation,)}
    if name == "deep.png":
        path.write_bytes(png(EQUAL, extra=chunk(b"eXIf", exif(orientation)[6:])))
    elif name == "late.png":  # an eXIf chunk may also follow the pixels
        target = io.BytesIO()
        Pillow.fromarray(values).save(target, "PNG")
        content = target.getvalue()
        path.write_bytes(content[:-12] + chunk(b"eXIf", exif(orientation)[6:]) + content[-12:])
    elif name in ("deep.tif", "sixteen.tif"):
        path.write_bytes(tiff(EQUAL if name == "deep.tif" else DEEP[..., None], tags=tag))
    elif name == "a.tif":
        Pillow.fromarray(values).save(path, tiffinfo={274: orientation})
    else:
        Pillow.fromarray(values).save(path, exif=exif(orientation), lossless=True)
    np.testing.assert_array_equal(grey(path)[0], expected_turn(values, orientation))


def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", png(EQUAL, extra=chunk(b"eXIf", b"MM\0*junk")))
    np.testing.assert_array_equal(grey(path)[0], DEEP)
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "CANARY")
    Pillow.fromarray(GREY8).save(tmp_path / "b.png", pnginfo=info)
    np.testing.assert_array_equal(grey(tmp_path / "b.png")[0], GREY8)
