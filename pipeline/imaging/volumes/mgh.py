"""MGH and its gzip MGZ: the format of FreeSurfer.

Big-endian, a header of 284 bytes, then the voxels; after them may stand acquisition parameters and a history, which are
not read. So bytes after the voxels are accepted, and damage of a plain ``.mgh`` that keeps its length is not detected;
of ``.mgz``, the gzip checksum is verified. Source: FreeSurfer's "MGH and MGZ file format".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.streams import Stream
from pipeline.imaging.volumes.volume import Piece, Volume, open_volume, three_lengths

MGH_HEADER_BYTES: Final = 284
_HEADER: Final = struct.Struct(">7lh15f")
_TYPES: Final = {0: "u1", 1: "i4", 3: "f4", 4: "i2", 10: "u2"}


def is_mgh(head: bytes) -> bool:
    """Whether bytes begin as an MGH file: version 1, four lengths, a type, and a flag that is 0 or 1."""
    if len(head) < 30:
        return False
    version, *lengths, kind, _, good = struct.unpack_from(">7lh", head)
    return version == 1 and min(lengths) >= 1 and 0 <= kind <= 20 and good in (0, 1)


def open_mgh(path: Path, *, limits: Limits, modality: str | None = None) -> Volume:
    """Check an MGH header; no voxel is read.

    Raises:
        CaseError: with the code of what is wrong.
    """
    del modality  # no rule of the format depends on it
    stream = Stream(path, limits)
    head = stream.head(MGH_HEADER_BYTES)
    if len(head) < MGH_HEADER_BYTES:
        raise CaseError(Code.E_TRUNCATED, path, f"{len(head)} bytes, shorter than its header ({MGH_HEADER_BYTES})")
    version, *numbers = _HEADER.unpack_from(head)
    lengths, kind, good = [int(value) for value in numbers[:4]], int(numbers[4]), int(numbers[6])
    if version != 1:
        raise CaseError(Code.E_FORMAT, path, f"version {version} of MGH, expected 1; export the scan again")
    if kind not in _TYPES:
        raise CaseError(Code.E_DTYPE, path, f"type {kind}; expected whole or real numbers (0, 1, 3, 4 or 10)")
    if good != 1:
        reason = "its geometry is not set (goodRASFlag), so left and right are unknown; export it with orientation"
        raise CaseError(Code.E_GEOMETRY_MISSING, path, reason)
    if lengths[3] != 1:
        raise CaseError(
            Code.E_SHAPE, path, f"{lengths[3]} frames, expected one volume; split them: mri_convert --frame 0"
        )
    shape = three_lengths(path, lengths[:3])
    spacing, cosines, center = (np.array(part, np.float64) for part in (numbers[7:10], numbers[10:19], numbers[19:22]))
    affine = np.eye(4)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused with the affine
        affine[:3, :3] = cosines.reshape(3, 3).T * spacing
        affine[:3, 3] = center - affine[:3, :3] @ (np.array(shape) / 2)
    return open_volume(
        path,
        shape=shape,
        affine=affine,
        dtype=np.dtype(_TYPES[kind]).newbyteorder(">"),
        pieces=[Piece(path, packing="by content")],
        limits=limits,
        offset=MGH_HEADER_BYTES,
        tail=True,
    )
