"""Read whole scans for a training, onto the detector's grid, with their lesions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.cases.cache import look, reading_code
from pipeline.cases.case import Case
from pipeline.cases.scan_table import is_ignored, lesion_diameter_mm, lesion_flag
from pipeline.config.detection import DetectionGrid
from pipeline.config.inputs import Modality
from pipeline.errors import CaseError, Code
from pipeline.files import atomic_write, private_folder, sha256_file, sha256_json
from pipeline.machine import usable_cores
from pipeline.progress import with_progress
from pipeline.scoring.finding import searchable_scan
from pipeline.scoring.finding.searchable_scan import read_searchable
from pipeline.training.detection.scans import MarkedLesion, TrainingScan
from pipeline.workflow.detection.detection_experiment import DetectionExperiment

_SOURCES = (__file__, searchable_scan.__file__)  # of cache entries, beside what `reading_code` covers


@dataclass(frozen=True, eq=False)
class ScanOnGrid:
    """A scan as a training sees it.

    Attributes:
        voxels: (R, A, S) uint8.
        affine: (4, 4), index of ``voxels`` → RAS+ world mm.
        digest: hex SHA-256 of the scan's bytes.
        measures: of the scan; see `pipeline.imaging.whole_scans.searchable`.
    """

    voxels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    digest: str
    measures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class ReadScans:
    """Some scans of a table, read.

    Attributes:
        scans: for training, in order.
        cases: the same scans' rows.
        digests: hex SHA-256 of their bytes.
        measures: of each; see `pipeline.imaging.whole_scans.searchable`.
        rejected: those that cannot be searched, with the reason.
    """

    scans: tuple[TrainingScan, ...]
    cases: tuple[Case, ...]
    digests: tuple[str, ...]
    measures: tuple[Mapping[str, float], ...]
    rejected: tuple[tuple[Case, CaseError], ...]


def read_scans(experiment: DetectionExperiment, cases: Sequence[Case], *, what: str) -> ReadScans:
    """Read scans onto the detector's grid, several at a time.

    Args:
        experiment: names grid, classes and cache.
        cases: rows of the scans' table.
        what: of the progress bar.
    """
    scans: list[TrainingScan] = []
    on_grids: list[ScanOnGrid] = []
    rows: list[Case] = []
    rejected: list[tuple[Case, CaseError]] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        outcomes = pool.map(lambda case: _read(experiment, case), cases)
        for case, outcome in zip(cases, with_progress(outcomes, what, total=len(cases)), strict=True):
            if isinstance(outcome, CaseError):
                rejected.append((case, outcome))
                continue
            scan, on_grid = outcome
            scans.append(scan)
            rows.append(case)
            on_grids.append(on_grid)
    return ReadScans(
        scans=tuple(scans),
        cases=tuple(rows),
        digests=tuple(on_grid.digest for on_grid in on_grids),
        measures=tuple(on_grid.measures for on_grid in on_grids),
        rejected=tuple(rejected),
    )


def _read(experiment: DetectionExperiment, case: Case) -> tuple[TrainingScan, ScanOnGrid] | CaseError:
    config = experiment.config
    try:
        on_grid = _on_grid(case, config.grid, modality=config.data.modality, experiment=experiment)
        lesions = tuple(
            _marked(lesion, on_grid, config.classes[1:]) for lesion in experiment.table.lesions_of[case.case_id]
        )
    except CaseError as error:
        return error
    return TrainingScan(case.case_id, on_grid.voxels, lesions), on_grid


def _on_grid(case: Case, grid: DetectionGrid, *, modality: Modality, experiment: DetectionExperiment) -> ScanOnGrid:
    """The scan on the grid, from the cache where it is there and the file is unchanged."""
    folder, root = experiment.config.data.cache, experiment.table.root
    place = None if folder is None else cached_at(case, folder, grid, modality=modality)
    if place is not None:
        with suppress(OSError, ValueError, KeyError):
            return _load(place)
    scan = read_searchable(case, grid, modality=modality, root=root)
    on_grid = ScanOnGrid(scan.voxels, scan.affine, scan.facts.digest, scan.measures)
    if place is not None:
        private_folder(place.parent)  # voxels of patients
        with atomic_write(place) as temporary, open(temporary, "wb") as handle:
            facts = json.dumps({"digest": on_grid.digest, "measures": dict(on_grid.measures)})
            np.savez(handle, voxels=on_grid.voxels, affine=on_grid.affine, facts=np.array(facts))
    return on_grid


def cached_at(case: Case, folder: Path, grid: DetectionGrid, *, modality: Modality) -> Path | None:
    """Where the cache keeps a scan on a grid, or would; None for a scan that cannot be looked at.

    The name is a digest of all that decides on the content: the grid, the scan's place and how its files look, this
    module, the code that reads and resamples, and the versions of the libraries under it.
    """
    stamps = look(case)
    if not stamps:
        return None
    code = [reading_code(), *(sha256_file(Path(source)) for source in _SOURCES)]
    files = None if case.files is None else [str(path) for path in case.files]
    key = [code, grid.model_dump(mode="json"), modality, str(case.path.absolute()), files, case.part, stamps]
    return folder / f"{sha256_json(key)}.npz"


def _load(place: Path) -> ScanOnGrid:
    with np.load(place, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        return ScanOnGrid(stored["voxels"], stored["affine"], facts["digest"], facts["measures"])


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
