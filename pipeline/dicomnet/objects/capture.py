"""Secondary Captures: the picture of each scored lesion as an image that any viewer shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicomnet import wording
from pipeline.dicomnet.objects.case_result import CaseResult
from pipeline.dicomnet.objects.identifiers import stable_uid
from pipeline.dicomnet.objects.planes import PictureArray, lesion_picture
from pipeline.dicomnet.objects.report import equipment, identity_of
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.dicomnet.objects.source_series import SourceImage, SourceSeries
from pipeline.errors import CaseError


@dataclass(frozen=True, eq=False)
class LesionCaptures:
    """The pictures of a series.

    Attributes:
        images: one for each lesion that has a probability, without patient and study attributes.
        missing: by case id, why a scored lesion has no picture.
    """

    images: tuple[Dataset, ...]
    missing: Mapping[str, str]


def lesion_captures(results: Sequence[CaseResult], series: SourceSeries, model: ReportedModel) -> LesionCaptures:
    """Draw every scored lesion; with a damaged slice outside of the model's region only the picture is missing."""
    images: list[Dataset] = []
    missing: dict[str, str] = {}
    for number, result in enumerate(results, start=1):
        region_mm = model.region_around(result.diameter_mm)
        if series.scan is None or not result.is_scored or result.center_mm is None or region_mm is None:
            continue
        width_mm = max(*region_mm, 2 * (result.diameter_mm or 0.0))
        place = f"Lesion {number} of {len(results)}; planes through its centre, {width_mm:.0f} mm wide"
        try:
            pixels = lesion_picture(series.scan, result, model, width_mm=width_mm, place=place)
        except CaseError as error:
            missing[result.case_id] = f"{error.code}: {error.reason}"
        else:
            images.append(_capture(pixels, number, result, series, model))
    return LesionCaptures(tuple(images), missing)


def _capture(
    pixels: PictureArray, number: int, result: CaseResult, series: SourceSeries, model: ReportedModel
) -> Dataset:
    assert result.center_mm is not None
    capture = hd.sc.SCImage(
        pixel_array=pixels,
        photometric_interpretation=hd.PhotometricInterpretationValues.MONOCHROME2,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "P"),  # asked for by highdicom, and emptied below
        study_instance_uid=series.study,
        series_instance_uid=stable_uid("capture series", model.digest, series.series),
        series_number=wording.CAPTURE_SERIES_NUMBER,
        sop_instance_uid=stable_uid("capture", *identity_of([result], series, model)),
        instance_number=number,
        series_description=wording.CAPTURE_DESCRIPTION,
        specific_character_set=hd.SpecificCharacterSetValues("ISO_IR 192"),
        **equipment(model),
    )
    capture.add_new(0x00200020, "CS", None)  # PatientOrientation: of three planes there is no one
    capture.add_new(0x00200060, "CS", None)  # Laterality: required, and empty where it is not known
    capture.ConversionType = "WSD"  # made by a workstation
    # NO means that the picture does not identify the patient; DerivationDescription states that text is drawn in.
    capture.BurnedInAnnotation = "NO"
    capture.DerivationDescription = (
        "Three planes through a lesion's centre; the probability of malignancy and a disclaimer are drawn in"
    )
    capture.SourceImageSequence = [_reference(image) for image in series.images_in(result.center_mm, (0.0, 0.0, 0.0))]
    return capture


def _reference(image: SourceImage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class, image.sop_instance
    if image.frame is not None:
        item.ReferencedFrameNumber = image.frame
    item.PurposeOfReferenceCodeSequence = [
        hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    return item
