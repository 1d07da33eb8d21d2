"""The index of a DICOM medium: ``DICOMDIR`` in the root of an export, ``DIRFILE`` as some Philips systems leave it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from made_folders.dicom_files import uid

_LEVELS = {  # the first keyword tells the records of a level apart
    "PATIENT": ("PatientID", "PatientName"),
    "STUDY": ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    "SERIES": ("SeriesInstanceUID", "Modality", "SeriesNumber"),
}
_LEAVES = {"SR": "SR DOCUMENT", "RTSTRUCT": "RT STRUCTURE SET"}


@dataclass(frozen=True)
class _Entry:
    """A directory record and those below it."""

    record: Dataset
    below: dict[str, _Entry] = field(default_factory=dict)


def write_directory(path: Path, files: Sequence[tuple[str, Dataset]]) -> Path:
    """Index files of a medium.

    Args:
        path: of the index; the files lie under its folder.
        files: each file's path relative to that folder, with ``/``, and its header.
    """
    root: dict[str, _Entry] = {}
    for name, header in files:
        below = root
        for kind, keywords in _LEVELS.items():
            key = str(header[keywords[0]].value)
            if key not in below:
                below[key] = _entry(kind, header, *keywords)
            below = below[key].below
        leaf = _entry(_LEAVES.get(header.Modality, "IMAGE"), header, "InstanceNumber")
        leaf.record.ReferencedFileID = name.split("/")
        leaf.record.ReferencedSOPClassUIDInFile = header.SOPClassUID
        leaf.record.ReferencedSOPInstanceUIDInFile = header.SOPInstanceUID
        leaf.record.ReferencedTransferSyntaxUIDInFile = ExplicitVRLittleEndian
        if header.Modality == "SR":
            leaf.record.CompletionFlag, leaf.record.VerificationFlag = header.CompletionFlag, header.VerificationFlag
            leaf.record.ContentDate, leaf.record.ContentTime = header.ContentDate, header.ContentTime
            leaf.record.ConceptNameCodeSequence = header.ConceptNameCodeSequence
        if header.Modality == "RTSTRUCT":
            leaf.record.StructureSetLabel = header.StructureSetLabel
            leaf.record.StructureSetDate, leaf.record.StructureSetTime = (
                header.StructureSetDate,
                header.StructureSetTime,
            )
        below[header.SOPInstanceUID] = leaf
    path.write_bytes(_encode(root, uid("directory", *(name for name, _ in files))))
    return path


def _entry(kind: str, header: Dataset, *keywords: str) -> _Entry:
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord, record.RecordInUseFlag = 0, 0xFFFF
    record.OffsetOfReferencedLowerLevelDirectoryEntity, record.DirectoryRecordType = 0, kind
    record.SpecificCharacterSet = "ISO_IR 192"
    for keyword in keywords:
        setattr(record, keyword, getattr(header, keyword))
    return _Entry(record)


def _encode(root: dict[str, _Entry], instance_uid: str) -> bytes:
    """Write once to learn where each record lies, then with the records pointing at each other."""
    records: list[Dataset] = []

    def collect(entries: dict[str, _Entry]) -> None:
        for entry in entries.values():
            records.append(entry.record)
            collect(entry.below)

    collect(root)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MediaStorageDirectoryStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = instance_uid
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.FileSetID = "EXPORT"
    data.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    data.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    data.FileSetConsistencyFlag, data.DirectoryRecordSequence = 0, records
    written = pydicom.dcmread(io.BytesIO(_bytes(data))).DirectoryRecordSequence
    places = {id(record): item.seq_item_tell for record, item in zip(records, written, strict=True)}

    def link(entries: dict[str, _Entry]) -> list[int]:
        own = [places[id(entry.record)] for entry in entries.values()]
        for entry, following in zip(entries.values(), [*own[1:], 0], strict=True):
            entry.record.OffsetOfTheNextDirectoryRecord = following
            if entry.below:
                entry.record.OffsetOfReferencedLowerLevelDirectoryEntity = link(entry.below)[0]
        return own

    own = link(root)
    data.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = own[0]
    data.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = own[-1]
    return _bytes(data)


def _bytes(data: FileDataset) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
