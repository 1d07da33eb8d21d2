"""Find annotation files in a folder of mixed content, by content; masks by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.cases.lesions.dicom.dicom_object import annotation_format
from pipeline.cases.lesions.files.lidc_xml import ROOT
from pipeline.cases.lesions.files.slicer import is_markups
from pipeline.cases.lesions.files.table_rows import table_columns
from pipeline.cases.lesions.lesion import LesionFormat
from pipeline.cases.lesions.names import is_mask_name
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import file_kind, open_regular
from pipeline.imaging.scan_names import DICOM_SUFFIXES, SCAN_SUFFIXES, scan_suffix

_HEAD_BYTES: Final = 1 << 16
_LINK, _UNREADABLE = "(link)", "(unreadable)"


@dataclass(frozen=True)
class LesionFile:
    """A file that annotates lesions.

    Attributes:
        path: of the file.
        format: of the file.
        name: relative to the folder that was searched, ``/`` between its parts.
    """

    path: Path
    format: LesionFormat
    name: str


@dataclass(frozen=True)
class LesionFiles:
    """Files of a searched folder.

    Attributes:
        files: that annotate lesions, sorted by path.
        others: files that do not, counted by suffix.
    """

    files: tuple[LesionFile, ...]
    others: Counter[str] = field(default_factory=Counter)


def find_lesion_files(
    folder: Path, *, images: Collection[Path] = (), leave_out: Collection[Path] = (), limits: Limits | None = None
) -> LesionFiles:
    """Search a folder and its subfolders for annotations; links that lead out of it are not followed.

    An image is a mask when its name, or that of one of its folders, says so (`pipeline.cases.lesions.names`), and in a
    folder that holds none of the images that are to be scored. A table is one of lesions when its columns are a lesion
    centre and the image, case, series or patient that it belongs to.

    Args:
        folder: the root.
        images: files that are images to be scored, with their links resolved.
        leave_out: other files that are no annotations, as the manifest itself.
        limits: of DICOM headers.

    Raises:
        CaseError: E_NOT_FOUND, E_PERMISSION or E_NOT_REGULAR when ``folder`` is not one.
    """
    if file_kind(folder) != "folder":
        raise CaseError(Code.E_NOT_REGULAR, folder, "is a file, expected a folder to search")
    images, left = frozenset(images), {path.resolve() for path in leave_out}
    root = folder.resolve()
    without_images = not any(image.is_relative_to(root) for image in images)
    others: Counter[str] = Counter()
    files = []
    for path in _walk(folder, others):
        name = path.relative_to(folder).as_posix()
        if path.resolve() in images:
            continue
        kind: LesionFormat | None = None
        if path.resolve() not in left:
            try:
                kind = _format(path, name, every_image=without_images, limits=limits or Limits())
            except CaseError:
                others[_UNREADABLE] += 1
                continue
        if kind is None:
            others[scan_suffix(path.name)] += 1
        else:
            files.append(LesionFile(path, kind, name))
    return LesionFiles(tuple(files), others)


def _walk(folder: Path, others: Counter[str]) -> Iterator[Path]:
    root = folder.resolve()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith("."):
                others["(hidden)"] += 1
            elif path.is_symlink() and not path.resolve().is_relative_to(root):
                others[_LINK] += 1
            elif path.is_file():
                yield path


def _format(path: Path, name: str, *, every_image: bool, limits: Limits) -> LesionFormat | None:
    """What kind of annotation a file is; None when it is none.

    Raises:
        CaseError: when it cannot be opened.
    """
    suffix = scan_suffix(path.name)
    if suffix in (".img", ".img.gz") and path.with_name(path.name.replace(".img", ".hdr")).exists():
        return None  # the header stands for both halves
    if suffix in SCAN_SUFFIXES and suffix not in DICOM_SUFFIXES:
        return "mask" if every_image or is_mask_name(name) else None
    if path.name.lower().endswith(".mrk.json"):
        return "slicer-markups"
    if suffix == ".fcsv":
        return "fcsv"
    with open_regular(path) as handle:
        head = bytes(handle.read(_HEAD_BYTES) or b"")
    if head[128:132] == b"DICM":
        return annotation_format(path, limits)
    if suffix == ".json" and is_markups(head):
        return "slicer-markups"
    if suffix == ".xml" and f"<{ROOT}".encode() in head:
        return "lidc-xml"
    columns = table_columns(path, head) if suffix in (*TABLE_SUFFIXES, ".txt") else None
    # A manifest that was made from these annotations is not an annotation.
    return columns.format if columns is not None and columns.names_images and not columns.is_own else None
