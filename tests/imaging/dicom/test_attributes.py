"""What a DICOM header says beside its geometry."""

import dicom_writing
import pytest

from pipeline.imaging.dicom.attributes import DicomAttributes, read_attributes


def attributes(tmp_path, **values):
    image = dicom_writing.ct_slice(0)
    for name, value in values.items():
        setattr(image, name, value)
    return read_attributes(dicom_writing.save(image, tmp_path / "1.dcm"))


def test_values_of_a_series_are_read(tmp_path):
    found = attributes(
        tmp_path,
        PatientID="MRN-7",
        AccessionNumber="A12",
        SeriesDescription="Thorax 1.0",
        PatientSex="F",
        PatientAge="018M",
        Manufacturer="SIEMENS, Healthineers",
        ConvolutionKernel=["Bl57d", "3"],
        SliceThickness="1.50",
        ImageLaterality="L",
        ViewPosition="CC",
        BodyPartExamined="breast",
    )
    assert (found.patient, found.accession, found.description) == ("MRN-7", "A12", "Thorax 1.0")
    assert (found.sex, found.age_years, found.manufacturer) == ("F", "2", "Siemens")
    assert (found.kernel, found.thickness_mm, found.view) == ("Bl57d", "1.5", "L CC")
    assert found.body_part == "BREAST"
    assert found.series
    assert found.study


@pytest.mark.parametrize(
    ("age", "years"), [("045Y", "45"), ("45Y", "45"), ("030D", "0"), ("052W", "1"), ("45", ""), ("", "")]
)
def test_age_is_in_years_or_blank(tmp_path, age, years):
    assert attributes(tmp_path, PatientAge=age).age_years == years


def test_ids_in_another_character_set_are_read_and_what_is_missing_is_blank(tmp_path):
    image = dicom_writing.ct_slice(0)
    image.SpecificCharacterSet = "ISO_IR 100"
    image.PatientID = "Müller"
    for name in ("PatientSex", "Manufacturer", "SliceThickness"):
        if name in image:
            delattr(image, name)
    found = read_attributes(dicom_writing.save(image, tmp_path / "1.dcm"))
    assert found.patient == "Müller"
    assert (found.sex, found.manufacturer, found.thickness_mm, found.view) == ("", "", "", "")
    assert DicomAttributes().age_years == ""
