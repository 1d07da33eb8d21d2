"""Shapes and ratings of the LIDC-IDRI nodules, embedded in the package as ``lidc_nodules.npz``.

The file is built from the reader annotations of LIDC-IDRI by ``tools/build_lidc_nodules.py`` and holds all 2,651
nodules of the 1,018 scans. It holds no image data.

- A nodule is a cluster of readings (one reading: one reader's outlines and ratings). LIDC had four readers, yet 14
  clusters hold more than four readings: touching nodules, or a nodule drawn in pieces. Which reader drew which part is
  unknown, so they have metadata but no mask.
- 8 patients have two scans. Their nodules stand under one patient id, and some are the same lesion seen twice, so
  whatever splits or resamples must go by patient.
- Nodules with at least three (and at most four) readings have a consensus mask: the points at least half of the
  readers outlined, on a cubic grid, with outlines interpolated between slices by signed distance and holes cut out.

Arrays of the file: ``scan_*`` one row a scan; ``nodule_*`` and ``mask_*`` one row a nodule; ``ratings`` one row a
reading, in nodule order, columns named by ``attributes``. ``mask_changes`` holds all masks end to end as packed bits,
each (z, x, y) and XOR-ed with the plane before it, which compresses several times better.

Source: LIDC-IDRI (The Cancer Imaging Archive), CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX; see
``ATTRIBUTION-LIDC-IDRI.txt`` beside the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

FILE = "lidc_nodules.npz"


@dataclass(frozen=True, eq=False)
class NoduleMask:
    """A nodule's consensus shape on a cubic grid.

    Attributes:
        voxels: shape (nx, ny, nz), read-only; x runs with the image's columns, y with its rows, z with DICOM z.
        spacing_mm: edge of a voxel.
        offset_mm: centre of ``voxels[0, 0, 0]`` minus the nodule's centroid, mm along x, y, z.
    """

    voxels: npt.NDArray[np.bool_]
    spacing_mm: float
    offset_mm: tuple[float, float, float]

    @property
    def volume_mm3(self) -> float:
        """Volume of the voxels inside."""
        return float(self.voxels.sum()) * self.spacing_mm**3


@dataclass(frozen=True, eq=False)
class LidcNodule:
    """One nodule of LIDC-IDRI, as its readers outlined and rated it.

    Attributes:
        nodule_id: ``<patient>-n<number>``, numbered from 1 within the patient, by series and then by z.
        patient_id: as published, such as ``LIDC-IDRI-0001``.
        series_instance_uid: DICOM SeriesInstanceUID of the CT.
        ratings: for each attribute the ratings of all readings, in the same order of readings. ``malignancy``,
            ``spiculation``, ``lobulation``, ``margin`` (5 is sharp), ``texture`` (1 ground glass, 3 part-solid,
            5 solid), ``sphericity`` and ``subtlety`` run from 1 to 5; ``calcification`` (1 popcorn, 2 laminated,
            3 solid, 4 non-central, 5 central, 6 absent) and ``internalStructure`` are codes without an order. Some
            early cases were rated for spiculation and lobulation on inconsistent scales; the values are as published.
        pixel_spacing_mm: of the axial pixels, both ways.
        slice_spacing_mm: median distance of neighbouring slices.
        slice_thickness_mm: as the DICOM header says.
        contrast: whether contrast agent was used.
        centroid_x_px: mean over the readings of the centre of their outlines' bounding box, in columns from 0.
        centroid_y_px: the same in rows from 0.
        centroid_z_mm: the same along z, in the mm of DICOM's ImagePositionPatient.
        diameter_mm: largest extent along the rows or the columns of any reading's outlines.
        volume_mm3: median over the readings of the pixels inside their outlines, times slice spacing.
        mask: consensus shape, or None with fewer than 3 or more than 4 readings.
    """

    nodule_id: str
    patient_id: str
    series_instance_uid: str
    ratings: Mapping[str, tuple[int, ...]]
    pixel_spacing_mm: float
    slice_spacing_mm: float
    slice_thickness_mm: float
    contrast: bool
    centroid_x_px: float
    centroid_y_px: float
    centroid_z_mm: float
    diameter_mm: float
    volume_mm3: float
    mask: NoduleMask | None

    @property
    def readings(self) -> int:
        """How many readings the nodule has."""
        return len(self.ratings["malignancy"])


@dataclass(frozen=True)
class LidcScan:
    """One CT of LIDC-IDRI, whether it holds a nodule or not.

    Attributes:
        patient_id: as published, such as ``LIDC-IDRI-0001``.
        series_instance_uid: DICOM SeriesInstanceUID.
        pixel_spacing_mm: of the axial pixels, both ways.
        slice_spacing_mm: median distance of neighbouring slices.
        slice_thickness_mm: as the DICOM header says.
        contrast: whether contrast agent was used.
    """

    patient_id: str
    series_instance_uid: str
    pixel_spacing_mm: float
    slice_spacing_mm: float
    slice_thickness_mm: float
    contrast: bool


@cache
def load_scans() -> tuple[LidcScan, ...]:
    """All 1,018 scans, ordered by patient and series."""
    arrays = _arrays()
    rows = zip(
        arrays["scan_patient_id"].tolist(),
        arrays["scan_series_uid"].tolist(),
        arrays["scan_spacing_mm"].tolist(),
        arrays["scan_contrast"].tolist(),
        strict=True,
    )
    return tuple(
        LidcScan(patient.decode(), series.decode(), pixel, step, thickness, bool(contrast))
        for patient, series, (pixel, step, thickness), contrast in rows
    )


@cache
def load_nodules() -> tuple[LidcNodule, ...]:
    """All 2,651 nodules, ordered by patient, series and z; about 1,380 of them have a mask."""
    return tuple(_nodules(_arrays()))


def _arrays() -> dict[str, npt.NDArray[np.generic]]:
    with (files("pipeline.datasets") / FILE).open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
        return dict(stored)


def _nodules(arrays: dict[str, npt.NDArray[np.generic]]) -> Iterator[LidcNodule]:
    attributes = [name.decode() for name in arrays["attributes"].tolist()]
    patients = [text.decode() for text in arrays["scan_patient_id"].tolist()]
    series = [text.decode() for text in arrays["scan_series_uid"].tolist()]
    ends = np.cumsum(arrays["nodule_readings"]).tolist()
    numbers: dict[str, int] = {}
    for index, (end, mask) in enumerate(zip(ends, _masks(arrays), strict=True)):
        scan = int(arrays["nodule_scan"][index])
        rows = arrays["ratings"][end - int(arrays["nodule_readings"][index]) : end].tolist()
        patient = patients[scan]
        numbers[patient] = numbers.get(patient, 0) + 1
        pixel, step, thickness = arrays["scan_spacing_mm"][scan].tolist()
        x, y, z = arrays["nodule_centroid"][index].tolist()
        diameter, volume = arrays["nodule_size"][index].tolist()
        yield LidcNodule(
            nodule_id=f"{patient}-n{numbers[patient]}",
            patient_id=patient,
            series_instance_uid=series[scan],
            ratings=MappingProxyType(dict(zip(attributes, zip(*rows, strict=True), strict=True))),
            pixel_spacing_mm=pixel,
            slice_spacing_mm=step,
            slice_thickness_mm=thickness,
            contrast=bool(arrays["scan_contrast"][scan]),
            centroid_x_px=x,
            centroid_y_px=y,
            centroid_z_mm=z,
            diameter_mm=diameter,
            volume_mm3=volume,
            mask=mask,
        )


def _masks(arrays: dict[str, npt.NDArray[np.generic]]) -> Iterator[NoduleMask | None]:
    changes = np.unpackbits(arrays["mask_changes"].astype(np.uint8)).astype(bool)
    start = 0
    for shape, spacing, offset in zip(
        arrays["mask_shape"].tolist(), arrays["mask_grid_mm"].tolist(), arrays["mask_offset_mm"].tolist(), strict=True
    ):
        nx, ny, nz = shape
        if not nx:
            yield None
            continue
        planes = changes[start : start + nx * ny * nz].reshape(nz, nx, ny)
        start += nx * ny * nz
        voxels = np.logical_xor.accumulate(planes, axis=0).transpose(1, 2, 0)
        voxels.setflags(write=False)
        yield NoduleMask(voxels, spacing, (offset[0], offset[1], offset[2]))
