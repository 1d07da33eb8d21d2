"""NumPy arrays (.npy), whose geometry is in a file of the same name with the suffix ``.json``.

The sidecar of ``scan.npy`` is ``scan.json``, with either

- ``affine``: 4 rows of 4 numbers (or 16 in a row), array index → RAS world mm; or
- ``spacing_mm`` and ``origin_mm`` (three numbers each), ``direction`` (three rows of three, or 9 in a row; column n is
  the direction in which index n of the array runs) and ``coordinate_system`` (``RAS`` or ``LPS``, which the origin and
  the directions are in);

and, if it is known, ``modality`` (CT, MR, US, XR, mask or other). Indices are those of the array as it is stored:
``array[i, j, k]``. Arrays of SimpleITK are indexed (slice, row, column); transpose them before saving, or give their
geometry in that order. Other keys are ignored. Pickled arrays are refused: reading them would run what is in them.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from pipeline.config.inputs import Limits, Modality
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import open_regular
from pipeline.imaging.image import Affine
from pipeline.imaging.streams import Stream
from pipeline.imaging.volumes.volume import Piece, Volume, open_volume, side_file

NPY_MAGIC: Final = b"\x93NUMPY"
_MOST_HEADER: Final = 1 << 16
_MOST_SIDECAR: Final = 1 << 20
_PARTS: Final = ("spacing_mm", "origin_mm", "direction", "coordinate_system")
_EXAMPLE: Final = (
    '{"spacing_mm": [1, 1, 1], "origin_mm": [0, 0, 0], "direction": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], '
    '"coordinate_system": "RAS"}'
)


def sidecar(path: Path) -> Path:
    """The file that holds an array's geometry."""
    return path.with_suffix(".json")


def open_npy(path: Path, *, limits: Limits, modality: str | None = None) -> Volume:
    """Check an array's header and its sidecar; no voxel is read.

    Raises:
        CaseError: with the code of what is wrong.
    """
    del modality  # the sidecar may declare one
    shape, fortran, dtype, start = _read_header(path, limits)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise CaseError(Code.E_DTYPE, path, f"an array of {dtype.name}; expected whole or real numbers of 8 to 64 bits")
    if dtype.kind == "b":
        dtype = np.dtype("u1")
    header, values = _read_sidecar(path)
    if len(shape) not in (2, 3) or min(shape) < 1:
        text = " x ".join(map(str, shape)) or "no"
        raise CaseError(Code.E_SHAPE, path, f"an array of {text} values; expected a volume or a slice")
    affine = _affine(path, values)
    x, y, z = (*shape, 1)[:3]
    stored = (x, y, z)
    if not fortran:  # the last index runs fastest, so that it is the first stored axis
        stored = (z, y, x) if len(shape) == 3 else (y, x, 1)
        order = [2, 1, 0, 3] if len(shape) == 3 else [1, 0, 2, 3]
        affine = affine[:, order]
    return open_volume(
        path,
        shape=stored,
        affine=affine,
        dtype=dtype,
        pieces=[Piece(path, start)],
        limits=limits,
        modality=values.get("modality"),
        header=header,
    )


def _read_header(path: Path, limits: Limits) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the first index runs fastest, type, and where the values begin.

    Not by NumPy's reader, which hands a damaged header to Python's tokenizer in case Python 2 wrote it.
    """
    head = Stream(path, limits, packing="none").head(_MOST_HEADER)
    size = {b"\x01\0": 2, b"\x02\0": 4, b"\x03\0": 4}.get(head[6:8], 0)
    start = 8 + size + int.from_bytes(head[8 : 8 + size], "little")
    try:
        if not head.startswith(NPY_MAGIC) or not size or start > len(head):
            raise ValueError
        fields = ast.literal_eval(head[8 + size : start].decode("utf-8").strip())
        shape, fortran, kind = fields["shape"], fields["fortran_order"], fields["descr"]
        is_tuple_of_int = isinstance(shape, tuple) and all(type(length) is int for length in shape)
        if not is_tuple_of_int or not isinstance(fortran, bool) or not isinstance(kind, str):
            raise ValueError
        dtype = np.dtype(kind)
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError):
        raise CaseError(Code.E_FORMAT, path, "its header is damaged, or not of one array; save it again") from None
    if dtype.hasobject:
        raise CaseError(Code.E_DTYPE, path, "holds Python objects, which are not read; save an array of numbers")
    return shape, fortran, dtype, start


def _read_sidecar(path: Path) -> tuple[bytes, Mapping[str, Any]]:
    beside = sidecar(path)
    if not beside.exists():
        reason = f"an array says nothing of its place and its millimetres; write {beside.name} beside it, as {_EXAMPLE}"
        raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
    with open_regular(side_file(path, beside.name)) as handle:
        content = handle.read(_MOST_SIDECAR + 1)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or len(content) > _MOST_SIDECAR:
        raise CaseError(Code.E_SIDE_FILE, path, f"{beside.name} beside it is no JSON object; write one, as {_EXAMPLE}")
    if values.get("modality") not in (None, *get_args(Modality)):
        known = ", ".join(get_args(Modality))
        raise CaseError(Code.E_SIDE_FILE, path, f"{beside.name} gives an unknown modality; expected one of {known}")
    return content, values


def _affine(path: Path, values: Mapping[str, Any]) -> Affine:
    present = [name for name in _PARTS if name in values]
    if "affine" in values:
        if present:
            raise CaseError(Code.E_SIDE_FILE, path, f"its sidecar gives an affine and {present[0]} too; keep one")
        affine = _numbers(path, values["affine"], (4, 4), "affine")
        if not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise CaseError(Code.E_AFFINE, path, "the last row of the sidecar's affine is not 0 0 0 1")
        return affine
    missing = [name for name in _PARTS if name not in values]
    if missing:
        reason = f"its sidecar has no {', no '.join(missing)}; give all four, or an affine, as {_EXAMPLE}"
        raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
    if values["coordinate_system"] not in ("RAS", "LPS"):
        raise CaseError(Code.E_SIDE_FILE, path, "its sidecar's coordinate_system is neither RAS nor LPS")
    spacing, origin = (_numbers(path, values[name], (3,), name) for name in _PARTS[:2])
    direction = _numbers(path, values["direction"], (3, 3), "direction")
    if np.abs(np.linalg.norm(direction, axis=0) - 1).max() > 1e-3:
        raise CaseError(Code.E_AFFINE, path, "columns of the sidecar's direction are no unit vectors")
    if (spacing <= 0).any():
        raise CaseError(Code.E_SPACING, path, "a spacing_mm in its sidecar is not above 0")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    return affine if values["coordinate_system"] == "RAS" else np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _numbers(path: Path, value: Any, shape: tuple[int, ...], name: str) -> Affine:
    def is_number(item: Any) -> bool:
        return isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)

    rows = value if isinstance(value, list) and all(isinstance(row, list) for row in value) else [value]
    lengths = [len(row) if isinstance(row, list) else 0 for row in rows]
    fits = lengths in ([shape[-1]] * math.prod(shape[:-1]), [math.prod(shape)])
    if not fits or not all(is_number(item) for row in rows for item in row):
        text = " x ".join(map(str, shape))
        raise CaseError(Code.E_SIDE_FILE, path, f"{name} in its sidecar holds other than {text} finite numbers")
    return np.array(rows, dtype=np.float64).reshape(shape)
