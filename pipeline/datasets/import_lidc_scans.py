"""A user's TCIA download of LIDC-IDRI as whole scans with all their nodules, from the embedded annotations.

As in ``import_lidc`` nothing is copied, and the tables lie in a folder that contains the download.

- ``scans.csv`` has every CT of LIDC-IDRI that was found, with or without a nodule.
- ``lesions.csv`` has every nodule that lies in its scan. ``ignore`` is 1 for one that fewer than ``least_readers``
  readers marked, for one below 3 mm, and for one whose centre lies outside the present slices while a part of it may
  be in them. A nodule that is wholly outside them is left out.
- ``label`` is the readers' mean malignancy rating (above 3 is 1, below 3 is 0, exactly 3 is blank): opinion. A scan's
  label is 1 when a nodule that is not ignored is malignant, blank when that is unknown, else 0.

Marks that LIDC's readers called nodules below 3 mm, or no nodules, have no outline and are not in the annotations.

Source: LIDC-IDRI (The Cancer Imaging Archive), CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.datasets.import_lidc import AxialPlane, center_columns, place_series
from pipeline.datasets.lidc import LidcNodule, LidcScan, load_nodules, load_scans
from pipeline.datasets.scan_tables import (
    OPINIONS,
    SCANS,
    ImportedScans,
    opinion_columns,
    scan_label,
    tables_folder,
    write_scan_tables,
)
from pipeline.errors import UsageError
from pipeline.imaging.discovery.find import find_scans

LEAST_READERS: Final = 2
LEAST_DIAMETER_MM: Final = 3.0
_COLUMNS: Final = (
    "case_id", "image", "patient_id", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system", "diameter_mm",
    "ignore", *OPINIONS, "scan_id", "series_instance_uid",
)  # fmt: skip


def import_lidc_scans(dicom_root: Path, out: Path, *, least_readers: int = LEAST_READERS) -> ImportedScans:
    """Write the tables of the whole scans that have been downloaded.

    Args:
        dicom_root: folder of the download.
        out: folder that contains ``dicom_root``, or is it; gets ``scans.csv`` and ``lesions.csv``.
        least_readers: a nodule that fewer readers marked is to be ignored; from 1 to 4.

    Raises:
        UsageError: when the download is not under ``out``, a table exists, or no series of LIDC-IDRI was found.
    """
    folder = tables_folder(dicom_root, out)
    nodules: dict[str, list[LidcNodule]] = defaultdict(list)
    for nodule in load_nodules():
        nodules[nodule.series_instance_uid].append(nodule)
    scans = _scan_ids()
    scan_rows: list[dict[str, object]] = []
    lesion_rows: list[dict[str, object]] = []
    left_out = 0
    for candidate in find_scans(dicom_root.resolve()):
        series, plane = place_series(candidate, scans)
        if plane is None:
            continue
        scan_id, scan = scans[series]
        image = candidate.image(folder)
        rows = [
            _row(nodule, plane, scan_id, image, least_readers) for nodule in nodules[series] if _near(nodule, plane)
        ]
        left_out += len(nodules[series]) - len(rows)
        lesion_rows += rows
        scan_rows.append(_scan_row(scan, scan_id, image, rows))
    if not scan_rows:
        raise UsageError(f"{dicom_root}: no CT series of LIDC-IDRI; name the folder of the download")
    scan_rows.sort(key=lambda row: str(row["case_id"]))
    lesion_rows.sort(key=lambda row: str(row["case_id"]))
    write_scan_tables(folder, scan_rows, lesion_rows, _COLUMNS)
    ignored = sum(row["ignore"] == 1 for row in lesion_rows)
    return ImportedScans(out / SCANS, len(scan_rows), len(lesion_rows) - ignored, ignored, left_out)


def _scan_ids() -> dict[str, tuple[str, LidcScan]]:
    """By series its id, ``<patient>-s<number>``, and the scan."""
    numbers: dict[str, int] = defaultdict(int)
    scans = {}
    for scan in load_scans():
        numbers[scan.patient_id] += 1
        scans[scan.series_instance_uid] = (f"{scan.patient_id}-s{numbers[scan.patient_id]}", scan)
    return scans


def _near(nodule: LidcNodule, plane: AxialPlane) -> bool:
    """Whether any part of a nodule may lie in the slices."""
    return plane.depth(nodule) >= -nodule.diameter_mm / 2


def _row(nodule: LidcNodule, plane: AxialPlane, scan_id: str, image: str, least_readers: int) -> dict[str, object]:
    is_sure = nodule.readings >= least_readers and nodule.diameter_mm >= LEAST_DIAMETER_MM and plane.depth(nodule) >= 0
    return {
        "case_id": nodule.nodule_id,
        "image": image,
        "patient_id": nodule.patient_id,
        **center_columns(nodule, plane),
        "ignore": int(not is_sure),
        **opinion_columns(nodule),
        "scan_id": scan_id,
        "series_instance_uid": nodule.series_instance_uid,
    }


def _scan_row(scan: LidcScan, scan_id: str, image: str, lesions: Sequence[dict[str, object]]) -> dict[str, object]:
    counted = [row["label"] for row in lesions if row["ignore"] == 0]
    return {
        "case_id": scan_id,
        "image": image,
        "patient_id": scan.patient_id,
        "label": scan_label(counted, [row["label"] for row in lesions if row["ignore"] == 1]),
        "lesions": len(counted),
        "slice_thickness_mm": f"{scan.slice_thickness_mm:g}",
        "slice_spacing_mm": f"{scan.slice_spacing_mm:g}",
        "pixel_spacing_mm": f"{scan.pixel_spacing_mm:g}",
        "contrast": int(scan.contrast),
        "series_instance_uid": scan.series_instance_uid,
    }
