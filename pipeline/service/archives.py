"""Unpacking zip archives into a request's folder: names are not used, and nothing grows beyond its bound."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

from pipeline.imaging.stored_names import base_name, stored_name
from pipeline.service.answers import TOO_LARGE, UNREADABLE, RequestError
from pipeline.service.settings import ServiceLimits
from pipeline.service.spool import RequestFolder

_BLOCK = 1 << 18
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others' dictionaries may take any memory
_ENCRYPTED = 0x1
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 0xFFFF
_ZIP64_LOCATOR, _ZIP64_LOCATOR_SIZE = b"PK\x06\x07", 20
_DIRECTORY_BYTES_A_MEMBER = 1024  # of the central directory, which is read as a whole
_LARGEST_RATIO, _SMALL = 200, 16 << 20  # as readers hold it for compressed scans


def unpack(archive: Path, folder: RequestFolder, limits: ServiceLimits) -> dict[Path, str]:
    """Write the members of an archive under numbers; archives in it stay packed.

    Args:
        archive: a file whose first bytes are those of a zip.
        folder: of the request.
        limits: of the request.

    Returns:
        The files, in the archive's order, with their names in it, without folders; the archive is deleted.

    Raises:
        RequestError: 400 for an archive that cannot be read, 413 for one that is too large, 503 when there is no room.
    """
    archive = archive.rename(archive.with_name("archive"))  # no member is stored under this name
    _require_small_directory(archive, limits)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _require_allowed(members, archive.stat().st_size, limits)
            files = {
                _write(opened, member, name, folder): base_name(member.filename)
                for number, member in enumerate(members, start=1)
                if (name := stored_name(member.filename, number)) is not None
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError, struct.error):
        raise RequestError(UNREADABLE, "the zip archive is damaged; pack it again") from None
    folder.discard(archive)
    return files


def _require_small_directory(archive: Path, limits: ServiceLimits) -> None:
    """Refuse a central directory that is larger than so many members need, before it is read into memory."""
    with open(archive, "rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - _ZIP64_LOCATOR_SIZE - _END_SIZE - _LONGEST_COMMENT))
        tail = handle.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + _END_SIZE:
        raise RequestError(UNREADABLE, "the zip archive has no end; send it whole")
    members, directory_bytes = struct.unpack_from("<HI", tail, place + 10)
    # Python follows the locator whatever the end says, so another directory could hide behind it.
    zip64 = tail[max(0, place - _ZIP64_LOCATOR_SIZE) : place].startswith(_ZIP64_LOCATOR)
    if zip64 or members == 0xFFFF or directory_bytes == 0xFFFFFFFF:
        raise RequestError(TOO_LARGE, f"the zip archive is ZIP64; send at most {limits.files} files")
    if directory_bytes > limits.files * _DIRECTORY_BYTES_A_MEMBER:
        raise RequestError(TOO_LARGE, f"the zip archive's directory has {directory_bytes} bytes; send fewer files")


def _require_allowed(members: list[zipfile.ZipInfo], packed_bytes: int, limits: ServiceLimits) -> None:
    """Refuse what the directory claims; that it claims too little is found while unpacking."""
    if not members:
        raise RequestError(UNREADABLE, "the zip archive holds no file; pack the scan's files")
    if len(members) > limits.files:
        raise RequestError(TOO_LARGE, f"the zip archive holds {len(members)} files, expected at most {limits.files}")
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise RequestError(UNREADABLE, "the zip archive is encrypted; pack it without a password")
    if any(member.compress_type not in _METHODS for member in members):
        raise RequestError(UNREADABLE, "the zip archive is not compressed by deflate; pack it again with zip")
    total = sum(member.file_size for member in members)
    if total > limits.unpacked_bytes:
        reason = f"the zip archive unpacks to {total} bytes, expected at most {limits.unpacked_bytes}"
        raise RequestError(TOO_LARGE, f"{reason}; send one series")
    if total > max(_SMALL, _LARGEST_RATIO * packed_bytes):
        reason = f"the zip archive unpacks to more than {_LARGEST_RATIO} times its size"
        raise RequestError(TOO_LARGE, f"{reason}; send its files unpacked")


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, folder: RequestFolder) -> Path:
    with opened.open(member) as source, folder.new_file(name) as target:
        while block := source.read(_BLOCK):  # never more than the directory says of the member
            folder.write(target, block)
    return folder.path / name
