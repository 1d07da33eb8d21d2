"""Tables of lesion centres: in mm with their coordinate system, LUNA16's annotations, and voxel indices.

Two things are never guessed: which of RAS and LPS millimetres are, and whether the first voxel has the index 0 or 1.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.cases.case import Point
from pipeline.cases.lesions.files.table_rows import REFERENCES, LesionColumns, LesionTable, read_lesion_table
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import (
    Annotations,
    ImageReference,
    Lesion,
    ReadingOptions,
    RefusedAnnotation,
    System,
    counted,
    parse_system,
    stated_diameter,
    world_point,
)
from pipeline.errors import CaseError, Code


def read_table_lesions(path: Path, images: ImageIndex, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of a table, one a row.

    Where a table has both, centres in mm are used and not voxel indices. Rows without a centre, and LUNA16's candidates
    that are no nodules (``class`` 0), are left out and counted.

    Args:
        path: a text, Excel or Parquet table.
        images: of the input; voxel indices need the geometry of theirs.
        options: the coordinate system and the first index, where the table does not say them.

    Raises:
        CaseError: when the file cannot be opened.
        TableError: when it is no table of lesions.
    """
    options = options or ReadingOptions()
    table = read_lesion_table(path)
    columns = table.columns
    kind = columns.format
    lesions: list[Lesion] = []
    refused: list[RefusedAnnotation] = []
    blank = no_nodules = 0
    for row, line in zip(table.rows, table.lines, strict=True):
        places = columns.center or columns.voxel
        assert places is not None
        if not any(row[place].strip() for place in places):
            blank += 1
            continue
        if kind == "luna16" and columns.cell(row, "nodule_class") in ("0", "0.0"):
            no_nodules += 1
            continue
        reference = _reference(row, columns)
        try:
            center = _center(path, row, table, reference, images, options)
            diameter = _diameter(path, row, table)
            lesions.append(Lesion(center, diameter, f"row {line}", path, kind, reference))
        except CaseError as error:
            refused.append(RefusedAnnotation(error, f"row {line}", kind, reference))
    notes = [f"{path}: {'; '.join(table.notes)}"] if table.notes else []
    notes += [f"{path}: left out {counted(blank, 'row')} without a centre"] if blank else []
    notes += (
        [f"{path}: left out {counted(no_nodules, 'candidate')} of class 0, which are no nodules"] if no_nodules else []
    )
    return Annotations(tuple(lesions), tuple(refused), tuple(notes))


def _reference(row: Sequence[str], columns: LesionColumns) -> ImageReference:
    case_id, image, series, patient = (columns.cell(row, name) or None for name in REFERENCES)
    if image is not None:  # normalise Windows separators and ``.`` parts
        image = posixpath.normpath(image.replace("\\", "/"))
    return ImageReference(series=series, image=image, case_id=case_id, patient=patient)


def _center(
    path: Path,
    row: Sequence[str],
    table: LesionTable,
    reference: ImageReference,
    images: ImageIndex,
    options: ReadingOptions,
) -> Point:
    columns = table.columns
    if columns.center is not None:
        point = [_number(path, row[place], table) for place in columns.center]
        return world_point(point, path, system=_system(path, row, columns, options))
    assert columns.voxel is not None
    index = np.array([_number(path, row[place], table) for place in columns.voxel])
    base = _index_base(path, row, columns, options)
    resolution = images.resolve(reference, dedicated=not columns.names_images)
    if resolution.image is None or resolution.error is not None:
        code, reason = resolution.error or (Code.E_NOT_FOUND, "its image is missing")
        raise CaseError(code, path, reason)
    return world_point(resolution.image.grid.world((index - base)[np.newaxis])[0], path)


def _number(path: Path, text: str, table: LesionTable) -> float:
    text = text.strip()
    if table.decimal_comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CaseError(Code.E_CENTER, path, "a cell that is no number; fill in or clear all three and the diameter")
    return value


def _system(path: Path, row: Sequence[str], columns: LesionColumns, options: ReadingOptions) -> System:
    if columns.is_luna16:
        return "LPS"
    cell = columns.cell(row, "system")
    system = parse_system(cell) if cell else options.system
    if system is None:
        problem = "its coordinate system is neither RAS nor LPS" if cell else "no coordinate system"
        reason = f"{problem}, so left and right are unknown; fill in RAS or LPS, or say it with --system"
        raise CaseError(Code.E_CENTER, path, reason)
    return system


def _index_base(path: Path, row: Sequence[str], columns: LesionColumns, options: ReadingOptions) -> int:
    cell = columns.cell(row, "index_base")
    base = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(cell) if cell else options.index_base
    if base is None:
        reason = "voxel indices, and whether the first voxel is 0 (nibabel, ITK) or 1 (ITK-SNAP's display) is not said"
        raise CaseError(Code.E_CENTER, path, f"{reason}; --index-base 0 or 1, or a column index_base")
    return base


def _diameter(path: Path, row: Sequence[str], table: LesionTable) -> float | None:
    cell = table.columns.cell(row, "diameter")
    return stated_diameter(_number(path, cell, table), path) if cell else None
