"""Damaged, odd and equivalent NIfTI files, each made here; the shipped corpus is judged in test_bad_scans_nifti."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import AFFINE, LIMITS, SHAPE, WHOLE, codes, lesion, phantom, read, save

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError
from pipeline.imaging.envelope import fit_envelope
from pipeline.imaging.nifti.scan import open_nifti
from pipeline.imaging.read import open_scan, read_image

VOXELS = phantom()


def refused(path: Path, code: str, modality: str | None = "CT") -> str:
    """Read everything, expect the code, return the reason."""
    with pytest.raises(CaseError, match=code) as caught:
        open_scan(path, limits=LIMITS, modality=modality).read(WHOLE)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    return caught.value.reason


# Equivalent encodings.


@pytest.mark.parametrize("kind", ["u2", "i4", "u4", "f4", "f8", "i8", "u8", ">i2", ">f4", ">f8", ">i8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_number_type_gives_the_same_voxels(tmp_path: Path, kind: str, suffix: str) -> None:
    voxels = VOXELS if np.dtype(kind).kind != "u" else (VOXELS.astype(np.int32) + 2000)
    header = nib.Nifti1Header(endianness=">" if kind[0] == ">" else "<")
    image = nib.Nifti1Image(voxels.astype(kind), AFFINE, header, dtype=np.dtype(kind))
    nib.save(image, tmp_path / f"a{suffix}")
    found, scan = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found, voxels.astype(np.float32))
    np.testing.assert_allclose(scan.affine, AFFINE)
    assert scan.warnings == ()


@pytest.mark.parametrize(("kind", "lowest"), [("u1", 0), ("i1", -128)])
def test_bytes_give_their_values(tmp_path: Path, kind: str, lowest: int) -> None:
    voxels = (np.arange(VOXELS.size).reshape(VOXELS.shape) % 256 + lowest).astype(kind)
    found, _ = read(save(tmp_path / "a.nii", voxels), modality=None)
    np.testing.assert_array_equal(found, voxels.astype(np.float32))


def test_nifti_2_and_pairs_are_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(VOXELS, AFFINE), tmp_path / "two.nii.gz")
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "pair.img")
    for name in ("two.nii.gz", "pair.img", "pair.hdr"):
        scan = open_scan(tmp_path / name, limits=LIMITS)
        np.testing.assert_array_equal(scan.read(WHOLE), VOXELS)
        assert scan.warnings == ()


def test_pair_without_its_voxels_names_the_missing_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "pair.img")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pair.img").rename(tmp_path / "elsewhere" / "pair.img")
    assert "pair.img" in refused(tmp_path / "pair.hdr", "E_SIDE_FILE")
    (tmp_path / "pair.img").symlink_to(tmp_path / "elsewhere" / "pair.img")
    assert "link" in refused(tmp_path / "pair.hdr", "E_SIDE_FILE")
    save(tmp_path / "whole.nii", VOXELS).rename(tmp_path / "pair.hdr")
    assert "whole image" in refused(tmp_path / "pair.img", "E_SIDE_FILE")


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", (VOXELS + 1100).astype(np.uint16), scl_slope=0.5, scl_inter=-1024)
    np.testing.assert_allclose(read(path)[0], (VOXELS + 1100) * 0.5 - 1024)


@pytest.mark.parametrize("slope", [0, float("nan")])
def test_no_slope_means_unscaled(tmp_path: Path, slope: float) -> None:
    np.testing.assert_array_equal(read(save(tmp_path / "a.nii", VOXELS, scl_slope=slope, scl_inter=5))[0], VOXELS)


def test_boxes_are_cut_from_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("a.nii", "a.nii.gz"):
        scan = read(save(tmp_path / name, VOXELS))[1]
        for _ in range(20):
            box = tuple(slice(*sorted(rng.choice(length + 1, 2, replace=False))) for length in SHAPE)
            np.testing.assert_array_equal(scan.read(box), VOXELS[box])


def test_large_planes_span_blocks(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 1000, (700, 900, 9), dtype=np.int16)
    scan = read(save(tmp_path / "a.nii.gz", voxels))[1]
    for box in (WHOLE, (slice(5, 600), slice(1, 899), slice(3, 8))):
        np.testing.assert_array_equal(scan.read(box), voxels[box])


def test_digest_is_of_the_file_and_known_after_reading(tmp_path: Path) -> None:
    import hashlib

    path = save(tmp_path / "a.nii.gz", VOXELS)
    scan = open_nifti(path, limits=LIMITS)
    with pytest.raises(RuntimeError, match="known once"):
        _ = scan.digest
    scan.read((slice(0, 1),) * 3)
    assert scan.digest == hashlib.sha256(path.read_bytes()).hexdigest()


# Containers.


def _members(content: bytes, cut: int) -> bytes:
    return gzip.compress(content[:cut]) + gzip.compress(content[cut:])


def test_gzip_members_are_one_stream(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii", VOXELS).read_bytes()
    for cut in (1, 100, 352, 5000, len(content)):
        (tmp_path / "b.nii.gz").write_bytes(_members(content, cut))
        found, scan = read(tmp_path / "b.nii.gz")
        np.testing.assert_array_equal(found, VOXELS)
        assert scan.warnings == ()


@pytest.mark.parametrize("tail", [b"garbage!", b"\0" * 600_000, b"\x1f", b"x" * 300_000])
def test_bytes_after_gzip_are_flagged(tmp_path: Path, tail: bytes) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS)
    path.write_bytes(path.read_bytes() + tail)
    scan = read(path)[1]
    assert codes(scan.warnings) == ["W_TRAILING_BYTES"]
    assert str(len(tail)) in scan.warnings[0].detail
    scan.read(WHOLE)
    assert codes(scan.warnings) == ["W_TRAILING_BYTES"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_bytes_after_the_voxels_are_flagged(tmp_path: Path, suffix: str) -> None:
    content = save(tmp_path / "a.nii", VOXELS).read_bytes() + b"12345"
    path = tmp_path / f"b{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert codes(read(path)[1].warnings) == ["W_TRAILING_BYTES"]


def test_every_cut_of_a_gzip_file_is_truncated(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii.gz", VOXELS).read_bytes()
    for keep in [*range(1, 30), 100, 400, len(content) // 2, *range(len(content) - 12, len(content))]:
        (tmp_path / "b.nii.gz").write_bytes(content[:keep])
        with pytest.raises(CaseError, match=r"E_TRUNCATED|E_FORMAT") as caught:
            open_scan(tmp_path / "b.nii.gz", limits=LIMITS).read(WHOLE)
        assert keep < 2 or caught.value.code == "E_TRUNCATED", keep


@pytest.mark.parametrize("place", [-8, -5, -4, -1])
def test_wrong_checksum_or_length_in_the_trailer(tmp_path: Path, place: int) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert "copy the file again" in refused(path, "E_CHECKSUM")


def test_flip_in_a_stored_block_is_seen_outside_the_box_too(tmp_path: Path) -> None:
    raw = save(tmp_path / "a.nii", VOXELS).read_bytes()
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    content = bytearray(packer.compress(raw) + packer.flush())
    content[-200] ^= 4  # the last plane
    (tmp_path / "b.nii.gz").write_bytes(content)
    with pytest.raises(CaseError, match="E_CHECKSUM"):
        open_nifti(tmp_path / "b.nii.gz", limits=LIMITS).read((slice(0, 4), slice(0, 4), slice(0, 2)))


@pytest.mark.parametrize(
    ("content", "code", "hint"),
    [
        (b"", "E_EMPTY_FILE", "0 bytes"),
        (gzip.compress(b"", mtime=0), "E_EMPTY_FILE", "0 bytes"),
        (b"<html><body>log in</body></html>", "E_FORMAT", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "E_FORMAT", "git lfs pull"),
        (b"BZh91AY", "E_FORMAT", "bzip2"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 30, "E_FORMAT", "zstandard"),
        (b"PK\x03\x04" + b"\0" * 30, "E_FORMAT", "zip"),
        (b"NRRD0004\n", "E_FORMAT", "NRRD"),
        (b"\0" * 2000, "E_FORMAT", "no known scan format"),
        (b"\1", "E_FORMAT", "no known scan format"),
        (gzip.compress(b"hello", mtime=0), "E_FORMAT", "gzip of something else"),
        (struct.pack("<i", 348), "E_TRUNCATED", "shorter than a NIfTI header"),
        (gzip.compress(struct.pack("<i", 540) + b"n+2\0" + b"\0" * 300, mtime=0), "E_TRUNCATED", "shorter than"),
        (struct.pack("<i", 348) + b"\0" * 344, "E_FORMAT", "ANALYZE"),
    ],
)
def test_foreign_content_is_named(tmp_path: Path, content: bytes, code: str, hint: str) -> None:
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert hint in refused(tmp_path / "a.nii.gz", code)


def test_content_decides_and_the_suffix_only_warns(tmp_path: Path) -> None:
    plain, packed = save(tmp_path / "a.nii", VOXELS), save(tmp_path / "b.nii.gz", VOXELS)
    for source, name in ((plain, "c.nii.gz"), (packed, "d.nii"), (plain, "e.dcm"), (plain, "f"), (plain, "G.NII.GZ")):
        source.rename(tmp_path / name)
        scan = open_scan(tmp_path / name, limits=LIMITS)
        np.testing.assert_array_equal(scan.read(WHOLE), VOXELS)
        assert codes(scan.warnings) == ["W_SUFFIX"]
        (tmp_path / name).rename(source)
    plain.rename(tmp_path / "H.NII")
    assert open_scan(tmp_path / "H.NII", limits=LIMITS).warnings == ()


def test_what_is_no_file_is_named_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    refused(tmp_path / "pipe.nii", "E_NOT_REGULAR")
    server = socket.socket(socket.AF_UNIX)
    place = os.path.relpath(tmp_path / "s.nii")  # a socket's name may have 107 bytes
    if len(place) < 100:
        server.bind(place)
        refused(tmp_path / "s.nii", "E_NOT_REGULAR")
    server.close()
    refused(Path("/dev/zero"), "E_NOT_REGULAR")
    refused(tmp_path / "none.nii", "E_NOT_FOUND")
    refused(tmp_path / "none.nii" / "b.nii", "E_NOT_FOUND")
    refused(tmp_path / ("x" * 300), "E_NOT_FOUND")
    refused(tmp_path / "a\0b.nii", "E_NOT_FOUND")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    refused(tmp_path / "loop.nii", "E_NOT_FOUND")
    (tmp_path / "hanging.nii").symlink_to(tmp_path / "gone.nii")
    refused(tmp_path / "hanging.nii", "E_NOT_FOUND")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS)
    path.chmod(0)
    refused(path, "E_PERMISSION")


# Headers.


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"sizeof_hdr": 999}, "E_FORMAT"),
        ({"magic": b"abc"}, "E_FORMAT"),
        ({"magic": b"ni1"}, "E_SIDE_FILE"),
        ({"dim": {0: 0}}, "E_SHAPE"),
        ({"dim": {0: 8}}, "E_SHAPE"),
        ({"dim": {0: -3}}, "E_SHAPE"),
        ({"dim": {0: 1}}, "E_SHAPE"),
        ({"dim": {2: 0}}, "E_SHAPE"),
        ({"dim": {1: -24}}, "E_SHAPE"),
        ({"dim": {0: 4, 3: 8, 4: 2}}, "E_SHAPE"),
        ({"dim": {0: 5, 3: 8, 4: 1, 5: 2}}, "E_SHAPE"),
        ({"dim": {3: 17}}, "E_TRUNCATED"),
        ({"dim": {3: 20_000}}, "E_TRUNCATED"),
        ({"dim": {1: 32767, 2: 32767, 3: 32767}}, "E_TOO_LARGE"),
        ({"vox_offset": 16}, "E_FORMAT"),
        ({"vox_offset": 0}, "E_FORMAT"),
        ({"vox_offset": -352}, "E_FORMAT"),
        ({"vox_offset": 352.5}, "E_FORMAT"),
        ({"vox_offset": float("nan")}, "E_FORMAT"),
        ({"vox_offset": float("inf")}, "E_FORMAT"),
        ({"vox_offset": 1e30}, "E_TRUNCATED"),
        ({"vox_offset": 354}, "E_TRUNCATED"),
        ({"datatype": 0}, "E_DTYPE"),
        ({"datatype": 1}, "E_DTYPE"),
        ({"datatype": 32}, "E_DTYPE"),
        ({"datatype": 128}, "E_DTYPE"),
        ({"datatype": 1536}, "E_DTYPE"),
        ({"datatype": 2304}, "E_DTYPE"),
        ({"datatype": 77}, "E_DTYPE"),
        ({"datatype": 64, "bitpix": 64}, "E_TRUNCATED"),
        ({"scl_slope": float("inf")}, "E_SCALING"),
        ({"scl_slope": 1, "scl_inter": float("nan")}, "E_SCALING"),
        ({"scl_slope": -1, "scl_inter": 0}, "E_SCALING"),
        ({"scl_slope": 3e38, "scl_inter": 0}, "E_RANGE"),
        ({"sform_code": 0, "qform_code": 0}, "E_GEOMETRY_MISSING"),
        ({"sform_code": -1, "qform_code": 0}, "E_GEOMETRY_MISSING"),
        ({"srow_x": {0: float("nan")}}, "E_AFFINE"),
        ({"srow_x": {3: float("inf")}}, "E_AFFINE"),
        ({"srow_x": {3: 1e7}}, "E_AFFINE"),
        ({"srow_x": {0: 0}}, "E_AFFINE"),
        ({"srow_y": {1: 0, 0: 1.5}, "srow_x": {0: 0, 1: 0}}, "E_AFFINE"),
        ({"srow_x": {0: 1.5, 1: 1.5}, "srow_y": {0: 1.5, 1: 1.5}}, "E_AFFINE"),
        ({"srow_x": {0: 0.0015}, "srow_y": {1: 0.0015}, "srow_z": {2: 0.002}, "xyzt_units": 1}, "E_SPACING"),
        ({"srow_x": {0: 700}}, "E_SPACING"),
        ({"sform_code": 0, "qform_code": 1, "pixdim": {1: 0}}, "E_SPACING"),
        ({"sform_code": 0, "qform_code": 1, "pixdim": {1: -1.5}}, "E_SPACING"),
        ({"sform_code": 0, "qform_code": 1, "pixdim": {3: float("nan")}}, "E_SPACING"),
        ({"sform_code": 0, "qform_code": 1, "pixdim": {2: 1500}}, "E_SPACING"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 0.9, "quatern_c": 0.9}, "E_AFFINE"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": float("nan")}, "E_AFFINE"),
        ({"sform_code": 0, "qform_code": 1, "qoffset_x": float("nan")}, "E_AFFINE"),
        (
            {"sform_code": 1, "qform_code": 1, "pixdim": {0: -1}, "qoffset_x": -18, "qoffset_y": -15, "qoffset_z": -16},
            "E_AFFINE_DISAGREE",
        ),
        ({"sform_code": 1, "qform_code": 1, "quatern_d": 1}, "E_AFFINE_DISAGREE"),
        ({"sform_code": 1, "qform_code": 1, "qoffset_x": -40}, "E_AFFINE_DISAGREE"),
        # The fourth size is of time, and says nothing of the forms.
        ({"sform_code": 1, "qform_code": 1, "qoffset_x": -40, "pixdim": {4: 0}}, "E_AFFINE_DISAGREE"),
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_impossible_headers_are_refused(tmp_path: Path, header: dict[str, object], code: str, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", VOXELS, **header)
    if code == "E_TOO_LARGE" or header == {"vox_offset": 1e30}:
        with pytest.raises(CaseError, match=code):
            open_nifti(path, limits=LIMITS)
    refused(path, code)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"bitpix": 8}, ["W_BITPIX"]),
        ({"xyzt_units": 1}, ["W_UNITS"]),
        ({"xyzt_units": 3}, ["W_UNITS"]),
        ({"xyzt_units": 7}, ["W_UNITS"]),
        ({"xyzt_units": 0}, []),
        ({"xyzt_units": 2 + 8}, []),
        ({"pixdim": {1: 3.0}}, ["W_SPACING"]),
        ({"pixdim": {1: float("nan")}}, ["W_SPACING"]),
        ({"pixdim": {1: -1.5}}, []),
        ({"pixdim": {1: 1.5 * 1.009}}, []),  # within 1 %
        ({"pixdim": {1: 1.5 * 1.015}}, ["W_SPACING"]),
        ({"srow_x": {2: 0.8}}, ["W_SHEAR"]),
        ({"qform_code": 1, "qoffset_x": -17.5}, ["W_AFFINE_DISAGREE"]),
        ({"qform_code": 1, "sform_code": 4, "qoffset_x": -70}, ["W_AFFINE_DISAGREE"]),
        ({"qform_code": 0, "quatern_d": 1, "qoffset_x": 500}, []),  # an unknown qform says nothing
        ({"dim": {0: 5, 4: 1, 5: 1}}, []),
        ({"dim": {4: -7, 5: 0}}, []),  # beyond dim[0], nothing is meant
    ],
    ids=str,
)
def test_odd_headers_are_read_by_the_sform_and_flagged(
    tmp_path: Path, header: dict[str, object], expected: list[str]
) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS, **({"sform_code": 1, "qform_code": 0} | header))
    found, scan = read(path)
    np.testing.assert_array_equal(found, VOXELS)
    assert codes(scan.warnings) == expected
    np.testing.assert_allclose(scan.affine, nib.load(path).get_sform(), atol=1e-5)


@pytest.mark.parametrize("header", [{"quatern_b": np.nan}, {"qoffset_x": np.inf}, {"pixdim": {0: np.nan}}], ids=str)
def test_a_qform_that_holds_no_number_is_named(tmp_path: Path, header: dict[str, object]) -> None:
    path = save(tmp_path / "a.nii", VOXELS, **({"sform_code": 0, "qform_code": 1} | header))
    assert refused(path, "E_AFFINE").startswith("the qform holds NaN or infinity")


def test_qform_alone_gives_nibabels_affine(tmp_path: Path) -> None:
    rotation = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1.0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * (0.7, 0.8, 2.5), (5, -30, 12)
    image = nib.Nifti1Image(VOXELS, None)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(open_nifti(tmp_path / "a.nii", limits=LIMITS).affine, affine, atol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 0.03, 0.5, 2.0, 4.9, 5.2, 30.0, 90.0, 179.0])
@pytest.mark.parametrize("axis", [(0, 0, 1), (0, 1, 0), (0.6, 0, 0.8), (0.48, 0.6, 0.64)])
def test_a_qform_turned_by_nearly_180_degrees_gives_nibabels_affine(tmp_path: Path, degrees: float, axis) -> None:
    affine = np.eye(4)
    turn = nib.quaternions.angle_axis2mat(np.radians(180 - degrees), np.array(axis))
    affine[:3, :3], affine[:3, 3] = turn * [0.8, 0.9, 2.0], (10, -20, 30)
    image = nib.Nifti1Image(VOXELS, affine)
    image.set_sform(None, 0)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    found = open_nifti(tmp_path / "a.nii.gz", limits=LIMITS).affine
    np.testing.assert_allclose(found, nib.load(tmp_path / "a.nii.gz").affine, atol=1e-5)
    np.testing.assert_allclose(found, affine, atol=3e-3)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / "both.nii.gz")
    open_nifti(tmp_path / "both.nii.gz", limits=LIMITS)  # sform and qform agree


def test_tilted_sform_with_its_own_straight_qform_is_only_a_tilt(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 0.6
    image = nib.Nifti1Image(VOXELS, affine)
    image.set_qform(affine, 1, strip_shears=True)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / "a.nii")
    assert codes(read(tmp_path / "a.nii")[1].warnings) == ["W_SHEAR"]


def test_image_turned_by_45_degrees_has_no_nearest_axis(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2) * 1.5
    refused(save(tmp_path / "a.nii", VOXELS, affine), "E_ORIENTATION")
    affine[:2, :2] = np.array([[1, -0.9], [0.9, 1]]) / np.hypot(1, 0.9) * 1.5
    assert read(save(tmp_path / "b.nii", VOXELS, affine))[1].warnings == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_voxels_matter_only_in_the_box(tmp_path: Path, value: float) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[20, 3, 15] = value
    path = save(tmp_path / "a.nii.gz", voxels)
    refused(path, "E_NONFINITE")
    scan = open_nifti(path, limits=LIMITS)
    box = (slice(0, 20), slice(None), slice(None))
    np.testing.assert_array_equal(scan.read(box), VOXELS[box])


def test_negative_slope_is_allowed_outside_ct(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS, scl_slope=-2, scl_inter=1)
    np.testing.assert_allclose(read(path, "MR")[0], VOXELS * -2.0 + 1)


def test_large_scans_are_flagged(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS)
    voxels = VOXELS.size
    assert codes(open_nifti(path, limits=Limits(max_voxels=2 * voxels - 1)).warnings) == ["W_LARGE"]
    assert codes(open_nifti(path, limits=Limits(max_voxels=2 * voxels)).warnings) == []
    for limits in (Limits(max_voxels=voxels - 1), Limits(max_bytes=2 * voxels - 1)):
        with pytest.raises(CaseError, match=r"E_TOO_LARGE.*limits.max_"):
            open_nifti(path, limits=limits)


def test_text_fields_of_the_header_reach_no_message(tmp_path: Path) -> None:
    texts = {"descrip": b"CANARY", "aux_file": b"CANARY", "db_name": b"CANARY", "intent_name": b"CANARY"}
    for header in ({"dim": {0: 0}}, {"datatype": 0}, {"scl_slope": float("inf")}, {"xyzt_units": 1}, {"sizeof_hdr": 9}):
        path = save(tmp_path / "a.nii", VOXELS, **texts, **header)
        try:
            scan = open_scan(path, limits=LIMITS)
            text = repr(scan) + str(scan.warnings)
        except CaseError as error:
            text = str(error)
        assert "CANARY" not in text


def test_whole_image_comes_in_ras_order(tmp_path: Path) -> None:
    reference = read_image(save(tmp_path / "a.nii", VOXELS), limits=LIMITS)
    np.testing.assert_array_equal(reference.voxels, VOXELS)
    turned = nib.Nifti1Image(VOXELS, AFFINE).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    nib.save(turned, tmp_path / "b.nii.gz")
    image = read_image(tmp_path / "b.nii.gz", limits=LIMITS)
    np.testing.assert_array_equal(image.voxels, VOXELS)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)


def test_reading_needs_neither_torch_nor_monai() -> None:
    check = "import sys, pipeline.imaging.read; print(sorted({'torch', 'monai'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bytes_too_many_beside_a_wrong_bitpix_show_a_wrong_datatype(tmp_path: Path) -> None:
    """Shorts declared as bytes: half of the file would be read as a picture of something else."""
    path = save(tmp_path / "a.nii", phantom(), datatype=256)
    with pytest.raises(CaseError, match=r"E_DTYPE.*7680 bytes too many.*bitpix is 16"):
        lesion(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_extension_where_the_voxels_should_begin_is_refused(tmp_path: Path, suffix: str) -> None:
    plain = save(tmp_path / "plain.nii", phantom()).read_bytes()
    flagged = plain[:348] + b"\1\0\0\0" + plain[352:]
    path = tmp_path / f"a{suffix}"
    pack = gzip.compress if suffix == ".nii.gz" else bytes
    path.write_bytes(pack(flagged))  # the flag alone shifts nothing
    np.testing.assert_array_equal(lesion(path).voxels, lesion(tmp_path / "plain.nii").voxels)
    path.write_bytes(pack(flagged[:352] + struct.pack("<ii", 16, 6) + b"comment." + flagged[352:]))
    with pytest.raises(CaseError, match=r"E_FORMAT.*16 bytes too many, and an extension is claimed"):
        lesion(path)


def test_voxels_of_a_pair_without_their_header_name_it(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(phantom().tobytes())
    with pytest.raises(CaseError, match=r"E_SIDE_FILE.*the \.hdr is not beside them"):
        lesion(tmp_path / "a.img")


def test_zero_filled_rest_of_a_scan_is_outside_the_envelope(tmp_path: Path) -> None:
    """0 HU has noise to both sides in any scan; a block of exact zeros is a copy that broke off."""
    trained = [lesion(save(tmp_path / f"{seed}.nii", phantom(seed))).measures for seed in range(8)]
    broken = phantom(9)
    broken[:, :, 11:] = 0
    found = lesion(save(tmp_path / "broken.nii", broken)).measures
    with pytest.raises(CaseError, match=r"E_OUT_OF_ENVELOPE.*zero_fraction"):
        fit_envelope([{"zero_fraction": case["zero_fraction"]} for case in trained], modality="CT").judge(found)
