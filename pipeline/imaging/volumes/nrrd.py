"""NRRD (.nrrd, and .nhdr with its data files): the format of 3D Slicer and teem.

Read are volumes of one number a voxel, raw or gzip, in the spaces LPS, RAS and LAS. Without ``space`` and
``space directions`` the orientation is unknown, and the scan is refused; without ``space origin`` it is (0, 0, 0),
flagged W_GEOMETRY_MISSING. The gzip checksum is verified. Source: teem's "Definition of NRRD File Format", version 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Affine, Warning
from pipeline.imaging.streams import Packing, Stream
from pipeline.imaging.volumes.volume import (
    CONVERT,
    Piece,
    Volume,
    open_volume,
    real_numbers,
    side_file,
    slice_pieces,
    three_lengths,
    whole_numbers,
)

_TYPES: Final = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"
    ),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
# Signs that turn a space's axes to R, A and S.
_SPACES: Final = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip
_ENCODINGS: Final[dict[str, Packing]] = {"raw": "none", "gzip": "gzip", "gz": "gzip"}
# Kinds of an axis of length 1 or of a spatial axis; all others are components of something that is no number.
_SPATIAL: Final = frozenset({"domain", "space", "???", "none"})
_SYNONYMS: Final = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip", "centerings": "centers"}
_MOST_HEADER: Final = 1 << 20
_MOST_FILES: Final = 50_000


def open_nrrd(path: Path, *, limits: Limits, modality: str | None = None) -> Volume:
    """Check an NRRD header; no voxel is read.

    Raises:
        CaseError: with the code of what is wrong.
    """
    del modality  # no rule of the format depends on it
    fields, header = _read_header(path, limits)
    sizes = whole_numbers(path, _needed(path, fields, "sizes"), None, "sizes")
    if [len(sizes)] != whole_numbers(path, _needed(path, fields, "dimension"), 1, "dimension"):
        raise CaseError(Code.E_SHAPE, path, "dimension is not the count of sizes; export the scan again")
    axes = _spatial_axes(path, fields, sizes)
    shape = three_lengths(path, [sizes[axis] for axis in axes])
    kind = _TYPES.get(_needed(path, fields, "type"))
    if kind is None:
        raise CaseError(Code.E_DTYPE, path, "a type that is no whole or real number of 8 to 64 bits")
    dtype = np.dtype(kind).newbyteorder(_byte_order(path, fields, kind))
    affine, warnings = _geometry(path, fields, axes)
    pieces = _pieces(path, fields, header, shape, dtype.itemsize)
    return open_volume(
        path,
        shape=shape,
        affine=affine,
        dtype=dtype,
        pieces=pieces,
        limits=limits,
        warnings=warnings,
        header=b"" if pieces[0].path == path else header,
    )


def nrrd_data_file_names(path: Path, *, limits: Limits) -> list[str]:
    """Names of the voxels' files in a header; none when the voxels follow the header.

    Raises:
        CaseError: as ``open_nrrd``.
    """
    fields, _ = _read_header(path, limits)
    return _names(path, fields)


def _read_header(path: Path, limits: Limits) -> tuple[dict[str, str], bytes]:
    """Fields by name (key/value pairs and comments are left out), and the bytes of the header."""
    head = Stream(path, limits, packing="none").head(_MOST_HEADER)
    if not re.match(rb"NRRD000[1-9]\r?\n", head):
        raise CaseError(Code.E_FORMAT, path, "no NRRD of a known version; export the scan again")
    fields: dict[str, str] = {}
    place = head.index(b"\n") + 1
    while True:
        end = head.find(b"\n", place)
        line = head[place : len(head) if end < 0 else end].decode("latin-1").rstrip("\r")
        place = len(head) if end < 0 else end + 1
        if "LIST" in fields:
            fields["LIST"] += f"{line}\n"
        elif not line:
            break  # an empty line ends the header
        elif not line.startswith("#") and ":=" not in line:
            _add(path, fields, line)
        if place >= len(head):
            if "data file" in fields:
                break
            raise CaseError(Code.E_TRUNCATED, path, "ends inside its header; copy the file again")
    return fields, head[:place]


def _add(path: Path, fields: dict[str, str], line: str) -> None:
    name, colon, value = line.partition(":")
    name = _SYNONYMS.get(name.strip().lower(), name.strip().lower())
    if not colon or name in fields:
        fault = f"gives {name[:40]} twice" if colon else "has a line that is no field"
        raise CaseError(Code.E_FORMAT, path, f"the NRRD header {fault}; export the scan again")
    fields[name] = value.strip()
    if name == "data file" and fields[name].startswith("LIST"):
        fields["LIST"] = ""


def _needed(path: Path, fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise CaseError(Code.E_FORMAT, path, f"the NRRD header has no field {name!r}; export the scan again")
    return fields[name]


def _byte_order(path: Path, fields: Mapping[str, str], kind: str) -> Literal["<", ">"]:
    order = fields.get("endian", "little" if kind.endswith("1") else "")
    if order not in ("little", "big"):
        raise CaseError(Code.E_FORMAT, path, "no byte order (endian) for numbers of several bytes; export it again")
    return "<" if order == "little" else ">"


def _spatial_axes(path: Path, fields: Mapping[str, str], sizes: Sequence[int]) -> list[int]:
    """The axes that lie in space; others must have length 1."""
    kinds = fields.get("kinds", " ".join(["domain"] * len(sizes))).lower().split()
    if len(kinds) != len(sizes):
        raise CaseError(Code.E_FORMAT, path, f"{len(kinds)} kinds for {len(sizes)} axes; export the scan again")
    directions = _vectors(fields.get("space directions", ""))
    if directions and len(directions) != len(sizes):
        raise CaseError(Code.E_FORMAT, path, f"{len(directions)} space directions for {len(sizes)} axes")
    axes = []
    for axis, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        in_space = kind in _SPATIAL and (not directions or directions[axis] is not None)
        if in_space:
            axes.append(axis)
        elif size != 1:
            reason = f"{size} components along axis {axis + 1}; expected one number a voxel, so split or convert them"
            raise CaseError(Code.E_SHAPE, path, reason)
    return axes


def _vectors(text: str) -> list[str | None]:
    """Vectors in brackets as text, None for ``none``."""
    return [None if part == "none" else part for part in re.findall(r"none|\([^)]*\)", text)]


def _geometry(path: Path, fields: Mapping[str, str], axes: Sequence[int]) -> tuple[Affine, list[Warning]]:
    """Stored voxel index → RAS+ mm."""
    space = fields.get("space", "").strip('"').lower()
    if space.removesuffix("-time") not in _SPACES or space.endswith("-time"):
        declared = f"the space {space[:40]!r}" if space else "no space"
        reason = (
            f"{declared}, so left and right are unknown; expected left-posterior-superior or right-anterior-superior"
        )
        raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
    vectors = [_vectors(fields.get("space directions", ""))[axis : axis + 1] for axis in axes]
    if not all(vector and vector[0] for vector in vectors):
        raise CaseError(Code.E_GEOMETRY_MISSING, path, "no space directions; export the scan with its geometry")
    columns = [_vector(path, vector[0] or "", "space directions") for vector in vectors]
    warnings = _units(fields)
    origin = [0.0, 0.0, 0.0]
    if "space origin" in fields:
        origin = _vector(path, fields["space origin"], "space origin")
    else:
        detail = "no space origin in the header; the first voxel is taken to lie at 0"
        warnings.append(Warning(Code.W_GEOMETRY_MISSING, detail))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.array(columns).T, origin
    return np.diag([*map(float, _SPACES[space]), 1.0]) @ affine, warnings


def _vector(path: Path, text: str, name: str) -> list[float]:
    return real_numbers(path, text.strip().removeprefix("(").removesuffix(")").replace(",", " "), 3, name)


def _units(fields: Mapping[str, str]) -> list[Warning]:
    """Spacings pass as millimetres or are refused, so that another unit contradicts the numbers."""
    units = {unit for unit in re.findall(r'"([^"]*)"', fields.get("space units", "")) if unit}
    if units <= {"mm", "millimeter", "millimetre", "millimeters", "millimetres"}:
        return []
    return [Warning(Code.W_UNITS, "space units are no millimetres, but the numbers are")]


def _names(path: Path, fields: Mapping[str, str]) -> list[str]:
    """Names of the data files; none when the voxels follow the header."""
    if "data file" not in fields:
        return []
    if "LIST" in fields:
        if fields["data file"].split()[1:] not in ([], ["2"]):
            raise CaseError(Code.E_SIDE_FILE, path, "a list of files that are no slices; export as one file")
        return [line.strip() for line in fields["LIST"].splitlines() if line.strip()][: _MOST_FILES + 1]
    pattern = re.fullmatch(r"(.*%0?\d{0,2}d.*?)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s+2)?", fields["data file"])
    if pattern is None:
        return [fields["data file"]]
    form, first, last, step = pattern[1], int(pattern[2]), int(pattern[3]), int(pattern[4])
    if form.count("%") != 1 or step == 0 or not 0 <= (last - first) // step < _MOST_FILES:
        raise CaseError(Code.E_SIDE_FILE, path, "a pattern of data files that names none; export the scan again")
    return [form % number for number in range(first, last + (1 if step > 0 else -1), step)]


def _pieces(
    path: Path, fields: Mapping[str, str], header: bytes, shape: tuple[int, int, int], itemsize: int
) -> list[Piece]:
    encoding = _needed(path, fields, "encoding").lower()
    packing = _ENCODINGS.get(encoding)
    if packing is None:
        raise CaseError(Code.E_CODEC, path, f"encoding {encoding[:20]!r} is not read, only raw and gzip; {CONVERT}")
    (skipped,) = whole_numbers(path, fields.get("byte skip", "0"), 1, "byte skip")
    names = _names(path, fields)
    if whole_numbers(path, fields.get("line skip", "0"), 1, "line skip") != [0] or (skipped and packing == "gzip"):
        raise CaseError(Code.E_FORMAT, path, f"lines, or bytes of gzip, to be skipped before the voxels; {CONVERT}")
    if skipped < -1 or (skipped == -1 and len(names) > 1):
        raise CaseError(Code.E_FORMAT, path, f"byte skip {skipped} where it has no meaning; export the scan again")
    if len(names) > 1 and (packing == "gzip" or len(names) != shape[2]):
        reason = f"{len(names)} data files for {shape[2]} slices{', gzip' * (packing == 'gzip')}; export as one file"
        raise CaseError(Code.E_SIDE_FILE, path, reason)
    files = [side_file(path, name) for name in names] or [path]
    begin = 0 if names else len(header)
    if packing == "gzip":
        return [Piece(files[0], begin, packing)]
    if skipped == -1:  # the voxels are the end of the file
        begin = max(files[0].stat().st_size - shape[0] * shape[1] * shape[2] * itemsize, begin)
    return slice_pieces(files, shape, itemsize, begin + max(skipped, 0))
