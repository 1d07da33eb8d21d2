"""The series that results are made from: its images in order, whose they are, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from dicom_writing import FRAME, ORIGIN, SERIES, SHAPE, SPACING, STUDY, write_multiframe, write_series
from scored_series import case_result, reported_model

from pipeline.dicomnet.objects.patient_context import time_zone
from pipeline.dicomnet.objects.result_objects import result_objects, write_results
from pipeline.dicomnet.objects.source_series import SourceSeries
from pipeline.errors import CaseError


def test_images_are_in_the_order_of_their_positions(tmp_path):
    series = SourceSeries.read(write_series(tmp_path / "ct"), modality="CT")
    assert [image.sop_instance for image in series.images] == [f"{SERIES}.{number + 1}" for number in range(SHAPE[2])]
    assert {image.frame for image in series.images} == {None}
    assert (series.study, series.series, series.frame_of_reference) == (STUDY, SERIES, FRAME)
    assert series.images[3].position_mm == (ORIGIN[0], ORIGIN[1], ORIGIN[2] + 3 * SPACING[2])


def test_frames_of_one_object_are_numbered_and_the_object_stands_once(tmp_path):
    series = SourceSeries.read(write_multiframe(tmp_path / "ct.dcm"), modality="CT")
    assert [image.frame for image in series.images] == list(range(SHAPE[2], 0, -1))  # written in reverse
    assert len(series.objects) == 1


def test_slices_that_a_box_reaches_are_found_along_the_normal(tmp_path):
    """A series through the patient from left to right: its depth is x."""

    def sagittal(image, number):
        image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        image.ImagePositionPatient = [-16.0 + 2.0 * number, 0, 0]

    series = SourceSeries.read(write_series(tmp_path / "ct", sagittal), modality="CT")
    near = series.images_in((4.0, 500.0, 500.0), (5.0, 0.0, 0.0))  # RAS: -4 in LPS
    np.testing.assert_allclose(sorted(image.position_mm[0] for image in near), [-6.0, -4.0, -2.0])
    (nearest,) = series.images_in((4.5, 0.0, 0.0), (0.0, 90.0, 90.0))
    assert nearest.position_mm[0] == -4.0


def test_a_series_that_is_no_scan_still_has_its_images(tmp_path):
    folder = write_series(tmp_path / "ct", skip=(5,))
    (folder / "IM100").write_bytes(b"not a slice")
    series = SourceSeries.read(folder, modality="CT")
    assert series.scan is None
    assert len(series.images) == SHAPE[2] - 1
    assert (series.study, series.series) == (STUDY, SERIES)


def test_two_patients_make_no_object(tmp_path):
    def edit(image, number):
        image.PatientID = f"P{number % 2}"

    with pytest.raises(CaseError, match="E_MIXED_PATIENT: 2 patient ids in 1 studies; no one object can be filed"):
        SourceSeries.read(write_series(tmp_path / "ct", edit), modality="CT")


def test_two_studies_make_no_object(tmp_path):
    def edit(image, number):
        image.StudyInstanceUID = f"{STUDY}.{number % 2 + 1}"

    with pytest.raises(CaseError, match="1 patient ids in 2 studies"):
        SourceSeries.read(write_series(tmp_path / "ct", edit), modality="CT")


def test_without_identifiers_nothing_can_refer_to_a_series(tmp_path):
    def edit(image, _):
        image.StudyInstanceUID = ""

    with pytest.raises(CaseError, match="E_FORMAT: has no study, series, class or instance UID"):
        SourceSeries.read(write_series(tmp_path / "ct", edit), modality="CT")


def test_what_is_no_dicom_is_refused_with_its_own_code(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"\0" * 400)
    with pytest.raises(CaseError, match="E_FORMAT"):
        SourceSeries.read(tmp_path / "scan.nii", modality="CT")


def context(tmp_path, **attributes):
    """Patient and study attributes of a series with these in its headers."""

    def edit(image, _):
        for keyword, value in attributes.items():
            setattr(image, keyword, value)

    return SourceSeries.read(write_series(tmp_path / "ct", edit), modality="CT").context


def test_names_in_other_character_sets_are_kept(tmp_path):
    attributes = context(tmp_path, SpecificCharacterSet="ISO_IR 144", PatientName="Люкceмбypг", PatientID="Ж1")
    assert str(attributes.PatientName) == "Люкceмбypг"
    assert attributes.PatientID == "Ж1"


def test_what_a_header_may_not_say_is_left_empty_and_what_it_lacks_is_there(tmp_path):
    attributes = context(tmp_path, PatientSex="U", PatientBirthDate="", AccessionNumber="A1", StudyTime="101112.5")
    assert (attributes.PatientSex, attributes.PatientBirthDate, attributes.AccessionNumber) == ("", "", "A1")
    assert attributes.StudyTime == "101112.5"
    assert attributes.StudyID == ""
    assert "IssuerOfPatientID" not in attributes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientID": "CANARY" * 20},
        {"PatientName": "CANARY" * 20},
        {"PatientName": "CANARY=CANARY=CANARY=CANARY"},
        {"AccessionNumber": "CANARY" * 4, "StudyID": "CANARY" * 4},
        {"StudyDate": "CANARY", "PatientBirthDate": "CANARY", "PatientSex": "CANARY", "StudyTime": "CANARY"},
        {"SpecificCharacterSet": "CANARY", "PatientName": "CANARY"},
        {"PatientID": "CANARY\\CANARY", "PatientName": "CANARY\nCANARY"},
    ],
)
def test_values_that_break_a_rule_are_in_no_warning(tmp_path, attributes, capfd, recwarn):
    """An archive takes such objects; pydicom quotes the values in its warnings."""

    def edit(image, _):
        for keyword, value in attributes.items():
            setattr(image, keyword, value)

    folder = write_series(tmp_path / "ct", edit)
    capfd.readouterr()
    recwarn.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        series = SourceSeries.read(folder, modality="CT")
        paths = write_results(result_objects([case_result()], series, reported_model()), tmp_path / "out")
    assert [str(warning.message) for warning in caught if "CANARY" in str(warning.message)] == []
    assert "CANARY" not in "".join(capfd.readouterr())
    kept = {"PatientID", "PatientName", "AccessionNumber", "StudyID"} & set(attributes)
    for path in paths:
        shown = path.read_bytes()
        assert all(str(attributes[keyword]).encode() in shown for keyword in kept)


def test_a_time_zone_in_the_header_is_that_of_the_results(tmp_path):
    def edit(image, _):
        image.TimezoneOffsetFromUTC = "-0330"

    series = SourceSeries.read(write_series(tmp_path / "ct", edit), modality="CT")
    assert time_zone(series.context).utcoffset(None).total_seconds() == -3.5 * 3600
    for data in result_objects([case_result()], series, reported_model()).all:  # scored at 03:04:05 UTC
        assert (data.ContentDate, data.ContentTime, data.TimezoneOffsetFromUTC) == ("20260101", "233405", "-0330")
