"""From a path to an opened scan: by content, never by trying one reader after another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import file_kind, nearest_axes
from pipeline.imaging.dicom.bare import HEAD_BYTES, beginning
from pipeline.imaging.image import Image, Scan, Warning
from pipeline.imaging.nifti.scan import open_nifti
from pipeline.imaging.pictures.picture import open_picture
from pipeline.imaging.streams import Stream

SUFFIXES = {
    "nifti": (".nii", ".hdr", ".img"),
    "nifti.gz": (".nii.gz", ".hdr.gz", ".img.gz"),
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp",),
    "webp": (".webp",),
    "jpeg2000": (".jp2", ".j2k", ".j2c", ".jpc"),
}
_PICTURES = ("png", "jpeg", "tiff", "bmp", "webp", "jpeg2000")
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
)
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull"),
    (b"<", "a web page or XML, perhaps a saved login page; download the file again"),
    (b"BZh", "bzip2; decompress it, or compress with gzip"),
    (b"\xfd7zXZ", "xz; decompress it, or compress with gzip"),
    (b"\x28\xb5\x2f\xfd", "zstandard; decompress it, or compress with gzip"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"NRRD", "NRRD; convert it to NIfTI"),
    (b"ObjectType", "MetaImage; convert it to NIfTI"),
    (b"\x89HDF", "HDF5; convert it to NIfTI"),
    (b"GIF8", "GIF; convert it to PNG"),
)


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
        path: a NIfTI file, a PNG, JPEG or TIFF picture, a DICOM file, or a folder holding one DICOM image series.
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
    compressed, head = stream.compressed, stream.head(HEAD_BYTES)
    if not head:
        raise CaseError(Code.E_EMPTY_FILE, path, "decompresses to 0 bytes; copy or export the file again")
    kind = _kind(head)
    if kind == "dicom" and not compressed:
        return _open_series(path, limits, modality, part)
    if kind == "nifti" or _is_half_of_pair(path):
        scan: Scan = open_nifti(path, limits=limits, modality=modality)
    elif kind in _PICTURES and not compressed:
        scan = open_picture(path, limits=limits, modality=modality, part=part)
    elif kind is None and path.name.lower().endswith((".img", ".img.gz")):
        raise CaseError(
            Code.E_SIDE_FILE, path, "voxels of a .hdr/.img pair, but the .hdr is not beside them; copy it there"
        )
    else:
        raise CaseError(Code.E_FORMAT, path, _foreign(head, compressed))
    content = f"{kind}.gz" if compressed else kind
    if content in SUFFIXES and not path.name.lower().endswith(SUFFIXES[content]):
        scan.warnings += (
            Warning(Code.W_SUFFIX, f"the content is {content}, the suffix {path.suffix!r}; the content is followed"),
        )
    return scan


def read_image(path: Path, *, limits: Limits, modality: str | None = None) -> Image:
    """Read a whole scan; its axes are permuted and flipped to the nearest R, A, S, without resampling.

    Raises:
        CaseError: with the code of what is wrong.
    """
    scan = open_scan(path, limits=limits, modality=modality)
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
    from pipeline.imaging.dicom.scan import open_series  # pydicom is needed by nobody else

    return open_series(source, limits=limits, modality=modality, part=part)


def _kind(head: bytes) -> str | None:
    """What the first bytes say; a NIfTI header counts as one even where it is damaged, so that the damage is named."""
    if beginning(head):
        return "dicom"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    size = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if size & {348, 540} or head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    return None


def _is_half_of_pair(path: Path) -> bool:
    """The voxels of a .hdr/.img pair begin with anything at all."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(".img") and path.with_name(path.name.removesuffix(".gz")[:-4] + ".hdr").is_file()


def _foreign(head: bytes, compressed: bool) -> str:
    expected = "; expected NIfTI, DICOM, PNG, JPEG or TIFF"
    for signature, name in _FOREIGN:
        if head.lstrip().startswith(signature):
            return name + expected
    return ("gzip of something else than NIfTI" if compressed else "no known scan format") + expected
