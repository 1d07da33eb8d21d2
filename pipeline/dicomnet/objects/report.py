"""The structured report of a scored series: Comprehensive 3D SR, template TID 1500, by highdicom.

A case is a measurement group: with a lesion's centre a planar region (TID 1410) whose point lies in the series' frame
of reference, otherwise a group of the whole image (TID 1501). The group names the model that scored it as its algorithm
(TID 4019); what a detector measured, the probability of being a lesion and the diameter, names the detector.
Probabilities are numbers in [0, 1] without a unit; a case that was not scored has its code in words and no number.
Image references and the frame of reference stand in the image library, and the slices that a lesion's region reaches
below its probability.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline import __version__
from pipeline.dicomnet import wording
from pipeline.dicomnet.objects import concepts
from pipeline.dicomnet.objects.case_result import CaseResult, NamedDetector
from pipeline.dicomnet.objects.identifiers import stable_uid
from pipeline.dicomnet.objects.reported_model import ReportedModel
from pipeline.dicomnet.objects.source_series import LPS_TO_RAS, SourceImage, SourceSeries

_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_CONTEXT = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


class _Report(sr.Comprehensive3DSR):
    """A report whose patient and study attributes are set by `result_objects`, for all objects alike."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Do nothing: the caller sets them, while highdicom would copy all attributes, as the patient's address."""


def structured_report(
    results: Sequence[CaseResult],
    series: SourceSeries,
    model: ReportedModel,
    *,
    missing_pictures: Mapping[str, str],
    replaces: Sequence[Dataset] = (),
) -> Dataset:
    """The report, without patient and study attributes.

    Args:
        results: of all cases of the series, at least one.
        series: that was scored.
        model: that scored it.
        missing_pictures: by case id, why a scored lesion has none.
        replaces: earlier reports of the same series, which are named as its predecessors.
    """
    content = sr.MeasurementReport(
        observation_context=_observer(model),
        procedure_reported=concepts.PROCEDURES.get(model.modality, codes.cid100.ImagingProcedure),
        imaging_measurements=[
            _group(result, series, model, missing_pictures.get(result.case_id)) for result in results
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    items = content[0].ContentSequence
    items.insert(len(items) - 1, _image_library(series))
    items.append(_evaluations(results, model))
    return _Report(
        evidence=[_evidence(image, series) for image in series.objects],
        content=content,
        series_instance_uid=stable_uid("report series", model.digest, series.series),
        series_number=wording.REPORT_SERIES_NUMBER,
        sop_instance_uid=stable_uid("report", *identity_of(results, series, model)),
        instance_number=1,
        is_complete=True,
        previous_versions=list(replaces) or None,
        coding_schemes=[concepts.PRIVATE_SCHEME],
        series_description=wording.REPORT_DESCRIPTION,
        specific_character_set=hd.SpecificCharacterSetValues("ISO_IR 192"),
        **equipment(model),
    )


def identity_of(results: Sequence[CaseResult], series: SourceSeries, model: ReportedModel) -> list[object]:
    """Values that identify a result: models, images, cases and whether they were scored.

    Probabilities are left out: they may differ in the last digit when a killed run is repeated, which must not give a
    second object of the same result.
    """
    cases = [
        [result.case_id, result.center_mm and [round(mm, 3) for mm in result.center_mm], result.code, result.threshold]
        for result in results
    ]
    detectors = sorted({result.detector.digest for result in results if result.detector is not None})
    return [model.digest, series.series, sorted({image.sop_instance for image in series.images}), cases, *detectors]


def equipment(model: ReportedModel) -> dict[str, Any]:
    """Attributes that name the equipment and software that made an object."""
    return {
        "manufacturer": wording.MANUFACTURER,
        "manufacturer_model_name": model.name[:64],
        "device_serial_number": model.digest[:64],
        "software_versions": __version__,
    }


def _observer(model: ReportedModel) -> sr.ObservationContext:
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=stable_uid("device", model.digest),
                name=model.name,
                manufacturer_name=wording.MANUFACTURER,
                model_name=model.name,
                serial_number=model.digest,
            ),
        )
    )


def _group(
    result: CaseResult, series: SourceSeries, model: ReportedModel, missing_picture: str | None
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations:
    is_lesion = result.center_mm is not None and model.region_mm is not None
    point = _point(result, series) if is_lesion else None
    references: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(tracking_uid(result, series), result.case_id),
        "algorithm_id": _algorithm(model),
        "finding_type": codes.SCT.Lesion if is_lesion else None,
        "measurements": list(_measurements(result, series, model)),
        "qualitative_evaluations": [
            sr.QualitativeEvaluation(
                concepts.DECISION if number == 0 else concepts.decision_on(finding.name),
                concepts.DECISION_VALUES[finding.decision],
            )
            for number, finding in enumerate(result.findings)
        ],
    }
    group: sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations
    if point is not None:
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=point, **references)
    else:
        group = sr.MeasurementsAndQualitativeEvaluations(**references)
    group[0].ContentSequence.extend(_texts(result, model))
    if missing_picture is not None:
        group[0].ContentSequence.append(_text(concepts.WARNING, f"no picture: {missing_picture}"))
    return group


def tracking_uid(result: CaseResult, series: SourceSeries) -> str:
    """The UID of a lesion, the same for every model that scores it."""
    center = result.center_mm and [round(mm, 3) for mm in result.center_mm]
    return stable_uid("lesion", series.series, result.case_id, center)


def _point(result: CaseResult, series: SourceSeries) -> sr.ImageRegion3D | None:
    """The lesion's centre in the frame of reference; without a score it may be wrong, and is left out."""
    if result.center_mm is None or not result.is_scored or not series.frame_of_reference:
        return None
    center = np.array(result.center_mm) * LPS_TO_RAS
    return sr.ImageRegion3D(sr.GraphicTypeValues3D.POINT, center[np.newaxis], series.frame_of_reference)


def _algorithm(model: ReportedModel | NamedDetector) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=model.name, version=__version__, parameters=[f"model digest (SHA-256): {model.digest}"]
    )


def _measurements(result: CaseResult, series: SourceSeries, model: ReportedModel) -> Iterator[sr.Measurement]:
    if not result.is_scored:
        return
    images = [
        sr.SourceImageForMeasurement(image.sop_class, image.sop_instance, _frames(image))
        for image in _used(result, series, model)
    ]
    for number, finding in enumerate(result.findings):
        yield sr.Measurement(
            name=concepts.PROBABILITY_OF_CANCER if number == 0 else concepts.probability_of(finding.name),
            value=float(finding.probability),
            unit=codes.UCUM.NoUnits,
            referenced_images=images,
        )
    if result.threshold is not None:
        yield sr.Measurement(name=concepts.THRESHOLD, value=float(result.threshold), unit=codes.UCUM.NoUnits)
    # The group names the classifier; what the detector measured names the detector, with the number.
    detector = None if result.detector is None else _algorithm(result.detector)
    if result.lesion_probability is not None:
        yield sr.Measurement(
            name=concepts.PROBABILITY_OF_LESION,
            value=float(result.lesion_probability),
            unit=codes.UCUM.NoUnits,
            algorithm_id=detector,
        )
    if result.diameter_mm is not None:
        yield sr.Measurement(
            name=codes.SCT.Diameter,
            value=float(result.diameter_mm),
            unit=codes.UCUM.Millimeter,
            algorithm_id=detector,
        )


def _used(result: CaseResult, series: SourceSeries, model: ReportedModel) -> tuple[SourceImage, ...]:
    """The slices that the model saw: all of them, or those that the region around the lesion reaches."""
    region_mm = model.region_around(result.diameter_mm)
    if result.center_mm is None or region_mm is None:
        return series.images
    return series.images_in(result.center_mm, region_mm)


def _frames(image: SourceImage) -> list[int] | None:
    return None if image.frame is None else [image.frame]


def _texts(result: CaseResult, model: ReportedModel) -> Iterator[sr.TextContentItem]:
    if description := result.found_in_words():
        yield _text(concepts.FOUND, description)
    if result.is_scored:
        for place, finding in enumerate(result.findings):
            yield _text(concepts.OPERATING_POINT, f"{finding.name}: {model.describe_operating_point(place)}")
        yield from (_text(concepts.WARNING, warning) for warning in result.warnings_in_words())
    else:
        yield _text(concepts.NOT_SCORED, result.code_in_words())
    yield _text(concepts.COMMENT, wording.DISCLAIMER)


def _evaluations(results: Sequence[CaseResult], model: ReportedModel) -> sr.ContainerContentItem:
    """Items about the whole report: completeness, model and disclaimer."""
    scored = sum(result.is_scored for result in results)
    if scored == len(results):
        summary = concepts.ALL_SUCCEEDED
    else:
        summary = concepts.SOME_SUCCEEDED if scored else concepts.NONE_SUCCEEDED
    container = sr.ContainerContentItem(name=concepts.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    items: list[sr.ContentItem] = [
        sr.CodeContentItem(name=concepts.PROCESSING_SUMMARY, value=summary, relationship_type=_CONTAINS),
        _text(concepts.COMMENT, wording.DISCLAIMER),
        _text(concepts.LABEL_SOURCE, model.label_source),
        _text(concepts.INTENSITIES, model.intensities),
        _text(concepts.CALIBRATION, model.calibration),
    ]
    if model.refer_zone is not None:
        items.append(_text(concepts.REFER_ZONE, model.refer_zone))
    container.ContentSequence = sr.ContentSequence(items)
    return container


def _text(name: Code, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=name, value=value, relationship_type=_CONTAINS)


def _image_library(series: SourceSeries) -> sr.ContainerContentItem:
    """TID 1600: every image of the series, with their common attributes given once."""
    group = sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = sr.ContentSequence()
    modality = concepts.MODALITIES.get(series.modality or "")
    if modality is not None:
        group.ContentSequence.append(
            sr.CodeContentItem(name=codes.DCM.Modality, value=modality, relationship_type=_CONTEXT)
        )
    if series.frame_of_reference:
        group.ContentSequence.append(
            sr.UIDRefContentItem(
                name=codes.DCM.FrameOfReferenceUID, value=series.frame_of_reference, relationship_type=_CONTEXT
            )
        )
    group.ContentSequence.extend(
        sr.ImageContentItem(
            name=concepts.SOURCE,
            referenced_sop_class_uid=image.sop_class,
            referenced_sop_instance_uid=image.sop_instance,
            relationship_type=_CONTAINS,
        )
        for image in series.objects
    )
    library = sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _evidence(image: SourceImage, series: SourceSeries) -> Dataset:
    """Attributes that highdicom needs of an image that a report refers to."""
    evidence = Dataset()
    evidence.SOPClassUID, evidence.SOPInstanceUID = image.sop_class, image.sop_instance
    evidence.StudyInstanceUID, evidence.SeriesInstanceUID = series.study, image.series
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(evidence, keyword, "")
    evidence.StudyDate = evidence.StudyTime = None
    return evidence
