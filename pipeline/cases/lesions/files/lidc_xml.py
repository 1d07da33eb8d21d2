"""LIDC-IDRI's XML: the outlines of up to four readers on the pixels of a CT series, clustered into nodules.

Nodules of 3 mm and more count: they alone have outlines and ratings. Smaller ones (a single point) and non-nodules are
left out and counted. Several readers' outlines of one nodule are one lesion, as in the annotations that the package
holds (`pipeline.cases.lesions.files.lidc_readings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

import numpy as np

from pipeline.cases.lesions.files.lidc_readings import READERS, Contour, Reading, centroid, cluster_readings
from pipeline.cases.lesions.files.text_file import read_small_file
from pipeline.cases.lesions.files.xml_tree import parse_xml
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.indexed_image import IndexedImage
from pipeline.cases.lesions.lesion import (
    Annotations,
    ImageReference,
    Lesion,
    Points,
    ReadingOptions,
    RefusedAnnotation,
    counted,
    world_point,
)
from pipeline.cases.lesions.shape import longest_extent
from pipeline.errors import CaseError, Code

ROOT: Final = "LidcReadMessage"
_AXIAL: Final = 1e-3
_MOST_OUTLINES = 20_000
_MOST_SLICES = 10_000


@dataclass(frozen=True, eq=False)
class _Outline:
    """One outline as the file gives it."""

    inclusion: bool
    z_mm: float
    object_uid: str
    points: Points


def read_lidc_xml(path: Path, images: ImageIndex, options: ReadingOptions | None = None) -> Annotations:
    """The nodules of a LIDC-IDRI file.

    The centre is the mean over the readers of the centre of their outlines' bounding boxes. The diameter is the mean
    over the readers of the largest extent within a slice; outlines run through the first pixels outside of the nodule,
    so a pixel is taken off.

    Args:
        path: of the file.
        images: of the input; the outlines are on the pixels of the DICOM series that it names.
        options: not needed here.

    Raises:
        CaseError: when it cannot be read at all; what is wrong with its content is refused in the result.
    """
    del options
    root = parse_xml(path, read_small_file(path))
    if root.tag != ROOT:
        raise CaseError(Code.E_FORMAT, path, f"its root element is not {ROOT}, so it is not LIDC-IDRI's; name another")
    reference = ImageReference(series=_text(root, "SeriesInstanceUid") or _text(root, "SeriesInstanceUID") or None)
    try:
        readings, small = _readings(path, root)
        others = sum(1 for _ in root.iter("nonNodule"))
        notes = [f"{path}: left out {counted(small, 'reading')} of nodules below 3 mm"] if small else []
        notes += [f"{path}: left out {counted(others, 'reading')} of non-nodules"] if others else []
        lesions = _lesions(path, readings, reference, images) if readings else ()
    except CaseError as error:
        return Annotations(refused=(RefusedAnnotation(error, format="lidc-xml", reference=reference),))
    return Annotations(lesions, notes=tuple(notes))


def _text(element: Element, tag: str) -> str:
    child = next(element.iter(tag), None)
    return (child.text or "").strip() if child is not None else ""


def _readings(path: Path, root: Element) -> tuple[list[list[_Outline]], int]:
    """The outlines of each reading, and how many readings have none."""
    readings, small, outlines = [], 0, 0
    for nodule in root.iter("unblindedReadNodule"):
        rated = nodule.find("characteristics")
        drawn = [_outline(path, roi) for roi in nodule.iter("roi")]
        outlines += len(drawn)
        if outlines > _MOST_OUTLINES:
            raise CaseError(Code.E_TOO_LARGE, path, f"over {_MOST_OUTLINES} outlines; no scan of LIDC-IDRI has as many")
        if rated is None or not len(rated) or not any(outline.inclusion for outline in drawn):
            small += 1
        else:
            readings.append(drawn)
    return readings, small


def _outline(path: Path, roi: Element) -> _Outline:
    points = [[_number(path, edge, axis) for axis in ("xCoord", "yCoord")] for edge in roi.iter("edgeMap")]
    if not points:
        raise CaseError(Code.E_FORMAT, path, "an outline without a point; copy the file again")
    return _Outline(
        inclusion=_text(roi, "inclusion").upper() != "FALSE",
        z_mm=_number(path, roi, "imageZposition"),
        object_uid=_text(roi, "imageSOP_UID"),
        points=np.array(points),
    )


def _number(path: Path, element: Element, tag: str) -> float:
    try:
        value = float(_text(element, tag))
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or abs(value) > 1e6:
        raise CaseError(Code.E_CENTER, path, "a coordinate of an outline is no number; copy the file again")
    return value


def _lesions(
    path: Path, readings: Sequence[Sequence[_Outline]], reference: ImageReference, images: ImageIndex
) -> tuple[Lesion, ...]:
    resolution = images.resolve(reference, dedicated=True)
    if resolution.image is None or resolution.error is not None:
        code, reason = resolution.error or (Code.E_NOT_FOUND, "its image is missing")
        raise CaseError(code, path, reason)
    image = resolution.image
    if not image.slices:
        reason = f"its outlines are pixels of a DICOM series, and {image.name!r} is none; give the series, or a table"
        raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
    affine = image.grid.affine
    step = float(np.linalg.norm(affine[:3, 2]))
    on_slices = [
        Reading((), tuple(_on_slice(path, outline, image, step) for outline in outlines)) for outlines in readings
    ]
    thickness = next(iter(image.slices.values())).frame.thickness
    nodules = cluster_readings(
        on_slices,
        slice_z_mm=_depths(on_slices, image.grid.shape[2], step),
        slice_thickness_mm=thickness if thickness is not None and thickness > 0 else step,
    )
    lesions = []
    for number, nodule in enumerate(nodules, start=1):
        column, row, depth = centroid(nodule)
        center = image.grid.world(np.array([[column, row, depth / step]]))[0]
        diameter = float(np.mean([_diameter(reading, affine) for reading in nodule]))
        name = f"nodule {number}" + (f" ({len(nodule)} readings)" if len(nodule) > READERS else "")
        lesions.append(Lesion(world_point(center, path), round(diameter, 3), name, path, "lidc-xml", reference))
    return tuple(lesions)


def _depths(readings: Sequence[Reading], slices: int, step: float) -> Points:
    """The slices' depths, and those of slices that only outlines lie on: of a part of a series, the rest."""
    places = [contour.z_mm / step for reading in readings for contour in reading.contours]
    first, last = min(0, int(np.floor(min(places)))), max(slices - 1, int(np.ceil(max(places))))
    if last - first > _MOST_SLICES:
        first, last = 0, slices - 1  # impossible heights, whose nodules lie outside of the image
    return np.arange(first, last + 1, dtype=np.float64) * step


def _on_slice(path: Path, outline: _Outline, image: IndexedImage, step: float) -> Contour:
    """The outline with its depth counted in slices from the image's first, times their distance."""
    place = image.slices.get((outline.object_uid, 1))
    if place is not None:
        return Contour(outline.inclusion, place.number * step, outline.points)
    affine = image.grid.affine  # the slice is missing, as in a part of the series: its height gives its position
    if np.abs(affine[2, :2]).max() > _AXIAL * step or abs(affine[2, 2]) < 0.5 * step:
        reason = "an outline lies on a slice that the series does not hold, and the series is not axial; give all of it"
        raise CaseError(Code.E_MIXED_SERIES, path, reason)
    return Contour(outline.inclusion, (outline.z_mm - affine[2, 3]) / affine[2, 2] * step, outline.points)


def _diameter(reading: Reading, affine: Points) -> float:
    pixel = float(np.linalg.norm(affine[:3, :2], axis=0).mean())
    extents = [longest_extent(contour.points @ affine[:3, :2].T) for contour in reading.contours if contour.inclusion]
    return max(max(extents) - pixel, pixel)
