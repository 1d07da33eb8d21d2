"""Find scans in a folder of mixed content: one row for every input.

An input is a scan file by its suffix (NIfTI, MetaImage, NRRD, a picture, …), a DICOM series (all files of the tree with
one SeriesInstanceUID, found by their content), any other file with the suffix of a scan, and any other file in a folder
that holds DICOM files, because it may be a slice that lost its header. The last two are rows with an error. Everything
else is skipped and counted: other files, hidden files, DICOM objects that are no images, folders behind links, pipes
and sockets, and folders that this program wrote (see ``outputs``).

Rows of single files come while the tree is being searched, one folder after the other. Those of series come at the end,
because a series may have files in any folder (see ``find_series``).

Documents (see ``DOCUMENT_SUFFIXES``) are skipped even beside DICOM files: archives put annotations, tables and notices
there, as LIDC-IDRI does with one ``.xml`` a series, and no exporter names a slice so. A thousand rows of errors about
them would hide the one that matters. The name decides only where the content is not DICOM: a slice that was saved as
``.txt`` is read, and a file with no suffix or an unknown one stays a row. Reports, plans,
segmentations and indexes in DICOM are known by their SOP class, whatever their name; an object of an unknown class
stays a row, with its own code when it has no pixels.

A link to a file is followed while it stays under the root; one that leaves it is a row with E_OUTSIDE_ROOT when it
would have been an input. Nothing but regular files is ever opened, so a pipe cannot hang the search.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import file_kind
from pipeline.imaging.dicom.header import read_identity
from pipeline.imaging.dicom.scan import is_nonempty_dicom
from pipeline.imaging.discovery.find_series import SeriesCollector, no_dicom
from pipeline.imaging.discovery.outputs import is_output
from pipeline.imaging.discovery.skipped import SkippedCount
from pipeline.imaging.scan_names import (
    DICOM_SUFFIXES,
    DOCUMENT_SUFFIXES,
    NO_SCANS,
    PAIRS,
    SCAN_SUFFIXES,
    SCANS_BY_NAME,
    may_be_slice,
    scan_suffix,
)
from pipeline.imaging.side_files import side_file_names

_LINK, _PIPE, _HIDDEN = "(link)", "(pipe, socket or device)", "(hidden)"
_OUTPUT = "(folder of a run, scores or a model)"


@dataclass(frozen=True)
class FoundScan:
    r"""One input of a folder.

    Attributes:
        name: path relative to the searched folder, ``/`` between its parts; for a series that of the nearest
            folder that holds all its files, then ``#`` and 8 hex digits of the UID's SHA-256 (more where two series of
            the folder share them). Bytes that are not UTF-8 appear as ``\xNN``.
        path: the file, or the folder of the series.
        files: of the series, sorted; None for a single file.
        error: why it cannot be a case, when the search already knows.
        alone: no other series has files in ``path``.
    """

    name: str
    path: Path
    files: tuple[Path, ...] | None = None
    error: CaseError | None = None
    alone: bool = True

    def image(self, folder: Path) -> str:
        """What a manifest in ``folder`` names it; a series among others by its code too."""
        code = "" if self.alone else f"#{self.name.rpartition('#')[2]}"
        return f"{self.path.relative_to(folder).as_posix()}{code}"


@dataclass
class _Search:
    """State of a search, shared by all folders."""

    root: Path
    real_root: Path
    skipped: SkippedCount
    limits: Limits
    series: SeriesCollector = field(default_factory=SeriesCollector)


@dataclass
class _Folder:
    """Contents of a folder during the search."""

    path: Path
    plain: list[Path] = field(default_factory=list)
    broken: list[CaseError] = field(default_factory=list)
    others: list[tuple[Path, str, CaseError | None]] = field(default_factory=list)  # inputs if there are slices beside
    folders: list[Path] = field(default_factory=list)


def find_scans(
    folder: Path, *, skipped: SkippedCount | None = None, limits: Limits | None = None
) -> Iterator[FoundScan]:
    """Search a folder, one subfolder after the other in sorted order; series come last.

    Args:
        folder: the root; itself it may be a link.
        skipped: counts what is left out, as the search goes on; complete at its end.
        limits: for DICOM headers.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION or E_NOT_REGULAR when ``folder`` is not one.
    """
    if file_kind(folder) != "folder":
        raise CaseError(Code.E_NOT_REGULAR, folder, "is a file, expected a folder to search")
    skipped = SkippedCount() if skipped is None else skipped
    search = _Search(folder, folder.resolve(), skipped, Limits() if limits is None else limits)
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            inside = _look_through(current, search)
        except OSError as error:
            reason = f"the folder cannot be listed ({os.strerror(error.errno or 0)}); check its permissions"
            yield _broken(CaseError(Code.E_PERMISSION, current, reason), folder)
            continue
        _settle_others(inside, search)
        rows = [FoundScan(_name(path, folder), path) for path in inside.plain]
        rows += [_broken(error, folder) for error in inside.broken]
        yield from sorted(rows, key=lambda row: row.name)
        waiting += reversed(inside.folders)
    late = [_broken(error, folder) for error in search.series.settle(skipped.by_suffix)]
    for series in search.series.rows():
        name = f"{_name(series.folder, folder)}#{series.code}"
        late.append(FoundScan(name, series.folder, series.files, series.error, series.alone))
    yield from sorted(late, key=lambda row: row.name)


def _broken(error: CaseError, root: Path) -> FoundScan:
    return FoundScan(_name(Path(error.path), root), Path(error.path), None, error)


def _look_through(current: Path, search: _Search) -> _Folder:
    inside = _Folder(current)
    search.series.enter(current)
    with os.scandir(current) as unsorted:
        entries = sorted(unsorted, key=lambda entry: entry.name)
    names = {entry.name.lower() for entry in entries}
    for entry in entries:
        path, suffix = current / entry.name, scan_suffix(entry.name)
        if entry.is_dir(follow_symlinks=False):
            if _is_output(path, names):
                search.skipped.by_suffix[_OUTPUT] += 1
            else:
                inside.folders.append(path)
        elif entry.is_symlink() and path.is_dir():
            search.skipped.by_suffix[_LINK] += 1
        elif fault := _closed(entry, path, search.real_root):
            if suffix in SCAN_SUFFIXES:
                _break(inside, search, fault)
            else:
                inside.others.append((path, _LINK if entry.is_symlink() else _PIPE, fault))
        elif suffix in PAIRS and entry.name.lower().removesuffix(suffix) + PAIRS[suffix] in names:
            continue
        elif suffix in SCANS_BY_NAME and not entry.name.startswith("._"):  # of macOS, for attributes of files
            inside.plain.append(path)
        else:
            _sort_in(inside, path, suffix, search)
    return inside


def _is_output(path: Path, beside: Collection[str]) -> bool:
    try:
        return is_output(path.name, os.listdir(path), beside)
    except OSError:  # reported when the folder is searched
        return False


def _break(inside: _Folder, search: _Search, error: CaseError) -> None:
    """A file that is a row with an error; by its name it may be a slice of a series, which then lacks it."""
    inside.broken.append(error)
    if may_be_slice(Path(error.path).name):
        search.series.lose(error)


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


def _sort_in(inside: _Folder, path: Path, suffix: str, search: _Search) -> None:
    """Classify a file by its content where its name does not decide."""
    try:
        if not is_nonempty_dicom(path):
            if suffix in (".img", ".hdr"):
                inside.plain.append(path)
            elif suffix in DICOM_SUFFIXES and not path.name.startswith("._"):
                _break(inside, search, no_dicom(path))
            elif path.name.startswith("."):
                search.skipped.by_suffix[_HIDDEN] += 1
            else:
                inside.others.append((path, suffix, None))
            return
        identity = read_identity(path, limits=search.limits)
    except CaseError as error:
        _break(inside, search, error)
        return
    if identity.word is not None:
        search.skipped.by_suffix[identity.word] += 1
    elif identity.series:
        search.series.add(path.name, identity)
    else:
        _break(inside, search, CaseError(Code.E_FORMAT, path, "a DICOM file without a series UID; export it again"))


def _settle_others(inside: _Folder, search: _Search) -> None:
    """Classify files not known to be scans: rows beside slices, doubtful where they may be slices, else skipped."""
    wholes = [path for path in inside.plain if scan_suffix(path.name) in (".mhd", ".nhdr", ".npy")]
    parts = {path.parent / name for path in wholes for name in side_file_names(path)}
    inside.plain = [path for path in inside.plain if path not in parts]
    for path, word, fault in inside.others:
        if path in parts:
            continue  # belongs to a scan that has its row
        if _is_document(path):
            search.skipped.by_suffix[word] += 1
        elif search.series.any_here:
            _break(inside, search, fault or no_dicom(path))
        elif may_be_slice(path.name):
            search.series.doubt((path, word, fault))
        else:
            search.skipped.by_suffix[word] += 1


def _is_document(path: Path) -> bool:
    return scan_suffix(path.name) in DOCUMENT_SUFFIXES or path.name.lower() in NO_SCANS


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
