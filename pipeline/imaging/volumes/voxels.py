"""Collect and scale a box of voxels while a file is read as a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CaseError, Code
from pipeline.imaging.image import Box, Float32Array

_GROUP_BYTES = 4 << 20  # planes are converted in groups of about this size


@dataclass(frozen=True)
class Layout:
    """Where and how the voxels lie in the decompressed file: value = stored x slope + inter."""

    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    offset: int
    slope: float
    inter: float

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane across the last stored axis."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Bytes that the file must have."""
        return self.offset + self.plane_bytes * self.shape[2]


class Planes:
    """Collects a box from a stream of blocks; planes across the last stored axis are contiguous in the file.

    Attributes:
        voxels: the box, float32, Fortran-ordered; whole once every block has been added.
    """

    def __init__(self, layout: Layout, box: Box, path: Path) -> None:
        self._layout, self._box, self._path = layout, box, path
        first, stop, _ = box[2].indices(layout.shape[2])
        self._start = layout.offset + first * layout.plane_bytes
        self._stop = layout.offset + stop * layout.plane_bytes
        self._count = min(max(1, _GROUP_BYTES // layout.plane_bytes), max(1, stop - first))
        self._filled = self._done = 0
        lengths = [len(range(*part.indices(length))) for part, length in zip(box, layout.shape, strict=True)]
        try:
            self._buffer = np.empty(self._count * layout.plane_bytes, np.uint8)
            self.voxels: Float32Array = np.empty(lengths, np.float32, order="F")
        except MemoryError:
            raise CaseError(
                Code.E_TOO_LARGE, path, f"no memory for {math.prod(lengths)} voxels; lower limits.max_voxels"
            ) from None

    def add(self, block: bytes, position: int) -> None:
        """Keep what a block, at a position of the file, holds of the planes."""
        low, high = max(self._start - position, 0), min(self._stop - position, len(block))
        while low < high:
            take = min(high - low, self._buffer.size - self._filled)
            self._buffer[self._filled : self._filled + take] = np.frombuffer(block, np.uint8, take, low)
            self._filled, low = self._filled + take, low + take
            complete = self._done + self._filled // self._layout.plane_bytes
            if self._filled == self._buffer.size or complete == self.voxels.shape[2]:
                self._convert()

    def _convert(self) -> None:
        layout = self._layout
        count = self._filled // layout.plane_bytes
        raw = self._buffer[: self._filled].view(layout.dtype).reshape((*layout.shape[:2], count), order="F")
        part = raw[self._box[0], self._box[1]]
        self.voxels[:, :, self._done : self._done + count] = _scaled(part, layout, self._path)
        self._filled, self._done = 0, self._done + count


def _scaled(raw: NDArray[Any], layout: Layout, path: Path) -> NDArray[Any]:
    """Voxels times slope plus intercept; checked to be finite, in the file and as float32."""
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise CaseError(
            Code.E_NONFINITE, path, "NaN or infinity among the voxels; mask or fill them, then export again"
        )
    unscaled = layout.slope == 1 and layout.inter == 0
    if unscaled and raw.dtype.itemsize <= 4:
        return raw
    values: NDArray[np.float64] = raw.astype(np.float64)
    if not unscaled:
        with np.errstate(over="ignore"):
            values = values * layout.slope + layout.inter
    if values.size and not np.abs(values).max() <= np.finfo(np.float32).max:
        raise CaseError(
            Code.E_RANGE,
            path,
            f"voxels of {np.abs(values).max():.3g} after scaling, beyond any scan; check the scaling",
        )
    return values
