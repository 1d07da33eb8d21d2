"""From the fields and files of a request to cases; nothing that a request says is opened as a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.cases.case import CENTER_COLUMNS, Case, case_from_record
from pipeline.console import one_line, printable
from pipeline.files import parse_json
from pipeline.scoring.finding.live_search import WholeScan
from pipeline.service.answers import NOT_OFFERED, TOO_LARGE, UNREADABLE, RequestError
from pipeline.service.settings import ServiceLimits
from pipeline.service.spool import RequestFolder
from pipeline.service.uploads import Upload

_LESION_FIELDS = (*CENTER_COLUMNS, "coordinate_system")
_REQUEST_FIELDS = ("case_id", "part", "find", "lesions")
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_LONGEST_ID = 200


@dataclass(frozen=True)
class RequestFields:
    """Which fields a request may have.

    Attributes:
        covariates: columns that the model needs of every case.
        has_detector: whether whole scans can be searched.
    """

    covariates: tuple[str, ...] = ()
    has_detector: bool = False

    @property
    def of_a_lesion(self) -> tuple[str, ...]:
        """Of one lesion, or of a whole image."""
        return (*_LESION_FIELDS, *self.covariates)

    @property
    def all(self) -> tuple[str, ...]:
        """Of a request."""
        return (*_REQUEST_FIELDS, *self.of_a_lesion)


def cases_of_request(
    upload: Upload, allowed: RequestFields, *, folder: RequestFolder, limits: ServiceLimits
) -> list[Case]:
    """One case for each lesion, or one for the whole image; a `WholeScan` for a scan that is to be searched.

    Args:
        upload: its files, unpacked.
        allowed: the fields that it may have.
        folder: of the request.
        limits: of the request.

    Raises:
        RequestError: 400 for fields that cannot be meant, 413 for too many lesions, 501 for ``find`` without a
            detector.
    """
    fields = upload.fields
    _require_known(fields, allowed.all, "field")
    search = _is_search(fields, allowed)
    if not upload.sent:
        raise RequestError(UNREADABLE, "the request holds no scan; send a NIfTI file, DICOM files or a picture")
    case_id = fields.get("case_id", "").strip() or "upload"
    if len(case_id) > _LONGEST_ID or printable(case_id) != case_id or "\n" in case_id:
        raise RequestError(UNREADABLE, f"case_id: expected at most {_LONGEST_ID} printable characters")
    records = _records(fields, allowed, limits)
    # A part is given apart: a name with "#" would be taken for a file of that name.
    alone = len(upload.files) == 1
    path = upload.files[0] if alone else folder.path
    image = path.name if alone else f"{len(upload.files)} files"
    part = fields.get("part", "").strip() or None
    cases = []
    for number, record in enumerate(records, start=1):
        name = case_id if len(records) == 1 else f"{case_id}#{number}"
        case = case_from_record({**record, "case_id": name, "image": path.name}, row=number, root=path.parent)
        case = replace(case, image=image, path=path, part=part)
        cases.append(WholeScan.of(case) if search else case)
    return cases


def _is_search(fields: Mapping[str, str], allowed: RequestFields) -> bool:
    """Whether the scan is to be searched for lesions."""
    asked = fields.get("find", "").strip().lower() or "false"
    if asked not in _WORDS:
        raise RequestError(UNREADABLE, "find: expected true or false")
    if not _WORDS[asked]:
        return False
    if not allowed.has_detector:
        reason = "find: this server has no detector; start it with --find DETECTOR, or give lesion centres"
        raise RequestError(NOT_OFFERED, reason)
    given = [name for name in ("lesions", *_LESION_FIELDS) if fields.get(name, "").strip()]
    if given:
        raise RequestError(UNREADABLE, f"find and {given[0]} are both given; give lesion centres, or have them found")
    return True


def _records(fields: Mapping[str, str], allowed: RequestFields, limits: ServiceLimits) -> list[dict[str, str]]:
    """Cells of a manifest, one record a lesion."""
    alone = {name: fields[name] for name in allowed.of_a_lesion if name in fields}
    if "lesions" not in fields:
        return [alone]
    if alone:
        raise RequestError(UNREADABLE, f"lesions and {next(iter(alone))} are both given; give lesions alone")
    try:
        lesions = parse_json(fields["lesions"])
    except ValueError as error:
        raise RequestError(UNREADABLE, f"lesions: {error}; expected a JSON list of objects") from None
    if not isinstance(lesions, list) or not lesions or not all(isinstance(lesion, dict) for lesion in lesions):
        raise RequestError(UNREADABLE, "lesions: expected a JSON list of objects, one a lesion")
    if len(lesions) > limits.lesions:
        raise RequestError(TOO_LARGE, f"lesions: {len(lesions)} are given, expected at most {limits.lesions}")
    return [_record(lesion, allowed) for lesion in lesions]


def _record(lesion: Mapping[str, Any], allowed: RequestFields) -> dict[str, str]:
    _require_known(lesion, allowed.of_a_lesion, "lesions: key")
    for value in lesion.values():
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise RequestError(UNREADABLE, "lesions: a value is neither a number nor a text")
    return {name: "" if value is None else str(value) for name, value in lesion.items()}


def _require_known(names: Mapping[str, Any], allowed: Sequence[str], what: str) -> None:
    unknown = [name for name in names if name not in allowed]
    if unknown:
        shown = printable(one_line(unknown[0]))[:40]
        raise RequestError(UNREADABLE, f"{what} {shown!r} is not known; expected {', '.join(allowed)}")
