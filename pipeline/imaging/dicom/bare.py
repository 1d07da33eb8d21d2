"""Data sets without the preamble and the file meta group of a DICOM file, recognised by their first elements.

Old exporters and some network tools write a data set as it is sent. Its encoding is then not stated, so it is only
taken for DICOM when its first elements are unmistakable: tags of group 0008 in ascending order, with values of lengths
that fit, up to a SOP class that is a UID. Compressed pixels cannot be read without the transfer syntax. A file meta
group without the 132 bytes that belong before it is no such data set, but a file that lost its beginning.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from pipeline.imaging.dicom.fragments import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT

DICOM_MAGIC: Final = b"DICM"
PREAMBLE: Final = 128
DICOM_HEAD_BYTES: Final = 540  # enough for all elements before a SOP class
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
VRS: Final = frozenset(vr.decode() for vr in _LONG_VRS | _SHORT_VRS)
_FIRST_GROUP, _SOP_CLASS = 0x0008, 0x00080016
_UID: Final = re.compile(rb"[0-9]+(\.[0-9]+){3,}[\0 ]?")


@dataclass(frozen=True)
class Beginning:
    """Where a DICOM file begins.

    Attributes:
        offset: of the first element.
        syntax: of the data set when there is no file meta group; None when the group states it.
    """

    offset: int
    syntax: str | None


def beginning(head: bytes) -> Beginning | None:
    """Where the elements of a file begin, by its first ``DICOM_HEAD_BYTES`` bytes; None when it is no DICOM."""
    if head[PREAMBLE : PREAMBLE + 4] == DICOM_MAGIC:
        return Beginning(PREAMBLE + 4, bare_syntax(head[PREAMBLE + 4 :]))
    syntax = bare_syntax(head)
    return Beginning(0, syntax) if syntax else None


def bare_syntax(head: bytes) -> str | None:
    """Transfer syntax of a data set that begins here with group 0008; None when none certainly does."""
    for order, syntax in (("<", EXPLICIT_LITTLE), ("<", IMPLICIT), (">", EXPLICIT_BIG)):
        if _reaches_sop_class(head, order, explicit=syntax != IMPLICIT):
            return syntax
    return None


def _reaches_sop_class(head: bytes, order: str, *, explicit: bool) -> bool:
    place, before = 0, -1
    while place + 12 <= len(head):
        group, element = struct.unpack_from(f"{order}HH", head, place)
        tag = group << 16 | element
        if group != _FIRST_GROUP or tag <= before:
            return False
        start, length = _length(head, place, order, explicit=explicit)
        if length is None or length % 2:
            return False
        if tag == _SOP_CLASS:
            return _UID.fullmatch(head[start : start + length]) is not None
        if tag > _SOP_CLASS:
            return False
        place, before = start + length, tag
    return False


def _length(head: bytes, place: int, order: str, *, explicit: bool) -> tuple[int, int | None]:
    """Where the value of the element at ``place`` begins, and its length; None when it has none that is possible."""
    if not explicit:
        return place + 8, int(struct.unpack_from(f"{order}L", head, place + 4)[0])
    vr = head[place + 4 : place + 6]
    if vr in _SHORT_VRS:
        return place + 8, int(struct.unpack_from(f"{order}H", head, place + 6)[0])
    if vr in _LONG_VRS:
        return place + 12, int(struct.unpack_from(f"{order}L", head, place + 8)[0])
    return place, None
