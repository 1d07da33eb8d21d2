"""Uploads of one image in several files that are not DICOM: a header, and the files that it names or goes with.

Uploads are stored under numbers, and a header names its files by the names that they had elsewhere. Such a name is used
where it is one of a file that was sent, has no folder and no odd character, and lies in a folder of its own below the
request's; whatever else a header says is for the reader to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.imaging.scan_names import scan_suffix
from pipeline.imaging.side_files import side_file_names
from pipeline.service.answers import UNREADABLE, RequestError
from pipeline.service.uploads import Upload

_NAMED_BY_HEADER = (".mhd", ".nhdr")
_SAME_STEM: Mapping[str, tuple[str, ...]] = {
    ".hdr": (".img", ".img.gz"),
    ".hdr.gz": (".img", ".img.gz"),
    ".npy": (".json",),
}
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.() +-]{0,99}")


def put_together(upload: Upload) -> None:
    """Where the files are a header and what belongs to it, make the header the only file, with the others beside it.

    Any other upload stays as it is.

    Args:
        upload: of several files; archives are unpacked.

    Raises:
        RequestError: 400 for files that the header does not name, and for two files of one name.
    """
    if len(upload.files) < 2:
        return
    headers = [path for path in upload.files if scan_suffix(path.name) in (*_NAMED_BY_HEADER, *_SAME_STEM)]
    if len(headers) != 1:
        return
    (header,) = headers
    others = [path for path in upload.files if path != header]
    if scan_suffix(header.name) in _NAMED_BY_HEADER:
        names = _sent_names(upload, others)
        wanted = [name for name in dict.fromkeys(side_file_names(header)) if name in names]
        targets = {names[name]: name for name in wanted if _PLAIN.fullmatch(name) and name != header.name}
    else:
        suffixes = _SAME_STEM[scan_suffix(header.name)]
        if len(others) != 1 or not others[0].name.endswith(suffixes):
            return  # slices of DICOM may have these suffixes, too
        stem = header.name.removesuffix(scan_suffix(header.name))
        targets = {others[0]: stem + next(end for end in suffixes[::-1] if others[0].name.endswith(end))}
    if len(targets) < len(others):
        reason = f"{len(others) - len(targets)} of {len(others)} files beside the header are not named in it"
        raise RequestError(UNREADABLE, f"{reason}; send the header and its files alone, with their own names")
    upload.files = [_move(header, targets)]


def _sent_names(upload: Upload, files: list[Path]) -> dict[str, Path]:
    names = {upload.sent_names[path]: path for path in files}
    if len(names) < len(files):
        raise RequestError(UNREADABLE, "two files have one name; send each once")
    return names


def _move(header: Path, targets: Mapping[Path, str]) -> Path:
    """Move the header and its files into a new folder, and return where the header is."""
    folder = header.parent / "volume"
    folder.mkdir(mode=0o700)
    for path, name in targets.items():
        path.rename(folder / name)
    return header.rename(folder / header.name)
