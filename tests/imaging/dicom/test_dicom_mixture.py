"""Slices of several volumes, and rounded positions: neither a volume of twice the slices nor a gap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import ALL, ORIGIN, SHAPE, ct_slice, phantom, save, write_multiframe, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.scan import DicomScan, open_series

LIMITS = Limits()
Edit = Callable[[Dataset, int], None]


def opened(source: Path) -> DicomScan:
    return open_series(source, limits=LIMITS, modality="CT")


def refused(source: Path, code: Code, match: str) -> None:
    with pytest.raises(CaseError, match=match) as caught:
        opened(source)
    assert caught.value.code == code, caught.value


def codes(scan: DicomScan) -> list[Code]:
    return [warning.code for warning in scan.warnings]


def two_volumes(folder: Path, edit: Callable[[Dataset, int, int], None], *, shift_mm: float = 1.0) -> Path:
    """The phantom twice in one series, the second ``shift_mm`` further; ``edit(image, slice, volume)``."""
    for volume in range(2):
        for number in range(SHAPE[2]):
            image = ct_slice(number)
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{volume}.{number}"
            image.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + 2 * number + volume * shift_mm]
            image.InstanceNumber = volume * SHAPE[2] + number + 1
            image.SliceThickness = 1  # as thick as they then lie apart, so that thickness says nothing
            edit(image, number, volume)
            save(image, folder / f"{volume}{number:02d}")
    return folder


def mark(**values: tuple[object, object]) -> Callable[[Dataset, int, int], None]:
    """Set elements to the first or the second value by volume; None leaves the element out."""

    def edit(image: Dataset, number: int, volume: int) -> None:
        for name, pair in values.items():
            if pair[volume] is not None:
                setattr(image, name, pair[volume])

    return edit


@pytest.mark.parametrize("shift_mm", [1.0, 0.8])  # half a slice, and less: no gap either, but two volumes
@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"EchoTime": (2.3, 4.6)}, "2 echo times"),
        ({"EchoNumbers": (1, 2)}, "2 echoes"),
        ({"TemporalPositionIdentifier": (1, 2)}, "2 temporal positions"),
        ({"DiffusionBValue": (0.0, 800.0)}, "2 b-values"),
        ({"ConvolutionKernel": ("B30f", "B70f")}, "2 kernels"),
        ({"KVP": (80, 140)}, "2 tube voltages"),
        ({"NominalPercentageOfCardiacPhase": (30.0, 70.0)}, "2 cardiac phases"),
        ({"InversionTime": (100, 900)}, "2 inversion times"),
        ({"FlipAngle": (5, 15)}, "2 flip angles"),
        ({"ContrastBolusAgent": (None, "CANARY")}, "2 contrast agents"),
        ({"ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])}, "2 image types"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_volumes_that_take_turns_are_refused(
    tmp_path: Path, values: dict[str, tuple[object, object]], match: str, shift_mm: float
) -> None:
    folder = two_volumes(tmp_path / "s", mark(**values), shift_mm=shift_mm)
    refused(folder, Code.E_MIXED_SERIES, f"{match} lie between each other")


def test_phases_that_overlap_each_other_are_refused_by_their_acquisition(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int, volume: int) -> None:
        image.SliceThickness = 2
        if volume:  # absent in the first, as in the report of the bug
            image.AcquisitionNumber = 2

    refused(two_volumes(tmp_path / "s", edit), Code.E_MIXED_SERIES, "2 acquisitions lie between")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"AcquisitionTime": ("101010", "101055")}, "2 acquisition times"),
        ({"TriggerTime": (0, 400)}, "2 trigger times"),
        ({"AcquisitionNumber": (1, 2)}, "2 acquisitions"),
    ],
)
def test_what_passes_may_differ_in_counts_where_slices_overlap(
    tmp_path: Path, values: dict[str, tuple[object, object]], match: str
) -> None:
    folder = two_volumes(tmp_path / "s", mark(SliceThickness=(2, 2), **values))
    refused(folder, Code.E_MIXED_SERIES, f"{match} lie between each other")
    folder = two_volumes(tmp_path / "t", mark(**values))
    assert opened(folder).shape == (*SHAPE[:2], 32)


def test_mosaic_is_no_slice(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]

    refused(write_series(tmp_path / "s", edit), Code.E_SHAPE, "mosaic.*dcm2niix")


@pytest.mark.parametrize("thickness", [None, 2])
def test_phases_with_the_same_numbers_are_refused(tmp_path: Path, thickness: int | None) -> None:
    def edit(image: Dataset, number: int, volume: int) -> None:
        image.InstanceNumber = number + 1
        image.SliceThickness = thickness

    refused(two_volumes(tmp_path / "s", edit), Code.E_MIXED_SERIES, "run through the stack several times")


def test_overlapping_phases_numbered_one_after_the_other_are_refused(tmp_path: Path) -> None:
    folder = two_volumes(tmp_path / "s", mark(SliceThickness=(2, 2)))
    refused(folder, Code.E_MIXED_SERIES, "run through the stack several times")


def test_passes_of_one_acquisition_are_one_volume(tmp_path: Path) -> None:
    """A multi-slice MR excites every second slice first; numbers and acquisitions follow the passes."""
    scan = opened(two_volumes(tmp_path / "s", mark(AcquisitionNumber=(1, 2))))
    assert scan.shape == (*SHAPE[:2], 32)
    assert Code.W_SPACING not in codes(scan)


def test_overlapping_reconstruction_is_one_volume(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.SliceThickness, image.AcquisitionNumber = 4, 1

    assert opened(write_series(tmp_path / "s", edit)).shape == SHAPE


@pytest.mark.parametrize("name", ["AcquisitionNumber", "KVP", "ConvolutionKernel"])
def test_parts_that_follow_each_other_are_one_volume(tmp_path: Path, name: str) -> None:
    def edit(image: Dataset, number: int) -> None:
        setattr(image, name, "1" if number < 7 else "2")
        image.SliceThickness = 4

    np.testing.assert_array_equal(opened(write_series(tmp_path / "s", edit)).read(ALL), phantom())


def test_one_slice_that_lacks_a_value_is_no_other_volume(tmp_path: Path) -> None:
    def edit(image: Dataset, number: int) -> None:
        if number != 5:
            image.KVP = "120" if number % 2 else "120.0"  # the same, written differently

    assert opened(write_series(tmp_path / "s", edit)).shape == SHAPE


@pytest.mark.parametrize("numbers", [[1] * 16, [1, 2] * 8, list(range(16, 0, -1)), [1] + [2] * 15])
def test_other_numberings_are_no_sign_of_two_volumes(tmp_path: Path, numbers: list[int]) -> None:
    def edit(image: Dataset, number: int) -> None:
        image.InstanceNumber, image.SliceThickness = numbers[number], 1

    assert opened(write_series(tmp_path / "s", edit)).shape == SHAPE


@pytest.mark.parametrize(
    ("sequence", "name", "values", "match"),
    [
        ("FrameContentSequence", "TemporalPositionIndex", (1, 2), "temporal positions"),
        ("FrameContentSequence", "StackID", ("1", "2"), "stacks"),
        ("MREchoSequence", "EffectiveEchoTime", (2.3, 4.6), "echo times"),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 800.0), "b-values"),
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", (30.0, 70.0), "cardiac phases"),
        ("CTReconstructionSequence", "ConvolutionKernel", ("B30f", "B70f"), "kernels"),
        ("CTXRayDetailsSequence", "KVP", (80, 140), "tube voltages"),
        ("MRImageFrameTypeSequence", "FrameType", (["A", "B", "M"], ["A", "B", "P"]), "image types"),
    ],
)
def test_frames_of_several_volumes_are_refused(
    tmp_path: Path, sequence: str, name: str, values: tuple[object, object], match: str
) -> None:
    def edit(image: Dataset) -> None:
        for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
            item = Dataset()
            setattr(item, name, values[number % 2])
            setattr(frame, sequence, Sequence([item]))

    refused(write_multiframe(tmp_path / "m.dcm", edit), Code.E_MIXED_SERIES, f"2 {match} lie between")


# Rounded positions


def at(positions: list[float], cosines: tuple[float, ...] = (1, 0, 0, 0, 1, 0)) -> Edit:
    normal = np.cross(cosines[:3], cosines[3:])

    def edit(image: Dataset, number: int) -> None:
        image.ImageOrientationPatient = list(cosines)
        image.ImagePositionPatient = [round(float(value), 6) for value in normal * positions[number]]
        image.SliceThickness = None

    return edit


def test_positions_with_one_decimal_are_read_and_flagged(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", at([round(0.625 * number, 1) for number in range(16)]))
    scan = opened(folder)
    assert codes(scan) == [Code.W_SPACING]
    assert scan.affine[2, 2] == pytest.approx(0.625, abs=0.004)
    np.testing.assert_array_equal(scan.read(ALL), phantom())


@pytest.mark.parametrize("declared", ["SliceThickness", "SpacingBetweenSlices"])
def test_declared_distance_that_explains_the_rounding_is_taken(tmp_path: Path, declared: str) -> None:
    place = at([round(0.625 * number, 1) for number in range(16)])

    def edit(image: Dataset, number: int) -> None:
        place(image, number)
        setattr(image, declared, 0.625)

    assert opened(write_series(tmp_path / "s", edit)).affine[2, 2] == 0.625


def test_rounded_oblique_positions_are_read(tmp_path: Path) -> None:
    cosines = (0.8, 0.6, 0, 0, 0, -1)
    normal = np.cross(cosines[:3], cosines[3:])

    def edit(image: Dataset, number: int) -> None:
        at([0.0] * 16, cosines)(image, number)
        image.ImagePositionPatient = [round(float(value), 1) for value in normal * 1.4 * number]

    scan = opened(write_series(tmp_path / "s", edit))
    assert codes(scan) == [Code.W_SPACING]
    assert np.linalg.norm(scan.affine[:3, 2]) == pytest.approx(1.4, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    step=st.floats(0.08, 3), first=st.floats(-300, 300), skipped=st.integers(1, 14), unit=st.sampled_from([0.1, 0.01])
)
def test_missing_slice_is_a_gap_however_positions_are_rounded(
    step: float, first: float, skipped: int, unit: float
) -> None:
    """Oracle of the rule alone: with a slice left out, no even distance may be found; with none, one may."""
    from pipeline.imaging.dicom.geometry import _even_distance

    class Image:
        class frame:  # noqa: N801
            spacing_between = thickness = None

    normal = np.array([0.0, 0.0, 1.0])
    depths = np.round((first + step * np.arange(16)) / unit) * unit
    positions = np.outer(depths, normal)
    kept = np.delete(positions, skipped, axis=0)
    assert _even_distance([Image()] * 15, kept, normal) is None  # type: ignore[list-item]
    whole = _even_distance([Image()] * 16, positions, normal)  # type: ignore[list-item]
    assert whole is None or whole == pytest.approx(step, abs=2 * unit / 15)
    assert whole is not None or unit > 0.4 * step


@pytest.mark.parametrize("step", [0.3, 0.625, 1.25, 2.5])
@pytest.mark.parametrize("skip", [(7,), (1,), (14,), (3, 4), (2, 5, 9), (1, 14)])
def test_really_missing_slice_stays_a_gap(tmp_path: Path, step: float, skip: tuple[int, ...]) -> None:
    folder = write_series(tmp_path / "s", at([round(step * number, 1) for number in range(16)]), skip=skip)
    refused(folder, Code.E_SLICE_GAP, "slices lie")


def test_thin_slices_rounded_too_coarsely_are_refused(tmp_path: Path) -> None:
    """0.15 mm written to 0.1 mm look like 0.1 mm with slices missing; nobody can tell."""
    folder = write_series(tmp_path / "s", at([round(0.15 * number + 0.01, 1) for number in range(16)]))
    with pytest.raises(CaseError, match=r"E_SLICE_GAP|E_SLICE_DUPLICATE"):
        opened(folder)


def test_few_slices_are_not_explained_by_rounding(tmp_path: Path) -> None:
    """Of three slices, gaps of 0.3 and 0.4 mm may be one slice missing from 0.35 mm apart only if units are small."""
    places = [0.0, 0.3, 0.7, *[0.0] * 13]
    folder = write_series(tmp_path / "s", at(places), skip=tuple(range(3, 16)))
    refused(folder, Code.E_SLICE_GAP, "slices lie")
