"""Opening a series: every way in which files fail to be one volume has its own code."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import (
    ALL,
    ORIGIN,
    SERIES,
    SHAPE,
    SPACING,
    affine,
    blank,
    ct_slice,
    phantom,
    save,
    write_multiframe,
    write_series,
)  # fmt: skip
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pipeline.config.inputs import Intensity, Limits, Preprocessing
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.scan import DicomScan, open_series
from pipeline.imaging.preprocess import ScanRequest, preprocess

LIMITS = Limits()
ZSCORE = Intensity(scaling="zscore", lower=None, upper=None)


def opened(source: Path) -> DicomScan:
    return open_series(source, limits=LIMITS, modality="CT")


def refused(source: Path, code: Code, match: str, *, modality: str | None = "CT") -> CaseError:
    with pytest.raises(CaseError, match=match) as caught:
        open_series(source, limits=LIMITS, modality=modality).read(ALL)
    assert caught.value.code == code, caught.value
    assert "CANARY" not in str(caught.value)
    return caught.value


def codes(scan: DicomScan) -> list[Code]:
    return [warning.code for warning in scan.warnings]


# The volume


def test_series_is_read_in_order_of_position_with_its_geometry(tmp_path: Path) -> None:
    scan = opened(write_series(tmp_path / "s"))
    assert scan.shape == SHAPE
    assert scan.modality == "CT"
    assert scan.warnings == ()
    assert scan.has_millimetres
    np.testing.assert_allclose(scan.affine, affine(), atol=1e-9)
    np.testing.assert_array_equal(scan.read(ALL), phantom())


def test_box_equals_the_same_part_of_the_whole(tmp_path: Path) -> None:
    scan = opened(write_series(tmp_path / "s"))
    box = (slice(3, 11), slice(0, 7), slice(4, 6))
    part = scan.read(box)
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, phantom()[box])


def test_read_decodes_only_the_slices_of_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.imaging.dicom.scan as module

    decoded = []
    real = module.read_frame
    monkeypatch.setattr(module, "read_frame", lambda *args, **kw: decoded.append(args[0].path) or real(*args, **kw))
    opened(write_series(tmp_path / "s")).read((slice(None), slice(None), slice(2, 5)))
    assert len(decoded) == 3


def test_list_of_files_in_any_order_is_the_same_scan(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    files = sorted(folder.iterdir(), reverse=True)
    scan = open_series(files, limits=LIMITS)
    assert scan.path == folder
    assert scan.digest == opened(folder).digest
    np.testing.assert_array_equal(scan.read(ALL), phantom())


def test_slices_are_found_in_subfolders_and_beside_documents(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s" / "a" / "b").parents[1]
    for name in ("README", "notes.txt", ".hidden", "annotation.xml"):
        (folder / name).write_text("no scan")
    assert opened(folder).shape == SHAPE


def test_reports_beside_the_slices_are_ignored(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    report = blank(90, sop_class="1.2.840.10008.5.1.4.1.1.88.11")
    report.SeriesInstanceUID = SERIES + ".9"
    del report.Rows, report.Columns
    report.save_as(folder / "report", enforce_file_format=True)
    assert opened(folder).shape == SHAPE


def test_single_slice_has_one_plane(tmp_path: Path) -> None:
    scan = opened(save(ct_slice(3), tmp_path / "one.dcm"))
    assert scan.shape == (*SHAPE[:2], 1)
    np.testing.assert_array_equal(scan.read(ALL)[:, :, 0], phantom()[:, :, 3])
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 2]), SPACING[2])


def test_lone_slice_without_thickness_is_flagged(tmp_path: Path) -> None:
    image = ct_slice(3)
    del image.SliceThickness
    assert codes(opened(save(image, tmp_path / "one.dcm"))) == [Code.W_SPACING]


@pytest.mark.parametrize("slopes", [False, True])
def test_enhanced_multiframe_is_read_through_its_functional_groups(tmp_path: Path, slopes: bool) -> None:
    scan = opened(write_multiframe(tmp_path / "multi.dcm", slopes=slopes))
    np.testing.assert_allclose(scan.affine, affine(), atol=1e-9)
    assert np.abs(scan.read(ALL) - phantom()).max() <= slopes  # stored halves lose the odd unit
    assert codes(scan) == ([Code.W_RESCALE_VARIES] if slopes else [])


def test_multiframe_folder_and_file_have_one_digest(tmp_path: Path) -> None:
    path = write_multiframe(tmp_path / "m" / "multi.dcm")
    assert opened(path).digest == opened(path.parent).digest


def test_frames_with_fewer_descriptions_are_refused(tmp_path: Path) -> None:
    def edit(image: Dataset) -> None:
        image.PerFrameFunctionalGroupsSequence = image.PerFrameFunctionalGroupsSequence[:5]

    refused(write_multiframe(tmp_path / "m.dcm", edit), Code.E_FORMAT, "16 frames but 5")


def test_multiframe_without_groups_has_no_geometry(tmp_path: Path) -> None:
    def edit(image: Dataset) -> None:
        del image.PerFrameFunctionalGroupsSequence, image.SharedFunctionalGroupsSequence

    refused(write_multiframe(tmp_path / "m.dcm", edit), Code.E_GEOMETRY_MISSING, "no position")


def test_two_stacks_of_frames_at_the_same_places_are_duplicates(tmp_path: Path) -> None:
    def edit(image: Dataset) -> None:
        for frame in image.PerFrameFunctionalGroupsSequence:
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            position[2] = ORIGIN[2] + (position[2] - ORIGIN[2]) // 4 * 4

    refused(write_multiframe(tmp_path / "m.dcm", edit), Code.E_SLICE_DUPLICATE, "8 slices lie where")


def test_any_orientation_gives_the_same_world(tmp_path: Path) -> None:
    """A sagittal, an oblique and a reversed acquisition put each value where the formula of the standard puts it."""
    for number, cosines in enumerate(([0, 1, 0, 0, 0, -1], [0.8, 0.6, 0, -0.6, 0.8, 0], [-1, 0, 0, 0, 1, 0])):
        row, column = np.array(cosines[:3], float), np.array(cosines[3:], float)
        normal = np.cross(row, column)

        def edit(image: Dataset, index: int, cosines: list[float] = cosines, normal: np.ndarray = normal) -> None:
            image.ImageOrientationPatient = cosines
            image.ImagePositionPatient = list(np.round(np.array(ORIGIN) + 2.0 * index * normal, 6))

        scan = opened(write_series(tmp_path / str(number), edit))
        i, j, k = 5, 7, 11
        lps = np.array(ORIGIN) + 1.5 * i * row + 1.25 * j * column + 2.0 * k * normal
        np.testing.assert_allclose(scan.affine @ [i, j, k, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)
        assert scan.read(ALL)[i, j, k] == phantom()[i, j, k]


def test_gantry_tilt_is_flagged_and_sheared(tmp_path: Path) -> None:
    drift = np.tan(np.radians(15)) * SPACING[2]

    def edit(image: Dataset, index: int) -> None:
        image.ImagePositionPatient = [ORIGIN[0], ORIGIN[1] + round(drift * index, 6), ORIGIN[2] + SPACING[2] * index]

    scan = opened(write_series(tmp_path / "s", edit))
    assert codes(scan) == [Code.W_SHEAR]
    np.testing.assert_allclose(scan.affine[:3, 2], [0, -drift, SPACING[2]], atol=1e-5)


def test_position_jitter_is_flagged_and_bounded(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.ImagePositionPatient[2] += 0.04 * (index % 2)

    assert codes(opened(write_series(tmp_path / "s", edit))) == [Code.W_SPACING]


# Digest


def test_digest_ignores_names_and_sees_every_byte(tmp_path: Path) -> None:
    first, second = write_series(tmp_path / "a"), write_series(tmp_path / "b")
    for number, path in enumerate(sorted(second.iterdir(), reverse=True)):
        path.rename(second / f"x{number}.dcm")
    assert opened(first).digest == opened(second).digest
    changed = sorted(second.iterdir())[4]
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert opened(first).digest != opened(second).digest


def test_digest_is_that_of_the_sorted_digests_of_the_files(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    each = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir())
    assert opened(folder).digest == hashlib.sha256("\n".join(each).encode()).hexdigest()


def test_file_changed_after_opening_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    scan = opened(folder)
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    with pytest.raises(CaseError, match="changed while") as caught:
        scan.read(ALL)
    assert caught.value.code == Code.E_SLICE_UNREADABLE
    with pytest.raises(CaseError, match="changed while"):
        _ = scan.digest


# Copies, gaps, mixtures


def test_identical_copy_is_dropped_with_a_warning(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    digest = opened(folder).digest
    (folder / "copy").write_bytes((folder / "IM005").read_bytes())
    scan = opened(folder)
    assert codes(scan) == [Code.W_DUPLICATE_FILE]
    assert scan.digest == digest
    np.testing.assert_array_equal(scan.read(ALL), phantom())


def test_same_instance_with_other_bytes_is_a_duplicate_slice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    data = (folder / "IM005").read_bytes()
    (folder / "copy").write_bytes(data[:-2] + b"\x01\x02")
    refused(folder, Code.E_SLICE_DUPLICATE, "1 slices lie where another lies")


@pytest.mark.parametrize("skip", [(7,), (3, 4), (1,), (14,), (2, 5, 9)])
def test_missing_slice_is_a_gap(tmp_path: Path, skip: tuple[int, ...]) -> None:
    refused(write_series(tmp_path / "s", skip=skip), Code.E_SLICE_GAP, "slices lie 2 to")


def test_evenly_thinned_series_is_flagged(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        del image.SliceThickness

    odd = tuple(range(1, SHAPE[2], 2))
    assert codes(opened(write_series(tmp_path / "thick", skip=odd))) == [Code.W_SPACING]
    assert codes(opened(write_series(tmp_path / "numbers", edit, skip=odd))) == [Code.W_SPACING]


def test_declared_spacing_that_disagrees_is_flagged(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.SpacingBetweenSlices = 1

    assert codes(opened(write_series(tmp_path / "s", edit))) == [Code.W_SPACING]


def test_slices_off_the_line_are_refused(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.ImagePositionPatient[0] += 5 * (index == 8)

    refused(write_series(tmp_path / "s", edit), Code.E_AFFINE, "straight line")


def half(change: Callable[[Dataset], None]) -> Callable[[Dataset, int], None]:
    return lambda image, index: change(image) if index >= 8 else None


def _set(**values: object) -> Callable[[Dataset], None]:
    return lambda image: [setattr(image, name, value) for name, value in values.items()] and None


@pytest.mark.parametrize(
    ("values", "code", "match"),
    [
        ({"SeriesInstanceUID": "1.2.3"}, Code.E_MIXED_SERIES, "16 files of 2 series"),
        ({"PatientID": "MRN-CANARY-2"}, Code.E_MIXED_PATIENT, "2 patient ids"),
        ({"PatientID": ""}, Code.E_MIXED_PATIENT, "2 patient ids"),
        ({"StudyInstanceUID": "1.2.3"}, Code.E_MIXED_SERIES, "in 2 studies"),
        ({"FrameOfReferenceUID": "1.2.3"}, Code.E_MIXED_SERIES, "in 2 frames of reference"),
        ({"Modality": "MR"}, Code.E_MIXED_SERIES, "in 2 modalities"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, Code.E_MIXED_ORIENTATION, "orientations"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Code.E_MIXED_ORIENTATION, "8 localizers among 16"),
        ({"Rows": 24, "Columns": 20}, Code.E_MIXED_SHAPE, "2 different sizes"),
        ({"PixelSpacing": [3, 3]}, Code.E_MIXED_SPACING, "from 1.25 to 3 mm"),
    ],
)
def test_mixture_is_refused_with_its_code(tmp_path: Path, values: dict[str, object], code: Code, match: str) -> None:
    error = refused(write_series(tmp_path / "s", half(_set(**values))), code, match)
    assert "1.2.3" not in str(error)


@pytest.mark.parametrize(
    ("values", "code", "match"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Code.E_NO_IMAGES, "nothing but 16 localizers"),
        ({"PixelSpacing": [0, 0]}, Code.E_SPACING, "pixel spacing 0"),
        ({"PixelSpacing": [-1.5, 1.5]}, Code.E_SPACING, "pixel spacing -1.5"),
        ({"PixelSpacing": [1500, 1500]}, Code.E_SPACING, "1500"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, Code.E_ORIENTATION, "perpendicular"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, Code.E_ORIENTATION, "unit vectors"),
        ({"RescaleSlope": 0}, Code.E_SCALING, "slope 0"),
        ({"RescaleSlope": -1}, Code.E_SCALING, "slope -1"),
        ({"RescaleType": "Z_EFF"}, Code.E_SCALING, "gives Z_EFF, not Hounsfield"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "1e308"}, Code.E_NONFINITE, "beyond float32"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Code.E_PHOTOMETRIC, "PALETTE COLOR"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, Code.E_PHOTOMETRIC, "3 samples a pixel, RGB"),
        ({"PhotometricInterpretation": "CANARY"}, Code.E_PHOTOMETRIC, "unknown"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, Code.E_DTYPE, "12"),
        ({"BitsStored": 17}, Code.E_DTYPE, "17"),
        ({"HighBit": 3}, Code.E_DTYPE, "3"),
        ({"Rows": 0}, Code.E_SHAPE, "24 × 0"),
        ({"Rows": 65535, "Columns": 65535}, Code.E_TOO_LARGE, "65535 x 65535"),
        ({"Rows": 40}, Code.E_TRUNCATED, "960 bytes, expected 1920"),
        ({"Rows": 10}, Code.E_SHAPE, "do not belong together"),
        ({"NumberOfFrames": 0}, Code.E_SHAPE, "× 0 pixels"),
        ({"NumberOfFrames": 3}, Code.E_TRUNCATED, "960 bytes, expected 2880"),
    ],
)
def test_header_fault_is_refused_with_its_code(
    tmp_path: Path, values: dict[str, object], code: Code, match: str
) -> None:
    refused(write_series(tmp_path / "s", lambda image, index: _set(**values)(image)), code, match)


@pytest.mark.parametrize(
    ("name", "code", "match"),
    [
        ("ImageOrientationPatient", Code.E_GEOMETRY_MISSING, "no orientation"),
        ("ImagePositionPatient", Code.E_GEOMETRY_MISSING, "no position"),
        ("PixelSpacing", Code.E_GEOMETRY_MISSING, "no spacing"),
        ("RescaleSlope", Code.E_RESCALE_MISSING, "no rescale"),
        ("RescaleIntercept", Code.E_RESCALE_MISSING, "no rescale"),
        ("PixelData", Code.E_NO_PIXELS, "no pixel data in 1 of 16"),
    ],
)
def test_missing_element_of_one_slice_is_refused(tmp_path: Path, name: str, code: Code, match: str) -> None:
    folder = write_series(tmp_path / "s")
    image = ct_slice(5)
    delattr(image, name)
    image.save_as(folder / f"IM{5 * 7 % 16:03d}", enforce_file_format=True)
    refused(folder, code, match)


def test_number_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    cases = (
        (b"1.25\\1.5", Code.E_SPACING),
        (b"-1024", Code.E_SCALING),
        (b"1.0\\0.0\\0.0\\0.0\\1.0\\0.0", Code.E_AFFINE),
    )
    originals = {path: path.read_bytes() for path in folder.iterdir()}
    for text, code in cases:
        for path, data in originals.items():
            assert text in data
            path.write_bytes(data.replace(text, b"x" * len(text)))
        refused(folder, code, "nan|not a number")


def test_rescale_may_be_missing_in_mr_alone(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.Modality = "MR"
        del image.RescaleSlope, image.RescaleIntercept

    folder = write_series(tmp_path / "s", edit)
    scan = open_series(folder, limits=LIMITS, modality="MR")
    assert scan.modality == "MR"
    np.testing.assert_array_equal(scan.read(ALL), phantom().astype(int) + 1024)
    refused(folder, Code.E_RESCALE_MISSING, "unit is unknown", modality="CT")


def test_modality_lut_instead_of_rescale_is_refused(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.Modality = "MR"
        del image.RescaleSlope, image.RescaleIntercept
        image.ModalityLUTSequence = Sequence([Dataset()])

    refused(write_series(tmp_path / "s", edit), Code.E_RESCALE_MISSING, "no rescale", modality="MR")


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.RescaleSlope = 1 + index / 8

    scan = opened(write_series(tmp_path / "s", edit))
    assert codes(scan) == [Code.W_RESCALE_VARIES]
    expected = (phantom().astype(float) + 1024) * (1 + np.arange(SHAPE[2]) / 8) - 1024
    np.testing.assert_allclose(scan.read(ALL), expected, rtol=1e-6)


def test_unknown_unit_is_flagged_without_its_text(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.RescaleType = "CANARY"

    scan = opened(write_series(tmp_path / "s", edit))
    assert codes(scan) == [Code.W_UNITS]
    assert "CANARY" not in scan.warnings[0].detail


def test_pet_with_varying_rescale_is_ordinary(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.Modality, image.RescaleSlope = "PT", 1 + index / 8

    assert open_series(write_series(tmp_path / "s", edit), limits=LIMITS).warnings == ()


def test_monochrome1_keeps_hu_and_mirrors_other_modalities(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.PhotometricInterpretation, image.BitsStored, image.HighBit = "MONOCHROME1", 12, 11
        image.Modality = modality

    modality = "CT"
    ct = opened(write_series(tmp_path / "ct", edit))
    modality = "MR"
    mr = open_series(write_series(tmp_path / "mr", edit), limits=LIMITS, modality="MR")
    assert codes(ct) == codes(mr) == [Code.W_PHOTOMETRIC]
    np.testing.assert_array_equal(ct.read(ALL), phantom())
    np.testing.assert_array_equal(mr.read(ALL), 4095 - (phantom().astype(int) + 1024) - 1024)


def radiograph(**values: object) -> Dataset:
    """A projection, which says neither where it lies nor how far apart its pixels are."""
    image = ct_slice(0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(image, name)
    for name, value in {"Modality": "DX", **values}.items():
        setattr(image, name, value)
    return image


def test_radiograph_without_a_place_is_a_picture(tmp_path: Path) -> None:
    path = save(radiograph(ImagerPixelSpacing=[0.2, 0.1]), tmp_path / "x.dcm")
    scan = open_series(path, limits=LIMITS, modality="XR")
    assert (scan.modality, scan.has_millimetres, scan.shape) == ("XR", True, (*SHAPE[:2], 1))
    np.testing.assert_allclose(scan.affine, np.diag([-0.1, -0.2, 1, 1]))


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ({"ImagePositionPatient": [0, 0, 0]}, "no orientation, spacing of a slice"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "no position, spacing of a slice"),
    ],
)
def test_picture_with_half_a_place_is_refused(tmp_path: Path, place: dict[str, list[int]], missing: str) -> None:
    path = save(radiograph(**place), tmp_path / "x.dcm")
    refused(path, Code.E_GEOMETRY_MISSING, missing, modality="XR")


@pytest.mark.parametrize("modality", ["DX", "CR", "MG", "US", "OP"])
def test_projection_without_a_pixel_spacing_has_no_millimetres(tmp_path: Path, modality: str) -> None:
    """One pixel was taken for 1 mm, so that a model with a spacing resampled it as if it were known."""
    path = save(radiograph(Modality=modality), tmp_path / "x.dcm")
    scan = open_series(path, limits=LIMITS)
    assert not scan.has_millimetres
    config = Preprocessing(dimensions=2, region="image", size=(16, 16), spacing_mm=(1.0, 1.0))
    declared = scan.modality or "other"
    with pytest.raises(CaseError, match=r"distance between its pixels.*spacing_mm: null") as caught:
        preprocess(ScanRequest(path, None), config, modality=declared)
    assert caught.value.code == Code.E_GEOMETRY_MISSING
    resized = Preprocessing(dimensions=2, region="image", size=(16, 16), spacing_mm=None, intensity=ZSCORE)
    found = preprocess(ScanRequest(path, None), resized, modality=declared)
    assert found.scan.spacing_mm is None
    assert not {"spacing_in_plane_mm", "slice_axis"} & set(found.measures)


def test_size_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    with pytest.raises(CaseError, match=r"above limits\.max_voxels") as caught:
        open_series(folder, limits=Limits(max_voxels=24 * 20 * 16 - 1))
    assert caught.value.code == Code.E_TOO_LARGE
    assert open_series(folder, limits=Limits(max_voxels=24 * 20 * 16)).shape == SHAPE


def test_few_trailing_bytes_are_flagged(tmp_path: Path) -> None:
    def edit(image: Dataset, index: int) -> None:
        image.PixelData += b"\0" * 6

    assert codes(opened(write_series(tmp_path / "s", edit))) == [Code.W_TRAILING_BYTES]


# Files that are not slices


@pytest.mark.parametrize("name", ["IM900", "x.dcm", "1.2.3.40"])
@pytest.mark.parametrize("content", [b"", b"\0" * 4000, b"junk"])
def test_unreadable_file_among_slices_refuses_the_series(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write_series(tmp_path / "s", skip=(15,))
    (folder / name).write_bytes(content)
    refused(folder, Code.E_SLICE_UNREADABLE, "one of 16 files cannot be read")


@pytest.mark.parametrize(("content", "code"), [(b"", Code.E_EMPTY_FILE), (b"\0" * 4000, Code.E_FORMAT)])
def test_lone_unreadable_file_has_its_own_code(tmp_path: Path, content: bytes, code: Code) -> None:
    path = tmp_path / "s" / "x.dcm"
    path.parent.mkdir()
    path.write_bytes(content)
    refused(path, code, "x.dcm")
    refused(path.parent, code, "x.dcm")


def test_folder_without_dicom_has_no_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path, Code.E_NO_IMAGES, "holds no DICOM file")
    with pytest.raises(CaseError, match="empty list") as caught:
        open_series([], limits=LIMITS)
    assert caught.value.code == Code.E_NO_IMAGES


def test_reports_alone_have_no_pixels(tmp_path: Path) -> None:
    report = blank(sop_class="1.2.840.10008.5.1.4.1.1.88.11")
    del report.Rows, report.Columns
    report.save_as(tmp_path / "r.dcm", enforce_file_format=True)
    refused(tmp_path, Code.E_NO_PIXELS, "none with an image")


def test_missing_path_pipe_and_link_out_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", Code.E_NOT_FOUND, "no such file")
    folder = write_series(tmp_path / "s")
    os.mkfifo(folder / "pipe")
    refused(folder, Code.E_NOT_REGULAR, "pipe")
    (folder / "pipe").unlink()
    outside = save(ct_slice(15), tmp_path / "outside.dcm")
    (folder / "link").symlink_to(outside)
    refused(folder, Code.E_OUTSIDE_ROOT, "link that leaves")


@pytest.mark.parametrize("keep", [100, 131, 200, 400, 900, 1200, -400, -1])
def test_truncated_slice_is_refused(tmp_path: Path, keep: int) -> None:
    folder = write_series(tmp_path / "s")
    path = folder / "IM003"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CaseError, match="IM003") as caught:
        opened(folder)
    assert caught.value.code in (Code.E_TRUNCATED, Code.E_SLICE_UNREADABLE, Code.E_NO_PIXELS)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    path = save(ct_slice(0), tmp_path / "n.dcm")
    data = path.read_bytes()
    place = data.index(b"\x08\x00\x16\x00UI")
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(data[:place] + opening * 5000 + data[place:])
    refused(path, Code.E_FORMAT, "nested too deep")


@pytest.mark.parametrize("element", [b"\x20\x00\x00\x90OB", b"\x20\x00\x37\x00UT"], ids=["skipped", "wanted"])
def test_length_beyond_the_file_allocates_nothing(tmp_path: Path, element: bytes) -> None:
    path = save(ct_slice(0), tmp_path / "n.dcm")
    data = path.read_bytes()
    place = data.index(b"\x28\x00\x02\x00US")
    path.write_bytes(data[:place] + element + b"\0\0\xf0\xff\xff\xff" + data[place:])
    tracemalloc.start()
    refused(path, Code.E_TRUNCATED, "ends inside its header")
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


# Patients' data and importing


@pytest.mark.filterwarnings("ignore:Unknown encoding")  # of pydicom, while the file is written
def test_nothing_is_printed_and_no_patient_is_named(tmp_path: Path) -> None:
    """Broken character sets and values make pydicom warn and log; none of it may be seen."""

    def edit(image: Dataset, index: int) -> None:
        image.SpecificCharacterSet = "ISO_IR CANARY"

    folder = write_series(tmp_path / "s", edit)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"CANARY^ANNE ", b"\xffCANARY\x80ANN "))
    script = (
        "import logging, sys; from pathlib import Path; logging.basicConfig(level=0)\n"
        "from pipeline.config.inputs import Limits; from pipeline.imaging.dicom.scan import open_series\n"
        "scan = open_series(Path(sys.argv[1]), limits=Limits())\n"
        "scan.read((slice(None),) * 3); scan.digest; repr(scan)\n"
        "print('torch' in sys.modules, 'monai' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    assert not re.search("CANARY|[Pp]ydicom|Warning", done.stderr), done.stderr


def test_scan_survives_pickling(tmp_path: Path) -> None:
    import pickle

    scan = pickle.loads(pickle.dumps(opened(write_series(tmp_path / "s"))))
    np.testing.assert_array_equal(scan.read(ALL), phantom())
    assert b"CANARY" not in pickle.dumps(scan)


@pytest.mark.parametrize("kept", [0, 400], ids=["whole slice", "rest of a slice"])
def test_zero_filled_slice_among_whole_ones_is_refused(tmp_path: Path, kept: int) -> None:
    def edit(image: Dataset, number: int) -> None:
        if number == 7:
            image.PixelData = image.PixelData[:kept].ljust(len(image.PixelData), b"\0")

    scan = open_series(write_series(tmp_path / "s", edit), limits=Limits())
    with pytest.raises(CaseError, match=r"E_SLICE_UNREADABLE.*zero bytes, unlike its neighbours"):
        scan.read(ALL)


def test_padding_that_grows_towards_the_ends_is_no_fault(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        kept = {0: 0, 1: 200, 2: 480, 14: 300, 15: 0}.get(number, len(image.PixelData))
        image.PixelData = image.PixelData[:kept].ljust(len(image.PixelData), b"\0")

    assert open_series(write_series(tmp_path / "s", edit), limits=Limits()).read(ALL).min() == -1024


def test_detector_spacing_is_no_spacing_of_ct(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.ImagerPixelSpacing = image.PixelSpacing
        del image.PixelSpacing

    with pytest.raises(CaseError, match=r"E_GEOMETRY_MISSING.*spacing"):
        open_series(write_series(tmp_path / "s", edit), limits=Limits())
