"""Check that only elements follow the pixels in a DICOM file, to its last byte; otherwise the pixels have moved.

Uncompressed pixels carry no checksum. When bytes were inserted among them, everything after shifts, and the only sign
is that the element's length ends too early: the last pixels are left over, and they make no elements. So whatever
follows must parse, tag after tag, to the very end of the file. Nothing is left over when bytes were changed in place,
or when as many were lost as were inserted; such damage is not detected.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Final

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code
from pipeline.imaging.dicom.bare import VRS
from pipeline.imaging.dicom.deflated import inflate
from pipeline.imaging.dicom.file import (
    MAX_HEADER,
    PIXEL_DATA,
    DataSet,
    ForeignElementError,
    PixelPlace,
    Window,
    read_elements,
)

_SECTOR: Final = 512  # some archives and burners fill a file with zeros up to a whole sector
_BLOCK: Final = 1 << 20
_NO_TAG: Final = 0x00080000  # cannot stand after the pixels, so nothing there is kept in memory


def padding_after(path: Path, data_set: DataSet, pixels: PixelPlace, end: int, *, limits: Limits) -> int:
    """Check what stands after the pixel data; return how many zero bytes pad the file.

    Args:
        path: for messages.
        data_set: as it was begun.
        pixels: the element that holds the pixels.
        end: of that element; in the file, or in a deflated data set when inflated.
        limits: of inflation.

    Raises:
        CaseError: E_FORMAT when other bytes than elements follow.
    """
    left = data_set.size - end
    if left <= 0:
        return 0
    source, start = data_set.handle, end
    if data_set.deflated_at is not None:
        data_set.handle.seek(data_set.deflated_at)
        tail, _ = inflate(path, data_set.handle, keep=MAX_HEADER, limits=limits, skip=end)
        source, start = io.BytesIO(tail), 0
    if _all_zero(source, start):
        whole_sectors = data_set.inflated is None and data_set.size % _SECTOR == 0
        if whole_sectors or (left == 1 and pixels.length % 2):
            return left
        raise _foreign(path, left)
    source.seek(start)
    window = Window(source, start + left)
    before = PIXEL_DATA

    def check(tag: int, vr: str | None, _length: int) -> bool:
        nonlocal before
        number = int(tag)
        # The first of them may be shown twice, where pydicom is in doubt about the encoding.
        if number < before or (number == before == PIXEL_DATA) or number >> 16 == 0xFFFE:
            raise ForeignElementError
        if (vr is None) != (pixels.vr is None) or (vr is not None and vr not in VRS):
            raise ForeignElementError
        before = number
        return False

    try:
        read_elements(path, window, data_set.syntax, [_NO_TAG], check)
    except CaseError:
        raise _foreign(path, left) from None
    if window.short or window.tell() != window.size:
        raise _foreign(path, left)
    return 0


def _foreign(path: Path, count: int) -> CaseError:
    reason = (
        f"{count} bytes after the pixel data are no DICOM elements: bytes were inserted, or a length is wrong; "
        "copy or export the file again"
    )
    return CaseError(Code.E_FORMAT, path, reason)


def _all_zero(source: IO[bytes], start: int) -> bool:
    """Whether nothing but zero bytes follows; the first that is none ends the search."""
    source.seek(start)
    return not any(any(block) for block in iter(lambda: source.read(_BLOCK), b""))
