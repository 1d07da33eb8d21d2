"""Lesions as workstations store them in a PACS: SEG and SR by highdicom, RTSTRUCT as a planning system writes it."""

from __future__ import annotations

from collections.abc import Sequence

import contourpy
import highdicom as hd
import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from made_folders.dicom_files import uid
from made_folders.geometry import Grid
from made_folders.painters import Mask
from made_folders.truth import Point

_DATE, _TIME = "20240115", "101500"


def _settle(data: Dataset, series_uid: str) -> Dataset:
    """Replace the time of writing, and UIDs that highdicom draws at random, by ones that depend on the series."""
    drawn: dict[str, str] = {}

    def settle(_: Dataset, element: DataElement) -> None:
        if element.VR == "DA" and element.keyword in {"ContentDate", "InstanceCreationDate", "SeriesDate"}:
            element.value = _DATE
        elif element.VR == "TM" and element.keyword in {"ContentTime", "InstanceCreationTime", "SeriesTime"}:
            element.value = _TIME
        elif element.VR == "DT":
            element.value = _DATE + _TIME
        elif element.VR == "UI" and element.keyword.startswith("DimensionOrganization"):
            element.value = drawn.setdefault(element.value, uid(series_uid, "drawn", len(drawn)))

    data.walk(settle)
    return data


def segmentation(images: Sequence[Dataset], masks: Sequence[Mask], *, series_uid: str) -> Dataset:
    """A binary SEG, a segment a mask; masks have the shape (columns, rows, slices) of the images in their order."""
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Nodule {number}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            tracking_uid=uid(series_uid, "tracking", number),
            tracking_id=f"nodule-{number}",
        )
        for number in range(1, len(masks) + 1)
    ]
    frames = np.stack([mask.T for mask in masks], -1).astype(np.uint8)  # (slices, rows, columns, segments)
    return _settle(
        hd.seg.Segmentation(
            source_images=list(images),
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=series_uid,
            series_number=900,
            sop_instance_uid=uid(series_uid, 1),
            instance_number=1,
            manufacturer="Segmentation workstation",
            manufacturer_model_name="SegTool",
            software_versions="2.1",
            device_serial_number="1",
        ),
        series_uid,
    )


def measurement_report(
    images: Sequence[Dataset], lesions: Sequence[tuple[Point, float]], *, series_uid: str, as_ellipse: bool
) -> Dataset:
    """An SR of TID 1500: each lesion's centre (RAS mm) as a point, or as an ellipse in its slice, and its long axis."""
    frame = images[0].FrameOfReferenceUID
    groups = []
    for number, (center, diameter_mm) in enumerate(lesions, start=1):
        middle = np.array(center) * (-1, -1, 1)
        if as_ellipse:
            across, down = np.reshape(np.array(images[0].ImageOrientationPatient, float), (2, 3)) * diameter_mm / 2
            ends = np.array([middle - across, middle + across, middle - 0.8 * down, middle + 0.8 * down])
            region = hd.sr.ImageRegion3D(hd.sr.GraphicTypeValues3D.ELLIPSE, ends, frame)
        else:
            region = hd.sr.ImageRegion3D(hd.sr.GraphicTypeValues3D.POINT, middle[None], frame)
        length = hd.sr.Measurement(name=codes.SCT.LongAxis, value=diameter_mm, unit=codes.UCUM.Millimeter)
        groups.append(
            hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(uid(series_uid, "tracking", number), f"Nodule {number}"),
                referenced_region=region,
                finding_type=codes.SCT.Nodule,
                measurements=[length],
            )
        )
    evidence = list({id(image): image for image in (_nearest(images, center) for center, _ in lesions)}.values())
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(name="Reader^One"),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=evidence,
    )
    return _settle(
        hd.sr.Comprehensive3DSR(
            evidence=evidence,
            content=report,
            series_instance_uid=series_uid,
            series_number=901,
            sop_instance_uid=uid(series_uid, 1),
            instance_number=1,
            manufacturer="Reading workstation",
            is_complete=True,
        ),
        series_uid,
    )


def _nearest(images: Sequence[Dataset], center: Point) -> Dataset:
    """The slice that a point in RAS mm lies in."""
    normal = np.cross(*np.reshape(np.array(images[0].ImageOrientationPatient, float), (2, 3)))
    middle = np.array(center) * (-1, -1, 1)
    return min(images, key=lambda image: abs(normal @ (middle - np.array(image.ImagePositionPatient, float))))


def structure_set(
    images: Sequence[Dataset], masks: Sequence[Mask], body: Mask | None, grid: Grid, *, series_uid: str
) -> FileDataset:
    """An RTSTRUCT with closed planar contours around the masks (GTV) and, where given, around the body (EXTERNAL)."""
    data = _new_structure_set(images[0], series_uid)
    study, series, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = images[0].SeriesInstanceUID, [_reference(i) for i in images]
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = images[0].StudyInstanceUID, [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = images[0].FrameOfReferenceUID, [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    outlined = [("BODY", "EXTERNAL", body)] if body is not None else []
    outlined += [(f"GTV{number}", "GTV", mask) for number, mask in enumerate(masks, start=1)]
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    for number, (name, kind, mask) in enumerate(outlined, start=1):
        region, contours, observation = Dataset(), Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ROIGenerationAlgorithm = number, name, "MANUAL"
        region.ReferencedFrameOfReferenceUID = images[0].FrameOfReferenceUID
        contours.ReferencedROINumber, contours.ROIDisplayColor = number, [255, 60 * number % 256, 0]
        contours.ContourSequence = _contours(images, mask, grid)
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType, observation.ROIInterpreter = kind, ""
        data.StructureSetROISequence.append(region)
        data.ROIContourSequence.append(contours)
        data.RTROIObservationsSequence.append(observation)
    return data


def _new_structure_set(image: Dataset, series_uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = uid(series_uid, 1)
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in (
        "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
        "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
    ):  # fmt: skip
        setattr(data, keyword, getattr(image, keyword))
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = series_uid, 902, 1
    data.Modality, data.Manufacturer, data.ManufacturerModelName = "RTSTRUCT", "Planning system", "Contouring"
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "Plan_A", _DATE, _TIME
    return data


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return reference


def _contours(images: Sequence[Dataset], mask: Mask, grid: Grid) -> list[Dataset]:
    """Outlines half a voxel around a mask's voxels, slice by slice, in LPS mm with two decimals."""
    items = []
    for number in np.flatnonzero(mask.any((0, 1))).tolist():
        outlines = contourpy.contour_generator(z=np.pad(mask[:, :, number], 1).astype(float).T).lines(0.5)
        for outline in outlines:
            index = np.column_stack([outline[:-1] - 1, np.full(len(outline) - 1, number)])  # the last repeats the first
            points = index @ grid.lps[:3, :3].T + grid.lps[:3, 3]
            item = Dataset()
            item.ContourImageSequence = [_reference(images[number])]
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{value:.2f}" for value in points.ravel()]
            items.append(item)
    return items
