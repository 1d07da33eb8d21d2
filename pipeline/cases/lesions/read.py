"""Read the lesions that a file annotates; its content decides which reader is used."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.cases.lesions.dicom.dicom_object import annotation_format
from pipeline.cases.lesions.dicom.rtstruct import read_structure_set
from pipeline.cases.lesions.dicom.segmentation import read_segmentation
from pipeline.cases.lesions.dicom.structured_report import read_report
from pipeline.cases.lesions.files.lidc_xml import read_lidc_xml
from pipeline.cases.lesions.files.mask import read_mask
from pipeline.cases.lesions.files.slicer import read_fcsv, read_markups
from pipeline.cases.lesions.files.table_rows import PARQUET, read_lesion_table
from pipeline.cases.lesions.files.tables import read_table_lesions
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import Annotations, LesionFormat, ReadingOptions
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code, TableError
from pipeline.imaging.checks import open_regular

_HEAD_BYTES: Final = 1 << 16
_TEXT_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read_lesions(path: Path, *, images: ImageIndex | None = None, options: ReadingOptions | None = None) -> Annotations:
    """The lesions that one file annotates.

    Args:
        path: a mask (any image format), a DICOM segmentation, structure set or report, 3D Slicer's markups, LIDC-IDRI's
            XML, or a table.
        images: of the input. Structure sets, reports with points on an image, LIDC's XML and voxel indices need the
            geometry of theirs; everything else has its place without.
        options: for what the file leaves unspecified.

    Raises:
        CaseError: when the file cannot be read as a whole; what is wrong with one annotation is refused in the result.
        TableError: the same, of a table.
    """
    images = ImageIndex() if images is None else images
    options = options or ReadingOptions()
    try:
        kind = lesion_format(path, options.limits)
        if kind == "dicom-seg":
            return read_segmentation(path, options)
        if kind == "rtstruct":
            return read_structure_set(path, images, options)
        if kind == "dicom-sr":
            return read_report(path, images, options)
        if kind == "slicer-markups":
            return read_markups(path, options)
        if kind == "fcsv":
            return read_fcsv(path, options)
        if kind == "lidc-xml":
            return read_lidc_xml(path, images, options)
        return read_mask(path, options) if kind == "mask" else read_table_lesions(path, images, options)
    except MemoryError:
        reason = "does not fit into memory; crop the mask or split the file"
        raise CaseError(Code.E_TOO_LARGE, path, reason) from None


def lesion_format(path: Path, limits: Limits | None = None) -> LesionFormat:
    """The kind of annotation of a file, by its first bytes; a file of no other kind counts as a mask.

    Raises:
        CaseError: when it cannot be opened, or is a DICOM object that annotates nothing.
        TableError: when it is a table without columns of lesions.
    """
    head = _head(path)
    name = path.name.lower()
    if head[128:132] == b"DICM":
        kind = annotation_format(path, limits or Limits())
        if kind is None:
            reason = "a DICOM object that is no segmentation, structure set or report; name an annotation"
            raise CaseError(Code.E_FORMAT, path, reason)
        return kind
    start = head.removeprefix(_TEXT_MARKS[0]).lstrip()
    if start.startswith(b"{"):
        return "slicer-markups"
    if start.startswith(b"<"):
        return "lidc-xml"
    if name.endswith(".fcsv") or start.startswith(b"# Markups fiducial"):
        return "fcsv"
    if head.startswith(PARQUET) or (name.endswith((*TABLE_SUFFIXES, ".txt")) and not head.startswith(b"\x1f\x8b")):
        return read_lesion_table(path).columns.format
    return "mask"


def _head(path: Path) -> bytes:
    with open_regular(path) as handle:
        return bytes(handle.read(_HEAD_BYTES) or b"")


__all__ = ["CaseError", "TableError", "lesion_format", "read_lesions"]
