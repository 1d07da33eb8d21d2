"""A user's TCIA download of LIDC-IDRI, with the embedded annotations, as a manifest of lesion-centred cases.

A manifest's images lie under its folder and no link may lead out, so nothing is copied or linked: ``OUT`` is a folder
that contains the download (or the download itself), and only the table is written there.

- One row a nodule (the readings of up to four radiologists, clustered) of every series found. ``center_in_slices`` is
  ``no`` where the download holds only a part of the series and the centre lies outside it: such a case is kept, and its
  reader rejects it. Other series, and scans without a nodule, are left out.
- ``label``: mean malignancy rating above 3 is 1, below 3 is 0, exactly 3 is blank. It is radiologists' opinion.
- ``patient_id`` is that of the published annotations, not read from the files.

Source: LIDC-IDRI (The Cancer Imaging Archive), CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.datasets.lidc import LidcNodule, load_nodules
from pipeline.datasets.scan_tables import opinion_columns, require_folder
from pipeline.errors import CaseError, UsageError
from pipeline.files import write_csv
from pipeline.imaging.dicom.header import DicomFile, read_header
from pipeline.imaging.discovery.find import FoundScan, find_scans

_COLUMNS: Final = (
    "case_id", "image", "label", "patient_id", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system",
    "diameter_mm", "mean_malignancy", "readings", "ratings", "center_in_slices", "series_instance_uid",
)  # fmt: skip
_AXIAL: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class AxialPlane:
    """Where the pixels of an axial series lie, LPS mm."""

    origin: tuple[float, float]
    pixel_spacing: tuple[float, float]
    lowest: float
    highest: float

    def depth(self, nodule: LidcNodule) -> float:
        """How far inside the slices the centre lies, mm, half a slice around them counted; negative outside."""
        half = nodule.slice_spacing_mm / 2
        return min(nodule.centroid_z_mm - self.lowest, self.highest - nodule.centroid_z_mm) + half

    def center(self, nodule: LidcNodule) -> tuple[float, float, float]:
        """Lesion centre, LPS mm."""
        x = self.origin[0] + nodule.centroid_x_px * self.pixel_spacing[1]
        y = self.origin[1] + nodule.centroid_y_px * self.pixel_spacing[0]
        return x, y, nodule.centroid_z_mm


def import_lidc(dicom_root: Path, out: Path) -> Path:
    """Write a manifest of the nodules whose scans have been downloaded.

    Args:
        dicom_root: folder of the download, each CT series in a folder of its own, as TCIA delivers it.
        out: folder that contains ``dicom_root``, or is it; gets ``manifest.csv``. A name that ends in ``.csv`` is the
            manifest itself.

    Returns:
        The manifest's path.

    Raises:
        UsageError: when the download is not under the manifest's folder, the manifest exists, or nothing fits.
    """
    require_folder(dicom_root)
    manifest = out if out.suffix.lower() == ".csv" else out / "manifest.csv"
    if not dicom_root.resolve().is_relative_to(manifest.parent.resolve()):
        reason = f"images lie under their manifest's folder; use {dicom_root.resolve().parent} or another folder above"
        raise UsageError(f"{out}: does not contain {dicom_root}: {reason}")
    if os.path.lexists(manifest):
        raise UsageError(f"{manifest}: exists; remove it or choose another name ending in .csv")
    rows = _rows(dicom_root.resolve(), manifest.parent.resolve())
    if not rows:
        raise UsageError(
            f"{dicom_root}: no CT series of LIDC-IDRI with a nodule in it; name the folder of the download"
        )
    cells = ([row[name] for name in _COLUMNS] for row in rows)
    write_csv(manifest, _COLUMNS, cells, exact=("case_id", "image", "patient_id"), new=True)
    return manifest


def _rows(root: Path, base: Path) -> list[dict[str, object]]:
    nodules: dict[str, list[LidcNodule]] = defaultdict(list)
    for nodule in load_nodules():
        nodules[nodule.series_instance_uid].append(nodule)
    rows: list[dict[str, object]] = []
    for candidate in find_scans(root):
        series, plane = place_series(candidate, nodules)
        if plane is not None:
            rows += [_row(nodule, plane, candidate.image(base)) for nodule in nodules[series]]
    return sorted(rows, key=lambda row: str(row["case_id"]))


def place_series(candidate: FoundScan, known: Collection[str]) -> tuple[str, AxialPlane | None]:
    """Series UID, and its plane when it is one of the known series; other faults are left to its reader."""
    if not candidate.files:
        return "", None
    headers = []
    for path in candidate.files:
        try:
            headers.append(read_header(path, limits=Limits()))
        except CaseError:
            continue  # the case stays in the manifest, and is rejected with its code when it is read
        if headers[0].series not in known:
            return "", None
    return (headers[0].series, _plane(candidate, headers)) if headers else ("", None)


def _plane(candidate: FoundScan, headers: Sequence[DicomFile]) -> AxialPlane:
    frames = [header.frames[0] for header in headers]
    first = frames[0]
    usable = first.position is not None and first.pixel_spacing is not None and first.orientation is not None
    if not usable or not np.allclose(first.orientation or (), _AXIAL, atol=1e-3):
        raise UsageError(f"{candidate.path}: not the axial CT that the annotations were made on; download it again")
    assert first.position is not None
    assert first.pixel_spacing is not None
    heights = [frame.position[2] for frame in frames if frame.position is not None]
    return AxialPlane(
        origin=(first.position[0], first.position[1]),
        pixel_spacing=(first.pixel_spacing[0], first.pixel_spacing[1]),
        lowest=min(heights),
        highest=max(heights),
    )


def center_columns(nodule: LidcNodule, plane: AxialPlane) -> dict[str, object]:
    """Centre and diameter of a nodule, a column each."""
    center = zip("xyz", plane.center(nodule), strict=True)
    columns: dict[str, object] = {f"center_{axis}_mm": f"{value:.3f}" for axis, value in center}
    return columns | {"coordinate_system": "LPS", "diameter_mm": f"{nodule.diameter_mm:.2f}"}


def _row(nodule: LidcNodule, plane: AxialPlane, image: str) -> dict[str, object]:
    opinions = opinion_columns(nodule)
    return {
        "case_id": nodule.nodule_id,
        "image": image,
        "patient_id": nodule.patient_id,
        **center_columns(nodule, plane),
        **{name: opinions[name] for name in ("label", "mean_malignancy", "readings", "ratings")},
        "center_in_slices": "yes" if plane.depth(nodule) >= 0 else "no",
        "series_instance_uid": nodule.series_instance_uid,
    }
