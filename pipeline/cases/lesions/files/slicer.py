"""3D Slicer's markups: ``.mrk.json`` (fiducials, lines, regions of interest) and the older ``.fcsv``.

The coordinate system is the file's own; a file without one is refused unless the user declares it. Labels and
descriptions are free text, and not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.cases.lesions.files.text_file import decode_text, read_small_file
from pipeline.cases.lesions.lesion import (
    Annotations,
    Lesion,
    LesionFormat,
    Points,
    ReadingOptions,
    RefusedAnnotation,
    System,
    counted,
    parse_system,
    stated_diameter,
    world_point,
)
from pipeline.errors import CaseError, Code

_OTHERS: Final = ("Angle", "Curve", "ClosedCurve", "Plane")
_NUMBERED_SYSTEMS: Final[dict[str, System]] = {"0": "RAS", "1": "LPS"}  # as Slicer wrote them before 4.11
_SLICER_3_COLUMNS: Final = ("label", "x", "y", "z", "sel", "vis")
_COLUMNS: Final = ("id", "x", "y", "z")
_SETTING: Final = re.compile(r"#\s*(\w+)\s*=\s*(.*)")


def read_markups(path: Path, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of a ``.mrk.json``: each point of a fiducial list, each line, each region of interest.

    A line's diameter is its length and its centre the middle; a region's diameter is the larger side of the two that
    lie nearest to the axial plane.

    Raises:
        CaseError: when the file cannot be read as a whole; what is wrong with a markup is refused in the result.
    """
    options = options or ReadingOptions()
    markups = _parse_json(path)
    lesions: list[Lesion] = []
    refused: list[RefusedAnnotation] = []
    left: dict[str, int] = {}
    for number, markup in enumerate(markups, start=1):
        kind = str(markup.get("type"))
        if kind not in _MARKUPS:
            name = kind if kind in _OTHERS else "unknown"
            left[name] = left.get(name, 0) + 1
            continue
        prefix = f"markup {number}" if len(markups) > 1 else ""
        try:
            _refuse_units(path, markup)
            system = _system(path, str(markup.get("coordinateSystem", "")), options)
            places = _MARKUPS[kind](path, markup, system)
        except CaseError as error:
            refused.append(RefusedAnnotation(error, prefix, "slicer-markups"))
            continue
        for name, place in places:
            label = " ".join(part for part in (prefix, name) if part)
            if isinstance(place, CaseError):
                refused.append(RefusedAnnotation(place, label, "slicer-markups"))
            else:
                lesions.append(Lesion(place[0], place[1], label, path, "slicer-markups"))
    notes = [f"{path}: left out {counted(count, 'markup')} of type {name}" for name, count in sorted(left.items())]
    return Annotations(tuple(lesions), tuple(refused), tuple(notes))


PlacedPoint = tuple[tuple[float, float, float], float | None]
NamedPoints = list[tuple[str, PlacedPoint | CaseError]]


def is_markups(data: bytes) -> bool:
    """Whether JSON is Slicer's, by its beginning."""
    return b'"markups"' in data[:4096] or b"markups-schema" in data[:4096]


def _parse_json(path: Path) -> list[dict[str, Any]]:
    text = decode_text(path, read_small_file(path))
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        code = Code.E_TRUNCATED if error.pos >= len(text.rstrip()) - 1 else Code.E_FORMAT
        reason = f"is not whole JSON (line {error.lineno}, column {error.colno}); save the markups again"
        raise CaseError(code, path, reason) from None
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        raise CaseError(Code.E_FORMAT, path, "is no JSON that a program wrote; save the markups again") from None
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(markup, dict) for markup in markups):
        raise CaseError(Code.E_FORMAT, path, "has no list 'markups', so it is not from 3D Slicer; name another file")
    return markups


def _refuse_units(path: Path, markup: dict[str, Any]) -> None:
    units = markup.get("coordinateUnits", "mm")
    if units != "mm" and not (isinstance(units, list) and units[:1] == ["mm"]):
        raise CaseError(Code.E_CENTER, path, "coordinates in another unit than mm; save the markups in mm")


def _system(path: Path, text: str, options: ReadingOptions) -> System:
    system = parse_system(text) or _NUMBERED_SYSTEMS.get(text.strip())
    if system is None and not text.strip():
        system = options.system
    if system is None:
        problem = "is neither RAS nor LPS" if text.strip() else "is not given"
        reason = f"its coordinate system {problem}, so left and right are unknown; --system RAS or --system LPS says it"
        raise CaseError(Code.E_CENTER, path, reason)
    return system


def _vector(path: Path, value: Any, size: int = 3) -> Points:
    numbers = isinstance(value, list) and len(value) == size
    if not numbers or not all(isinstance(part, int | float) and not isinstance(part, bool) for part in value):
        raise CaseError(Code.E_CENTER, path, f"a position that is not {size} numbers; correct or remove the markup")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:
        raise CaseError(Code.E_CENTER, path, "a position beyond all numbers; correct or remove the markup") from None


def _positions(path: Path, markup: dict[str, Any]) -> list[tuple[str, Points | CaseError]]:
    """Control points with a position, by their number from 1."""
    points = markup.get("controlPoints")
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise CaseError(Code.E_FORMAT, path, "a markup without a list of control points; save the markups again")
    defined: list[tuple[str, Points | CaseError]] = []
    for number, point in enumerate(points, start=1):
        if point.get("positionStatus", "defined") != "defined":
            continue  # a point that was never put down
        try:
            defined.append((f"point {number}", _vector(path, point.get("position"))))
        except CaseError as error:
            defined.append((f"point {number}", error))
    if not defined:
        raise CaseError(Code.E_CENTER_MISSING, path, "a markup without a single point; mark the lesion and save again")
    return defined


def _fiducials(path: Path, markup: dict[str, Any], system: System) -> NamedPoints:
    return [(name, _placed(path, point, None, system)) for name, point in _positions(path, markup)]


def _placed(path: Path, point: Points | CaseError, diameter: float | None, system: System) -> PlacedPoint | CaseError:
    if isinstance(point, CaseError):
        return point
    try:
        return world_point(point, path, system=system), stated_diameter(diameter, path)
    except CaseError as error:
        return error


def _line(path: Path, markup: dict[str, Any], system: System) -> NamedPoints:
    ends = [point for _, point in _positions(path, markup)]
    damaged = next((end for end in ends if isinstance(end, CaseError)), None)
    if damaged is not None:
        raise damaged
    if len(ends) != 2:
        raise CaseError(Code.E_CENTER, path, f"a line of {len(ends)} points, expected 2; draw it again")
    first, second = (np.asarray(end) for end in ends)
    length = float(np.linalg.norm(first - second))
    return [("", _placed(path, (first + second) / 2, length, system))]


def _region(path: Path, markup: dict[str, Any], system: System) -> NamedPoints:
    if "center" in markup:
        center = _vector(path, markup["center"])
    else:  # the first versions wrote the centre as the only control point
        (_, point), *_ = _positions(path, markup)
        if isinstance(point, CaseError):
            raise point
        center = point
    if "size" not in markup:
        return [("", _placed(path, center, None, system))]
    size = _vector(path, markup["size"])
    axes = np.eye(3)
    if "orientation" in markup:
        axes = _vector(path, markup["orientation"], 9).reshape(3, 3)  # its columns are the box's axes
    across = int(np.abs(axes[2]).argmax())
    return [("", _placed(path, center, float(np.delete(size, across).max()), system))]


_MARKUPS: Final[dict[str, Callable[[Path, dict[str, Any], System], NamedPoints]]] = {
    "Fiducial": _fiducials,
    "Line": _line,
    "ROI": _region,
}


def read_fcsv(path: Path, options: ReadingOptions | None = None) -> Annotations:
    """The lesions of a ``.fcsv``, one a point; Slicer 3's files without a version as well.

    Raises:
        CaseError: when the file cannot be read as a whole; what is wrong with a point is refused in the result.
    """
    options = options or ReadingOptions()
    lines = decode_text(path, read_small_file(path)).splitlines()
    settings = {match[1].lower(): match[2] for line in lines if (match := _SETTING.match(line))}
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    if not rows:
        raise CaseError(Code.E_CENTER_MISSING, path, "holds no point; mark the lesion and save again")
    columns = [name.strip() for name in settings.get("columns", "").split(",")]
    if columns == [""]:
        columns = list(_COLUMNS if "coordinatesystem" in settings else _SLICER_3_COLUMNS)
    if any(columns.count(axis) != 1 for axis in "xyz"):
        raise CaseError(Code.E_FORMAT, path, "its columns have no x, y and z; save the points again")
    system = _system(path, settings.get("coordinatesystem", ""), options)
    return _points(path, rows, [columns.index(axis) for axis in "xyz"], system)


def _points(path: Path, rows: Sequence[str], places: Sequence[int], system: System) -> Annotations:
    lesions: list[Lesion] = []
    refused: list[RefusedAnnotation] = []
    kind: LesionFormat = "fcsv"
    for number, row in enumerate(rows, start=1):
        name = f"point {number}"
        try:
            cells = row.split(",")  # labels hold no comma, and the numbers stand before them
            point = [float(cells[place]) for place in places]
            lesions.append(Lesion(world_point(point, path, system=system), None, name, path, kind))
        except (ValueError, IndexError):
            error = CaseError(Code.E_CENTER, path, "a point whose x, y and z are not three numbers; correct the line")
            refused.append(RefusedAnnotation(error, name, kind))
        except CaseError as error:
            refused.append(RefusedAnnotation(error, name, kind))
    return Annotations(tuple(lesions), tuple(refused))
