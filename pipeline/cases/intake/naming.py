"""Ids of cases and of patients, and the columns that headers add."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.cases.case import Case
from pipeline.cases.ids import plain_id, spelt_apart
from pipeline.cases.intake.columns import Columns
from pipeline.cases.intake.located import LocatedRow
from pipeline.cases.intake.names import parts, same_id
from pipeline.cases.intake.pseudonyms import patient_salt, pseudonym
from pipeline.cases.intake.scans import SurveyedScan
from pipeline.cases.intake.words import PERSON_NAMES

_NAME = re.compile(r"[^\W\d_][\w'-]*?")  # a letter, then letters, and a number at most at its end
_HEADER_COLUMNS = ("sex", "age_years", "manufacturer", "kernel", "thickness_mm", "body_part", "view")


@dataclass(frozen=True)
class Naming:
    """Cases with their ids.

    Attributes:
        cases: rows of the manifest.
        lines: what was decided about ids, to be shown.
    """

    cases: tuple[Case, ...]
    lines: tuple[str, ...]


def name_cases(located: Sequence[LocatedRow], columns: Columns | None, *, keep_ids: bool) -> Naming:
    """Rows of the manifest, with unique ids and patients.

    Ids in DICOM headers, and names in a table, identify a person: unless they are to be kept, patients get a salted
    hash, and a case whose table id is an accession number or a name gets its path as id. Of several spellings of one
    patient's id the first is used.

    Args:
        located: scans with what is known of them.
        columns: of the table, where there is one.
        keep_ids: write them as they are.
    """
    patients_named = _hold_names(columns.patient if columns else None, [entry.row.patient for entry in located])
    if not keep_ids:
        cases_named = _hold_names(columns.case if columns else None, [entry.row.case_id for entry in located])
        located = [
            replace(entry, row=replace(entry.row, case_id=None))
            if cases_named or _names_a_person(entry.row.case_id, entry.row.scan)
            else entry
            for entry in located
        ]
    ids = _case_ids(located)
    of_header = _patients_of_headers(located)
    hashed: dict[str, None] = {}  # what was, each once
    patients: list[str] = []
    for entry in located:
        row, header = entry.row, entry.row.scan.attributes
        patient = row.patient
        of_person = of_header.get(patient or "") or (patient if patients_named else None)
        if patient is None and header and header.patient:
            of_person = header.patient
        if of_person is not None:
            hashed["names of patients" if patients_named else "ids that stand in DICOM headers"] = None
            patient = of_person if keep_ids else pseudonym(plain_id(of_person), patient_salt()[0])
        patients.append(patient or row.scan.names.subject or row.scan.image)
    patients, respelt = _spelt_alike(patients)
    cases = [_case(entry, case_id, patient) for entry, case_id, patient in zip(located, ids, patients, strict=True)]
    lines = []
    if hashed and not keep_ids:
        salt = patient_salt()[1]
        lines = [f"{' and '.join(hashed)} are not written: patients are salted hashes (salt in {salt}) [--keep-ids]"]
    if respelt:
        lines.append(
            f"patient: {respelt} ids differ from another in zeros, '.0' or letters' case alone, and are that patient's"
        )
    return Naming(tuple(cases), (*lines, *_unknown_patients(located)))


def _case(entry: LocatedRow, case_id: str, patient: str) -> Case:
    row, header = entry.row, entry.row.scan.attributes
    extra = dict(row.extra)
    if entry.diameter_mm is not None and (entry.lesion or not extra.get("diameter_mm")):
        extra["diameter_mm"] = f"{entry.diameter_mm:g}"
    if header:
        extra |= {name: getattr(header, name) for name in _HEADER_COLUMNS if not extra.get(name)}
    return Case(
        case_id=case_id,
        image=row.scan.image,
        path=row.scan.path,
        patient_id=patient,
        label=row.label,
        split=row.split,
        center_mm=row.center_mm,
        extra=extra,
        files=row.scan.files,
    )


def _hold_names(column: str | None, cells: Sequence[str | None]) -> bool:
    """Whether ids are names of persons: their column says so, or most look it, as ``Doe, John`` and ``Doe^John``."""
    filled = {cell for cell in cells if cell}
    if column is None or not filled:
        return False
    return bool(set(parts(column)) & PERSON_NAMES) or sum(map(_looks_like_a_name, filled)) > len(filled) / 2


def _looks_like_a_name(text: str) -> bool:
    words = text.replace("^", " ").replace(",", " ").replace(".", " ").split()
    return len(words) > 1 and all(_NAME.fullmatch(word) for word in words) and any(len(word) > 1 for word in words)


def _spelt_alike(patients: Sequence[str]) -> tuple[list[str], int]:
    """Each id in the first of its spellings, and the number of other spellings."""
    others = {spelling: first for first, spelling in spelt_apart(patients)}
    return [others.get(patient, patient) for patient in patients], len(others)


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


def _case_ids(located: Sequence[LocatedRow]) -> list[str]:
    """The table's ids where they are unique, else paths; with a number where an image has several lesions."""
    rows_of = Counter(entry.row.case_id for entry in located)
    of_scans = defaultdict(set)
    for entry in located:
        of_scans[entry.row.case_id].add(id(entry.row.scan))
    per_image = Counter(entry.row.scan.image for entry in located)
    numbered: Counter[str] = Counter()
    ids = []
    for entry in located:
        own = entry.row.case_id
        if own and rows_of[own] == 1:
            ids.append(own)
        elif own and len(of_scans[own]) == 1 and entry.lesion:
            ids.append(f"{own}{entry.lesion}")
        else:
            image = entry.row.scan.image
            numbered[image] += 1
            ids.append(f"{image}#{numbered[image]}" if per_image[image] > 1 else image)
    return ids if len(set(ids)) == len(ids) else [f"{number:05d}" for number in range(1, len(ids) + 1)]


def columns_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """Extra columns in which some cell is filled."""
    names = dict.fromkeys(name for case in cases for name in case.extra)
    return tuple(name for name in names if any(case.extra.get(name) for case in cases))


def _unknown_patients(located: Sequence[LocatedRow]) -> list[str]:
    unknown = sum(
        entry.row.patient is None
        and not (entry.row.scan.attributes and entry.row.scan.attributes.patient)
        and not entry.row.scan.names.subject
        for entry in located
    )
    if unknown:
        return [f"patient: unknown of {unknown} cases: each scan counts as a patient of its own [--patient COLUMN]"]
    return []
