"""Colour and brightness: grey where grey is shown, luminance where not, and a word where a header leaves doubt."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_writing import ALL, blank, ct_slice, save, write_series
from PIL import Image as Pillow
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.colour import grey_of_rgb
from pipeline.imaging.dicom.scan import DicomScan, open_series

LIMITS = Limits()
ROWS, COLUMNS = 40, 48
GREY = np.random.default_rng(0).integers(0, 250, (ROWS, COLUMNS)).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 250, (ROWS, COLUMNS, 3)).astype(np.uint8)
LUMINANCE = np.asarray(Pillow.fromarray(COLOURS).convert("L"))
EQUAL = np.repeat(GREY[..., None], 3, axis=2)


def coloured(
    pixels: bytes, *, photometric: str = "RGB", syntax: str = ExplicitVRLittleEndian, **values: object
) -> Dataset:
    image = blank(syntax=syntax)
    image.Rows, image.Columns, image.SamplesPerPixel, image.PlanarConfiguration = ROWS, COLUMNS, 3, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.Modality, image.PhotometricInterpretation, image.PixelData = "US", photometric, pixels
    for name, value in values.items():
        setattr(image, name, value)
    return image


def read(path: Path) -> tuple[np.ndarray, list[Code]]:
    """(row, column) values and the codes of warnings, which do not repeat when voxels are read again."""
    scan: DicomScan = open_series(path, limits=LIMITS)
    scan.read(ALL)
    return scan.read(ALL)[:, :, 0].T, [warning.code for warning in scan.warnings]


def expect(path: Path, values: np.ndarray, *, grey: bool, within: int = 0) -> None:
    found, warnings = read(path)
    assert np.abs(found - values.astype(float)).max() <= within
    assert warnings == ([] if grey else [Code.W_PHOTOMETRIC])


def refused(path: Path, code: Code, match: str) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        read(path)
    assert caught.value.code == code, caught.value


@pytest.mark.parametrize(("channels", "values", "grey"), [(EQUAL, GREY, True), (COLOURS, LUMINANCE, False)])
@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_grey_exactly_or_luminance(
    tmp_path: Path, channels: np.ndarray, values: np.ndarray, grey: bool, planar: int
) -> None:
    pixels = channels.transpose(2, 0, 1) if planar else channels
    image = coloured(np.ascontiguousarray(pixels).tobytes(), PlanarConfiguration=planar)
    expect(save(image, tmp_path / "x.dcm"), values, grey=grey)


@pytest.mark.parametrize("modality", ["US", "XA", "OP", "SC", "ES"])
def test_colour_is_read_where_pictures_are_shown(tmp_path: Path, modality: str) -> None:
    expect(save(coloured(EQUAL.tobytes(), Modality=modality), tmp_path / "x.dcm"), GREY, grey=True)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "SEG"])
def test_colour_of_a_measured_volume_is_refused(tmp_path: Path, modality: str) -> None:
    path = save(coloured(EQUAL.tobytes(), Modality=modality), tmp_path / "x.dcm")
    refused(path, Code.E_PHOTOMETRIC, "3 samples a pixel, RGB")


def test_sixteen_bit_colour_keeps_its_depth(tmp_path: Path) -> None:
    deep = (COLOURS.astype(np.uint16) << 8) + 77
    expected = np.round(deep @ np.array([19595, 38470, 7471]) / 65536)
    for number, syntax in enumerate((ExplicitVRLittleEndian, ExplicitVRBigEndian)):
        image = coloured(
            deep.astype("<u2" if number == 0 else ">u2").tobytes(),
            BitsAllocated=16, BitsStored=16, HighBit=15, syntax=syntax,
        )  # fmt: skip
        plain = Dataset()
        plain.update(image)
        plain.file_meta = image.file_meta
        plain["PixelData"].VR = "OW"
        path = tmp_path / f"{number}.dcm"
        plain.save_as(path, little_endian=number == 0, implicit_vr=False, enforce_file_format=True)
        expect(path, expected, grey=False, within=1)


@pytest.mark.parametrize("grey", [True, False])
def test_ybr_is_its_luminance(tmp_path: Path, grey: bool) -> None:
    channels = np.full((ROWS, COLUMNS, 3), 128, np.uint8)
    channels[..., 0] = GREY
    channels[5, 5, 1] = 128 if grey else 127
    expect(save(coloured(channels.tobytes(), photometric="YBR_FULL"), tmp_path / "x.dcm"), GREY, grey=grey)
    pairs = np.full((ROWS, COLUMNS // 2, 4), 128, np.uint8)
    pairs[..., :2] = GREY.reshape(ROWS, COLUMNS // 2, 2)
    pairs[3, 3, 3] = 128 if grey else 130
    expect(save(coloured(pairs.tobytes(), photometric="YBR_FULL_422"), tmp_path / "y.dcm"), GREY, grey=grey)


def test_length_of_subsampled_colour_is_checked(tmp_path: Path) -> None:
    path = save(coloured(EQUAL.tobytes(), photometric="YBR_FULL_422"), tmp_path / "x.dcm")
    refused(path, Code.E_SHAPE, "do not belong together")
    odd = coloured(bytes(ROWS * 47 * 2), photometric="YBR_FULL_422", Columns=47)
    refused(save(odd, tmp_path / "y.dcm"), Code.E_PHOTOMETRIC, "YBR_FULL_422")


@pytest.mark.parametrize(("channels", "values", "grey"), [(EQUAL, GREY, True), (COLOURS, LUMINANCE, False)])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_rgb_is_the_same(
    tmp_path: Path, channels: np.ndarray, values: np.ndarray, grey: bool, syntax: str
) -> None:
    image = coloured(channels.tobytes())
    image.compress(syntax, generate_instance_uid=False)
    expect(save(image, tmp_path / "x.dcm"), values, grey=grey)


def test_transformed_jpeg_2000_is_rgb_again(tmp_path: Path) -> None:
    image = coloured(COLOURS.tobytes(), photometric="YBR_RCT")
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert image.PhotometricInterpretation == "YBR_RCT"
    path = save(image, tmp_path / "x.dcm")
    expect(path, LUMINANCE, grey=False)
    image.PhotometricInterpretation = "YBR_FULL"
    refused(save(image, tmp_path / "y.dcm"), Code.E_CODEC, "channels are RGB, the header YBR_FULL")


def jpeg(channels: np.ndarray, **options: object) -> bytes:
    target = io.BytesIO()
    Pillow.fromarray(channels).save(target, "JPEG", quality=95, **options)
    return encapsulate([target.getvalue()])


SMOOTH = np.repeat(np.repeat(GREY[::8, ::8], 8, axis=0), 8, axis=1)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_of_a_grey_picture_is_grey(tmp_path: Path, photometric: str, subsampling: int) -> None:
    pixels = jpeg(np.repeat(SMOOTH[..., None], 3, axis=2), subsampling=subsampling)
    path = save(coloured(pixels, photometric=photometric, syntax=JPEGBaseline8Bit), tmp_path / "x.dcm")
    expect(path, SMOOTH, grey=True, within=4)


def test_jpeg_of_colours_is_their_luminance(tmp_path: Path) -> None:
    colours = np.repeat(np.repeat(COLOURS[::8, ::8], 8, axis=0), 8, axis=1)
    luminance = np.asarray(Pillow.fromarray(colours).convert("L"))
    path = save(
        coloured(jpeg(colours, subsampling=0), photometric="YBR_FULL", syntax=JPEGBaseline8Bit), tmp_path / "x.dcm"
    )
    expect(path, luminance, grey=False, within=4)
    path = save(coloured(jpeg(colours, keep_rgb=True), syntax=JPEGBaseline8Bit), tmp_path / "y.dcm")
    expect(path, luminance, grey=False, within=6)


def test_jpeg_whose_colours_are_not_those_of_the_header_is_refused(tmp_path: Path) -> None:
    """A header that says RGB over YCbCr is common, and would turn every grey to a mixture."""
    path = save(coloured(jpeg(EQUAL), syntax=JPEGBaseline8Bit), tmp_path / "x.dcm")
    refused(path, Code.E_CODEC, "channels are YBR, the header RGB")
    image = coloured(jpeg(EQUAL, keep_rgb=True), photometric="YBR_FULL_422", syntax=JPEGBaseline8Bit)
    refused(save(image, tmp_path / "y.dcm"), Code.E_CODEC, "channels are RGB, the header YBR_FULL_422")


def test_channels_of_the_codestream_are_counted(tmp_path: Path) -> None:
    path = save(coloured(jpeg(GREY), photometric="YBR_FULL", syntax=JPEGBaseline8Bit), tmp_path / "x.dcm")
    refused(path, Code.E_CODEC, "is 48 × 40 × 1, where the header says 48 × 40 × 3")


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_gdcm_KY", "SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_small_odd_big_endian", "SC_rgb_small_odd",
     "SC_ybr_full_422_uncompressed", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_dcmd", "SC_rgb_dcmtk_+eb+cr",
     "SC_rgb_dcmtk_+eb+cy+n2", "SC_rgb_jpeg_lossy_gdcm", "examples_jpeg2k", "examples_rgb_color", "examples_ybr_color"],
)  # fmt: skip
def test_pydicoms_own_colour_files_have_pydicoms_luminance(name: str) -> None:
    from pydicom.pixels import pixel_array

    path = Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm"
    if not path.exists():
        pytest.skip("this pydicom brings no such file")
    part = "1" if int(pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames", 1)) > 1 else None
    scan = open_series(path, limits=LIMITS, part=part)
    raw = pixel_array(path, raw=True, index=0)
    kind = pydicom.dcmread(path, stop_before_pixels=True).PhotometricInterpretation
    expected = raw[..., 0] if kind.startswith("YBR_FULL") else grey_of_rgb(raw)[0]
    found = scan.read(ALL)[:, :, 0].T
    assert np.abs(found - expected.astype(float)).max() <= 1


# What a header says about brightness


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_inverse_presentation_lut_is_flagged(tmp_path: Path, photometric: str) -> None:
    image = ct_slice(0)
    image.Modality, image.PhotometricInterpretation, image.PresentationLUTShape = "MR", photometric, "INVERSE"
    scan = open_series(save(image, tmp_path / "x.dcm"), limits=LIMITS)
    (warning,) = scan.warnings
    assert warning.code == Code.W_PHOTOMETRIC
    assert ("contradiction; values kept" in warning.detail) == (photometric == "MONOCHROME2")


@pytest.mark.parametrize(
    ("sop_class", "intent", "flagged"),
    [
        ("1.2.840.10008.5.1.4.1.1.1.2.1", None, True),
        ("1.2.840.10008.5.1.4.1.1.1.2", "FOR PROCESSING", True),
        ("1.2.840.10008.5.1.4.1.1.1.2", "FOR PRESENTATION", False),
        ("1.2.840.10008.5.1.4.1.1.1.1.1", "FOR PROCESSING", True),
        ("1.2.840.10008.5.1.4.1.1.1.1", None, False),
    ],
)
def test_images_for_processing_are_told_from_those_for_presentation(
    tmp_path: Path, sop_class: str, intent: str | None, flagged: bool
) -> None:
    image = ct_slice(0)
    image.SOPClassUID, image.Modality = sop_class, "MG"
    if intent:
        image.PresentationIntentType = intent
    scan = open_series(save(image, tmp_path / "x.dcm"), limits=LIMITS)
    assert [warning.code for warning in scan.warnings] == [Code.W_PHOTOMETRIC] * flagged


def test_plain_series_says_nothing_of_brightness(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.PresentationLUTShape, image.PresentationIntentType = "IDENTITY", "FOR PRESENTATION"

    assert open_series(write_series(tmp_path / "s", edit), limits=LIMITS).warnings == ()
