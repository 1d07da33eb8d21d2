"""Names for uploaded files: a number and a known suffix, so that no text of a request becomes a path."""

from __future__ import annotations

from pipeline.imaging.kinds import SUFFIXES, scan_kind
from pipeline.imaging.scan_names import DOCUMENT_SUFFIXES, NO_SCANS, SCAN_SUFFIXES, may_be_slice, scan_suffix

_OTHER = ".other"  # no suffix of a scan or a slice
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


def stored_name(name: str, number: int) -> str | None:
    """Name that a file is stored under; None for one whose name is never a scan's (hidden, ``DICOMDIR``).

    A suffix that readers use is kept, so that a file is treated as it would be in a folder.

    Args:
        name: as the client gives it, with or without folders.
        number: of the file in its request, from 1.
    """
    base = base_name(name)
    if base.startswith(".") or base.lower() in NO_SCANS:
        return None
    suffix = scan_suffix(base)
    if suffix not in SCAN_SUFFIXES and suffix not in DOCUMENT_SUFFIXES:
        suffix = "" if may_be_slice(base) or not base else _OTHER
    return f"{number:06d}{suffix}"


def base_name(name: str) -> str:
    """The name of an uploaded file as its client gives it, without folders."""
    return name.replace("\\", "/").rpartition("/")[2].strip("\0 ")


def suffix_of(head: bytes) -> str:
    """The suffix that fits a file's first bytes, for a body without a name; "" when they are unknown."""
    if head.startswith(_GZIP):
        return ".nii.gz"
    kind = scan_kind(head)
    if kind == "dicom":
        return ".dcm"
    return SUFFIXES[kind][0] if kind in SUFFIXES else ""


def is_zip(head: bytes) -> bool:
    """Whether a file begins as a zip archive does."""
    return head.startswith(_ZIP)
