"""Fingerprint of a case for the audit: its patient, digests of its scan's bytes and voxels, and views of its image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.cases.audit.views import views_of
from pipeline.cases.case import Case, Point
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError
from pipeline.files import sha256_bytes
from pipeline.imaging.checks import within_root
from pipeline.imaging.image import Float32Array, Image
from pipeline.imaging.read import read_image
from pipeline.machine import usable_cores

_AROUND_LESION_MM = 24.0  # to either side of its centre


@dataclass(frozen=True)
class Listed:
    """A case to be audited.

    Attributes:
        case: which.
        group: what it is in, a split or a table; None when it is in no split, so that it cannot leak.
        root: folder that its image may not leave; None for any place.
    """

    case: Case
    group: str | None
    root: Path | None = None


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A case that was read, or that could not be.

    Attributes:
        case: which.
        group: see `Listed`.
        error: why its image could not be read; then there is nothing below.
        digest: hex SHA-256 of the scan's bytes.
        voxels: hex SHA-256 of the scan's voxels in R, A, S order, whatever file holds them.
        views: of the image, or of the lesion's surroundings; None when it is constant.
    """

    case: Case
    group: str | None
    error: CaseError | None = None
    digest: str = ""
    voxels: str = ""
    views: Float32Array | None = field(default=None, repr=False)

    @property
    def place(self) -> tuple[str, Point | None]:
        """The image and the place in it: cases that share it can have one label only."""
        return self.voxels, self.case.center_mm


def fingerprints(listed: Iterable[Listed]) -> Iterator[Fingerprint]:
    """Read each scan once, several at a time; in order of the scans' first cases."""
    scans: dict[object, list[Listed]] = defaultdict(list)
    for entry in listed:
        scans[entry.case.place, entry.case.files].append(entry)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for of_scan in pool.map(_of_scan, scans.values()):
            yield from of_scan


def _of_scan(listed: Sequence[Listed]) -> list[Fingerprint]:
    """Of all cases of one scan."""
    case = listed[0].case
    try:
        faults = [entry.case.fault for entry in listed if entry.case.fault]
        if faults:
            raise faults[0]
        path = case.path if listed[0].root is None else within_root(case.path, listed[0].root)
        image = read_image(path, limits=Limits(), files=case.files, part=case.part)
    except CaseError as error:
        return [Fingerprint(entry.case, entry.group, error) for entry in listed]
    shape = " ".join(map(str, image.voxels.shape))
    voxels = sha256_bytes(shape.encode() + image.voxels.tobytes())
    return [
        Fingerprint(entry.case, entry.group, None, image.digest, voxels, views_of(_region(image, entry.case.center_mm)))
        for entry in listed
    ]


def _region(image: Image, center_mm: Point | None) -> Float32Array:
    """The whole image, or the surroundings of a lesion, padded with the least value where the image ends."""
    if center_mm is None:
        return image.voxels
    center = np.linalg.solve(image.affine, np.array([*center_mm, 1.0]))[:3]
    half = _AROUND_LESION_MM / np.array(image.spacing_mm)
    first, end = np.floor(center - half).astype(int), np.ceil(center + half).astype(int) + 1
    shape = np.array(image.voxels.shape)
    flat = shape == 1  # a slice stays one slice
    first, end = np.where(flat, 0, first), np.where(flat, 1, end)
    inside = tuple(slice(*ends) for ends in zip(first.clip(0, shape), end.clip(0, shape), strict=True))
    part = image.voxels[inside]
    if part.size == 0:
        return image.voxels
    width = [(max(-low, 0), max(high - length, 0)) for low, high, length in zip(first, end, shape, strict=True)]
    region: Float32Array = np.pad(part, width, constant_values=float(part.min()))
    return region
