"""What 3D Slicer writes beside a volume: markups (new and old), segmentations and the scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from made_folders.geometry import Grid
from made_folders.truth import Point
from made_folders.writing import save_nrrd

System = Literal["LPS", "RAS"]
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_FCSV_COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_VOLUME_NODE = "vtkMRMLScalarVolumeNode1"


def _in_system(point: Point, system: System) -> list[float]:
    sign = -1.0 if system == "LPS" else 1.0
    return [round(sign * point[0], 3) + 0.0, round(sign * point[1], 3) + 0.0, round(point[2], 3)]


def write_markups(
    path: Path, points: Sequence[Point], *, kind: Literal["Fiducial", "Line"] = "Fiducial", system: System = "LPS"
) -> Path:
    """Write a ``.mrk.json`` of control points given in RAS mm."""
    name = path.name.split(".")[0]
    control_points = [
        {
            "id": str(number),
            "label": f"{name}-{number}",
            "description": "",
            "associatedNodeID": _VOLUME_NODE,
            "position": _in_system(point, system),
            "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, point in enumerate(points, start=1)
    ]
    markup = {
        "type": kind,
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": kind == "Line",
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": control_points,
        "measurements": _length(points) if kind == "Line" else [],
        "display": {"visibility": True, "opacity": 1.0, "color": [0.4, 1.0, 1.0], "textScale": 3.0},
    }
    path.write_text(json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=4))
    return path


def _length(points: Sequence[Point]) -> list[dict[str, object]]:
    value = round(float(np.linalg.norm(np.subtract(points[1], points[0]))), 4)
    return [{"name": "length", "enabled": True, "value": value, "units": "mm", "printFormat": "%-#4.4g%s"}]


def write_fcsv(path: Path, points: Sequence[Point], *, system: System) -> Path:
    """Write points given in RAS mm as Slicer 4.10 did, which said RAS as ``0``, or as Slicer 5 does in LPS."""
    old = system == "RAS"
    lines = [
        f"# Markups fiducial file version = {'4.10' if old else '5.0'}",
        f"# CoordinateSystem = {'0' if old else 'LPS'}",
        _FCSV_COLUMNS,
    ]
    for number, point in enumerate(points, start=1):
        x, y, z = _in_system(point, system)
        place = f"{x:.3f},{y:.3f},{z:.3f},0.000,0.000,0.000,1.000"
        tail = "" if old else ",2,0"
        lines.append(f"vtkMRMLMarkupsFiducialNode_{number},{place},1,1,0,F-{number},,{_VOLUME_NODE}{tail}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_segmentation(path: Path, masks: Sequence[np.ndarray], grid: Grid, *, crop: bool) -> Path:
    """Write a ``.seg.nrrd``, a segment a mask; ``crop`` keeps only the segments' bounding box, as Slicer can."""
    labels = np.zeros(grid.shape, np.uint8)
    for number, mask in enumerate(masks, start=1):
        labels[mask] = number
    start = np.zeros(3, int)
    if crop:
        filled = np.argwhere(labels)
        start, stop = filled.min(0), filled.max(0) + 1
        labels = labels[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
        affine = grid.affine.copy()
        affine[:3, 3] = grid.to_mm(start)
        grid = Grid(labels.shape, affine)
    extent = " ".join(f"0 {size - 1}" for size in labels.shape)
    fields = {}
    for number in range(len(masks)):
        name = f"Segment{number}"
        fields |= {
            f"{name}_Color": "0.5 0.68 0.5",
            f"{name}_Extent": extent,
            f"{name}_ID": f"Segment_{number + 1}",
            f"{name}_LabelValue": str(number + 1),
            f"{name}_Layer": "0",
            f"{name}_Name": f"Segment_{number + 1}",
            f"{name}_Tags": "Segmentation.Status:inprogress|",
        }
    fields |= {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": " ".join(map(str, start.tolist())),
    }
    return save_nrrd(path, labels, grid, fields=fields)


def write_scene(path: Path, *, volume: str, markups: Sequence[str], segmentations: Sequence[str]) -> Path:
    """Write a ``.mrml`` that names the files beside it, escaped as in a URL."""
    storage, name = "vtkMRMLVolumeArchetypeStorageNode1", quoteattr(volume.rsplit(".", 1)[0])
    nodes = [
        f' <VolumeArchetypeStorage id="{storage}" fileName="{quote(volume)}" singleFile="1" />',
        f' <Volume id="{_VOLUME_NODE}" name={name} references="storage:{storage};" />',
    ]
    for kind, files in (("Markups", markups), ("Segmentation", segmentations)):
        for number, file in enumerate(files, start=1):
            node, storage, name = f"vtkMRML{kind}Node{number}", f"vtkMRML{kind}StorageNode{number}", file.split(".")[0]
            nodes += [
                f' <{kind}Storage id="{storage}" fileName="{quote(file)}" />',
                f' <{kind} id="{node}" name={quoteattr(name)} references="storage:{storage};" />',
            ]
    body = "\n".join(nodes)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<MRML version="Slicer5.6.1" userTags="">\n{body}\n</MRML>\n'
    )
    return path
