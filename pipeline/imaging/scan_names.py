"""What a file's name says of it: whether it is a scan, may be a slice of one, or is plainly something else."""

from __future__ import annotations

from pipeline.imaging.kinds import SUFFIXES

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima", ".dc3")
NO_SCANS = frozenset({"license", "readme", "notice", "version", "dicomdir", "manifest", "checksums", "md5sums"})
PAIRS = {".img": ".hdr", ".img.gz": ".hdr.gz"}  # the header stands for both halves
_READ = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes) | {".hdr.gz", ".img.gz"}
_FOREIGN = (".mnc", ".nii.bz2", ".nii.xz", ".nii.zst")  # scans, which the reader refuses with a remedy
# Never the suffix of a slice; a truncated slice keeps .dcm, a number or no suffix.
DOCUMENT_SUFFIXES = frozenset({
    ".xml", ".xsd", ".xsl", ".json", ".yaml", ".yml", ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".db", ".txt", ".log",
    ".md", ".rst", ".rtf", ".doc", ".docx", ".odt", ".ppt", ".pptx", ".pdf", ".html", ".htm", ".css", ".js", ".ini",
    ".cfg", ".inf", ".exe", ".bat", ".sh", ".py", ".ipynb", ".md5", ".sha1", ".sha256",
})  # fmt: skip
SCANS_BY_NAME = frozenset({*_READ, *_FOREIGN} - {".img", ".hdr"})  # those two may also be DICOM
SCAN_SUFFIXES = frozenset({*_READ, *_FOREIGN, *DICOM_SUFFIXES})


def scan_suffix(name: str) -> str:
    """Lower-case suffix; compressed files keep both, and a number (the end of a UID) is none."""
    stem, dot, suffix = name.lower().rpartition(".")
    if not dot or not stem or suffix.isdigit():
        return ""
    if suffix in ("gz", "bz2", "xz", "zst") and stem.endswith((".nii", ".hdr", ".img", ".mgh")):
        return f"{stem[-4:]}.{suffix}"
    return f".{suffix}"


def may_be_slice(name: str) -> bool:
    """Whether a file of this name, among slices, must be taken for one even when its content is damaged.

    Slices have a DICOM suffix, none, or the last part of a UID for one; hidden files and documents are no slices.
    """
    stem, dot, suffix = name.lower().rpartition(".")
    if name.startswith(".") or name.lower() in NO_SCANS:
        return False
    return not dot or f".{suffix}" in DICOM_SUFFIXES or suffix.isdigit() or not stem
