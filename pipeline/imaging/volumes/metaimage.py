"""MetaImage (.mha, and .mhd with its data files): the format of ITK, elastix and many challenges.

World coordinates are LPS, and ``TransformMatrix`` holds the directions of the axes one after the other, as ITK writes
them. ``Offset`` and ``TransformMatrix`` may be absent and then have the format's defaults (0, and axes along L, P and
S), flagged W_GEOMETRY_MISSING; without a spacing there is no default, since a voxel of 1 mm would be a guess.
Compressed voxels are one zlib stream, whose checksum is verified. Source: MetaIO's documentation, and ITK's
``MetaImageIO``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Affine, Warning
from pipeline.imaging.streams import Stream
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
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_MODALITIES: Final = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_US": "US"}
_MOST_HEADER: Final = 1 << 20
_MOST_FILES: Final = 50_000
_DATA_FILE: Final = "ElementDataFile"
_FROM: Final = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "I": (2, 1), "S": (2, -1)}  # axis of LPS, sign


def open_metaimage(path: Path, *, limits: Limits, modality: str | None = None) -> Volume:
    """Check a MetaImage header; no voxel is read.

    Raises:
        CaseError: with the code of what is wrong.
    """
    del modality  # no rule of the format depends on it
    fields, header = _read_header(path, limits)
    _check_kind(path, fields)
    lengths = whole_numbers(path, _needed(path, fields, "DimSize"), None, "DimSize")
    if [len(lengths)] != whole_numbers(path, _needed(path, fields, "NDims"), 1, "NDims"):
        raise CaseError(Code.E_SHAPE, path, "NDims is not the count of lengths in DimSize; export the scan again")
    shape = three_lengths(path, lengths)
    big = _flag(path, fields, "BinaryDataByteOrderMSB")
    big = _flag(path, fields, "ElementByteOrderMSB", default=big)
    dtype = np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(">" if big else "<")
    affine, warnings = _geometry(path, fields)
    pieces = _pieces(path, fields, header, shape, dtype.itemsize)
    return open_volume(
        path,
        shape=shape,
        affine=affine,
        dtype=dtype,
        pieces=pieces,
        limits=limits,
        modality=_MODALITIES.get(fields.get("Modality", "")),
        warnings=warnings,
        header=b"" if pieces[0].path == path else header,
    )


def metaimage_data_file_names(path: Path, *, limits: Limits) -> list[str]:
    """Names of the voxels' files in a header; none when the voxels follow the header.

    Raises:
        CaseError: as ``open_metaimage``.
    """
    fields, _ = _read_header(path, limits)
    return _names(path, fields)


def _read_header(path: Path, limits: Limits) -> tuple[dict[str, str], bytes]:
    """Fields by name, and the bytes of the header; the names of a list of files stand under ``LIST``."""
    head = Stream(path, limits, packing="none").head(_MOST_HEADER)
    fields: dict[str, str] = {}
    place = 0
    while _DATA_FILE not in fields:
        end = head.find(b"\n", place)
        if end < 0:
            end = len(head)
        if place >= len(head):
            raise CaseError(Code.E_TRUNCATED, path, f"ends before its {_DATA_FILE}; copy the file again")
        name, equals, value = head[place:end].decode("latin-1").partition("=")
        place = end + 1
        if not name.strip() and not equals:
            continue
        if not equals or name.strip() in fields:
            fault = f"gives {name.strip()} twice" if equals else "has a line without '='"
            raise CaseError(Code.E_FORMAT, path, f"the MetaImage header {fault[:60]}; export the scan again")
        fields[name.strip()] = value.strip()
    if fields[_DATA_FILE].split()[:1] == ["LIST"]:
        fields["LIST"] = head[place:].decode("latin-1")
        place = len(head)
    return fields, head[:place]


def _needed(path: Path, fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise CaseError(Code.E_FORMAT, path, f"the MetaImage header has no {name}; export the scan again")
    return fields[name]


def _flag(path: Path, fields: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = fields.get(name, str(default)).lower()
    if value not in ("true", "false", "1", "0"):
        raise CaseError(Code.E_FORMAT, path, f"{name} is neither True nor False; export the scan again")
    return value in ("true", "1")


def _check_kind(path: Path, fields: Mapping[str, str]) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise CaseError(Code.E_FORMAT, path, "a MetaIO object that is no image; name the image")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise CaseError(Code.E_SHAPE, path, "several channels a voxel, expected one; split or convert them to grey")
    if _needed(path, fields, "ElementType") not in _TYPES:
        raise CaseError(Code.E_DTYPE, path, "an ElementType that is no whole or real number of 8 to 64 bits")
    if not _flag(path, fields, "BinaryData", default=True):
        raise CaseError(Code.E_FORMAT, path, f"voxels as text (BinaryData = False); {CONVERT}")
    scaling = [
        real_numbers(path, fields[name], 1, name)[0] == default
        for name, default in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0))
        if name in fields
    ]
    if not all(scaling):
        reason = (
            "an ElementToIntensityFunction, which readers apply or ignore as they please; store the values themselves"
        )
        raise CaseError(Code.E_SCALING, path, reason)


def _geometry(path: Path, fields: Mapping[str, str]) -> tuple[Affine, list[Warning]]:
    """Stored voxel index → RAS+ mm."""
    spacing = fields.get("ElementSpacing", fields.get("ElementSize"))
    if spacing is None:
        raise CaseError(Code.E_GEOMETRY_MISSING, path, "no ElementSpacing; add it to the header, in mm")
    names = {
        name: next((synonym for synonym in synonyms if synonym in fields), None)
        for name, synonyms in (
            ("directions", ("TransformMatrix", "Rotation", "Orientation")),
            ("origin", ("Offset", "Position", "Origin")),
        )
    }
    matrix = np.eye(3)
    if names["directions"]:
        matrix = np.array(real_numbers(path, fields[names["directions"]], 9, names["directions"])).reshape(3, 3).T
    origin = [0.0, 0.0, 0.0]
    if names["origin"]:
        origin = real_numbers(path, fields[names["origin"]], 3, names["origin"])
    steps = np.array(real_numbers(path, spacing, 3, "ElementSpacing"))
    if (steps <= 0).any():
        raise CaseError(Code.E_SPACING, path, "ElementSpacing is not above 0; export the scan again")
    lengths = np.linalg.norm(matrix, axis=0)
    if np.abs(lengths - 1).max() > 1e-3:
        raise CaseError(Code.E_AFFINE, path, "directions in TransformMatrix are no unit vectors; export the scan again")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix * steps, origin
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS
    warnings = []
    missing = [name for name, synonym in names.items() if synonym is None]
    if missing:
        detail = f"no {' and no '.join(missing)} in the header; the format's default is taken (LPS axes, origin 0)"
        warnings.append(Warning(Code.W_GEOMETRY_MISSING, detail))
    return affine, warnings + _compare_letters(path, fields, affine, certain="directions" not in missing)


def _compare_letters(path: Path, fields: Mapping[str, str], affine: Affine, *, certain: bool) -> list[Warning]:
    """Whether AnatomicalOrientation agrees with the matrix.

    Its letters mean where an axis comes from (RAI for the standard's own axes); some writers mean where it goes to.
    """
    letters = fields.get("AnatomicalOrientation", "").strip().upper()
    if len(letters) != 3 or not set(letters) <= set(_FROM):
        return []  # absent, or ??? as some tools write
    if len({_FROM[letter][0] for letter in letters}) < 3:
        raise CaseError(Code.E_ORIENTATION, path, "AnatomicalOrientation names an axis twice; export the scan again")
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]
    if np.linalg.matrix_rank(lps) < 3:
        return []  # which is refused with its own code
    cosines = np.array([_FROM[letter][1] * lps[_FROM[letter][0], stored] for stored, letter in enumerate(letters)])
    if (cosines > 0).all():
        return []
    if not (cosines < 0).all() or not certain:
        reason = "AnatomicalOrientation and TransformMatrix name different axes; find out which is right"
        raise CaseError(Code.E_AFFINE_DISAGREE, path, f"{reason}, and remove the other")
    detail = (
        "AnatomicalOrientation is opposite to TransformMatrix, as if it said where axes go to; the matrix is followed"
    )
    return [Warning(Code.W_AFFINE_DISAGREE, detail)]


def _names(path: Path, fields: Mapping[str, str]) -> list[str]:
    """Names of the data files; none when the voxels follow the header."""
    words = fields[_DATA_FILE].split()
    if not words:
        raise CaseError(Code.E_SIDE_FILE, path, f"{_DATA_FILE} is empty; export the scan again")
    if words[0].upper() == "LOCAL":
        return []
    if words[0] == "LIST":
        if words[1:] not in ([], ["2"]):
            raise CaseError(Code.E_SIDE_FILE, path, "a list of files that are no slices; export as one file")
        return [line.strip() for line in fields["LIST"].splitlines() if line.strip()][: _MOST_FILES + 1]
    pattern = re.fullmatch(r"(.*%0?\d{0,2}d.*?)\s+(\d+)\s+(\d+)(?:\s+(\d+))?", fields[_DATA_FILE])
    if pattern is None:
        return [fields[_DATA_FILE]]
    form, first, last, step = pattern[1], int(pattern[2]), int(pattern[3]), int(pattern[4] or 1)
    if form.count("%") != 1 or step < 1 or not 0 <= (last - first) // step < _MOST_FILES:
        raise CaseError(Code.E_SIDE_FILE, path, "a pattern of data files that names none; export the scan again")
    return [form % number for number in range(first, last + 1, step)]


def _pieces(
    path: Path, fields: Mapping[str, str], header: bytes, shape: tuple[int, int, int], itemsize: int
) -> list[Piece]:
    compressed = _flag(path, fields, "CompressedData")
    (skipped,) = whole_numbers(path, fields.get("HeaderSize", "0"), 1, "HeaderSize")
    names = _names(path, fields)
    if (skipped and (compressed or not names)) or skipped < -1 or (skipped == -1 and len(names) != 1):
        raise CaseError(Code.E_FORMAT, path, f"HeaderSize {skipped} where it has no meaning; export the scan again")
    if not names:
        return [Piece(path, len(header), "zlib" if compressed else "none")]
    if len(names) > 1 and (compressed or len(names) != shape[2]):
        reason = f"{len(names)} data files for {shape[2]} slices{', compressed' * compressed}; export as one file"
        raise CaseError(Code.E_SIDE_FILE, path, reason)
    files = [side_file(path, name) for name in names]
    if compressed:
        return [Piece(files[0], 0, "zlib")]
    if skipped == -1:  # the voxels are the end of the file
        skipped = max(files[0].stat().st_size - shape[0] * shape[1] * shape[2] * itemsize, 0)
    return slice_pieces(files, shape, itemsize, skipped)
