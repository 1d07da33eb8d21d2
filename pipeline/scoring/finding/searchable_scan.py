"""Read a whole scan onto a detector's grid, for training and for finding.

The cache of a training is named by this module's text among others (`pipeline.workflow.detection.training_scans`), so
what decides on the voxels stands here or in `pipeline.imaging`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.remote import local_copy
from pipeline.config.detection import DetectionGrid
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import within_root
from pipeline.imaging.decoded import DecodedScan, decode
from pipeline.imaging.image import Affine, ScanFacts, Warning, carrying, scan_facts
from pipeline.imaging.read import open_scan
from pipeline.imaging.whole_scans.resampled import ByteArray, resample_whole
from pipeline.imaging.whole_scans.searchable import require_lung, require_searchable


@dataclass(frozen=True, eq=False)
class SearchableScan:
    """A scan that has been read and can be searched.

    Attributes:
        voxels: (R, A, S) on the detector's grid, a byte each.
        affine: (4, 4), index of ``voxels`` → RAS+ world mm.
        warnings: of reading.
        measures: sides and spacing in mm and, for CT, of the lung; see
            `pipeline.imaging.whole_scans.searchable`. Some of them are what the detector's envelope judges.
        facts: of the scan.
        scan: its decoded voxels, for cutting regions out of it.
    """

    voxels: ByteArray
    affine: Affine
    warnings: tuple[Warning, ...]
    measures: dict[str, float]
    facts: ScanFacts
    scan: DecodedScan


def read_searchable(case: Case, grid: DetectionGrid, *, modality: str, root: Path | None) -> SearchableScan:
    """Read a scan onto a detector's grid; training and finding both use this function.

    Args:
        case: the scan.
        grid: of the detector.
        modality: that it takes.
        root: folder that no image may leave, None for no such limit.

    Raises:
        CaseError: with the code of what is wrong; also for a scan that cannot be searched.
    """
    if case.fault:
        raise case.fault
    try:
        with local_copy(case) as local:
            return _read(local, grid, modality=modality, root=root)
    except MemoryError:
        raise CaseError(
            Code.E_TOO_LARGE, case.image, "does not fit into memory; search fewer scans at a time (--workers)"
        ) from None


def _read(case: Case, grid: DetectionGrid, *, modality: str, root: Path | None) -> SearchableScan:
    path = case.path if root is None else within_root(case.path, root)
    opened = open_scan(path, limits=grid.limits, modality=modality, files=case.files, part=case.part)
    with carrying(opened.warnings):
        measures = require_searchable(opened, path, modality=modality)
        scan = decode(opened)
        window = (grid.lower, grid.upper)
        voxels, affine = resample_whole(scan, path, spacing=grid.spacing_mm, window=window, modality=modality)
        if modality == "CT":
            measures |= require_lung(voxels, path, window=window, spacing=grid.spacing_mm)
    return SearchableScan(voxels, affine, scan.warnings, measures, scan_facts(scan, modality=modality), scan)
