"""The shared folder of odd but real inputs: each is read rightly or refused with the named code. Skipped where absent.

What holds for the project is tested beside this file on scans that the tests write; here, on what others' tools wrote.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from shared_data import shared

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.discovery.find import find_scans
from pipeline.imaging.image import Scan
from pipeline.imaging.read import open_scan

WHOLE = (slice(None), slice(None), slice(None))
LIMITS = Limits()


def opened(part: str, selector: str | None = None) -> tuple[np.ndarray, Scan]:
    scan = open_scan(shared("odd_scans") / part, limits=LIMITS, part=selector)
    return scan.read(WHOLE), scan


def codes(scan: Scan) -> list[str]:
    return [str(warning.code) for warning in scan.warnings]


def refused(part: str, code: Code, match: str) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        opened(part)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["d12_j2k_precision16_stored12", "d15_enh_j2k_fragments_no_bot"])
def test_odd_jpeg_2000_has_the_values_of_the_reference(name: str) -> None:
    values, scan = opened(name)
    np.testing.assert_array_equal(values, opened("d00b_ref_up")[0])
    assert scan.warnings == ()


def test_sign_against_the_header_is_refused() -> None:
    refused("d13_j2k_signed_stream_unsigned_header", Code.E_CODEC, "signed, where the header says 16 bits, unsigned")


@pytest.mark.parametrize("name", ["d18_no_preamble", "d24_split_folders", "d27_ct_seg_rtstruct"])
def test_reference_in_other_clothes_is_the_reference(name: str) -> None:
    values, scan = opened(name)
    reference, whole = opened("d00_ref")
    np.testing.assert_array_equal(values, reference)
    np.testing.assert_allclose(scan.affine, whole.affine, atol=1e-9)
    assert scan.warnings == ()


def test_rounded_positions_are_flagged() -> None:
    values, scan = opened("d23_positions_one_decimal")
    np.testing.assert_array_equal(values, opened("d00_ref")[0])
    assert codes(scan) == ["W_SPACING"]
    assert scan.affine[2, 2] == pytest.approx(0.625, abs=1e-3)


def test_split_series_is_one_row_of_a_search() -> None:
    folder: Path = shared("odd_scans") / "d24_split_folders"
    (row,) = find_scans(folder)
    assert row.error is None
    scan = open_scan(row.path, limits=LIMITS, files=row.files)
    np.testing.assert_array_equal(scan.read(WHOLE), opened("d00_ref")[0])


def test_objects_beside_a_ct_make_no_rows() -> None:
    (row,) = find_scans(shared("odd_scans") / "d27_ct_seg_rtstruct")
    assert row.error is None
    code = row.name.partition("#")[2]
    np.testing.assert_array_equal(opened("d27_ct_seg_rtstruct", code)[0], opened("d00_ref")[0])


def test_private_transfer_syntax_is_named() -> None:
    refused("d38_ge_private_syntax", Code.E_CODEC, r"1\.2\.840\.113619\.5\.2 is not read")


def test_two_phases_are_no_volume() -> None:
    refused("d39_two_phases_shifted", Code.E_MIXED_SERIES, "of several volumes in one series")


def test_inverse_lut_is_flagged() -> None:
    assert codes(opened("x04_mg_inverse_lut/image.dcm")[1]) == ["W_PHOTOMETRIC"]
    assert codes(opened("x01_mg_mono2/image.dcm")[1]) == []


def test_grey_ultrasound_in_colours_is_grey() -> None:
    values, scan = opened("x05_us_rgb/image.dcm")
    pixels = pydicom.dcmread(shared("odd_scans") / "x05_us_rgb" / "image.dcm").pixel_array
    np.testing.assert_array_equal(values[:, :, 0].T, pixels[..., 0])
    assert scan.warnings == ()


def test_cine_is_read_by_frame() -> None:
    refused(
        "x06_us_cine/image.dcm", Code.E_GEOMETRY_MISSING, "4 frames without positions.*#1 to #4, as image: image.dcm#1"
    )
    frames = pydicom.dcmread(shared("odd_scans") / "x06_us_cine" / "image.dcm").pixel_array
    for number, frame in enumerate(frames, start=1):
        np.testing.assert_array_equal(opened("x06_us_cine/image.dcm", str(number))[0][:, :, 0].T, frame)
