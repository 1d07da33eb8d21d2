"""Kind of scan by a file's first bytes; and for files that are no scan, what to do with them."""

from __future__ import annotations

import re
from typing import Final

from pipeline.imaging.dicom.bare import beginning
from pipeline.imaging.volumes.mgh import is_mgh

SCAN_HEAD_BYTES: Final = 544
SUFFIXES: Final = {
    "nifti": (".nii", ".hdr", ".img"),
    "nifti.gz": (".nii.gz", ".hdr.gz", ".img.gz"),
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp",),
    "webp": (".webp",),
    "jpeg2000": (".jp2", ".j2k", ".j2c", ".jpc"),
    "metaimage": (".mha", ".mhd"),
    "nrrd": (".nrrd", ".nhdr"),
    "mgh": (".mgh",),
    "mgh.gz": (".mgz", ".mgh.gz"),
    "npy": (".npy",),
}
PICTURES: Final = ("png", "jpeg", "tiff", "bmp", "webp", "jpeg2000")
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"NRRD000", "nrrd"),
    (b"\x93NUMPY", "npy"),
)
# A MetaImage header has no magic number; it begins with one of its fields.
_META_IMAGE: Final = re.compile(rb"\s*(ObjectType|NDims|Comment|ObjectSubType|BinaryData|DimSize|TransformType)\s*=\s")
_FOREIGN: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run: git lfs pull"),
    (b"<", "a web page or XML, perhaps a saved login page; download the file again"),
    (b"BZh", "bzip2; run: bunzip2 scan.nii.bz2 && gzip scan.nii"),
    (b"\xfd7zXZ", "xz; run: xz -d scan.nii.xz && gzip scan.nii"),
    (b"\x28\xb5\x2f\xfd", "zstandard; run: zstd -d scan.nii.zst && gzip scan.nii"),
    (b"PK\x03\x04", "a zip archive; run: unzip scan.zip"),
    (b"CDF", "MINC 1 or other netCDF; run: mnc2nii scan.mnc scan.nii"),
    (b"\x89HDF", "HDF5; run, for MINC 2: mnc2nii scan.mnc scan.nii; else store it as NIfTI, or as .npy with a sidecar"),
    (b"GIF8", "GIF; convert it to PNG: magick scan.gif scan.png"),
    (b"\0\0\0 ftyp", "HEIC, AVIF or a film; convert it to PNG: magick scan.heic scan.png"),
    (b"\x80\x04\x95", "a Python pickle, which is never read; save the array: numpy.save('scan.npy', array)"),
    (b"# vtk DataFile", "VTK; convert it, with SimpleITK: sitk.WriteImage(sitk.ReadImage('scan.vtk'), 'scan.nii.gz')"),
)
_EXPECTED: Final = "; expected NIfTI, DICOM, MetaImage, NRRD, MGH, PNG, JPEG, TIFF, BMP, WebP, JPEG 2000 or .npy"


def scan_kind(head: bytes) -> str | None:
    """Kind by the first bytes; a damaged NIfTI header counts as NIfTI, so that its reader reports the damage."""
    if beginning(head):
        return "dicom"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if _META_IMAGE.match(head):
        return "metaimage"
    size = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if size & {348, 540} or head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    return "mgh" if is_mgh(head) else None


def foreign(head: bytes, *, compressed: bool) -> str:
    """Description and remedy for a file that is no scan."""
    for signature, name in _FOREIGN:
        if head.lstrip().startswith(signature):
            return name + _EXPECTED
    return ("gzip of something else than NIfTI or MGH" if compressed else "no known scan format") + _EXPECTED
