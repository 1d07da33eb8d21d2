"""The made PACS export: its index, its kernels, and what its annotations state, read by pydicom and highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pandas as pd
import pydicom
import pytest
from made_folders import Why
from made_folders.reading import nearest_mm
from matplotlib.path import Path as MplPath
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet


def test_export_has_two_kernels_a_localizer_and_an_index_of_all(made_folder):
    folder = made_folder("dicom_study_tree")
    indexed = {Path(instance.path).resolve() for instance in FileSet(folder.folder / "DICOMDIR")}
    files = [path for path in folder.folder.rglob("IM*") if path.is_file()]
    assert all(path.suffix == "" for path in files)
    assert indexed == {path.resolve() for path in files}
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    assert len({header.SOPInstanceUID for header in headers}) == len(files)
    assert {header.Modality for header in headers} == {"CT", "SEG", "SR", "RTSTRUCT"}
    for item in folder.expected.left_out:
        if item.why == Why.OTHER_RECONSTRUCTION:
            one, other = (pydicom.dcmread(folder.folder / path / "IM0001") for path in (item.path, item.of))
            assert one.ConvolutionKernel != other.ConvolutionKernel
            assert one.StudyInstanceUID == other.StudyInstanceUID
            assert one.SeriesInstanceUID != other.SeriesInstanceUID
    for path in folder.expected.left_out_because(Why.LOCALIZER):
        assert "LOCALIZER" in pydicom.dcmread(folder.folder / path / "IM0001").ImageType
    for path in folder.folder.rglob("DIRFILE"):
        assert len(list(FileSet(path))) == len(list(path.parent.glob("IM*")))


def annotated_centers(path: Path, series: Path) -> list[np.ndarray]:
    """Centres in RAS mm of the lesions that a DICOM annotation of a series states."""
    image = pydicom.dcmread(path)
    if image.Modality == "SEG":
        segmentation = hd.seg.segread(path)
        centers = []
        for number in segmentation.segment_numbers:
            volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
            centers.append(volume.affine @ (*np.argwhere(volume.array).mean(0), 1))
        return [center[:3] * (-1, -1, 1) for center in centers]
    if image.Modality == "SR":
        groups = hd.sr.srread(path).content.get_planar_roi_measurement_groups()
        return [np.mean(group.roi.value, axis=0) * (-1, -1, 1) for group in groups]
    kinds = {item.ReferencedROINumber: item.RTROIInterpretedType for item in image.RTROIObservationsSequence}
    lesions = [item for item in image.ROIContourSequence if kinds[item.ReferencedROINumber] != "EXTERNAL"]
    return [filled_center(item.ContourSequence, series) * (-1, -1, 1) for item in lesions]


def filled_center(contours: Sequence[Dataset], series: Path) -> np.ndarray:
    """The centroid in LPS mm of the voxel centres that closed contours enclose, slice by slice."""
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, series.glob("IM*"))}
    inside = []
    for contour in contours:
        header = headers[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        across, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        corner = np.array(header.ImagePositionPatient, float)
        row_mm, column_mm = (float(value) for value in header.PixelSpacing)
        outline = np.reshape(contour.ContourData, (-1, 3)).astype(float) - corner
        assert outline @ np.cross(across, down) == pytest.approx(0, abs=0.02)  # in the slice that it names
        grid = np.array([(column, row) for row in range(header.Rows) for column in range(header.Columns)])
        polygon = MplPath(np.column_stack([outline @ across / column_mm, outline @ down / row_mm]))
        voxels = grid[polygon.contains_points(grid)] * (column_mm, row_mm)
        inside.append(corner + voxels @ np.array([across, down]))
    return np.concatenate(inside).mean(0)


def test_dicom_annotations_state_the_centres_of_the_sharp_series(made_folder):
    folder = made_folder("dicom_study_tree")
    table = pd.read_csv(folder.table, dtype=str).set_index("imaging_accession")
    kinds, outlined_bodies = set(), 0
    for scan in folder.expected.scans:
        path = folder.folder / scan.lesions[0].stated_in
        annotation, image = pydicom.dcmread(path), pydicom.dcmread(folder.path(scan) / "IM0001")
        assert image.SeriesInstanceUID in str(annotation)
        assert annotation.StudyInstanceUID == image.StudyInstanceUID
        kinds.add(annotation.Modality)
        centers = annotated_centers(path, folder.path(scan))
        assert len(centers) == len(scan.lesions)
        assert all(nearest_mm(lesion.center_mm, centers) < 0.01 for lesion in scan.lesions), annotation.Modality
        if annotation.Modality == "RTSTRUCT":
            outlined_bodies += len(annotation.ROIContourSequence) > len(centers)
        row = table.loc[image.AccessionNumber]
        assert row["hospital_no"] == image.PatientID == scan.patient
        assert row["behaviour"] == {True: "malignant", False: "benign", None: "uncertain"}[scan.malignant]
    assert kinds == {"SEG", "SR", "RTSTRUCT"}
    assert outlined_bodies
