"""Read whole scans for a training, onto the detector's grid, with their lesions."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.cache import look
from pipeline.cases.case import Case
from pipeline.cases.scan_table import is_ignored, lesion_diameter_mm, lesion_flag
from pipeline.config.detection import DetectionGrid
from pipeline.config.inputs import Modality
from pipeline.errors import CaseError, Code
from pipeline.files import atomic_write, private_folder, sha256_json
from pipeline.machine import usable_cores
from pipeline.progress import with_progress
from pipeline.scoring.finding.finder import read_searchable
from pipeline.training.detection.scans import MarkedLesion, TrainingScan
from pipeline.workflow.detection.detection_experiment import DetectionExperiment

_FORMAT = 1  # of cache entries; raised when reading or resampling changes


@dataclass(frozen=True, eq=False)
class ScanOnGrid:
    """A scan as a training sees it.

    Attributes:
        voxels: (R, A, S) uint8.
        affine: (4, 4), index of ``voxels`` → RAS+ world mm.
        digest: hex SHA-256 of the scan's bytes.
    """

    voxels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    digest: str


@dataclass(frozen=True, eq=False)
class ReadScans:
    """Some scans of a table, read.

    Attributes:
        scans: for training, in order.
        cases: the same scans' rows.
        digests: hex SHA-256 of their bytes.
        rejected: those that cannot be searched, with the reason.
    """

    scans: tuple[TrainingScan, ...]
    cases: tuple[Case, ...]
    digests: tuple[str, ...]
    rejected: tuple[tuple[Case, CaseError], ...]


def read_scans(experiment: DetectionExperiment, cases: Sequence[Case], *, what: str) -> ReadScans:
    """Read scans onto the detector's grid, several at a time.

    Args:
        experiment: names grid, classes and cache.
        cases: rows of the scans' table.
        what: of the progress bar.
    """
    scans, rows, digests, rejected = [], [], [], []
    with ThreadPoolExecutor(usable_cores()) as pool:
        outcomes = pool.map(lambda case: _read(experiment, case), cases)
        for case, outcome in zip(cases, with_progress(outcomes, what, total=len(cases)), strict=True):
            if isinstance(outcome, CaseError):
                rejected.append((case, outcome))
                continue
            scan, digest = outcome
            scans.append(scan)
            rows.append(case)
            digests.append(digest)
    return ReadScans(tuple(scans), tuple(rows), tuple(digests), tuple(rejected))


def _read(experiment: DetectionExperiment, case: Case) -> tuple[TrainingScan, str] | CaseError:
    config = experiment.config
    try:
        on_grid = _on_grid(case, config.grid, modality=config.data.modality, experiment=experiment)
        lesions = tuple(
            _marked(lesion, on_grid, config.classes[1:]) for lesion in experiment.table.lesions_of[case.case_id]
        )
    except CaseError as error:
        return error
    return TrainingScan(case.case_id, on_grid.voxels, lesions), on_grid.digest


def _on_grid(case: Case, grid: DetectionGrid, *, modality: Modality, experiment: DetectionExperiment) -> ScanOnGrid:
    """The scan on the grid, from the cache where it is there and the file is unchanged."""
    folder, root = experiment.config.data.cache, experiment.table.root
    stamps = look(case) if folder else None
    place = None
    if folder and stamps:
        key = [_FORMAT, grid.model_dump(mode="json"), modality, str(case.path.absolute()), case.part, stamps]
        place = folder / f"{sha256_json(key)}.npz"
        with suppress(OSError, ValueError, KeyError):
            return _load(place)
    scan = read_searchable(case, grid, modality=modality, root=root)
    on_grid = ScanOnGrid(scan.voxels, scan.affine, scan.facts.digest)
    if place is not None:
        private_folder(place.parent)  # voxels of patients
        with atomic_write(place) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, voxels=on_grid.voxels, affine=on_grid.affine, digest=np.array(on_grid.digest))
    return on_grid


def _load(place: Path) -> ScanOnGrid:
    with np.load(place, allow_pickle=False) as stored:
        values: dict[str, Any] = {name: stored[name] for name in ("voxels", "affine", "digest")}
    return ScanOnGrid(values["voxels"], values["affine"], str(values["digest"]))


def _marked(lesion: Case, scan: ScanOnGrid, attributes: Sequence[str]) -> MarkedLesion:
    """A lesion in voxels of the scan.

    Raises:
        CaseError: E_ROI_OUTSIDE when its centre lies outside the scan.
    """
    assert lesion.center_mm is not None  # the table has been checked
    voxel = np.linalg.solve(scan.affine, np.array([*lesion.center_mm, 1.0]))[:3]
    if (voxel < -1).any() or (voxel > scan.voxels.shape).any():
        raise CaseError(
            Code.E_ROI_OUTSIDE,
            lesion.image,
            f"the centre of lesion {lesion.case_id!r} lies outside the scan; check coordinate_system (RAS or LPS)",
        )
    flags = [lesion_flag(lesion, column) for column in attributes]
    values = tuple(float("nan") if flag is None else float(flag) for flag in flags)
    return MarkedLesion(voxel, float(lesion_diameter_mm(lesion) or 0), is_ignored(lesion), values)
