"""DICOM segmentations as highdicom writes them, and as others damage them."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from lesion_files import AXIAL, OBLIQUE, SPACING, ellipsoid, second_ellipsoid, write_scan, write_segmentation
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pipeline.cases.lesions.dicom.segmentation import read_segmentation
from pipeline.cases.lesions.lesion import ReadingOptions
from pipeline.cases.lesions.read import read_lesions
from pipeline.errors import CaseError, Code


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("scan") / "ct", OBLIQUE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "seg.dcm"


def edited(path, edit):
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def true_center(scan, mask):
    return scan.affine[:3] @ [*np.argwhere(mask).mean(0), 1]


def refusal(path, options=None):
    (refused,) = read_segmentation(path, options).refused
    return refused.error


def two_masks():
    return ellipsoid(), ellipsoid((12, 30, 6), (3.2, 4.4, 1.2))


def test_each_segment_is_a_lesion_and_says_its_series(scan, path):
    masks = two_masks()
    written = write_segmentation(scan, path, masks)
    found = read_segmentation(path)
    assert [lesion.name for lesion in found.lesions] == ["1", "2"]
    for lesion, mask in zip(found.lesions, masks, strict=True):
        assert lesion.center_mm == pytest.approx(true_center(scan, mask), abs=1e-3)
        assert lesion.reference.series == scan.series
        assert lesion.reference.frame_of_reference == scan.frame_of_reference
        assert lesion.segment.object_uid == written.SOPInstanceUID
    assert "CANARY" not in repr(found)


def test_components_of_a_single_segment_are_lesions_and_of_several_on_request(scan, path):
    one, two = two_masks()
    write_segmentation(scan, path, [one | two])
    assert [lesion.name for lesion in read_segmentation(path).lesions] == ["1.1", "1.2"]
    assert len(read_segmentation(path, ReadingOptions(labels="values")).lesions) == 1
    write_segmentation(scan, path, [one | two, ellipsoid((38, 10, 5), (3, 3, 1.2))])
    found = read_segmentation(path)
    assert [lesion.name for lesion in found.lesions] == ["1", "2"]
    assert "several pieces" in found.notes[0]
    assert len(read_segmentation(path, ReadingOptions(labels="components")).lesions) == 3


def test_frames_may_stand_in_any_order_and_empty_ones_may_be_missing(scan, path):
    mask = ellipsoid()
    mask[:, :, 14] = False  # the reader skipped a slice in the middle
    write_segmentation(scan, path, [mask])
    before = read_segmentation(path, ReadingOptions(labels="values")).lesions[0]
    size = mask.shape[0] * mask.shape[1]

    def shuffle(dataset):
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        count = int(dataset.NumberOfFrames)
        assert count == mask.any((0, 1)).sum()
        order = np.random.default_rng(0).permutation(count)
        frames = bits[: size * count].reshape(count, size)[order]
        groups = dataset.PerFrameFunctionalGroupsSequence
        dataset.PerFrameFunctionalGroupsSequence = [groups[number] for number in order]
        packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)

    after = read_segmentation(edited(path, shuffle), ReadingOptions(labels="values")).lesions[0]
    assert after.center_mm == before.center_mm == pytest.approx(true_center(scan, mask), abs=1e-3)
    assert after.diameter_mm == before.diameter_mm
    assert len(read_segmentation(path).lesions) == 2  # above the gap and below it


def test_fractions_count_from_half_of_their_maximum(scan, path):
    fractions = ellipsoid() * 0.5 + ellipsoid(radii=(8, 7, 3.4)) * 0.3
    for maximum in (255, 100):
        write_segmentation(scan, path, [fractions], kind="FRACTIONAL", max_fractional_value=maximum)
        (lesion,) = read_segmentation(path).lesions
        assert lesion.center_mm == pytest.approx(true_center(scan, ellipsoid()), abs=1e-3)
        assert lesion.diameter_mm < 11


def test_exactly_half_of_the_maximum_is_inside_and_less_is_not(scan, path):
    fractions = ellipsoid() * 0.5 + second_ellipsoid() * 0.49
    write_segmentation(scan, path, [fractions], kind="FRACTIONAL", max_fractional_value=100)
    (lesion,) = read_segmentation(path).lesions
    assert lesion.center_mm == pytest.approx(true_center(scan, ellipsoid()), abs=1e-3)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_fractions_and_label_maps_are_read(scan, path, syntax):
    write_segmentation(scan, path, [ellipsoid() * 1.0], kind="FRACTIONAL", transfer_syntax_uid=syntax)
    plain = read_segmentation(path).lesions
    write_segmentation(scan, path, [ellipsoid()], kind="LABELMAP", transfer_syntax_uid=syntax)
    assert [lesion.center_mm for lesion in plain] == [lesion.center_mm for lesion in read_segmentation(path).lesions]
    assert len(plain) == 1


def test_a_deflated_segmentation_is_read(scan, path):
    write_segmentation(scan, path)
    expected = read_segmentation(path).lesions[0].center_mm

    def deflate(dataset):
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    assert read_segmentation(edited(path, deflate)).lesions[0].center_mm == expected


def test_organs_are_no_lesions_unless_their_number_is_asked_for(scan, path):
    categories = [codes.SCT.AnatomicalStructure, codes.SCT.MorphologicallyAbnormalStructure]
    write_segmentation(scan, path, two_masks(), categories=categories)
    found = read_segmentation(path)
    assert [lesion.name for lesion in found.lesions] == ["2"]
    assert "left out 1 segment of anatomical structures" in found.notes[0]
    assert [lesion.name for lesion in read_segmentation(path, ReadingOptions(only=frozenset({1}))).lesions] == ["1"]


def test_slices_with_rounded_positions_are_no_gap(tmp_path, path):
    scan = write_scan(tmp_path / "ct", AXIAL)
    write_segmentation(scan, path)

    def round_positions(dataset):
        for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            group.PlanePositionSequence[0].ImagePositionPatient[2] = f"{-50 + 0.625 * number:.1f}"
        shared(dataset).PixelMeasuresSequence[0].SpacingBetweenSlices = 0.625

    (lesion,) = read_segmentation(edited(path, round_positions)).lesions
    assert lesion.center_mm[2] == pytest.approx(-50 + 0.625 * 2, abs=0.06)


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), Code.E_FORMAT, "5 frames but 4 frame descriptions"),
        (lambda d: setattr(d, "NumberOfFrames", 6), Code.E_FORMAT, "6 frames but 5"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-300]), Code.E_TRUNCATED, "5 frames need"),
        (lambda d: setattr(d, "PixelData", d.PixelData + b"\0" * 40), Code.E_SHAPE, "do not belong together"),
        (lambda d: d.__delattr__("SegmentSequence"), Code.E_FORMAT, "describes no segment"),
        (lambda d: setattr(d, "BitsAllocated", 16), Code.E_DTYPE, "BINARY segmentation of 16 bits"),
        (lambda d: setattr(d, "SegmentationType", "CANARY"), Code.E_FORMAT, "segmentation type other"),
        (lambda d: setattr(d, "DimensionOrganizationType", "TILED_FULL"), Code.E_FORMAT, "tiled"),
        (lambda d: setattr(d, "Rows", 0), Code.E_FORMAT, "frames of 48 x 0"),
        (lambda d: d.__delattr__("PixelData"), Code.E_NO_PIXELS, "without pixel data"),
        (lambda d: frames(d)[0].__delattr__("PlanePositionSequence"), Code.E_GEOMETRY_MISSING, "where it lies"),
        (lambda d: shared(d).__delattr__("SegmentIdentificationSequence"), Code.E_FORMAT, "which segment"),
        (lambda d: position(d, 0, ["nan", 1, 2]), Code.E_AFFINE, "no number"),
        (lambda d: position(d, 1, position(d, 0)), Code.E_SLICE_DUPLICATE, "one place"),
        (lambda d: position(d, 0, [1, 200, 3]), Code.E_SLICE_GAP, "evenly spaced planes"),
        (lambda d: position(d, 0, ["1e5", "1e5", "1e5"]), Code.E_SLICE_GAP, "evenly spaced planes"),
        (lambda d: number(d, 9), Code.E_FORMAT, "shows segment 9, which the object does not describe"),
        (lambda d: spacing(d, [0, 1]), Code.E_AFFINE, "no number"),
        (lambda d: spacing(d, [900, 900]), Code.E_SPACING, "voxel spacing"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_code_and_stays_with_its_series(scan, path, edit, code, says):
    write_segmentation(scan, path)
    (refused,) = read_segmentation(edited(path, edit)).refused
    assert refused.error.code is code, refused.error
    assert says in refused.error.reason
    assert "\n" not in str(refused)
    assert "CANARY" not in str(refused)
    assert refused.reference.series == scan.series


def shared(dataset):
    return dataset.SharedFunctionalGroupsSequence[0]


def frames(dataset):
    return dataset.PerFrameFunctionalGroupsSequence


def position(dataset, place, value=None):
    item = frames(dataset)[place].PlanePositionSequence[0]
    item.ImagePositionPatient = item.ImagePositionPatient if value is None else value
    return item.ImagePositionPatient


def number(dataset, value):
    shared(dataset).SegmentIdentificationSequence[0].ReferencedSegmentNumber = value


def spacing(dataset, value):
    shared(dataset).PixelMeasuresSequence[0].PixelSpacing = value


def test_an_empty_segmentation_marks_no_lesion(scan, path):
    write_segmentation(scan, path, [np.zeros_like(ellipsoid())], omit_empty_frames=False)
    assert refusal(path).code is Code.E_CENTER_MISSING


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7, 0.98])
def test_a_cut_file_is_refused_in_one_line(scan, path, share):
    write_segmentation(scan, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    try:
        (refused,) = read_lesions(path).refused
        error = refused.error
    except CaseError as caught:
        error = caught
    assert error.code in (Code.E_TRUNCATED, Code.E_FORMAT, Code.E_EMPTY_FILE)
    assert "\n" not in str(error)


def test_the_diameter_is_measured_across_the_frames_own_pixels(scan, path):
    mask = np.zeros_like(ellipsoid())
    mask[10:31, 5, 4] = True  # a line of 21 columns
    mask[10, 5, 3:6] = True
    write_segmentation(scan, path, [mask])
    assert read_segmentation(path).lesions[0].diameter_mm == pytest.approx(21 * SPACING[0], abs=1e-3)
