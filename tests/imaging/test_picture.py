"""PNG, JPEG and TIFF: exact grey values, or a reason."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps
from scan_files import LIMITS, WHOLE, codes

from pipeline.config.inputs import Limits, Preprocessing
from pipeline.errors import CaseError
from pipeline.imaging.preprocess import ScanRequest, preprocess
from pipeline.imaging.read import open_scan, read_image

GREY = np.random.default_rng(0).integers(1, 250, (20, 30)).astype(np.uint8)  # (row, column)
FLAT = Preprocessing(
    dimensions=2,
    region="image",
    size=(30, 20),
    spacing_mm=None,
    intensity={"scaling": "range", "lower": None, "upper": None},
)


def write(path: Path, picture: Pillow.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def grey(path: Path, limits: Limits = LIMITS) -> tuple[np.ndarray, list[str]]:
    """(row, column) values and warnings."""
    scan = open_scan(path, limits=limits)
    return scan.read(WHOLE)[:, :, 0].T, codes(scan.warnings)


STORED = [(name, mode) for name in ("a.png", "a.tif", "a.tiff") for mode in ("L", "RGB", "RGBA", "LA")]


@pytest.mark.parametrize(("name", "mode"), [*STORED, ("a.png", "P")])  # grey palettes are a PNG matter
def test_grey_values_are_exact_however_they_are_stored(tmp_path: Path, name: str, mode: str) -> None:
    picture = Pillow.fromarray(GREY)
    values, warnings = grey(write(tmp_path / name, picture.convert(mode)))
    np.testing.assert_array_equal(values, GREY)
    assert warnings == []


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_and_floats_survive(tmp_path: Path, name: str) -> None:
    deep = (GREY.astype(np.uint16) * 257 + 3).astype(np.uint16)
    np.testing.assert_array_equal(grey(write(tmp_path / name, Pillow.fromarray(deep)))[0], deep)
    if name == "a.tif":
        np.testing.assert_array_equal(
            grey(write(tmp_path / name, Pillow.fromarray(deep / np.float32(7))))[0], deep / np.float32(7)
        )
        big = io.BytesIO()
        Pillow.fromarray(deep.astype(np.int32)).save(big, "TIFF")
        (tmp_path / name).write_bytes(big.getvalue())
        np.testing.assert_array_equal(grey(tmp_path / name)[0], deep)


def test_jpeg_and_its_rotation(tmp_path: Path) -> None:
    picture = Pillow.fromarray(GREY).resize((60, 40))
    path = write(tmp_path / "a.jpg", picture, quality=95)
    assert np.abs(grey(path)[0] - np.asarray(picture)).mean() < 3
    exif = Pillow.Exif()
    exif[0x0112] = 6
    turned = write(tmp_path / "b.jpg", picture.transpose(Pillow.Transpose.ROTATE_90), quality=95, exif=exif)
    scan = open_scan(turned, limits=LIMITS)
    assert scan.shape == (60, 40, 1)
    assert np.abs(grey(turned)[0] - np.asarray(picture)).mean() < 3


def test_colours_become_luminance_and_are_flagged(tmp_path: Path) -> None:
    colours = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8))
    values, warnings = grey(write(tmp_path / "a.png", colours))
    np.testing.assert_array_equal(values, np.asarray(colours.convert("L")))
    assert warnings == ["W_PHOTOMETRIC"]


def _transparent() -> Pillow.Image:
    picture = Pillow.fromarray(GREY).convert("RGBA")
    picture.putpixel((3, 3), (1, 1, 1, 0))
    return picture


@pytest.mark.parametrize(
    ("name", "make", "options", "code"),
    [
        ("a.png", _transparent, {}, "E_PHOTOMETRIC.*transparent"),
        ("a.jpg", lambda: Pillow.fromarray(GREY).convert("CMYK"), {}, "E_PHOTOMETRIC.*CMYK"),
        (
            "a.tif",
            lambda: Pillow.fromarray(GREY.astype(np.uint16)),
            {"tiffinfo": {262: 0}},
            "E_PHOTOMETRIC.*white is zero",
        ),
        (
            "a.tif",
            lambda: Pillow.fromarray(GREY),
            {"save_all": True, "append_images": [Pillow.fromarray(GREY)]},
            "E_SHAPE.*2 pictures",
        ),
    ],
    ids=["transparent", "cmyk", "white-is-zero", "two pages"],
)
def test_pictures_without_certain_grey_are_refused(tmp_path: Path, name: str, make, options: dict, code: str) -> None:
    with pytest.raises(CaseError, match=code):
        grey(write(tmp_path / name, make(), **options))


def test_8_bit_white_is_zero_is_turned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", Pillow.fromarray(GREY), tiffinfo={262: 0})
    raw = Pillow.open(path)
    np.testing.assert_array_equal(grey(path)[0], np.asarray(raw))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_cut_pictures_are_refused(tmp_path: Path, name: str) -> None:
    content = write(tmp_path / name, Pillow.fromarray(GREY)).read_bytes()
    for keep in range(9, len(content) - 1, 23):
        (tmp_path / name).write_bytes(content[:keep])
        with pytest.raises(CaseError, match=r"E_TRUNCATED|E_FORMAT|E_CHECKSUM|E_TOO_LARGE|E_SHAPE|E_PHOTOMETRIC"):
            grey(tmp_path / name)


def test_flips_in_a_png_are_seen(tmp_path: Path) -> None:
    content = write(tmp_path / "a.png", Pillow.fromarray(GREY)).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(8, len(content) - 12, 60):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        (tmp_path / "b.png").write_bytes(flipped)
        with pytest.raises(CaseError, match="E_"):
            grey(tmp_path / "b.png")


def test_bombs_are_refused_before_decoding(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    size = (20_000).to_bytes(4, "big") * 2
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\0\0\0\0")
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(CaseError, match="E_TOO_LARGE"):
        open_scan(tmp_path / "a.png", limits=LIMITS)
    small = write(tmp_path / "b.png", Pillow.fromarray(np.zeros((5000, 5000), np.uint8)))
    with pytest.raises(CaseError, match=r"E_TOO_LARGE.*limits.max_ratio"):
        open_scan(small, limits=LIMITS)
    with pytest.raises(CaseError, match=r"E_TOO_LARGE.*limits.max_voxels"):
        open_scan(small, limits=Limits(max_voxels=1000))


def test_wrong_suffix_is_flagged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", Pillow.fromarray(GREY), format="PNG")
    assert grey(path)[1] == ["W_SUFFIX"]
    with pytest.raises(CaseError, match=r"E_FORMAT.*convert it to PNG"):
        grey(write(tmp_path / "b.png", Pillow.fromarray(GREY), format="GIF"))


def test_rows_run_to_posterior_and_columns_to_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", Pillow.fromarray(GREY))
    image = read_image(path, limits=LIMITS)
    np.testing.assert_array_equal(image.voxels[:, :, 0], GREY[::-1, ::-1].T)
    found = preprocess(ScanRequest(path, None), FLAT, modality="US")
    assert found.voxels.shape == (1, 30, 20)
    low, high = GREY.min(), GREY.max()
    np.testing.assert_allclose(found.voxels[0], (GREY[::-1, ::-1].T - float(low)) / (high - low), atol=1e-6)
    assert not {"spacing_in_plane_mm", "slice_axis"} & set(found.measures)
    assert found.scan.orientation == "LPS"


def test_a_picture_has_no_millimetres(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", Pillow.fromarray(GREY))
    config = Preprocessing(dimensions=2, region="image", size=(16, 16), spacing_mm=(1.0, 1.0))
    with pytest.raises(CaseError, match="E_GEOMETRY_MISSING"):
        preprocess(ScanRequest(path, None), config, modality="US")


def test_exif_text_reaches_no_message(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x010E] = "CANARY"
    path = write(tmp_path / "a.jpg", ImageOps.invert(Pillow.fromarray(GREY)), exif=exif)
    scan = open_scan(path, limits=LIMITS)
    assert "CANARY" not in str(scan.warnings)
