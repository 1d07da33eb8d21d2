"""One small CT with one lesion, as a DICOM series, and the lesion in every format that readers save."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_writing import blank, save
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

SHAPE = (48, 44, 24)  # columns, rows, slices
SPACING = (0.8, 0.9, 2.0)  # mm between columns, rows, slices
CENTER, RADII = (30, 17, 14), (5.2, 4.2, 2.2)  # of the lesion, voxels
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def rotation(x_degrees: float, z_degrees: float) -> np.ndarray:
    """Directions of a row, a column and the normal, as columns; LPS."""
    a, b = np.radians([x_degrees, z_degrees])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


AXIAL, OBLIQUE = np.eye(3), rotation(17.0, 11.0)


@dataclass(frozen=True, eq=False)
class MadeScan:
    """A series on disk and the truth about its lesion.

    Attributes:
        folder: of the slices.
        slices: as written, in order along the normal.
        affine: index -> RAS mm.
        mask: (columns, rows, slices).
        center_mm: RAS.
    """

    folder: Path
    slices: list[FileDataset]
    affine: np.ndarray
    mask: np.ndarray
    center_mm: np.ndarray

    @property
    def series(self) -> str:
        return self.slices[0].SeriesInstanceUID

    @property
    def frame_of_reference(self) -> str:
        return self.slices[0].FrameOfReferenceUID

    def lps(self, index: np.ndarray) -> np.ndarray:
        """LPS mm of indices (N, 3)."""
        return (np.atleast_2d(index) @ self.affine[:3, :3].T + self.affine[:3, 3]) * [-1, -1, 1]


def ellipsoid(center=CENTER, radii=RADII, shape=SHAPE) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(length) for length in shape), indexing="ij"), -1)
    return (((grid - center) / radii) ** 2).sum(-1) <= 1


def second_ellipsoid() -> np.ndarray:
    """A smaller lesion of the same scan, elsewhere."""
    return ellipsoid((12, 30, 6), (3.2, 4.4, 1.2))


def write_scan(folder: Path, directions: np.ndarray = AXIAL, *, origin=(-31.7, 12.3, -104.6), seed=0) -> MadeScan:
    """Write a series of a body with a bright lesion, each slice a file."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * SPACING, origin
    mask = ellipsoid()
    rng = np.random.default_rng(seed)
    values = rng.normal(-800, 60, SHAPE)
    for bright in (mask, second_ellipsoid()):
        values[bright] = rng.normal(60, 40, bright.sum())
    series, study, frame = (generate_uid(entropy_srcs=[str(folder), kind, str(seed)]) for kind in "abc")
    slices = []
    for number in range(SHAPE[2]):
        image = blank(number)
        image.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Rows, image.Columns, image.InstanceNumber, image.SliceThickness = SHAPE[1], SHAPE[0], number + 1, 2.0
        image.PatientBirthDate, image.PatientSex, image.StudyID, image.StudyDate = "", "O", "1", "20200101"
        image.StudyTime, image.AccessionNumber, image.ReferringPhysicianName, image.SeriesNumber = "", "", "", 1
        image.PixelSpacing = [SPACING[1], SPACING[0]]
        image.ImageOrientationPatient = [f"{value:.10f}" for value in directions[:, :2].T.ravel()]
        image.ImagePositionPatient = [f"{value:.8f}" for value in affine[:3] @ [0, 0, number, 1]]
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.PixelData = (values[:, :, number].T.round() + 1024).clip(0).astype("<u2").tobytes()
        save(image, folder / f"IM{(number * 7) % SHAPE[2]:03d}.dcm")
        slices.append(image)
    ras = FLIP @ affine
    center = ras[:3] @ [*np.argwhere(mask).mean(0), 1]
    return MadeScan(folder, slices, ras, mask, center)


def write_mask(scan: MadeScan, path: Path, labels: np.ndarray | None = None, *, affine=None) -> Path:
    """A NIfTI mask; its axes are turned and flipped against the scan's, as converters leave them."""
    labels = scan.mask.astype(np.uint8) if labels is None else labels
    turned = labels.transpose(1, 0, 2)[:, ::-1]
    turn = np.array([[0, -1, 0, labels.shape[0] - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(turned, (scan.affine if affine is None else affine) @ turn, dtype=labels.dtype)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def write_segmentation(scan: MadeScan, path: Path, masks: Sequence[np.ndarray] | None = None, *, kind="BINARY", **more):
    """A DICOM segmentation by highdicom; the masks' values are segments, or fractions of one."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    masks = [scan.mask] if masks is None else masks
    algorithm = AlgorithmIdentificationSequence("hand", codes.DCM.ArtificialIntelligence, "1")
    categories = more.pop("categories", [codes.SCT.MorphologicallyAbnormalStructure] * len(masks))
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label="CANARY^ANNE",
            segmented_property_category=category,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, category in enumerate(categories, start=1)
    ]
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks], -1)  # (slices, rows, columns, segments)
    pixels = pixels.astype(np.float32) if kind == "FRACTIONAL" else pixels.astype(np.uint8)
    found = Segmentation(
        source_images=scan.slices,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=more.pop("sop_instance_uid", generate_uid()),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **more,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path)
    return found


def pixel_edges(mask: np.ndarray) -> np.ndarray:
    """The outline (N, 2) along the pixels' edges of a 2D mask whose columns of pixels have no gap."""
    forth, back = [], []
    for row in np.flatnonzero(mask.any(0)):
        run = np.flatnonzero(mask[:, row])
        forth += [(run[0] - 0.5, row - 0.5), (run[0] - 0.5, row + 0.5)]
        back += [(run[-1] + 0.5, row - 0.5), (run[-1] + 0.5, row + 0.5)]
    return np.array(forth + back[::-1], float)


def outlines(scan: MadeScan, mask: np.ndarray | None = None) -> list[np.ndarray]:
    """Outlines (N, 3) in LPS mm of a mask, one a slice."""
    mask = scan.mask if mask is None else mask
    found = []
    for number in np.flatnonzero(mask.any((0, 1))):
        edges = pixel_edges(mask[:, :, number])
        found.append(scan.lps(np.column_stack([edges, np.full(len(edges), number)])))
    return found


def write_structure_set(
    scan: MadeScan,
    path: Path,
    regions: Sequence[tuple[str, str, Sequence[np.ndarray]]] | None = None,
    *,
    edit: Callable[[Dataset], None] = lambda dataset: None,
    interpreted: Sequence[str] = (),
) -> Dataset:
    """An RT structure set: (name, geometric type, outlines in LPS mm) for each region."""
    regions = [("CANARY^ANNE", "CLOSED_PLANAR", outlines(scan))] if regions is None else regions
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID, found.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    found.Modality, found.PatientID, found.PatientName = "RTSTRUCT", "MRN-CANARY-1", "CANARY^ANNE"
    found.StudyInstanceUID, found.SeriesInstanceUID = scan.slices[0].StudyInstanceUID, generate_uid()
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = scan.series
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", found.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = scan.frame_of_reference, [study]
    found.ReferencedFrameOfReferenceSequence = [frame]
    found.StructureSetROISequence, found.ROIContourSequence, found.RTROIObservationsSequence = [], [], []
    for number, (name, kind, parts) in enumerate(regions, start=1):
        roi, contours, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, scan.frame_of_reference
        contours.ReferencedROINumber, contours.ContourSequence = number, []
        for points in parts:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.9g}" for value in np.asarray(points).ravel()]
            contours.ContourSequence.append(contour)
        observation.ObservationNumber, observation.ReferencedROINumber = number, number
        observation.RTROIInterpretedType = interpreted[number - 1] if interpreted else ""
        found.StructureSetROISequence.append(roi)
        found.ROIContourSequence.append(contours)
        found.RTROIObservationsSequence.append(observation)
    edit(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)
    return found


def write_report(scan: MadeScan, path: Path, groups: Sequence[object], *, evidence: Sequence[Dataset] = ()) -> Dataset:
    """A structured report of TID 1500 with these measurement groups, by highdicom."""
    from highdicom.sr import (
        Comprehensive3DSR,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        PersonObserverIdentifyingAttributes,
    )
    from pydicom.sr.codedict import codes

    person = PersonObserverIdentifyingAttributes("CANARY^ANNE")
    context = ObservationContext(ObserverContext(codes.DCM.Person, person))
    report = MeasurementReport(context, codes.LN.CTUnspecifiedBodyRegion, imaging_measurements=groups)
    found = Comprehensive3DSR(
        evidence=[*scan.slices, *evidence],
        content=report[0],
        series_instance_uid=generate_uid(),
        series_number=3,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path)
    return found


def planar_group(scan: MadeScan, region: object = None, *, diameter_mm: float | None = None, **more):
    """A measurement group with a region, and a long axis when there is a diameter."""
    from highdicom.sr import Measurement, PlanarROIMeasurementsAndQualitativeEvaluations, TrackingIdentifier
    from pydicom.sr.codedict import codes

    measured = []
    if diameter_mm is not None:
        measured = [Measurement(codes.SCT.LongAxis, diameter_mm, codes.UCUM.Millimeter)]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(generate_uid(), "CANARY^ANNE"),
        referenced_region=region,
        finding_type=codes.SCT.Nodule,
        measurements=measured,
        **more,
    )


def region_in_space(scan: MadeScan, kind: str, points_lps: np.ndarray):
    from highdicom.sr import ImageRegion3D

    return ImageRegion3D(kind, np.atleast_2d(points_lps), scan.frame_of_reference)


def region_on_image(scan: MadeScan, kind: str, pixels: np.ndarray, number: int):
    """A region in (column, row), the centre of the first pixel at (0.5, 0.5), on one slice."""
    from highdicom.sr import ImageRegion, SourceImageForRegion

    image = scan.slices[number]
    return ImageRegion(kind, np.atleast_2d(pixels), SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID))


def write_markups(scan: MadeScan, path: Path, *, system="LPS", kind="Fiducial", **markup) -> Path:
    """3D Slicer's JSON with one point, in either system; other types by their own entries."""
    center = scan.center_mm * ([-1, -1, 1] if system == "LPS" else [1, 1, 1])
    point = {"id": "1", "label": "CANARY^ANNE", "position": center.tolist(), "positionStatus": "defined"}
    entry = {"type": kind, "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": [point], **markup}
    content = {
        "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
        "markups-schema-v1.0.3.json#",
        "markups": [entry],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    return path


def write_fcsv(scan: MadeScan, path: Path, *, system="LPS") -> Path:
    """3D Slicer's older list of points."""
    x, y, z = scan.center_mm * ([-1, -1, 1] if system in ("LPS", "1") else [1, 1, 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"# Markups fiducial file version = 4.10\n# CoordinateSystem = {system}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        f"vtkMRMLMarkupsFiducialNode_0,{x:.6f},{y:.6f},{z:.6f},0,0,0,1,1,1,0,CANARY^ANNE,,\n"
    )
    return path


def write_rows(path: Path, header: Sequence[str], *rows: Sequence[object], delimiter=",") -> Path:
    """A table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as handle:
        csv.writer(handle, delimiter=delimiter).writerows([header, *rows])
    return path


def write_lidc_xml(scan: MadeScan, path: Path, nodules: Sequence[np.ndarray] | None = None, *, extra="") -> Path:
    """LIDC's XML: each nodule's mask outlined by two readers, through the first pixels outside."""
    nodules = [scan.mask] if nodules is None else nodules
    sessions = "".join(
        "<readingSession><servicingRadiologistID>CANARY</servicingRadiologistID>"
        f"{''.join(_reading(scan, mask) for mask in nodules)}{extra}</readingSession>"
        for _ in range(2)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<LidcReadMessage uid="1" xmlns="http://www.nih.gov">'
        f"<ResponseHeader><SeriesInstanceUid>{scan.series}</SeriesInstanceUid></ResponseHeader>{sessions}"
        "</LidcReadMessage>"
    )
    return path


def _reading(scan: MadeScan, mask: np.ndarray) -> str:
    from scipy import ndimage

    rois = ""
    for number in np.flatnonzero(mask.any((0, 1))):
        inside = mask[:, :, number]
        rim = ndimage.binary_dilation(inside) & ~inside
        edges = "".join(
            f"<edgeMap><xCoord>{column}</xCoord><yCoord>{row}</yCoord></edgeMap>" for column, row in np.argwhere(rim)
        )
        image = scan.slices[number]
        rois += (
            f"<roi><imageZposition>{float(image.ImagePositionPatient[2]):.6f}</imageZposition>"
            f"<imageSOP_UID>{image.SOPInstanceUID}</imageSOP_UID><inclusion>TRUE</inclusion>{edges}</roi>"
        )
    ratings = "<characteristics><subtlety>5</subtlety><malignancy>4</malignancy></characteristics>"
    return f"<unblindedReadNodule><noduleID>CANARY</noduleID>{ratings}{rois}</unblindedReadNodule>"
