"""From a folder, with or without a table, to the cases of a manifest; and everything that was found on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from pipeline.cases.case import Case
from pipeline.cases.intake.columns import Columns, choose_table, guess_columns
from pipeline.cases.intake.joining import ScanNames
from pipeline.cases.intake.kinds import one_kind_of_file
from pipeline.cases.intake.masks import without_label_maps
from pipeline.cases.intake.pseudonyms import patient_salt, pseudonym
from pipeline.cases.intake.rows import IntakeRow, rows_from_folders, rows_from_table, some
from pipeline.cases.intake.scans import SurveyedScan, UnreadScan, survey
from pipeline.cases.intake.selection import RULE, LeftOut, choose_series, without_copies
from pipeline.cases.label_words import LabelWords
from pipeline.cases.lesions.collect import collect_annotations
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import Lesion, ReadingOptions
from pipeline.cases.lesions.match import LesionMatch, match_lesions
from pipeline.cases.lesions.names import is_mask_name
from pipeline.cases.tables.table import (
    TABLE_SUFFIXES,
    Table,
    describe_notes,
    most_common,
    read_table,
    with_decimal_points,
)
from pipeline.errors import TableError, UsageError
from pipeline.imaging.find import SkippedCount

_SAME_MM = 1.0  # a centre in a table and a mark in a file are one lesion within it
_HEADER_COLUMNS = ("sex", "age_years", "manufacturer", "kernel", "thickness_mm", "body_part", "view")
_MOST_TABLES = 30
_LEAST_LESIONS = 0.5  # share of the scans with a lesion from which lesions are what is classified


@dataclass(frozen=True)
class IntakeOptions:
    """What a user says of a folder; everything else is found out.

    Attributes:
        table: file; None looks for one in the folder.
        sheet: of a workbook.
        files: pattern of the scans' paths relative to the folder; None takes all.
        columns: by role: ``id``, ``image``, ``patient``, ``label``.
        words: what label words mean.
        keep: columns to copy whatever they hold.
        keep_ids: write patient ids of DICOM headers as they are.
        reading: what annotation files may leave open.
    """

    table: Path | None = None
    sheet: str | None = None
    files: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    words: LabelWords = field(default_factory=LabelWords)
    keep: tuple[str, ...] = ()
    keep_ids: bool = False
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Intake:
    """The cases of a folder.

    Attributes:
        cases: rows of the manifest; their images are relative to the folder.
        scans: of each case.
        columns: names of the extra columns, in order.
        lines: what was found and decided, to be shown.
        left_out: what will not be a case, to be shown; nothing of it is lost.
    """

    cases: tuple[Case, ...]
    scans: tuple[SurveyedScan, ...]
    columns: tuple[str, ...]
    lines: tuple[str, ...]
    left_out: tuple[str, ...]


def take_in(
    folder: Path, options: IntakeOptions, *, progress: Callable[[Iterable[object]], Iterable[object]] = iter
) -> Intake:
    """Find out what a folder holds and what belongs together; nothing is written.

    Args:
        folder: of the scans; the manifest will lie in it.
        options: what the user says.
        progress: wraps the survey, which opens every scan.

    Raises:
        UsageError: when nothing can be scored or learned from it, or something must be said first.
    """
    skipped = SkippedCount()
    found = list(progress(survey(folder, skipped=skipped)))
    unread = [scan for scan in found if isinstance(scan, UnreadScan)]
    scans = [scan for scan in found if isinstance(scan, SurveyedScan) and _is_asked_for(scan, options.files)]
    masks = [scan for scan in scans if scan.files is None and is_mask_name(scan.image)]
    scans = [scan for scan in scans if scan not in masks]
    scans, twins = without_label_maps(scans)
    scans, derived, kinds = one_kind_of_file(scans)
    scans, other_kind = _one_kind(scans)
    if not scans:
        reason = _first_reason(unread)
        raise UsageError(f"{folder}: holds no scan that can be read{reason}; see `malignancy check {folder}`")
    scans, copies = without_copies(scans)
    match = _marked_lesions(folder, scans, options.reading)
    scans, lesions, series = _one_of_each_study(scans, match)
    table, columns = _table(folder, scans, options)
    rows = (
        rows_from_table(scans, table, columns, options.words, keep=options.keep)
        if table and columns
        else rows_from_folders(scans, options.words)
    )
    rows_left, without = _only_lesions(_with_lesions(rows.rows, lesions))
    cases, salt = _cases(rows_left, options)
    lines = [
        *([kinds] if kinds else []),
        *([f"table: {table.path}" + (f" ({describe_notes(table)})" if table.notes else "")] if table else []),
        *rows.lines,
        *_lesion_lines(rows_left, lesions, match),
        *_patient_lines(rows_left, salt),
    ]
    return Intake(
        cases=cases,
        scans=tuple(entry.row.scan for entry in rows_left),
        columns=_columns_of(cases),
        lines=tuple(lines),
        left_out=tuple(
            _left_out_lines(
                unread=unread,
                masks=[*masks, *twins],
                derived=derived,
                other_kind=other_kind,
                series=[*copies, *series],
                without=without,
                match=match,
            )
        ),
    )


def _is_asked_for(scan: SurveyedScan, pattern: str | None) -> bool:
    return pattern is None or fnmatch(scan.image, pattern) or fnmatch(f"/{scan.image}", pattern)


def _one_kind(scans: Sequence[SurveyedScan]) -> tuple[list[SurveyedScan], list[SurveyedScan]]:
    """The volumes or the slices and pictures, whichever are more; and the others."""
    flat = [scan for scan in scans if scan.is_flat]
    volumes = [scan for scan in scans if not scan.is_flat]
    return (volumes, flat) if len(volumes) >= len(flat) else (flat, volumes)


def _first_reason(unread: Sequence[UnreadScan]) -> str:
    return f" ({len(unread)} cannot; first: {unread[0].image}: {unread[0].error.reason})" if unread else ""


def _table(
    folder: Path, scans: Sequence[SurveyedScan], options: IntakeOptions
) -> tuple[Table, Columns] | tuple[None, None]:
    """The table that speaks of the scans: the one that was named, or the one of the folder that fits."""
    names = [scan.names for scan in scans]
    if options.table is not None:
        table = with_decimal_points(
            read_table(options.table, sheet=options.sheet, guess_encoding=True, find_header=True)
        )
        return table, _columns(table, names, options)
    candidates = []
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (*TABLE_SUFFIXES, ".txt") and path.is_file()
    ]
    for path in [path for path in paths if not path.name.startswith((".", "~"))][:_MOST_TABLES]:
        try:
            candidates.append(with_decimal_points(read_table(path, guess_encoding=True, find_header=True)))
        except TableError:
            continue  # a file of another purpose; the table that is meant can be named
    chosen = choose_table(folder, candidates, names)
    if chosen is None:
        if options.columns:
            role, column = next(iter(options.columns.items()))
            raise UsageError(f"--{role} {column}: {folder} has no table that names its scans; name one: --table FILE")
        return None, None
    return chosen, _columns(chosen, names, options)


def _columns(table: Table, names: Sequence[ScanNames], options: IntakeOptions) -> Columns:
    columns = guess_columns(table, names, given=options.columns)
    return replace(columns, system=columns.system or options.reading.system) if columns.center else columns


@dataclass(frozen=True, eq=False)
class _Located:
    """A row with its lesion, where one is known."""

    row: IntakeRow
    diameter_mm: float | None = None
    lesion: str = ""  # which of several of one scan


Lesions = Mapping[int, tuple[Lesion, ...]]  # by the identity of their scan


def _marked_lesions(folder: Path, scans: Sequence[SurveyedScan], reading: ReadingOptions) -> LesionMatch:
    """Lesions that annotation files of the folder mark, by place of their scan; pictures are classified whole."""
    if scans[0].is_flat:
        return LesionMatch()
    cases = [Case(str(place), scan.image, scan.path, files=scan.files) for place, scan in enumerate(scans)]
    images = ImageIndex(cases, root=folder)
    return match_lesions(images, collect_annotations([folder], images, reading).annotations)


def _one_of_each_study(
    scans: Sequence[SurveyedScan], match: LesionMatch
) -> tuple[list[SurveyedScan], Lesions, list[LeftOut]]:
    kept, left_out = choose_series(scans, [int(place) for place in match.lesions])
    return kept, {id(scans[int(place)]): lesions for place, lesions in match.lesions.items()}, left_out


def _with_lesions(rows: Sequence[IntakeRow], lesions_of: Lesions) -> list[_Located]:
    """Each row with the lesions that files mark in its scan, unless the table has its centre itself."""
    located = []
    for row in rows:
        lesions = lesions_of.get(id(row.scan), ())
        if row.center_mm is not None:
            located.append(_Located(row, _diameter_at(row.center_mm, lesions)))
        elif not lesions:
            located.append(_Located(row))
        else:
            several = len(lesions) > 1
            located += [
                _Located(replace(row, center_mm=lesion.center_mm), lesion.diameter_mm, f"#{number}" * several)
                for number, lesion in enumerate(lesions, start=1)
            ]
    return located


def _diameter_at(center: tuple[float, float, float], lesions: Sequence[Lesion]) -> float | None:
    near = [lesion for lesion in lesions if np.linalg.norm(np.subtract(lesion.center_mm, center)) <= _SAME_MM]
    return near[0].diameter_mm if near else None


def _only_lesions(located: Sequence[_Located]) -> tuple[list[_Located], list[str]]:
    """Rows with a lesion, when most scans have one; the scans without one are named and left out."""
    flat = located[0].row.scan.is_flat
    with_lesion = {id(entry.row.scan) for entry in located if entry.row.center_mm is not None}
    scans = {id(entry.row.scan) for entry in located}
    if flat or len(with_lesion) < _LEAST_LESIONS * len(scans):
        whole = {id(entry.row.scan): entry for entry in reversed(located)}  # one case a scan
        entries = [entry for entry in located if whole[id(entry.row.scan)] is entry]
        return [replace(entry, row=replace(entry.row, center_mm=None), lesion="") for entry in entries], []
    without = list(dict.fromkeys(entry.row.scan.image for entry in located if entry.row.center_mm is None))
    return [entry for entry in located if entry.row.center_mm is not None], without


def _cases(located: Sequence[_Located], options: IntakeOptions) -> tuple[tuple[Case, ...], str | None]:
    """Rows of the manifest, with unique ids, patients, and where the salt of their ids is kept if one was needed."""
    salt: tuple[str, str] | None = None
    ids = _case_ids(located)
    cases = []
    for entry, case_id in zip(located, ids, strict=True):
        row, header = entry.row, entry.row.scan.attributes
        patient = row.patient
        if patient is None and header and header.patient:
            if not options.keep_ids:
                salt = salt or patient_salt()
            patient = header.patient if options.keep_ids or salt is None else pseudonym(header.patient, salt[0])
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


def _case_ids(located: Sequence[_Located]) -> list[str]:
    """The table's ids where each is one case's alone, else paths; with a number where an image has several lesions."""
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


def _columns_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """Extra columns in which some cell is filled."""
    names = dict.fromkeys(name for case in cases for name in case.extra)
    return tuple(name for name in names if any(case.extra.get(name) for case in cases))


def _lesion_lines(located: Sequence[_Located], lesions_of: Lesions, match: LesionMatch) -> list[str]:
    with_center = [entry for entry in located if entry.row.center_mm is not None]
    if not with_center:
        return []
    scans_with = {id(entry.row.scan) for entry in with_center}
    formats = Counter(str(lesion.format) for scan in scans_with for lesion in lesions_of.get(scan, ()))
    where = most_common(formats) if formats else "the table"
    scans = len({id(entry.row.scan) for entry in with_center})
    sized = sum(bool(entry.diameter_mm or entry.row.extra.get("diameter_mm")) for entry in with_center)
    lines = [f"lesions: {len(with_center)} in {scans} scans ({where}), {sized} with a diameter"]
    shared = Counter(entry.row.scan.image for entry in with_center if entry.lesion and entry.row.label is not None)
    if shared:
        lines.append(f"{len(shared)} scans have several lesions, which share their scan's label")
    return [*lines, *_once(match.notes)]


def _once(notes: Sequence[str]) -> Iterable[str]:
    """Notes on single files, those that say the same in one line."""
    files_of: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        file, _, text = note.rpartition(": ")
        files_of[text].append(file)
    for text, files in files_of.items():
        yield f"{text} ({some(files)})" if any(files) else text


def _patient_lines(located: Sequence[_Located], salt: str | None) -> list[str]:
    if salt:
        return [f"patient: ids of the DICOM headers as salted hashes (salt in {salt}) [--keep-ids]"]
    unknown = sum(
        entry.row.patient is None
        and not (entry.row.scan.attributes and entry.row.scan.attributes.patient)
        and not entry.row.scan.names.subject
        for entry in located
    )
    if unknown:
        return [f"patient: unknown of {unknown} cases: each scan counts as a patient of its own [--patient COLUMN]"]
    return []


def _left_out_lines(
    *,
    unread: Sequence[UnreadScan],
    masks: Sequence[SurveyedScan],
    derived: Sequence[SurveyedScan],
    other_kind: Sequence[SurveyedScan],
    series: Sequence[LeftOut],
    without: Sequence[str],
    match: LesionMatch,
) -> Iterable[str]:
    """A line for each kind of what is no case, with a count and three examples."""
    if masks:
        yield f"{len(masks)} masks: {some([mask.image for mask in masks])}"
    if derived:
        yield f"{len(derived)} files beside the scan of their folder: {some([scan.image for scan in derived])}"
    copies = [f"{left.scan.image} ({left.reason})" for left in series if left.reason.startswith("an exact copy")]
    if copies:
        yield f"{len(copies)} exact copies of other scans: {some(copies)}"
    others = [f"{left.scan.image} ({left.reason})" for left in series if not left.reason.startswith("an exact copy")]
    if others:
        yield f"{len(others)} series of studies that have another one (kept is {RULE}): {some(others)}"
    if other_kind:
        kind = "single slices or pictures" if other_kind[0].is_flat else "volumes"
        yield f"{len(other_kind)} {kind} among others that are not: {some([scan.image for scan in other_kind])}"
    if without:
        yield f"{len(without)} scans without a marked lesion: {some(without)}"
    refused = [*match.homeless, *(refused for several in match.refused.values() for refused in several)]
    if refused:
        yield f"{len(refused)} annotations that give no lesion: {some([str(annotation) for annotation in refused])}"
    codes: dict[str, list[UnreadScan]] = defaultdict(list)
    for scan in unread:
        codes[str(scan.error.code)].append(scan)
    for code, several in sorted(codes.items()):
        reason = several[0].error.reason
        yield f"{len(several)} with {code} ({reason}): {some([scan.image for scan in several])}"
