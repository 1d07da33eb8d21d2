"""Which DICOM objects are slices: by class, by series, by frame; and data sets that lost their file header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_writing import ALL, SERIES, SHAPE, blank, ct_slice, phantom, save, write_multiframe, write_series
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.dicom.bare import beginning
from pipeline.imaging.dicom.classes import FOR_PROCESSING, no_image
from pipeline.imaging.dicom.scan import open_series
from pipeline.imaging.discovery.find import find_scans
from pipeline.imaging.discovery.skipped import SkippedCount
from pipeline.imaging.image import part_digest
from pipeline.imaging.read import open_scan

LIMITS = Limits()
SEG, REPORT, PLAN, DIRECTORY = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.88.11",
    "1.2.840.10008.5.1.4.1.1.481.5",
    "1.2.840.10008.1.3.10",
)
CODE = sha256_bytes(SERIES.encode())[:8]
OTHER = f"{SERIES}.2"
OTHER_CODE = sha256_bytes(OTHER.encode())[:8]


def refused(source: Path, code: Code, match: str, *, part: str | None = None) -> str:
    with pytest.raises(CaseError, match=match) as caught:
        open_series(source, limits=LIMITS, part=part).read(ALL)
    assert caught.value.code == code, caught.value
    assert not any(text in str(caught.value) for text in (SERIES, "CANARY"))
    return str(caught.value)


# Classes


def test_every_storage_class_of_the_standard_is_an_image_or_known_not_to_be() -> None:
    """Names of the standard's images say so; the three of volumes, maps and old trials do not."""
    others = {"Enhanced US Volume Storage", "Parametric Map Storage", "DICOS 2D AIT Storage", "DICOS 3D AIT Storage"}
    others |= {"DICOS Quadrupole Resonance (QR) Storage"}
    for uid, (name, kind, *_) in UID_dictionary.items():
        if kind != "SOP Class" or not uid.startswith(("1.2.840.10008.5.1.4.1.1.", "1.2.840.10008.1.3.10")):
            continue
        if "Storage" not in name or name.startswith("Hardcopy"):
            continue
        image = "Image Storage" in name or name in others or "Map Storage" in name
        image = image or "Volume Analysis" in name  # an OCT volume
        assert (no_image(uid) is None) == image, (uid, name)


def test_classes_for_processing_are_those_that_say_so() -> None:
    said = {uid for uid, (name, *_) in UID_dictionary.items() if name.endswith("For Processing")}
    assert said == FOR_PROCESSING


def test_unknown_class_may_be_an_image() -> None:
    assert no_image("1.2.3.4") is None
    assert no_image("") is None
    assert no_image("1.2.840.10008.5.1.4.1.1.481.1") is None  # an RT image; 481.10 is a prescription
    assert no_image("1.2.840.10008.5.1.4.1.1.481.10") == "DICOM radiotherapy object"


def write_object(path: Path, sop_class: str, *, series: str = OTHER, pixels: bool = False) -> Path:
    image = ct_slice(0) if pixels else blank(90, sop_class=sop_class)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    image.SOPInstanceUID, image.SeriesInstanceUID = "1.2.3.90", series
    if not pixels:
        del image.Rows, image.Columns
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def write_directory(path: Path) -> Path:
    """A media directory; its data set has neither a SOP class nor a series."""
    index = blank(sop_class=DIRECTORY)
    for name in list(index.dir()):
        delattr(index, name)
    index.FileSetID = "CANARY"
    index.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("series", [SERIES, OTHER], ids=["same series", "another"])
@pytest.mark.parametrize(
    ("sop_class", "word"),
    [
        (SEG, "DICOM segmentation"),
        (REPORT, "DICOM report"),
        (PLAN, "DICOM radiotherapy object"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "DICOM radiotherapy object"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "DICOM presentation state"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "DICOM encapsulated document"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "DICOM waveform"),
        ("1.2.840.10008.5.1.4.1.1.66", "DICOM raw data"),
        ("1.2.840.10008.5.1.4.1.1.66.1", "DICOM registration"),
        ("1.3.12.2.1107.5.9.1", "DICOM raw data"),
    ],
)
@pytest.mark.parametrize("pixels", [False, True])
def test_objects_that_are_no_images_are_counted_and_leave_the_series_alone(
    tmp_path: Path, sop_class: str, word: str, series: str, pixels: bool
) -> None:
    folder = write_series(tmp_path / "s")
    write_object(folder / "object", sop_class, series=series, pixels=pixels)
    skipped = SkippedCount()
    (row,) = find_scans(tmp_path, skipped=skipped)
    assert (row.name, row.error, len(row.files or ())) == (f"s#{CODE}", None, 16)
    assert skipped.by_suffix == {word: 1}
    scan = open_series(folder, limits=LIMITS, modality="CT")
    np.testing.assert_array_equal(scan.read(ALL), phantom())


@pytest.mark.parametrize("name", ["DIRFILE", "DICOMDIR", "IM999", "x.dcm"])
def test_media_directory_is_known_by_its_class(tmp_path: Path, name: str) -> None:
    """A scanner's export calls it DIRFILE; all its series were refused for it."""
    folder = write_series(tmp_path / "s")
    write_directory(folder / name)
    skipped = SkippedCount()
    (row,) = find_scans(tmp_path, skipped=skipped)
    assert row.error is None
    assert skipped.by_suffix == {"DICOMDIR": 1}
    np.testing.assert_array_equal(open_series(folder, limits=LIMITS).read(ALL), phantom())


def test_damaged_report_beside_the_slices_is_nobodys_slice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    path = write_object(folder / "report", REPORT)
    path.write_bytes(path.read_bytes()[:-3])
    np.testing.assert_array_equal(open_series(folder, limits=LIMITS).read(ALL), phantom())


def test_unknown_class_without_pixels_stays_a_row(tmp_path: Path) -> None:
    write_object(tmp_path / "s" / "object", "1.2.3.4")
    (row,) = find_scans(tmp_path)
    with pytest.raises(CaseError, match=r"E_NO_PIXELS.*none with an image"):
        open_series(row.files or (), limits=LIMITS)


def test_slice_that_lost_its_pixels_is_still_noticed(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    write_object(folder / "lost", "1.2.840.10008.5.1.4.1.1.2", series=SERIES)
    refused(folder, Code.E_NO_PIXELS, "no pixel data in 1 of 17")


def test_segmentation_is_read_where_it_is_named(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = SEG
        image.Modality = "SEG"

    path = save(ct_slice(3), tmp_path / "ct.dcm")
    folder = write_series(tmp_path / "s", edit)
    assert open_series(folder, limits=LIMITS).modality == "mask"
    path.rename(folder / "ct.dcm")
    image = ct_slice(3)
    image.SeriesInstanceUID = OTHER
    save(image, folder / "ct.dcm")
    assert open_series(folder, limits=LIMITS).shape[2] == 1  # the one image series
    assert open_series(folder, limits=LIMITS, part=CODE).modality == "mask"


# One of several series


def two_series(folder: Path) -> Path:
    def edit(image: Dataset, number: int) -> None:
        image.SeriesInstanceUID, image.RescaleIntercept = OTHER, -1000

    write_series(folder)
    for path in write_series(folder.parent / "other", edit).iterdir():
        path.rename(folder / f"{path.name}b")
    (folder.parent / "other").rmdir()
    return folder


@pytest.mark.parametrize("part", [CODE, CODE.upper(), SERIES, sha256_bytes(SERIES.encode())[:12]])
def test_series_is_chosen_by_code_or_uid(tmp_path: Path, part: str) -> None:
    folder = two_series(tmp_path / "s")
    scan = open_scan(folder, limits=LIMITS, part=part)
    np.testing.assert_array_equal(scan.read(ALL), phantom())
    other = open_scan(folder, limits=LIMITS, part=OTHER_CODE)
    np.testing.assert_array_equal(other.read(ALL), phantom() + 24.0)
    assert scan.digest != other.digest


def test_several_series_name_the_way_out(tmp_path: Path) -> None:
    folder = two_series(tmp_path / "s")
    first = min(CODE, OTHER_CODE)
    said = refused(folder, Code.E_MIXED_SERIES, f"32 files of 2 series; name one, as image: s#{first}")
    assert CODE in said
    assert OTHER_CODE in said


@pytest.mark.parametrize("part", ["00000000", "1", "CANARY", "1.2.3"])
def test_series_that_is_not_there_says_what_is(tmp_path: Path, part: str) -> None:
    said = refused(two_series(tmp_path / "s"), Code.E_NOT_FOUND, "no such series among the 2", part=part)
    assert CODE in said


def test_fault_in_another_series_does_not_matter_to_the_chosen_one(tmp_path: Path) -> None:
    folder = two_series(tmp_path / "s")
    path = folder / "IM003b"
    path.write_bytes(path.read_bytes()[:-20])
    np.testing.assert_array_equal(open_series(folder, limits=LIMITS, part=CODE).read(ALL), phantom())
    refused(folder, Code.E_TRUNCATED, "IM003b", part=OTHER_CODE)
    (folder / "IM900").write_bytes(b"")  # nobody knows whose it was
    refused(folder, Code.E_SLICE_UNREADABLE, "IM900", part=CODE)


# One of several frames


def cine(path: Path, **values: object) -> Path:
    image = ct_slice(0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(image, name)
    image.Modality, image.NumberOfFrames = "US", SHAPE[2]
    image.PixelData = (phantom().transpose(2, 1, 0).astype(int) + 1024).astype("<u2").tobytes()
    for name, value in values.items():
        setattr(image, name, value)
    return save(image, path)


@pytest.mark.parametrize("number", [1, 7, 16])
def test_frame_of_a_cine_is_chosen_by_number(tmp_path: Path, number: int) -> None:
    path = cine(tmp_path / "c.dcm")
    scan = open_scan(path, limits=LIMITS, part=str(number))
    assert (scan.shape, scan.has_millimetres) == ((*SHAPE[:2], 1), False)
    np.testing.assert_array_equal(scan.read(ALL)[:, :, 0], phantom()[:, :, number - 1] + 1024.0)
    assert scan.digest == part_digest(sha256_bytes(sha256_bytes(path.read_bytes()).encode()), number)


def test_cine_without_a_number_names_its_frames(tmp_path: Path) -> None:
    refused(
        cine(tmp_path / "c.dcm"), Code.E_GEOMETRY_MISSING, "16 frames without positions.*#1 to #16, as image: c.dcm#1"
    )
    refused(cine(tmp_path / "m.dcm", Modality="MR"), Code.E_GEOMETRY_MISSING, "no position")


@pytest.mark.parametrize("part", ["0", "17", "x", "1.5", "-1", "999999999999"])
def test_frame_that_is_not_there_says_what_is(tmp_path: Path, part: str) -> None:
    refused(cine(tmp_path / "c.dcm"), Code.E_NOT_FOUND, "frames #1 to #16", part=part)


def test_only_frame_of_a_file_may_be_named(tmp_path: Path) -> None:
    path = save(ct_slice(3), tmp_path / "x.dcm")
    whole = open_series(path, limits=LIMITS)
    for part in ("1", CODE):
        scan = open_series(path, limits=LIMITS, part=part)
        np.testing.assert_array_equal(scan.affine, whole.affine)
        assert scan.digest == whole.digest
    refused(path, Code.E_NOT_FOUND, "one frame, #1", part="2")


def test_frame_of_a_volume_is_that_slice(tmp_path: Path) -> None:
    path = write_multiframe(tmp_path / "m.dcm")
    scan = open_series(path, limits=LIMITS, part="3")  # frames stand in the reverse order of positions
    np.testing.assert_array_equal(scan.read(ALL)[:, :, 0], phantom()[:, :, 13])
    whole = open_series(path, limits=LIMITS)
    np.testing.assert_allclose(scan.affine @ [2, 3, 0, 1], whole.affine @ [2, 3, 13, 1], atol=1e-9)


def test_pictures_without_positions_in_one_series_are_no_volume(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.Modality = "DX"
        del image.ImagePositionPatient, image.ImageOrientationPatient

    folder = write_series(tmp_path / "s", edit)
    refused(folder, Code.E_GEOMETRY_MISSING, "16 pictures without positions in one series.*name one file")


# Data sets without a file header


def bare(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("preamble", [False, True])
def test_data_set_without_a_file_header_is_read(tmp_path: Path, syntax: str, preamble: bool) -> None:
    folder = tmp_path / "s"
    for number in range(SHAPE[2]):
        image = ct_slice(number, syntax=syntax)
        if syntax == ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
            image["PixelData"].VR = "OW"
            plain = Dataset()
            plain.update(image)
            plain.file_meta = image.file_meta
            folder.mkdir(exist_ok=True)
            plain.save_as(folder / f"{number}", little_endian=False, implicit_vr=False, enforce_file_format=True)
        else:
            save(image, folder / f"{number}")
        path = bare(folder / f"{number}")
        if preamble:
            path.write_bytes(bytes(128) + b"DICM" + path.read_bytes())
    scan = open_series(folder, limits=LIMITS)
    np.testing.assert_array_equal(scan.read(ALL), phantom())
    assert scan.warnings == ()
    (row,) = find_scans(tmp_path)
    assert (row.name, row.error) == (f"s#{CODE}", None)
    assert open_scan(folder / "3", limits=LIMITS).shape == (*SHAPE[:2], 1)


def test_file_that_lost_its_beginning_is_refused(tmp_path: Path) -> None:
    """A file meta group without the 132 bytes before it is no data set as it travels: something was cut off."""
    path = save(ct_slice(0), tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes()[132:])
    refused(path, Code.E_FORMAT, "no DICM mark")


def test_compressed_pixels_without_a_transfer_syntax_are_refused(tmp_path: Path) -> None:
    image = ct_slice(0)
    image.Rows = image.Columns = 64
    image.PixelData = np.random.default_rng(0).integers(0, 3000, (64, 64)).astype("<u2").tobytes()
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    refused(bare(save(image, tmp_path / "x.dcm")), Code.E_CODEC, "compressed, and no file meta group says how")


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\0",
        b"\x08\0\x16\0UI\x1a\0not a UID of anything....",
        b"\x08\0\x16\0UI\x1b\x001.2.840.10008.5.1.4.1.1.2\0\0",  # of odd length
        b"\x08\0\x18\0UI\x08\x001.2.3.4\0" + b"\x08\0\x16\0UI\x08\x001.2.3.4\0",  # out of order
        b"\x08\0\x05\0ZZ\x04\0abcd" + b"\x08\0\x16\0UI\x08\x001.2.3.4\0",
        b"\x08\0\x05\0\xff\xff\xff\x7f" + bytes(600),
        b"\x10\0\x10\0PN\x08\0CANARY  ",
    ],
)
def test_other_binary_files_are_no_data_sets(content: bytes) -> None:
    assert beginning(content) is None
    assert beginning(content + bytes(540)) is None


def test_element_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two counts is a guess; pydicom takes the last."""
    path = save(ct_slice(0), tmp_path / "x.dcm")
    data = path.read_bytes()
    place = data.index(b"\x28\x00\x10\x00US")
    path.write_bytes(data[:place] + data[place : place + 10] + data[place:])
    refused(path, Code.E_FORMAT, "stands twice")
