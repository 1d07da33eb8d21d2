"""Small MetaImage, NRRD, MGH and NumPy volumes, written by hand so that a test can spoil any part of them."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.imaging.image import Scan
from pipeline.imaging.read import open_scan

LIMITS = Limits()
WHOLE = (slice(None), slice(None), slice(None))
SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype("<i2")
DATA = VOXELS.tobytes(order="F")
# RAS: axes of the file run to the left, to posterior and up, as those of LPS do.
AFFINE = np.array([[-1.5, 0, 0, 4.0], [0, -1.25, 0, -3.0], [0, 0, 2.0, 7.0], [0, 0, 0, 1]])
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-4 3 7",
    "CenterOfRotation": "0 0 0",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "1.5 1.25 2",
    "DimSize": "7 6 5",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "7 6 5",
    "space directions": "(1.5,0,0) (0,1.25,0) (0,0,2)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-4,3,7)",
}
SIDECAR = {"affine": AFFINE.tolist()}
Fields = dict[str, str | None]


def meta_header(changes: Fields | None = None) -> bytes:
    """A MetaImage header; None removes a field."""
    fields = {name: value for name, value in (META | (changes or {})).items() if value is not None}
    last = fields.pop("ElementDataFile", None)
    lines = [f"{name} = {value}" for name, value in fields.items()]
    return "\n".join([*lines, *([] if last is None else [f"ElementDataFile = {last}"]), ""]).encode("latin-1")


def nrrd_header(changes: Fields | None = None) -> bytes:
    """An NRRD header without the empty line that ends it; None removes a field."""
    fields = {name: value for name, value in (NRRD | (changes or {})).items() if value is not None}
    lines = ["NRRD0004", "# written by a test", *(f"{name}: {value}" for name, value in fields.items()), ""]
    return "\n".join(lines).encode("latin-1")


def write_mha(path: Path, changes: Fields | None = None, data: bytes = DATA) -> Path:
    path.write_bytes(meta_header(changes) + data)
    return path


def write_mhd(path: Path, changes: Fields | None = None, data: bytes = DATA, name: str = "scan.raw") -> Path:
    path.write_bytes(meta_header({"ElementDataFile": name, **(changes or {})}))
    (path.parent / name).write_bytes(data)
    return path


def write_nrrd(path: Path, changes: Fields | None = None, data: bytes = DATA) -> Path:
    path.write_bytes(nrrd_header(changes) + b"\n" + data)
    return path


def write_nhdr(path: Path, changes: Fields | None = None, data: bytes = DATA, name: str = "scan.raw") -> Path:
    path.write_bytes(nrrd_header({"data file": name, **(changes or {})}))
    (path.parent / name).write_bytes(data)
    return path


def write_npy(path: Path, array: np.ndarray = VOXELS, sidecar: object = SIDECAR) -> Path:
    np.save(path, array)
    if sidecar is not None:
        path.with_suffix(".json").write_text(sidecar if isinstance(sidecar, str) else json.dumps(sidecar))
    return path


def mgh_bytes(
    data: bytes = DATA,
    *,
    kind: int = 4,
    good: int = 1,
    lengths: tuple[int, ...] = (7, 6, 5, 1),
    version: int = 1,
    tail: bytes = b"",
) -> bytes:
    """An MGH file; its centre is that of ``AFFINE``."""
    swapped = np.frombuffer(data, "<i2").astype(">i2").tobytes()
    center = AFFINE[:3, :3] @ (np.array(SHAPE) / 2) + AFFINE[:3, 3]
    cosines = (AFFINE[:3, :3] / (1.5, 1.25, 2.0)).T.ravel()
    head = struct.pack(">7lh15f", version, *lengths, kind, 0, good, 1.5, 1.25, 2.0, *cosines, *center)
    return head.ljust(284, b"\0") + swapped + tail


def write_mgh(path: Path, content: bytes | None = None) -> Path:
    content = mgh_bytes() if content is None else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".mgz" else content)
    return path


def opened(path: Path, limits: Limits = LIMITS) -> tuple[np.ndarray, Scan]:
    scan = open_scan(path, limits=limits)
    return scan.read(WHOLE), scan


def codes(scan: Scan) -> list[str]:
    return [str(warning.code) for warning in scan.warnings]


def packed(data: bytes = DATA) -> bytes:
    return zlib.compress(data)
