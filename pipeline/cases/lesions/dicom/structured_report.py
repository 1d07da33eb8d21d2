"""DICOM structured reports: the measurement groups of TID 1500, by points and outlines in space or on an image.

A group's place is its region, else the regions that its measurements were inferred from. Its diameter is the long
axis, diameter or length that it states, else the region's extent. A group without a place that names a segment of a
DICOM segmentation takes the segment's place. Tracking identifiers and findings are free text, and not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pipeline.cases.lesions.dicom.dicom_object import SOP_INSTANCE, damage_named, each_item, read_object
from pipeline.cases.lesions.dicom.report_regions import Region, Sources, region_of, sources_of, united
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import (
    Annotations,
    ImageReference,
    Lesion,
    ReadingOptions,
    RefusedAnnotation,
    SegmentLink,
    counted,
    stated_diameter,
    world_point,
)
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.values import items, number, text, uid, unsigned

_CONTENT, _VALUE_TYPE, _CONCEPT = 0x0040A730, 0x0040A040, 0x0040A043
_CODE = 0x00080100
_MEASURED, _NUMERIC, _UNITS = 0x0040A300, 0x0040A30A, 0x004008EA
_REFERENCED, _INSTANCE, _SEGMENT = 0x00081199, 0x00081155, 0x0062000B
_EVIDENCE, _OTHER_EVIDENCE = 0x0040A375, 0x0040A385
_TAGS: Final = (SOP_INSTANCE, _VALUE_TYPE, _CONCEPT, _CONTENT, _EVIDENCE, _OTHER_EVIDENCE)
_GROUP: Final = "125007"  # DCM, Measurement Group
# A long axis is preferred to a diameter, and that to a length; codes of SNOMED CT and of SRT.
_DIAMETERS: Final = ("103339001", "G-A185", "81827009", "M-02550", "410668003", "G-D7FE")
_MILLIMETRES: Final = {"mm": 1.0, "cm": 10.0}
_COORDINATES: Final = ("SCOORD3D", "SCOORD")
_DEEPEST: Final = 32


@dataclass(frozen=True)
class _Group:
    """One measurement group.

    Attributes:
        number: its place among the groups, from 1.
        regions: outlines and points, the group's own or its measurements'.
        diameter_mm: as stated.
        segment: that it names instead.
        error: what is wrong with its regions.
    """

    number: int
    regions: tuple[Region, ...]
    diameter_mm: float | None
    segment: SegmentLink | None
    error: CaseError | None = None


def read_report(path: Path, images: ImageIndex, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of a structured report, one a measurement group with a place.

    Args:
        path: of the object.
        images: of the input; points on an image need its headers.
        options: which groups are lesions, by their number in the report.

    Raises:
        CaseError: when the object cannot be read at all; what is wrong with a group is refused in the result.
    """
    options = options or ReadingOptions()
    report = read_object(path, _TAGS, options.limits)
    with damage_named(path):
        sources = sources_of([*items(report.header, _EVIDENCE), *items(report.header, _OTHER_EVIDENCE)])
        groups = [_group(path, place, item) for place, item in enumerate(_groups(report.header), start=1)]
    placed = [
        group for group in groups if (group.regions or group.segment or group.error) and options.takes(group.number)
    ]
    left = len([group for group in groups if options.takes(group.number)]) - len(placed)
    notes = [f"{path}: left out {counted(left, 'measurement group')} without a place"] if left else []
    lesions: list[Lesion] = []
    refused: list[RefusedAnnotation] = []
    for group in placed:
        reference = ImageReference()
        try:
            reference = _reference(group, sources)
            lesions.append(_lesion(path, group, reference, images))
        except CaseError as error:
            name = f"group {group.number}"
            refused.append(
                RefusedAnnotation(error, name, "dicom-sr", reference, group.segment, diameter_mm=group.diameter_mm)
            )
    return Annotations(tuple(lesions), tuple(refused), tuple(notes))


def _groups(item: Dataset, depth: int = 0) -> Iterator[Dataset]:
    """Measurement groups, wherever they stand in the tree."""
    for child in items(item, _CONTENT) if depth < _DEEPEST else ():
        if text(child, _VALUE_TYPE) == "CONTAINER" and _code(child, _CONCEPT) == _GROUP:
            yield child
        else:
            yield from _groups(child, depth + 1)


def _code(item: Dataset, tag: int) -> str:
    return next((text(code, _CODE) for code in items(item, tag)[:1]), "")


def _group(path: Path, place: int, item: Dataset) -> _Group:
    children = items(item, _CONTENT)
    measurements = [child for child in children if text(child, _VALUE_TYPE) == "NUM"]
    stated = sorted(
        (
            (_DIAMETERS.index(_code(child, _CONCEPT)), child)
            for child in measurements
            if _code(child, _CONCEPT) in _DIAMETERS
        ),
        key=lambda pair: pair[0],
    )
    diameter = next((value for _, child in stated if (value := _millimetres(child)) is not None), None)
    own = [child for child in children if text(child, _VALUE_TYPE) in _COORDINATES]
    if not own:  # what the long axis was measured on, or else what anything was measured on
        for measured in [child for _, child in stated] + measurements:
            own = [child for child in items(measured, _CONTENT) if text(child, _VALUE_TYPE) in _COORDINATES]
            if own:
                break
    try:
        regions = tuple(region_of(path, child) for child in own)
    except CaseError as error:
        return _Group(place, (), diameter, None, error)
    return _Group(place, regions, diameter, None if regions else _segment(children))


def _millimetres(measurement: Dataset) -> float | None:
    for value in items(measurement, _MEASURED)[:1]:
        factor = _MILLIMETRES.get(_code(value, _UNITS))
        amount = number(value, _NUMERIC)
        if factor is not None and amount is not None:
            return amount * factor
    return None


def _segment(children: list[Dataset]) -> SegmentLink | None:
    for child in children:
        for item in each_item(child, _REFERENCED):
            if text(child, _VALUE_TYPE) == "IMAGE" and _SEGMENT in item and uid(item, _INSTANCE):
                return SegmentLink(uid(item, _INSTANCE), str(unsigned(item, _SEGMENT)))
    return None


def _reference(group: _Group, sources: Sources) -> ImageReference:
    """The one series that the group's regions lie on; in space, the one series of the evidence."""
    instances = {region.image for region in group.regions if region.image}
    series = {sources.series_of[name] for name in instances if name in sources.series_of} or sources.image_series
    frames = {region.frame_of_reference for region in group.regions if region.frame_of_reference}
    return ImageReference(
        series=next(iter(series)) if len(series) == 1 else None,
        frame_of_reference=next(iter(frames)) if len(frames) == 1 else None,
    )


def _lesion(path: Path, group: _Group, reference: ImageReference, images: ImageIndex) -> Lesion:
    if group.error is not None:
        raise group.error
    if group.segment is not None:
        reason = "its place is a segment of a DICOM segmentation; give that object as well"
        raise CaseError(Code.E_CENTER_MISSING, path, reason)
    image = None
    if any(region.image is not None for region in group.regions):
        resolution = images.resolve(reference, dedicated=True)
        if resolution.image is None or resolution.error is not None:
            code, reason = resolution.error or (Code.E_NOT_FOUND, "its image is missing")
            raise CaseError(code, path, reason)
        image = resolution.image
    center, extent = united([region.measured(path, image) for region in group.regions])
    stated = stated_diameter(group.diameter_mm, path)
    return Lesion(
        center_mm=world_point(center, path),
        diameter_mm=stated if stated is not None else round(extent, 3) if extent else None,
        name=str(group.number),
        source=path,
        format="dicom-sr",
        reference=reference,
    )
