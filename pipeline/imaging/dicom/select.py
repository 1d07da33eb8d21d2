"""Select the DICOM files of a scan: the only image series, the series named, or one frame of a file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.files import sha256_bytes
from pipeline.imaging.dicom.header import DicomFile, Identity, read_header, read_identity

CODE_DIGITS: Final = 8
_HEX: Final = re.compile(r"[0-9a-fA-F]{8,64}")
_MOST_NAMED: Final = 12  # series in one message
UNREADABLE: Final = frozenset({Code.E_EMPTY_FILE, Code.E_FORMAT, Code.E_PERMISSION, Code.E_NOT_FOUND})


def series_code(uid: str) -> str:
    """Hex SHA-256 of a SeriesInstanceUID; its first eight digits name the series in case ids and in ``image``."""
    return sha256_bytes(uid.encode())


def names_series(part: str, uid: str) -> bool:
    """Whether a selector (hex digits of the code, or the UID itself) means this series."""
    return part == uid or (_HEX.fullmatch(part) is not None and series_code(uid).startswith(part.lower()))


def shortest_codes(series: Sequence[str]) -> dict[str, str]:
    """The shortest code of each series, at least ``CODE_DIGITS`` long, that no other series of these shares."""
    codes = {uid: series_code(uid) for uid in series}
    digits = CODE_DIGITS
    while len({code[:digits] for code in codes.values()}) < len(codes):
        digits += 1
    return {uid: code[:digits] for uid, code in codes.items()}


def read_headers(paths: Sequence[Path], *, limits: Limits, part: str | None = None) -> list[DicomFile]:
    """Headers of all files that may belong to the scan.

    A file that cannot be read makes the scan be refused, because it may be one of its slices; unless its first part
    shows that it is no image, or of another series than the one asked for.

    Raises:
        CaseError: E_SLICE_UNREADABLE for one file of several, its own code for a file alone.
    """
    files: list[DicomFile] = []
    fault: CaseError | None = None
    beside: CaseError | None = None
    for path in paths:
        try:
            files.append(read_header(path, limits=limits))
        except CaseError as error:
            if _is_beside(_identity(path, limits), part):
                beside = beside or error
            else:
                fault = fault or error
    if fault is None and (files or beside is None):
        return files
    fault = fault or beside
    assert fault is not None
    if files and fault.code in UNREADABLE:
        reason = f"one of {len(paths)} files cannot be read ({fault.code}: {fault.reason})"
        raise CaseError(Code.E_SLICE_UNREADABLE, fault.path, reason) from None
    raise fault


def _identity(path: Path, limits: Limits) -> Identity | None:
    try:
        return read_identity(path, limits=limits)
    except CaseError:
        return None


def _is_beside(identity: Identity | None, part: str | None) -> bool:
    """Whether a file is certainly not part of the scan."""
    if identity is None:
        return False
    return identity.word is not None or bool(part and identity.series and not names_series(part, identity.series))


def select_images(path: Path, files: Sequence[DicomFile], part: str | None = None) -> list[DicomFile]:
    """The images of one series; reports, plans, segmentations and directories beside them are no images.

    Args:
        path: named in messages.
        files: as ``read_headers`` gives them.
        part: which series; None when there must be one.

    Raises:
        CaseError: E_NO_PIXELS without an image, or with a slice that lost its pixels; E_MIXED_SERIES for several series
            of which none is named; E_NOT_FOUND for a series that is not there.
    """
    images = [file for file in files if file.claims_pixels and file.word is None]
    if not images or (part and not any(names_series(part, file.series) for file in images)):
        # A segmentation or a dose grid is read where there is nothing else, or where it is named.
        images += [file for file in files if file.claims_pixels and file.word is not None]
    if not images:
        raise CaseError(Code.E_NO_PIXELS, path, f"{len(files)} DICOM objects, none with an image; name an image series")
    groups: dict[str, list[DicomFile]] = defaultdict(list)
    for file in images:
        groups[file.series].append(file)
    series = _series(path, groups, part)
    chosen = groups[series]
    lost = [file for file in chosen if file.pixels is None]
    lost += [file for file in files if file.series == series and not file.claims_pixels and file.word is None]
    if lost:
        reason = f"no pixel data in {len(lost)} of {len(files)} objects; copy them again"
        raise CaseError(Code.E_NO_PIXELS, lost[0].path, reason)
    return chosen


def _series(path: Path, groups: dict[str, list[DicomFile]], part: str | None) -> str:
    matching = [series for series in groups if part is None or names_series(part, series)]
    if len(matching) == 1:
        return matching[0]
    count = sum(len(files) for files in groups.values())
    codes = sorted(shortest_codes(list(groups)).values())
    selectors = ", ".join(f"#{code}" for code in codes[:_MOST_NAMED]) + ", …" * (len(codes) > _MOST_NAMED)
    if not matching:
        raise CaseError(Code.E_NOT_FOUND, path, f"no such series among the {len(groups)} here ({selectors}); name one")
    reason = f"{count} files of {len(groups)} series; name one, as image: {path.name}#{codes[0]} (here are {selectors})"
    raise CaseError(Code.E_MIXED_SERIES, path, reason)


def frame_number(path: Path, part: str, file: DicomFile) -> int | None:
    """Which frame of a file a selector means, from 1; None when it names the file's series.

    Raises:
        CaseError: E_NOT_FOUND for a frame that is not there, or a selector that is neither.
    """
    if names_series(part, file.series):
        return None
    frames = f"frames #1 to #{file.frame_count}" if file.frame_count > 1 else "one frame, #1"
    if not re.fullmatch(r"[0-9]{1,9}", part) or not 1 <= int(part) <= file.frame_count:
        raise CaseError(Code.E_NOT_FOUND, path, f"no such part; the file has {frames}")
    return int(part)
