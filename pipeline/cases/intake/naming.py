"""Ids of cases and of patients, and the columns that headers add."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipeline.cases.case import Case
from pipeline.cases.intake.located import LocatedRow
from pipeline.cases.intake.names import same_id
from pipeline.cases.intake.pseudonyms import patient_salt, pseudonym
from pipeline.cases.intake.scans import SurveyedScan

_HEADER_COLUMNS = ("sex", "age_years", "manufacturer", "kernel", "thickness_mm", "body_part", "view")


def cases_of(located: Sequence[LocatedRow], *, keep_ids: bool) -> tuple[tuple[Case, ...], str | None]:
    """Rows of the manifest, with unique ids, patients, and where the salt of their ids is kept if one was needed.

    Ids that stand in DICOM headers are a person's: unless they are to be kept, patients get a salted hash, and a case
    that a table calls by an accession number is called by its path.
    """
    salt: tuple[str, str] | None = None
    ids = _case_ids(located, keep_ids=keep_ids)
    of_header = _patients_of_headers(located)
    cases = []
    for entry, case_id in zip(located, ids, strict=True):
        row, header = entry.row, entry.row.scan.attributes
        patient, known = row.patient, of_header.get(row.patient or "")
        if row.patient is None and header:
            known = header.patient or None
        if known is not None:
            salt = salt or (None if keep_ids else patient_salt())
            patient = pseudonym(known, salt[0]) if salt else known
        extra = dict(row.extra)
        if entry.diameter_mm is not None and (entry.lesion or not extra.get("diameter_mm")):
            extra["diameter_mm"] = f"{entry.diameter_mm:g}"
        if header:
            extra |= {name: getattr(header, name) for name in _HEADER_COLUMNS if not extra.get(name)}
        cases.append(
            Case(
                case_id=case_id,
                image=row.scan.image,
                path=row.scan.path,
                patient_id=patient or row.scan.names.subject or row.scan.image,
                label=row.label,
                split=row.split,
                center_mm=row.center_mm,
                extra=extra,
                files=row.scan.files,
            )
        )
    return tuple(cases), salt[1] if salt else None


def _patients_of_headers(located: Sequence[LocatedRow]) -> dict[str, str]:
    """Patient ids of a table that stand in a header too, by how the table writes them: as the header writes them."""
    return {
        entry.row.patient: header.patient
        for entry in located
        if entry.row.patient
        and (header := entry.row.scan.attributes)
        and header.patient
        and same_id(header.patient) == same_id(entry.row.patient)
    }


def _names_a_person(case_id: str | None, scan: SurveyedScan) -> bool:
    """Whether a table's id of a case is a patient's or a study's id in the scan's header."""
    header = scan.attributes
    if case_id is None or header is None:
        return False
    return same_id(case_id) in {same_id(value) for value in (header.patient, header.accession, header.study) if value}


def _case_ids(located: Sequence[LocatedRow], *, keep_ids: bool) -> list[str]:
    """The table's ids where each is one case's alone, else paths; with a number where an image has several lesions."""
    if not keep_ids:
        located = [
            replace(entry, row=replace(entry.row, case_id=None))
            if _names_a_person(entry.row.case_id, entry.row.scan)
            else entry
            for entry in located
        ]
    given = Counter(entry.row.case_id for entry in located)
    of_scans = defaultdict(set)
    for entry in located:
        of_scans[entry.row.case_id].add(id(entry.row.scan))
    per_image = Counter(entry.row.scan.image for entry in located)
    seen: Counter[str] = Counter()
    ids = []
    for entry in located:
        own = entry.row.case_id
        if own and given[own] == 1:
            ids.append(own)
        elif own and len(of_scans[own]) == 1 and entry.lesion:
            ids.append(f"{own}{entry.lesion}")
        else:
            image = entry.row.scan.image
            seen[image] += 1
            ids.append(f"{image}#{seen[image]}" if per_image[image] > 1 else image)
    return ids if len(set(ids)) == len(ids) else [f"{number:05d}" for number in range(1, len(ids) + 1)]


def columns_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """Extra columns in which some cell is filled."""
    names = dict.fromkeys(name for case in cases for name in case.extra)
    return tuple(name for name in names if any(case.extra.get(name) for case in cases))


def patient_lines(located: Sequence[LocatedRow], salt: str | None) -> list[str]:
    """Where patient ids come from, when no table gives them."""
    if salt:
        return [
            f"ids that stand in DICOM headers are not written: patients are salted hashes (salt in {salt}) [--keep-ids]"
        ]
    unknown = sum(
        entry.row.patient is None
        and not (entry.row.scan.attributes and entry.row.scan.attributes.patient)
        and not entry.row.scan.names.subject
        for entry in located
    )
    if unknown:
        return [f"patient: unknown of {unknown} cases: each scan counts as a patient of its own [--patient COLUMN]"]
    return []
