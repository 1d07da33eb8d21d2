"""Patient and study attributes of a series, which its result objects repeat so that an archive files them with it.

These are the attributes that DICOM requires of every object of a study (type 1 and 2 of the Patient and General Study
modules), those that make the patient's ID unique, and whether the patient's identity was removed. All other patient
attributes (address, history, comments) are not copied. The values are written into result objects and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta, timezone
from pathlib import Path
from typing import Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from pipeline.config.inputs import Limits
from pipeline.imaging.dicom.file import PARSE_FAULTS, begin, opened, parse, quiet

_TEXTS: Final = (
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "StudyID",
)
_ISSUER, _REMOVED, _METHOD = "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod"
_METHOD_CODES: Final = "DeidentificationMethodCodeSequence"
# Values that are no date, time or term of the standard are left out, because an archive may refuse the object.
_CHECKED: Final = {
    "StudyDate": re.compile(r"\d{8}"),
    "StudyTime": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "PatientBirthDate": re.compile(r"\d{8}"),
    "PatientSex": re.compile(r"[MFO]"),
}
_ZONE, _OFFSET = "TimezoneOffsetFromUTC", re.compile(r"([+-])(\d{2})([0-5]\d)")
_KEYWORDS: Final = (*_TEXTS, *_CHECKED, _ISSUER, _REMOVED, _METHOD, _METHOD_CODES, _ZONE)
_TAGS: Final = sorted(tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)


def read_context(path: Path, *, limits: Limits) -> Dataset:
    """The attributes as one file of the series has them, in Unicode; required ones that it lacks are empty.

    Raises:
        CaseError: when the file cannot be read.
    """
    with opened(path) as (handle, stamp):
        header, _ = parse(path, begin(path, handle, stamp, limits), _TAGS)
    with quiet():  # pydicom's warnings quote values that break a rule
        return _copied(header)


def _copied(header: Dataset) -> Dataset:
    context = Dataset()
    for keyword in _TEXTS:
        setattr(context, keyword, _text(header, keyword))
    if issuer := _text(header, _ISSUER):
        setattr(context, _ISSUER, issuer)
    if _text(header, _REMOVED) == "YES":
        context.PatientIdentityRemoved = "YES"
        context.DeidentificationMethod = _text(header, _METHOD) or _code_meanings(header) or "not stated"
    for keyword, pattern in _CHECKED.items():
        text = _text(header, keyword)
        setattr(context, keyword, text if pattern.fullmatch(text) else "")
    offset = _text(header, _ZONE)
    if _OFFSET.fullmatch(offset):
        setattr(context, _ZONE, offset)
    return context


def _text(header: Dataset, keyword: str) -> str:
    """A value decoded by the header's character set; empty when it is absent or damaged."""
    try:
        value = header.get(keyword)
        if isinstance(value, Iterable) and not isinstance(value, str | PersonName):
            return "\\".join(map(str, value))  # pydicom splits a value at backslashes
        return "" if value is None else str(value)
    except PARSE_FAULTS:
        return ""


def _code_meanings(header: Dataset) -> str:
    """How the identity was removed, where it is given as codes alone."""
    try:
        items = list(header.get(_METHOD_CODES) or ())
    except PARSE_FAULTS:
        return ""
    return "\\".join(filter(None, (_text(item, "CodeMeaning") for item in items)))


def time_zone(context: Dataset) -> timezone | None:
    """The time zone that the series' dates and times are in; None where its header names none."""
    match = _OFFSET.fullmatch(str(context.get(_ZONE, "")))
    if match is None:
        return None
    sign = -1 if match[1] == "-" else 1
    return timezone(sign * timedelta(hours=int(match[2]), minutes=int(match[3])))
