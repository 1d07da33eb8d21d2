"""Open a scan with the reader that its content calls for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import file_kind, nearest_axes
from pipeline.imaging.image import Image, Scan, Warning
from pipeline.imaging.kinds import PICTURES, SCAN_HEAD_BYTES, SUFFIXES, foreign, scan_kind
from pipeline.imaging.nifti.scan import open_nifti
from pipeline.imaging.pictures.picture import open_picture
from pipeline.imaging.streams import Stream
from pipeline.imaging.volumes.metaimage import open_metaimage
from pipeline.imaging.volumes.mgh import open_mgh
from pipeline.imaging.volumes.npy import open_npy
from pipeline.imaging.volumes.nrrd import open_nrrd

_VOLUMES: dict[str | None, Callable[..., Scan]] = {
    "nifti": open_nifti,
    "metaimage": open_metaimage,
    "nrrd": open_nrrd,
    "mgh": open_mgh,
    "npy": open_npy,
}
_GZIP_OUTSIDE = ("nifti", "mgh")  # formats that may be gzip as a whole


def open_scan(
    path: Path,
    *,
    limits: Limits,
    modality: str | None = None,
    files: Sequence[Path] | None = None,
    part: str | None = None,
) -> Scan:
    """Open a scan and check its headers; no voxel is converted.

    Args:
        path: a scan file (see ``docs/explanation/reading-formats.md``), or a folder holding one DICOM image series.
        limits: what may be allocated.
        modality: the declared one (``CT``, ``MR``, …); some rules depend on it.
        files: the slices of one DICOM series in the folder ``path``, when a search has found which these are.
        part: which of several: the code or UID of a series in a folder; the number of a page or frame, from 1.

    Raises:
        CaseError: with the code of what is wrong.
    """
    if files is not None:
        return _open_series(files, limits, modality, None)
    if file_kind(path) == "folder":
        return _open_series(path, limits, modality, part)
    stream = Stream(path, limits)
    compressed, head = stream.compressed, stream.head(SCAN_HEAD_BYTES)
    if not head:
        raise CaseError(Code.E_EMPTY_FILE, path, "decompresses to 0 bytes; copy or export the file again")
    kind = "nifti" if _is_half_of_pair(path) else scan_kind(head)
    if kind == "dicom" and not compressed:
        return _open_series(path, limits, modality, part)
    if kind in PICTURES and not compressed:
        scan: Scan = open_picture(path, limits=limits, modality=modality, part=part)
    else:
        scan = _open_volume(path, kind, head, compressed=compressed, limits=limits, modality=modality)
        if part not in (None, "1"):
            raise CaseError(Code.E_NOT_FOUND, path, "no such part; the file has one image, #1")
    content = f"{kind}.gz" if compressed else kind
    if content in SUFFIXES and not path.name.lower().endswith(SUFFIXES[content]):
        scan.warnings += (
            Warning(Code.W_SUFFIX, f"the content is {content}, the suffix {path.suffix!r}; the content is followed"),
        )
    return scan


def _open_volume(
    path: Path, kind: str | None, head: bytes, *, compressed: bool, limits: Limits, modality: str | None
) -> Scan:
    if kind in _VOLUMES and (not compressed or kind in _GZIP_OUTSIDE):
        return _VOLUMES[kind](path, limits=limits, modality=modality)
    if kind is None and path.name.lower().endswith((".img", ".img.gz")):
        raise CaseError(
            Code.E_SIDE_FILE, path, "voxels of a .hdr/.img pair, but the .hdr is not beside them; copy it there"
        )
    raise CaseError(Code.E_FORMAT, path, foreign(head, compressed=compressed))


def read_image(
    path: Path,
    *,
    limits: Limits,
    modality: str | None = None,
    files: Sequence[Path] | None = None,
    part: str | None = None,
) -> Image:
    """Read a whole scan; its axes are permuted and flipped to the nearest R, A, S, without resampling.

    Arguments are those of ``open_scan``.

    Raises:
        CaseError: with the code of what is wrong.
    """
    scan = open_scan(path, limits=limits, modality=modality, files=files, part=part)
    voxels = scan.read((slice(None), slice(None), slice(None)))
    axes = nearest_axes(scan.affine, path)
    turn = np.zeros((4, 4))  # index of the turned array -> stored index
    turn[3, 3] = 1
    for world, (stored, sign) in enumerate(axes):
        turn[stored, world] = sign
        turn[stored, 3] = 0 if sign > 0 else scan.shape[stored] - 1
    turned = voxels.transpose([stored for stored, _ in axes])[tuple(slice(None, None, sign) for _, sign in axes)]
    return Image(np.ascontiguousarray(turned), scan.affine @ turn, scan.modality, scan.warnings, scan.digest)


def _open_series(source: Path | Sequence[Path], limits: Limits, modality: str | None, part: str | None) -> Scan:
    from pipeline.imaging.dicom.scan import open_series  # here, because other formats do not need pydicom

    return open_series(source, limits=limits, modality=modality, part=part)


def _is_half_of_pair(path: Path) -> bool:
    """Whether the file holds the voxels of a .hdr/.img pair, which have no magic number."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(".img") and path.with_name(path.name.removesuffix(".gz")[:-4] + ".hdr").is_file()
