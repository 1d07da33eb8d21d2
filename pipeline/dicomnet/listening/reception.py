"""Store one received DICOM object: check it, synchronise it to disk and name it before it is acknowledged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from pipeline.config.inputs import Limits
from pipeline.dicomnet.listening.listener_folder import ListenerFolder, SeriesKey, uid_digest
from pipeline.dicomnet.wording import MANUFACTURER
from pipeline.errors import CaseError
from pipeline.files import private_folder, sync_folder
from pipeline.imaging.dicom.file import begin, opened, parse
from pipeline.imaging.dicom.values import text, uid

_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_MANUFACTURER: Final = 0x00080070
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E


class ReceptionOutcome(Enum):
    """Outcome of storing an object."""

    STORED = "stored"
    REPEATED = "repeated"
    OWN = "own result"


@dataclass(frozen=True)
class ObjectIdentity:
    """Identity of the object in a file.

    Attributes:
        sop_class, sop_instance, study, series: UIDs.
        is_own: whether this program made it, so that it is no input.
    """

    sop_class: str
    sop_instance: str
    study: str
    series: str
    is_own: bool

    @property
    def key(self) -> SeriesKey:
        """Of its series."""
        return SeriesKey(uid_digest(self.study), uid_digest(self.series))


def read_object_identity(path: Path) -> ObjectIdentity | None:
    """Identity of a DICOM file's object, from the first part of its header; None when it lacks one of the UIDs.

    Raises:
        CaseError: when the file is no DICOM file, or its header is damaged or cut short.
    """
    tags = [_SOP_CLASS, _SOP_INSTANCE, _MANUFACTURER, _STUDY, _SERIES]
    with opened(path) as (handle, stamp):
        header, _ = parse(path, begin(path, handle, stamp, Limits()), tags, last=_SERIES)
    identity = ObjectIdentity(
        sop_class=uid(header, _SOP_CLASS),
        sop_instance=uid(header, _SOP_INSTANCE),
        study=uid(header, _STUDY),
        series=uid(header, _SERIES),
        is_own=text(header, _MANUFACTURER) == MANUFACTURER,
    )
    return identity if identity.sop_class and identity.sop_instance and identity.study and identity.series else None


def store_object(folder: ListenerFolder, path: Path, identity: ObjectIdentity) -> ReceptionOutcome:
    """Give an object that lies in ``receiving`` its final name.

    When this returns, the object survives a crash of the machine. An object that is there already is kept, because a
    SOP Instance UID identifies one content. Objects that this program made are not kept, since its reports would be
    read as annotations.

    Args:
        folder: of the listener.
        path: of the file; it is moved or removed.
        identity: of the object in it.

    Raises:
        OSError: when the disk is full or fails; nothing has its final name then.
    """
    if identity.is_own:
        path.unlink()
        return ReceptionOutcome.OWN
    series_folder = folder.series_folder(identity.key)
    target = series_folder / f"{uid_digest(identity.sop_instance)}.dcm"
    if target.exists():
        path.unlink()
        return ReceptionOutcome.REPEATED
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
    with folder.taking_in():
        if not series_folder.is_dir():
            private_folder(series_folder)
            sync_folder(series_folder.parent)
            sync_folder(folder.received)
        os.replace(path, target)
        sync_folder(series_folder)
    return ReceptionOutcome.STORED


def refusal_reason(error: CaseError) -> str:
    """Why an object was refused, without its path."""
    return f"{error.code}: {error.reason}"
