"""Finding scans in a folder of mixed content, one row for every input and none invented.

An input is a NIfTI file or 2D picture (by its suffix), a DICOM series (files of one folder with one SeriesInstanceUID,
found by their content), any other file with the suffix of a scan, and any other file in a folder that holds DICOM
files, because it may be a slice that lost its header. The last two are rows with an error. Everything else is skipped
and counted: other files, hidden files, DICOMDIR indexes, folders behind links, pipes and sockets.

Documents (see ``DOCUMENT_SUFFIXES``) are skipped even beside DICOM files: archives put annotations, tables and notices
there, as LIDC-IDRI does with one ``.xml`` a series, and no exporter names a slice so. A thousand rows of errors about
them would hide the one that matters. Only the name decides this once the content has shown no DICM mark: a slice that
somebody saved as ``.txt`` is read, and a file with no suffix or a foreign one stays a row.

A link to a file is followed while it stays under the root; one that leaves it is a row with E_OUTSIDE_ROOT when it
would have been an input. Nothing but regular files is ever opened, so a pipe cannot hang the search.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.checks import file_kind
from pipeline.imaging.dicom.header import read_identity
from pipeline.imaging.dicom.scan import DICOM_SUFFIXES, NO_SCANS, is_nonempty_dicom, may_be_slice

_PAIRS = {".img": ".hdr", ".img.gz": ".hdr.gz"}  # the header stands for both halves
_READ = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
_FOREIGN = (".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".bmp")  # scans, which the reader will refuse
# Beside slices, no exporter's name for one; a cut or half-copied slice keeps .dcm, a number or nothing.
DOCUMENT_SUFFIXES = frozenset({
    ".xml", ".xsd", ".xsl", ".json", ".yaml", ".yml", ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".db", ".txt", ".log",
    ".md", ".rst", ".rtf", ".doc", ".docx", ".odt", ".ppt", ".pptx", ".pdf", ".html", ".htm", ".css", ".js", ".ini",
    ".cfg", ".inf", ".exe", ".bat", ".sh", ".py", ".ipynb", ".md5", ".sha1", ".sha256",
})  # fmt: skip
_BY_NAME = frozenset({*_READ, *_FOREIGN} - {".img", ".hdr"})  # those two may also be DICOM
SCAN_SUFFIXES = frozenset({*_READ, *_FOREIGN, *DICOM_SUFFIXES})
_LINK, _PIPE, _HIDDEN, _INDEX = "(link)", "(pipe, socket or device)", "(hidden)", "DICOMDIR"


@dataclass(frozen=True)
class FoundScan:
    r"""One input of a folder.

    Attributes:
        case_id: path relative to the searched folder, ``/`` between its parts; for a series the folder's, then
            ``#`` and 8 hex digits of the UID's SHA-256. Bytes that are not UTF-8 appear as ``\xNN``.
        path: the file, or the folder of the series.
        files: of the series, sorted; None for a single file.
        error: why it cannot be a case, when the search already knows.
    """

    case_id: str
    path: Path
    files: tuple[Path, ...] | None = None
    error: CaseError | None = None


@dataclass
class SkippedCount:
    """What was left out of a search, counted by suffix (lower case; "" has none) or by kind, as ``(link)``."""

    by_suffix: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """How many files and links were left out."""
        return self.by_suffix.total()


@dataclass
class _Folder:
    """Inputs of one folder, while it is being looked through."""

    plain: list[Path] = field(default_factory=list)
    series: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    patients: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    broken: list[CaseError] = field(default_factory=list)
    others: list[tuple[Path, str, CaseError | None]] = field(default_factory=list)  # inputs if there is DICOM beside
    folders: list[Path] = field(default_factory=list)


def find_scans(
    folder: Path, *, skipped: SkippedCount | None = None, limits: Limits | None = None
) -> Iterator[FoundScan]:
    """Search a folder, one subfolder after the other in sorted order; no more than one folder is held in memory.

    Args:
        folder: the root; itself it may be a link.
        skipped: counts what is left out, as the search goes on.
        limits: for DICOM headers.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION or E_NOT_REGULAR when ``folder`` is not one.
    """
    if file_kind(folder) != "folder":
        raise CaseError(Code.E_NOT_REGULAR, folder, "is a file, expected a folder to search")
    skipped = SkippedCount() if skipped is None else skipped
    limits = Limits() if limits is None else limits
    root = folder.resolve()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            inside = _look_through(current, root, skipped, limits)
        except OSError as error:
            reason = f"the folder cannot be listed ({os.strerror(error.errno or 0)}); check its permissions"
            fault = CaseError(Code.E_PERMISSION, current, reason)
            yield FoundScan(_case_id(current, folder), current, None, fault)
            continue
        yield from _rows(inside, current, folder, skipped)
        waiting += reversed(inside.folders)


def _look_through(current: Path, root: Path, skipped: SkippedCount, limits: Limits) -> _Folder:
    inside = _Folder()
    with os.scandir(current) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name.lower() for entry in found}
    for entry in found:
        path, suffix = current / entry.name, scan_suffix(entry.name)
        if entry.is_dir(follow_symlinks=False):
            inside.folders.append(path)
        elif entry.is_symlink() and path.is_dir():
            skipped.by_suffix[_LINK] += 1
        elif fault := _closed(entry, path, root):
            if suffix in SCAN_SUFFIXES:
                inside.broken.append(fault)
            else:
                inside.others.append((path, _LINK if entry.is_symlink() else _PIPE, fault))
        elif suffix in _PAIRS and entry.name.lower().removesuffix(suffix) + _PAIRS[suffix] in names:
            continue
        elif suffix in _BY_NAME:
            inside.plain.append(path)
        else:
            _sort_in(inside, path, suffix, skipped, limits)
    return inside


def _closed(entry: os.DirEntry[str], path: Path, root: Path) -> CaseError | None:
    """Why an entry that is no folder may not be opened."""
    if entry.is_symlink():
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):  # a broken link, or a loop
            return CaseError(Code.E_NOT_FOUND, path, "a link that leads nowhere")
        if not real.is_relative_to(root):
            return CaseError(Code.E_OUTSIDE_ROOT, path, "a link that leaves the searched folder; copy the file there")
    if not entry.is_file():
        return CaseError(Code.E_NOT_REGULAR, path, "a pipe, socket or device, expected a file")
    return None


def _sort_in(inside: _Folder, path: Path, suffix: str, skipped: SkippedCount, limits: Limits) -> None:
    """Put a file whose name does not decide where its content says."""
    try:
        if not is_nonempty_dicom(path):
            if suffix in (".img", ".hdr"):
                inside.plain.append(path)
            elif suffix in DICOM_SUFFIXES and not path.name.startswith("._"):
                inside.broken.append(_no_dicom(path))
            elif path.name.startswith("."):
                skipped.by_suffix[_HIDDEN] += 1
            else:
                inside.others.append((path, suffix, None))
            return
        if path.name.upper() == "DICOMDIR":
            skipped.by_suffix[_INDEX] += 1
            return
        series, patient = read_identity(path, limits=limits)
    except CaseError as error:
        inside.broken.append(error)
        return
    if not series:
        inside.broken.append(CaseError(Code.E_FORMAT, path, "a DICOM file without a series UID; export it again"))
        return
    inside.series[series].append(path)
    inside.patients[series].add(patient)


def _no_dicom(path: Path) -> CaseError:
    """What is wrong with a file that ought to be DICOM and has not its mark."""
    try:
        if path.stat().st_size == 0:
            return CaseError(Code.E_EMPTY_FILE, path, "0 bytes; copy or export the file again")
        with path.open("rb"):
            pass
    except PermissionError:
        return CaseError(Code.E_PERMISSION, path, "not readable by this user; change the file's permissions")
    except OSError:
        return CaseError(Code.E_NOT_FOUND, path, "vanished during the search; search again")
    return CaseError(Code.E_FORMAT, path, "no DICM mark at byte 128, so not a DICOM file (Part 10); export it again")


def _rows(inside: _Folder, current: Path, root: Path, skipped: SkippedCount) -> Iterator[FoundScan]:
    for path, word, fault in inside.others:
        if inside.series and not _is_document(path):
            inside.broken.append(fault or _no_dicom(path))
        else:
            skipped.by_suffix[word] += 1
    rows = [FoundScan(_case_id(path, root), path) for path in inside.plain]
    for error in inside.broken:
        rows.append(FoundScan(_case_id(Path(error.path), root), Path(error.path), None, error))
    for series, files in inside.series.items():
        rows.append(_series_row(inside, series, files, current, root))
    yield from sorted(rows, key=lambda row: row.case_id)


def _is_document(path: Path) -> bool:
    return scan_suffix(path.name) in DOCUMENT_SUFFIXES or path.name.lower() in NO_SCANS


def _series_row(inside: _Folder, series: str, files: list[Path], current: Path, root: Path) -> FoundScan:
    error = None
    patients = len(inside.patients[series])
    lost = [fault for fault in inside.broken if may_be_slice(Path(fault.path).name)]
    if patients > 1:
        error = CaseError(Code.E_MIXED_PATIENT, current, f"{patients} patient ids in one series; separate them")
    elif lost and len(inside.series) == 1:
        # The damaged file is most likely a slice of the only series here. With several, nobody can say whose.
        reason = f"{len(lost)} files beside its slices cannot be read (first: {lost[0].code}: {lost[0].reason})"
        error = CaseError(Code.E_SLICE_UNREADABLE, current, reason)
    return FoundScan(f"{_case_id(current, root)}#{sha256_bytes(series.encode())[:8]}", current, tuple(files), error)


def scan_suffix(name: str) -> str:
    """Lower-case suffix; compressed files keep both, and a number (the end of a UID) is none."""
    stem, dot, suffix = name.lower().rpartition(".")
    if not dot or not stem or suffix.isdigit():
        return ""
    if suffix == "gz" and stem.endswith((".nii", ".hdr", ".img")):
        return f"{stem[-4:]}.gz"
    return f".{suffix}"


def _case_id(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
