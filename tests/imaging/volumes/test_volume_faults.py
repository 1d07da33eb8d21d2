"""Each way in which a volume is damaged, incomplete or of another kind has its code; nothing is guessed."""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from volume_files import (
    AFFINE,
    DATA,
    LIMITS,
    SIDECAR,
    VOXELS,
    WHOLE,
    codes,
    meta_header,
    mgh_bytes,
    nrrd_header,
    opened,
    packed,
    write_mgh,
    write_mha,
    write_mhd,
    write_nhdr,
    write_npy,
    write_nrrd,
)

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.read import open_scan
from pipeline.imaging.side_files import side_files

SLICE = 7 * 6 * 2


def refused(path: Path, code: Code, match: str, limits: Limits = LIMITS) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        opened(path, limits)
    assert caught.value.code == code, caught.value
    assert "CANARY" not in str(caught.value)


def read(path: Path) -> list[str]:
    """Codes of a scan that has the voxels and the place of the reference."""
    found, scan = opened(path)
    np.testing.assert_array_equal(found, VOXELS)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-9)
    return codes(scan)


# What is read


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Comment": "CANARY"},
        {"PatientName": "CANARY"},
        {"ObjectSubType": "x", "Color": "1 0 0 1"},
        {"HeaderSize": "0", "ElementNumberOfChannels": "1"},
        {"Offset": None, "Position": "-4 3 7"},
        {"TransformMatrix": None, "Orientation": "1 0 0 0 1 0 0 0 1"},
        {"ElementSpacing": None, "ElementSize": "1.5 1.25 2"},
        {"AnatomicalOrientation": "???"},
        {"AnatomicalOrientation": None},
        {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "False"},
        {"NDims": "4", "DimSize": "7 6 5 1", "TransformMatrix": "1 0 0 0 1 0 0 0 1"},
        {"ElementDataFile": "Local"},
        {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_metaimage_in_its_variants_is_read(tmp_path: Path, changes: dict[str, str | None]) -> None:
    assert read(write_mha(tmp_path / "a.mha", changes)) == []


def test_metaimage_of_big_numbers_first_or_compressed_is_read(tmp_path: Path) -> None:
    swapped = VOXELS.astype(">i2").tobytes(order="F")
    assert read(write_mha(tmp_path / "a.mha", {"BinaryDataByteOrderMSB": "True"}, swapped)) == []
    compressed = packed()
    changes = {"CompressedData": "True", "CompressedDataSize": str(len(compressed))}
    assert read(write_mha(tmp_path / "b.mha", changes, compressed)) == []
    assert read(write_mhd(tmp_path / "c.mhd", changes, compressed, "scan.zraw")) == []


@pytest.mark.parametrize("write", [write_mhd, write_nhdr], ids=["mhd", "nhdr"])
def test_data_file_may_begin_with_something_else(tmp_path: Path, write: Callable[..., Path]) -> None:
    skip = "HeaderSize" if write is write_mhd else "byte skip"
    suffix = "mhd" if write is write_mhd else "nhdr"
    for count in ("12", "-1"):
        assert read(write(tmp_path / f"a.{suffix}", {skip: count}, b"x" * 12 + DATA)) == []
    (tmp_path / "sub").mkdir()
    assert read(write(tmp_path / f"b.{suffix}", None, DATA, "sub/scan.raw")) == []


def slices(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(DATA[SLICE * number : SLICE * (number + 1)])


@pytest.mark.parametrize("word", ["LIST", "LIST 2"])
def test_list_of_slices_is_one_volume(tmp_path: Path, word: str) -> None:
    names = [f"{letter}.raw" for letter in "edcba"]
    slices(tmp_path, names)
    listed = "\n".join([word, *names])
    (tmp_path / "a.mhd").write_bytes(meta_header({"ElementDataFile": listed}))
    (tmp_path / "a.nhdr").write_bytes(nrrd_header({"data file": listed}))
    for name in ("a.mhd", "a.nhdr"):
        assert read(tmp_path / name) == []
        assert side_files(tmp_path / name) == sorted(tmp_path / part for part in names)


def test_numbered_slices_are_one_volume(tmp_path: Path) -> None:
    slices(tmp_path, [f"s{number:03d}.raw" for number in range(2, 12, 2)])
    (tmp_path / "a.mhd").write_bytes(meta_header({"ElementDataFile": "s%03d.raw 2 10 2"}))
    (tmp_path / "a.nhdr").write_bytes(nrrd_header({"data file": "s%03d.raw 2 10 2"}))
    for name in ("a.mhd", "a.nhdr"):
        assert read(tmp_path / name) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"content": "CANARY", "units": '"mm"'},
        {"space": "LPS"},
        {"space": "right-anterior-superior", "space directions": "(-1.5,0,0) (0,-1.25,0) (0,0,2)",
         "space origin": "(4,-3,7)"},
        {"space": "LAS", "space directions": "(1.5,0,0) (0,-1.25,0) (0,0,2)", "space origin": "(-4,-3,7)"},
        {"type": "int16"},
        {"kinds": None},
        {"kinds": "space space space"},
        {"space units": '"mm" "mm" "mm"'},
        {"centers": "cell cell cell"},
        {"dimension": "4", "sizes": "1 7 6 5", "kinds": "list domain domain domain",
         "space directions": "none (1.5,0,0) (0,1.25,0) (0,0,2)"},
    ],
    ids=str,
)  # fmt: skip
def test_nrrd_in_its_variants_is_read(tmp_path: Path, changes: dict[str, str | None]) -> None:
    assert read(write_nrrd(tmp_path / "a.nrrd", changes)) == []


def test_nrrd_with_other_ends_of_lines_gzip_or_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(nrrd_header().replace(b"\n", b"\r\n") + b"Name:=CANARY\r\n\r\n" + DATA)
    assert read(path) == []
    for encoding in ("gzip", "gz"):
        assert read(write_nrrd(path, {"encoding": encoding}, gzip.compress(DATA))) == []
    assert read(write_nrrd(path, {"endian": "big"}, VOXELS.astype(">i2").tobytes(order="F"))) == []
    assert read(write_nhdr(tmp_path / "a.nhdr", {"encoding": "gzip"}, gzip.compress(DATA), "scan.raw.gz")) == []


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<i2", ">i2", "<f4", ">f8", "<i8", "<f2"])
def test_array_with_a_sidecar_is_read(tmp_path: Path, order: str, kind: str) -> None:
    array = np.asarray(VOXELS.astype(kind), order=order)
    path = write_npy(tmp_path / "a.npy", array, SIDECAR | {"modality": "CT", "note": "CANARY"})
    scan = open_scan(path, limits=LIMITS)
    found = scan.read(WHOLE)
    assert scan.modality == "CT"
    for index in ((0, 0, 0), (6, 2, 1), (3, 5, 4)):
        world = AFFINE @ [*index, 1]
        stored = np.round(np.linalg.solve(scan.affine, world)[:3]).astype(int)
        assert found[tuple(stored)] == VOXELS.astype(kind)[index]
    box = (slice(1, 3), slice(0, 2), slice(2, 4))
    np.testing.assert_array_equal(open_scan(path, limits=LIMITS).read(box), found[box])


def test_array_may_give_its_geometry_in_parts(tmp_path: Path) -> None:
    parts = {
        "spacing_mm": [1.5, 1.25, 2.0],
        "origin_mm": [-4, 3, 7],
        "direction": np.eye(3).tolist(),
        "coordinate_system": "LPS",
    }
    one = open_scan(write_npy(tmp_path / "a.npy", VOXELS, parts), limits=LIMITS)
    other = open_scan(write_npy(tmp_path / "b.npy"), limits=LIMITS)
    np.testing.assert_allclose(one.affine, other.affine)
    ras = parts | {"coordinate_system": "RAS", "origin_mm": [4, -3, 7], "direction": np.diag([-1, -1, 1]).tolist()}
    flat = parts | {"direction": np.eye(3).ravel().tolist()}
    for sidecar in (ras, flat, {"affine": AFFINE.ravel().tolist()}):
        scan = open_scan(write_npy(tmp_path / "c.npy", VOXELS, sidecar), limits=LIMITS)
        np.testing.assert_allclose(scan.affine, one.affine)


@pytest.mark.parametrize("order", ["C", "F"])
def test_flat_and_logical_arrays_are_read(tmp_path: Path, order: str) -> None:
    array = np.asarray(VOXELS[:, :, 2] > 0, order=order)
    scan = open_scan(write_npy(tmp_path / "a.npy", array), limits=LIMITS)
    found = scan.read(WHOLE)
    assert sorted(scan.shape) == [1, 6, 7]
    assert scan.shape[2] == 1
    stored = np.round(np.linalg.solve(scan.affine, AFFINE @ [4, 3, 0, 1])[:3]).astype(int)
    assert found[tuple(stored)] == array[4, 3]


# Damage


FORMATS: dict[str, Callable[[Path, bytes], Path]] = {
    "a.mha": lambda path, data: write_mha(path, data=data),
    "a.mhd": lambda path, data: write_mhd(path, data=data),
    "a.nrrd": lambda path, data: write_nrrd(path, data=data),
    "a.nhdr": lambda path, data: write_nhdr(path, data=data),
}
PACKED: dict[str, Callable[[Path, bytes], Path]] = {
    "a.mha": lambda path, data: write_mha(path, {"CompressedData": "True"}, data),
    "a.mhd": lambda path, data: write_mhd(path, {"CompressedData": "True"}, data, "scan.zraw"),
    "a.nrrd": lambda path, data: write_nrrd(path, {"encoding": "gzip"}, data),
    "a.nhdr": lambda path, data: write_nhdr(path, {"encoding": "gzip"}, data, "scan.raw.gz"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_voxels_cut_short_are_refused_and_more_are_flagged(tmp_path: Path, name: str) -> None:
    for keep in (0, 1, SLICE, len(DATA) - 1):
        with pytest.raises(CaseError, match=r"E_TRUNCATED.*header asks for 420|E_EMPTY_FILE"):
            opened(FORMATS[name](tmp_path / name, DATA[:keep]))
    assert read(FORMATS[name](tmp_path / name, DATA + b"12345")) == ["W_TRAILING_BYTES"]


@pytest.mark.parametrize("name", PACKED)
def test_every_flip_and_cut_of_compressed_voxels_is_seen(tmp_path: Path, name: str) -> None:
    data = gzip.compress(DATA, mtime=0) if "n" in name else zlib.compress(DATA)
    first = 10 if "n" in name else 2  # time and name of gzip are not its content
    assert read(PACKED[name](tmp_path / name, data)) == []
    rng = np.random.default_rng(0)
    for place in rng.integers(first, len(data), 60):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        with pytest.raises(CaseError, match=r"E_CHECKSUM|E_TRUNCATED"):
            opened(PACKED[name](tmp_path / name, bytes(flipped)))
    for keep in (20, len(data) // 2, len(data) - 1):
        with pytest.raises(CaseError, match=r"E_TRUNCATED"):
            opened(PACKED[name](tmp_path / name, data[:keep]))
    assert read(PACKED[name](tmp_path / name, data + b"12345")) == ["W_TRAILING_BYTES"]


def test_compressed_bombs_are_stopped(tmp_path: Path) -> None:
    data = zlib.compress(bytes(50_000_000), 9)
    path = write_mha(tmp_path / "a.mha", {"CompressedData": "True"}, data)
    refused(path, Code.E_TOO_LARGE, "decompresses", Limits(max_bytes=10_000_000))
    refused(path, Code.E_TOO_LARGE, "max_ratio")


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
def test_mgh_cut_short_is_refused_and_its_tail_is_ignored(tmp_path: Path, name: str) -> None:
    whole = mgh_bytes()
    for keep in (100, 284, len(whole) - 1):
        refused(write_mgh(tmp_path / name, whole[:keep]), Code.E_TRUNCATED, "bytes")
    assert read(write_mgh(tmp_path / name, mgh_bytes(tail=b"\0" * 20 + b"CANARY"))) == []


def test_damaged_mgz_is_seen(tmp_path: Path) -> None:
    path = write_mgh(tmp_path / "a.mgz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(CaseError, match=r"E_CHECKSUM|E_TRUNCATED"):
        opened(path)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_slices_of_another_length_are_refused(tmp_path: Path, name: str) -> None:
    names = [f"{number}.raw" for number in range(5)]
    listed = "\n".join(["LIST", *names])
    header = meta_header({"ElementDataFile": listed}) if name == "a.mhd" else nrrd_header({"data file": listed})
    (tmp_path / name).write_bytes(header)
    slices(tmp_path, names)
    (tmp_path / "3.raw").write_bytes(DATA[:SLICE] + b"xx")
    refused(tmp_path / name, Code.E_SHAPE, "86 bytes of voxels, but the header asks for 84")
    (tmp_path / "3.raw").write_bytes(DATA[: SLICE - 2])
    refused(tmp_path / name, Code.E_TRUNCATED, "82 bytes of voxels")
    (tmp_path / "3.raw").unlink()
    refused(tmp_path / name, Code.E_SIDE_FILE, "3.raw is not beside it")


# Side files


@pytest.mark.parametrize("write", [write_mhd, write_nhdr], ids=["a.mhd", "a.nhdr"])
def test_data_file_that_is_not_there_or_leads_out_is_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    field = "ElementDataFile" if write is write_mhd else "data file"
    path = folder / ("a.mhd" if write is write_mhd else "a.nhdr")
    (tmp_path / "out.raw").write_bytes(DATA)
    write(path)
    (folder / "scan.raw").unlink()
    refused(path, Code.E_SIDE_FILE, "scan.raw is not beside it; copy it there")
    for name in ("../out.raw", str(tmp_path / "out.raw"), "sub/../../out.raw"):
        write(path, {field: name})
        refused(path, Code.E_OUTSIDE_ROOT, "outside the header's folder")
    (folder / "link.raw").symlink_to(tmp_path / "out.raw")
    write(path, {field: "link.raw"}, name="other.raw")
    refused(path, Code.E_OUTSIDE_ROOT, "a link leads")
    (folder / "sub").mkdir()
    write(path, {field: "sub"}, name="other.raw")
    refused(path, Code.E_SIDE_FILE, "names a folder")


def test_side_files_are_found_by_name_and_by_header(tmp_path: Path) -> None:
    assert side_files(write_mhd(tmp_path / "a.mhd", name="x.raw")) == [tmp_path / "x.raw"]
    assert side_files(write_nhdr(tmp_path / "a.nhdr", name="y.raw")) == [tmp_path / "y.raw"]
    assert side_files(write_npy(tmp_path / "a.npy")) == [tmp_path / "a.json"]
    assert side_files(write_mha(tmp_path / "a.mha")) == []
    (tmp_path / "p.hdr").touch()
    (tmp_path / "p.img.gz").touch()
    assert side_files(tmp_path / "p.hdr") == [tmp_path / "p.img.gz"]
    assert side_files(tmp_path / "p.img.gz") == [tmp_path / "p.hdr"]
    (tmp_path / "b.mhd").write_bytes(b"junk")
    assert side_files(tmp_path / "b.mhd") == []


# Headers


@pytest.mark.parametrize(
    ("changes", "code", "match"),
    [
        ({"ElementSpacing": None}, Code.E_GEOMETRY_MISSING, "no ElementSpacing"),
        ({"ElementSpacing": "1.5 1.25"}, Code.E_FORMAT, "ElementSpacing holds other than 3 numbers"),
        ({"ElementSpacing": "1.5 1.25 nan"}, Code.E_FORMAT, "ElementSpacing"),
        ({"ElementSpacing": "1.5 1.25 -2"}, Code.E_SPACING, "not above 0"),
        ({"ElementSpacing": "0.0015 0.00125 0.002"}, Code.E_SPACING, "check the units"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, Code.E_FORMAT, "TransformMatrix"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, Code.E_AFFINE, "one plane"),
        ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, Code.E_AFFINE, "no unit vectors"),
        ({"TransformMatrix": "0 0 0 0 1 0 0 0 1"}, Code.E_AFFINE, "no unit vectors"),
        ({"Offset": "1 2 x"}, Code.E_FORMAT, "Offset"),
        ({"Offset": "1e9 0 0"}, Code.E_AFFINE, "origin lies"),
        ({"AnatomicalOrientation": "IAR"}, Code.E_AFFINE_DISAGREE, "name different axes"),
        ({"AnatomicalOrientation": "LAI"}, Code.E_AFFINE_DISAGREE, "name different axes"),
        ({"AnatomicalOrientation": "LPS", "TransformMatrix": None}, Code.E_AFFINE_DISAGREE, "name different axes"),
        ({"AnatomicalOrientation": "RLI"}, Code.E_ORIENTATION, "an axis twice"),
        ({"ElementType": "MET_SHORT_ARRAY"}, Code.E_DTYPE, "ElementType"),
        ({"ElementType": None}, Code.E_FORMAT, "no ElementType"),
        ({"ElementNumberOfChannels": "3"}, Code.E_SHAPE, "several channels"),
        ({"DimSize": "7 6"}, Code.E_SHAPE, "NDims is not the count"),
        ({"DimSize": "7 6", "NDims": "2"}, Code.E_GEOMETRY_MISSING, "2 dimensions"),
        ({"DimSize": "7 6 5 2", "NDims": "4"}, Code.E_SHAPE, "expected one volume"),
        ({"DimSize": "7 6 0"}, Code.E_SHAPE, "at least 1"),
        ({"DimSize": "7 6 5.5"}, Code.E_FORMAT, "whole numbers"),
        ({"DimSize": "70000 60000 5"}, Code.E_TOO_LARGE, "max_voxels"),
        ({"DimSize": None}, Code.E_FORMAT, "no DimSize"),
        ({"ObjectType": "Tube"}, Code.E_FORMAT, "no image"),
        ({"BinaryData": "False"}, Code.E_FORMAT, "as text.*SimpleITK"),
        ({"BinaryDataByteOrderMSB": "CANARY"}, Code.E_FORMAT, "neither True nor False"),
        ({"HeaderSize": "10"}, Code.E_FORMAT, "HeaderSize 10"),
        ({"ElementToIntensityFunctionSlope": "2"}, Code.E_SCALING, "ElementToIntensityFunction"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, Code.E_SCALING, "ElementToIntensityFunction"),
        ({"ElementDataFile": None}, Code.E_TRUNCATED, "ends before its ElementDataFile"),
        ({"ElementDataFile": "LIST 3\nx"}, Code.E_SIDE_FILE, "no slices"),
        ({"ElementDataFile": "s%d.raw 5 1 1"}, Code.E_SIDE_FILE, "names none"),
        ({"ElementDataFile": "s%0999999999d.raw 1 5 1"}, Code.E_SIDE_FILE, "is not beside it"),
        ({"ElementDataFile": "s%d.raw 1 4 1"}, Code.E_SIDE_FILE, "4 data files for 5 slices"),
    ],
    ids=str,
)
def test_metaimage_header_fault_has_its_code(
    tmp_path: Path, changes: dict[str, str | None], code: Code, match: str
) -> None:
    local = "ElementDataFile" not in changes
    refused(write_mha(tmp_path / "a.mha", changes, DATA if local else b""), code, match)


def test_metaimage_lines_are_fields_and_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(b"ObjectType = Image\nCANARY\n" + meta_header() + DATA)
    refused(path, Code.E_FORMAT, "a line without '='")
    path.write_bytes(b"Offset = 0 0 0\n" + meta_header() + DATA)
    with pytest.raises(CaseError, match="E_FORMAT"):
        opened(path)
    path.write_bytes(b"NDims = 3\n" + meta_header() + DATA)
    refused(path, Code.E_FORMAT, "gives NDims twice")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"Offset": None}, "no origin"),
        ({"TransformMatrix": None}, "no directions"),
        ({"TransformMatrix": None, "Offset": None, "AnatomicalOrientation": None}, "no directions and no origin"),
    ],
)
def test_absent_geometry_takes_the_formats_default_and_is_flagged(
    tmp_path: Path, changes: dict[str, str | None], missing: str
) -> None:
    _, scan = opened(write_mha(tmp_path / "a.mha", changes))
    assert codes(scan) == ["W_GEOMETRY_MISSING"]
    assert missing in scan.warnings[0].detail
    expected = AFFINE.copy()
    if "Offset" in changes:
        expected[:3, 3] = 0
    np.testing.assert_allclose(scan.affine, expected)


def test_letters_that_say_where_axes_go_are_flagged(tmp_path: Path) -> None:
    """Some writers mean LPS where ITK writes RAI; the matrix is followed, and both are possible."""
    assert read(write_mha(tmp_path / "a.mha", {"AnatomicalOrientation": "LPS"})) == ["W_AFFINE_DISAGREE"]


def test_modality_of_a_metaimage_is_known(tmp_path: Path) -> None:
    for word, modality in (("MET_MOD_CT", "CT"), ("MET_MOD_MR", "MR"), ("MET_MOD_OTHER", None), ("CANARY", None)):
        assert open_scan(write_mha(tmp_path / "a.mha", {"Modality": word}), limits=LIMITS).modality == modality


@pytest.mark.parametrize(
    ("changes", "code", "match"),
    [
        ({"space": None}, Code.E_GEOMETRY_MISSING, "no space, so left and right are unknown"),
        ({"space": "scanner-xyz"}, Code.E_GEOMETRY_MISSING, "scanner-xyz"),
        ({"space": "3D-right-handed"}, Code.E_GEOMETRY_MISSING, "3d-right-handed"),
        ({"space": "left-posterior-superior-time"}, Code.E_GEOMETRY_MISSING, "time"),
        ({"space directions": None}, Code.E_GEOMETRY_MISSING, "no space directions"),
        ({"space directions": None, "spacings": "1 1 1"}, Code.E_GEOMETRY_MISSING, "no space directions"),
        ({"space directions": "(1.5,0,0) (0,1.25,0)"}, Code.E_FORMAT, "2 space directions for 3 axes"),
        ({"space directions": "(1.5,0,0) (0,1.25,0) (0,2)"}, Code.E_FORMAT, "3 numbers"),
        ({"space directions": "(1.5,0,0) (0,1.25,0) (0,0,nan)"}, Code.E_FORMAT, "space directions"),
        ({"space directions": "(1.5,0,0) (1.5,0,0) (0,0,2)"}, Code.E_AFFINE, "one plane"),
        ({"space directions": "(1.5,0,0) (0,1.25,0) (0,0,0)"}, Code.E_AFFINE, "all zeros"),
        ({"space origin": "(1,2)"}, Code.E_FORMAT, "space origin"),
        ({"type": "block"}, Code.E_DTYPE, "a type that is no"),
        ({"type": None}, Code.E_FORMAT, "no field 'type'"),
        ({"endian": None}, Code.E_FORMAT, "no byte order"),
        ({"endian": "middle"}, Code.E_FORMAT, "no byte order"),
        ({"encoding": "bzip2"}, Code.E_CODEC, "'bzip2' is not read.*SimpleITK"),
        ({"encoding": "txt"}, Code.E_CODEC, "'txt' is not read"),
        ({"encoding": "hex"}, Code.E_CODEC, "'hex' is not read"),
        ({"encoding": None}, Code.E_FORMAT, "no field 'encoding'"),
        ({"encoding": "gzip"}, Code.E_FORMAT, "no gzip stream where the header says one"),
        ({"dimension": "2"}, Code.E_SHAPE, "dimension is not the count"),
        ({"dimension": "4", "sizes": "3 7 6 5", "kinds": "RGB-color domain domain domain",
          "space directions": "none (1.5,0,0) (0,1.25,0) (0,0,2)"}, Code.E_SHAPE, "3 components along axis 1"),
        ({"dimension": "4", "sizes": "7 6 5 2", "kinds": "domain domain domain list",
          "space directions": "(1.5,0,0) (0,1.25,0) (0,0,2) none"}, Code.E_SHAPE, "2 components along axis 4"),
        ({"kinds": "vector domain domain"}, Code.E_SHAPE, "7 components along axis 1"),
        ({"kinds": "domain domain"}, Code.E_FORMAT, "2 kinds for 3 axes"),
        ({"sizes": "7 6 5.5"}, Code.E_FORMAT, "whole numbers"),
        ({"sizes": "70000 60000 5"}, Code.E_TOO_LARGE, "max_voxels"),
        ({"line skip": "1"}, Code.E_FORMAT, "to be skipped"),
        ({"byte skip": "-2"}, Code.E_FORMAT, "byte skip -2"),
    ],
    ids=str,
)  # fmt: skip
def test_nrrd_header_fault_has_its_code(tmp_path: Path, changes: dict[str, str | None], code: Code, match: str) -> None:
    refused(write_nrrd(tmp_path / "a.nrrd", changes), code, match)


def test_nrrd_lines_are_fields_and_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(nrrd_header() + b"CANARY\n\n" + DATA)
    refused(path, Code.E_FORMAT, "a line that is no field")
    path.write_bytes(nrrd_header() + b"type: short\n\n" + DATA)
    refused(path, Code.E_FORMAT, "gives type twice")
    path.write_bytes(nrrd_header())
    refused(path, Code.E_TRUNCATED, "ends inside its header")
    path.write_bytes(b"NRRD0009\nxx")
    with pytest.raises(CaseError, match="E_FORMAT"):
        opened(path)


def test_nrrd_without_an_origin_or_in_other_units_is_flagged(tmp_path: Path) -> None:
    _, scan = opened(write_nrrd(tmp_path / "a.nrrd", {"space origin": None}))
    assert codes(scan) == ["W_GEOMETRY_MISSING"]
    assert read(write_nrrd(tmp_path / "b.nrrd", {"space units": '"um" "um" "um"'})) == ["W_UNITS"]


@pytest.mark.parametrize(
    ("content", "code", "match"),
    [
        (mgh_bytes(good=0), Code.E_GEOMETRY_MISSING, "goodRASFlag"),
        (mgh_bytes(kind=2), Code.E_DTYPE, "type 2"),
        (mgh_bytes(lengths=(7, 6, 5, 2)), Code.E_SHAPE, "2 frames"),
        (mgh_bytes(lengths=(7000, 6000, 5000, 1)), Code.E_TOO_LARGE, "max_voxels"),
        (mgh_bytes()[:30] + struct.pack(">f", np.nan) + mgh_bytes()[34:], Code.E_AFFINE, "NaN"),
        (mgh_bytes()[:42] + bytes(36) + mgh_bytes()[78:], Code.E_AFFINE, "all zeros"),
    ],
)
def test_mgh_header_fault_has_its_code(tmp_path: Path, content: bytes, code: Code, match: str) -> None:
    refused(write_mgh(tmp_path / "a.mgh", content), code, match)
    refused(write_mgh(tmp_path / "a.mgz", content), code, match)


@pytest.mark.parametrize(
    ("array", "sidecar", "code", "match"),
    [
        (VOXELS, None, Code.E_GEOMETRY_MISSING, r"write a.json beside it, as \{"),
        (VOXELS[:, :, 0], None, Code.E_GEOMETRY_MISSING, "write a.json beside it"),
        (VOXELS, {}, Code.E_GEOMETRY_MISSING, "no spacing_mm, no origin_mm"),
        (VOXELS, {"spacing_mm": [1, 1, 1]}, Code.E_GEOMETRY_MISSING, "no origin_mm, no direction"),
        (VOXELS, "junk", Code.E_SIDE_FILE, "no JSON object"),
        (VOXELS, [1], Code.E_SIDE_FILE, "no JSON object"),
        (VOXELS, {"affine": [[1]]}, Code.E_SIDE_FILE, "affine in its sidecar holds other than 4 x 4"),
        (VOXELS, {"affine": np.diag([1, 1, 1, 2]).tolist()}, Code.E_AFFINE, "last row"),
        (VOXELS, {"affine": np.diag([1, 1, 0, 1]).tolist()}, Code.E_AFFINE, "all zeros"),
        (VOXELS, SIDECAR | {"spacing_mm": [1, 1, 1]}, Code.E_SIDE_FILE, "keep one"),
        (VOXELS, SIDECAR | {"modality": "CANARY"}, Code.E_SIDE_FILE, "unknown modality"),
        (VOXELS, {"spacing_mm": [1, 1, "x"], "origin_mm": [0, 0, 0], "direction": np.eye(3).tolist(),
                  "coordinate_system": "RAS"}, Code.E_SIDE_FILE, "spacing_mm in its sidecar"),
        (VOXELS, {"spacing_mm": [1, 1, 0], "origin_mm": [0, 0, 0], "direction": np.eye(3).tolist(),
                  "coordinate_system": "RAS"}, Code.E_SPACING, "not above 0"),
        (VOXELS, {"spacing_mm": [1, 1, 1], "origin_mm": [0, 0, 0], "direction": (2 * np.eye(3)).tolist(),
                  "coordinate_system": "RAS"}, Code.E_AFFINE, "no unit vectors"),
        (VOXELS, {"spacing_mm": [1, 1, 1], "origin_mm": [0, 0, 0], "direction": np.eye(3).tolist(),
                  "coordinate_system": "CANARY"}, Code.E_SIDE_FILE, "neither RAS nor LPS"),
        (VOXELS[..., None], SIDECAR, Code.E_SHAPE, "7 x 6 x 5 x 1"),
        (VOXELS[0, 0], SIDECAR, Code.E_SHAPE, "an array of 5"),
        (VOXELS.astype(complex), SIDECAR, Code.E_DTYPE, "complex128"),
        (np.full((7, 6, 5), "x"), SIDECAR, Code.E_DTYPE, "expected whole or real numbers"),
        (np.full((7, 6, 5), np.nan), SIDECAR, Code.E_NONFINITE, "NaN"),
    ],
)  # fmt: skip
def test_array_fault_has_its_code(tmp_path: Path, array: np.ndarray, sidecar: object, code: Code, match: str) -> None:
    refused(write_npy(tmp_path / "a.npy", array, sidecar), code, match)


def test_pickled_array_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)
    path.with_suffix(".json").write_text(json.dumps(SIDECAR))
    refused(path, Code.E_DTYPE, "Python objects")


def test_cut_or_damaged_array_is_refused(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refused(path, Code.E_TRUNCATED, "bytes of voxels")
    path.write_bytes(content[:20])
    refused(path, Code.E_FORMAT, "header is damaged")
    path.write_bytes(content.replace(b"(7, 6, 5)", b"(7, 6, x)"))
    refused(path, Code.E_FORMAT, "header is damaged")


def test_sidecar_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out.json").write_text(json.dumps(SIDECAR))
    path = write_npy(folder / "a.npy", VOXELS, None)
    (folder / "a.json").symlink_to(tmp_path / "out.json")
    refused(path, Code.E_OUTSIDE_ROOT, "a link leads")


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    values = VOXELS.astype(kind)
    values[3, 2, 1] = np.inf
    word = "MET_FLOAT" if kind == "float32" else "MET_DOUBLE"
    path = write_mha(tmp_path / "a.mha", {"ElementType": word}, values.tobytes(order="F"))
    refused(path, Code.E_NONFINITE, "NaN or infinity")


# Kinds of file


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("a.mha", "a.nii"), ("a.nrrd", "a.mha"), ("a.mgz", "a.nii.gz"), ("a.npy", "a.raw"), ("a.mgh", "a.dat")],
)
def test_content_is_followed_and_another_suffix_flagged(tmp_path: Path, name: str, wrong: str) -> None:
    writers: dict[str, Callable[[Path], Path]] = {
        "a.mha": write_mha, "a.nrrd": write_nrrd, "a.mgz": write_mgh, "a.npy": write_npy, "a.mgh": write_mgh,
    }  # fmt: skip
    path = writers[name](tmp_path / name).rename(tmp_path / wrong)
    found, scan = opened(path)
    assert found.size == VOXELS.size
    assert codes(scan) == ["W_SUFFIX"]


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"BZh91AY", "bunzip2 scan.nii.bz2"),
        (b"PK\x03\x04", "unzip scan.zip"),
        (b"\xfd7zXZ\0", "xz -d scan.nii.xz"),
        (b"\x28\xb5\x2f\xfd", "zstd -d scan.nii.zst"),
        (b"\x89HDF\r\n", "mnc2nii scan.mnc scan.nii"),
        (b"CDF\x01", "mnc2nii scan.mnc scan.nii"),
        (b"GIF89a", "magick scan.gif scan.png"),
        (b"# vtk DataFile Version 3.0", "sitk.WriteImage"),
        (b"\x80\x04\x95", "numpy.save"),
    ],
)
def test_what_is_not_read_names_the_command_that_converts_it(tmp_path: Path, content: bytes, command: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content + bytes(600))
    refused(path, Code.E_FORMAT, re.escape(command))


def test_only_image_of_a_volume_may_be_named(tmp_path: Path) -> None:
    path = write_mha(tmp_path / "a.mha")
    assert open_scan(path, limits=LIMITS, part="1").shape == (7, 6, 5)
    with pytest.raises(CaseError, match=r"E_NOT_FOUND.*one image, #1"):
        open_scan(path, limits=LIMITS, part="2")
