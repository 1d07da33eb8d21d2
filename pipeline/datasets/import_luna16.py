"""A user's download of LUNA16 (https://luna16.grand-challenge.org) as whole scans with their nodules and ten folds.

Nothing is copied: the tables lie in a folder that contains the download (or in the download itself).

- ``scans.csv`` has every ``subset<n>/<seriesuid>.mhd`` that is here; ``fold`` is ``n``, 0 to 9.
- ``lesions.csv`` has the rows of ``annotations.csv`` (nodules of at least 3 mm that at least three of four readers
  marked) and, where there, those of ``annotations_excluded.csv`` with ``ignore`` 1. Where these state no diameter (-1)
  the cell is blank. ``candidates.csv`` and ``candidates_V2.csv`` are not used.
- Rows of scans that are not here are left out and counted, so that a part of the ten subsets can be imported.

LUNA16 has neither malignancy nor patients; its scans are from LIDC-IDRI, whose embedded annotations have both. A nodule
gets the ratings of the LIDC nodule within its radius (but at least 3 mm), else they are blank. Where the series is not
one of LIDC-IDRI, the patient is the series.

Source: Setio et al., 2017, doi 10.1016/j.media.2017.06.015; LIDC-IDRI, CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.cases.case import Point
from pipeline.cases.tables.table import read_table
from pipeline.config.inputs import Limits
from pipeline.datasets.lidc import LidcNodule, load_nodules, load_scans
from pipeline.datasets.scan_tables import (
    OPINIONS,
    SCANS,
    ImportedScans,
    opinion_columns,
    scan_label,
    tables_folder,
    write_scan_tables,
)
from pipeline.errors import CaseError, UsageError
from pipeline.imaging.volumes.metaimage import open_metaimage

ANNOTATIONS, EXCLUDED = "annotations.csv", "annotations_excluded.csv"
# Where the download's archives put the tables, the first that is there.
_TABLE_FOLDERS: Final = ("", "CSVFILES", "evaluationScript/annotations")
_SUBSET: Final = re.compile(r"subset([0-9])")
_COORDINATES: Final = ("coordX", "coordY", "coordZ")
_LEAST_REACH_MM: Final = 3.0
_COLUMNS: Final = (
    "case_id", "image", "patient_id", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system", "diameter_mm",
    "ignore", *OPINIONS, "fold", "scan_id",
)  # fmt: skip


@dataclass(frozen=True)
class _Mark:
    """One row of a table: LPS mm; the diameter is None where it is unknown."""

    center: Point
    diameter_mm: float | None
    ignore: bool


@dataclass(frozen=True)
class _Lidc:
    """Embedded annotations, by series."""

    patients: Mapping[str, str] = field(
        default_factory=lambda: {scan.series_instance_uid: scan.patient_id for scan in load_scans()}
    )
    nodules: dict[str, list[LidcNodule]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for nodule in load_nodules():
            self.nodules[nodule.series_instance_uid].append(nodule)


def import_luna16(root: Path, out: Path) -> ImportedScans:
    """Write the tables of the scans that have been downloaded.

    Args:
        root: folder of the download, with ``subset0`` to ``subset9``, or some of them, and ``annotations.csv``.
        out: folder that contains ``root``, or is it; gets ``scans.csv`` and ``lesions.csv``.

    Raises:
        UsageError: when the download is not under ``out``, has no scan or no ``annotations.csv``, has a scan twice, or
            a table of it has another form; or when ``scans.csv`` or ``lesions.csv`` exists.
        TableError: when a table cannot be read.
    """
    folder = tables_folder(root, out)
    marks: dict[str, list[_Mark]] = defaultdict(list)
    for name, ignore in ((ANNOTATIONS, False), (EXCLUDED, True)):
        table = _table(root, name)
        if table is None and not ignore:
            raise UsageError(f"{root}: holds no {name}; download it from LUNA16's page and put it there")
        for series, mark in _marks(table, ignore=ignore) if table else ():
            marks[series].append(mark)
    lidc = _Lidc()
    scan_rows: list[dict[str, object]] = []
    lesion_rows: list[dict[str, object]] = []
    for series, (path, fold) in sorted(_scans(root).items()):
        patient = lidc.patients.get(series, series)
        image = path.resolve().relative_to(folder).as_posix()
        row: dict[str, object] = {"case_id": series, "image": image, "patient_id": patient}
        places = _places(path, lidc.nodules[series])
        lesions = [
            _lesion_row(row, number, mark, _opinions(mark, places)) | {"fold": fold, "scan_id": series}
            for number, mark in enumerate(marks[series], 1)
        ]
        counted = [lesion["label"] for lesion in lesions if lesion["ignore"] == 0]
        label = scan_label(counted, [lesion["label"] for lesion in lesions if lesion["ignore"] == 1])
        scan_rows.append(row | {"label": label, "lesions": len(counted), "fold": fold})
        lesion_rows += lesions
    write_scan_tables(folder, scan_rows, lesion_rows, _COLUMNS)
    ignored = sum(row["ignore"] == 1 for row in lesion_rows)
    left_out = sum(map(len, marks.values())) - len(lesion_rows)
    return ImportedScans(out / SCANS, len(scan_rows), len(lesion_rows) - ignored, ignored, left_out)


def _scans(root: Path) -> dict[str, tuple[Path, int]]:
    """By series the header's path and the fold."""
    headers: dict[str, tuple[Path, int]] = {}
    for subset in sorted(root.iterdir()):
        name = _SUBSET.fullmatch(subset.name.lower())
        if name is None:
            continue
        for path in sorted(subset.rglob("*.mhd")):
            if path.stem in headers:
                raise UsageError(f"{path}: the same series as {headers[path.stem][0]}; remove one of them")
            headers[path.stem] = (path, int(name[1]))
    if not headers:
        raise UsageError(f"{root}: holds no subset0 to subset9 with .mhd files; name the folder of the download")
    return headers


def _table(root: Path, name: str) -> Path | None:
    return next((root / folder / name for folder in _TABLE_FOLDERS if (root / folder / name).is_file()), None)


def _marks(path: Path, *, ignore: bool) -> list[tuple[str, _Mark]]:
    """Rows of one table, by series."""
    table = read_table(path)
    needed = ("seriesuid", *_COORDINATES, "diameter_mm")
    missing = [name for name in needed if name not in table.header]
    if missing:
        raise UsageError(f"{path}: has no column {missing[0]!r}; expected LUNA16's {', '.join(needed)}")
    marks = []
    for number, record in zip(table.row_numbers, table.records(), strict=True):
        x, y, z, diameter = (_number(path, number, name, record[name]) for name in needed[1:])
        if diameter <= 0 and not ignore:
            raise UsageError(f"{path}: row {number}: diameter_mm {diameter:g} is not above 0; download it again")
        mark = _Mark((x, y, z), diameter if diameter > 0 else None, ignore)
        marks.append((record["seriesuid"].strip(), mark))
    return marks


def _number(path: Path, row: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{path}: row {row}: {column} is {text[:20]!r}, expected a number; download the table again")
    return value


def _places(path: Path, nodules: Sequence[LidcNodule]) -> list[tuple[Point, LidcNodule]]:
    """Nodules of LIDC-IDRI with their centre in LPS mm; none when the scan's header cannot be read.

    The annotations give columns and rows of the image, and the height in mm.
    """
    if not nodules:
        return []
    try:
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ open_metaimage(path, limits=Limits()).affine
    except CaseError:
        return []  # its reader reports the fault with a code
    places = []
    for nodule in nodules:
        x, y, _ = (affine[:3, :2] @ [nodule.centroid_x_px, nodule.centroid_y_px] + affine[:3, 3]).tolist()
        places.append(((x, y, nodule.centroid_z_mm), nodule))
    return places


def _opinions(mark: _Mark, places: Sequence[tuple[Point, LidcNodule]]) -> dict[str, object]:
    """Opinions on the nearest nodule of LIDC-IDRI, blank where none is near."""
    distance, nearest = min(
        ((math.dist(mark.center, center), nodule) for center, nodule in places),
        key=lambda pair: pair[0],
        default=(math.inf, None),
    )
    if nearest is None or distance > max((mark.diameter_mm or 0) / 2, _LEAST_REACH_MM):
        return dict.fromkeys(OPINIONS, "")
    return opinion_columns(nearest)


def _lesion_row(scan: dict[str, object], number: int, mark: _Mark, opinions: dict[str, object]) -> dict[str, object]:
    return {
        "case_id": f"{scan['case_id']}-n{number}",
        "image": scan["image"],
        "patient_id": scan["patient_id"],
        **{f"center_{axis}_mm": f"{value:.3f}" for axis, value in zip("xyz", mark.center, strict=True)},
        "coordinate_system": "LPS",
        "diameter_mm": "" if mark.diameter_mm is None else f"{mark.diameter_mm:.2f}",
        "ignore": int(mark.ignore),
        **opinions,
    }
