"""Scans and the lesions that annotation files of the folder mark in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.cases.case import Case
from pipeline.cases.intake.rows import IntakeRow, first_three
from pipeline.cases.intake.scans import SurveyedScan
from pipeline.cases.intake.selection import LeftOut, choose_series
from pipeline.cases.lesions.collect import collect_annotations
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import Lesion, ReadingOptions
from pipeline.cases.lesions.match import LesionMatch, match_lesions
from pipeline.cases.tables.table import Table, most_common

_SAME_MM = 1.0  # a centre in a table and a mark in a file are one lesion within it
_LEAST_LESIONS = 0.5  # share of the scans with a lesion from which lesions are what is classified


@dataclass(frozen=True, eq=False)
class LocatedRow:
    """A row with its lesion, where one is known."""

    row: IntakeRow
    diameter_mm: float | None = None
    lesion: str = ""  # which of several of one scan


Lesions = Mapping[int, tuple[Lesion, ...]]  # by the identity of their scan


def marked_lesions(folder: Path, scans: Sequence[SurveyedScan], reading: ReadingOptions) -> LesionMatch:
    """Lesions that annotation files of the folder mark, by place of their scan; pictures are classified whole."""
    if scans[0].is_flat:
        return LesionMatch()
    cases = [Case(str(place), scan.image, scan.path, files=scan.files) for place, scan in enumerate(scans)]
    images = ImageIndex(cases, root=folder)
    return match_lesions(images, collect_annotations([folder], images, reading).annotations)


def one_of_each_study(
    scans: Sequence[SurveyedScan], match: LesionMatch
) -> tuple[list[SurveyedScan], Lesions, list[LeftOut]]:
    """Scans that become cases, their lesions, and the series that do not (`choose_series`)."""
    chosen, left_out = choose_series(scans, [int(place) for place in match.lesions])
    return chosen, {id(scans[int(place)]): lesions for place, lesions in match.lesions.items()}, left_out


def with_lesions(rows: Sequence[IntakeRow], lesions_of: Lesions) -> list[LocatedRow]:
    """Each row with the lesions that files mark in its scan, unless the table has its centre itself."""
    located = []
    for row in rows:
        lesions = lesions_of.get(id(row.scan), ())
        if row.center_mm is not None:
            located.append(LocatedRow(row, _diameter_at(row.center_mm, lesions)))
        elif not lesions:
            located.append(LocatedRow(row))
        else:
            several = len(lesions) > 1
            located += [
                LocatedRow(replace(row, center_mm=lesion.center_mm), lesion.diameter_mm, f"#{number}" * several)
                for number, lesion in enumerate(lesions, start=1)
            ]
    return located


def _diameter_at(center: tuple[float, float, float], lesions: Sequence[Lesion]) -> float | None:
    near = [lesion for lesion in lesions if np.linalg.norm(np.subtract(lesion.center_mm, center)) <= _SAME_MM]
    return near[0].diameter_mm if near else None


@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows that become cases.

    Attributes:
        rows: each a lesion, or each a whole scan.
        without: scans that have no lesion where lesions are the cases.
        lines: what was decided, to be shown.
    """

    rows: list[LocatedRow]
    without: list[str]
    lines: tuple[str, ...] = ()


def only_lesions(located: Sequence[LocatedRow]) -> Chosen:
    """Rows with a lesion, when most scans have one, and the scans without one; else one row a scan.

    A scan whose lesions have different labels is then neither.
    """
    flat = located[0].row.scan.is_flat
    with_lesion = {id(entry.row.scan) for entry in located if entry.row.center_mm is not None}
    scans = {id(entry.row.scan) for entry in located}
    if flat or len(with_lesion) < _LEAST_LESIONS * len(scans):
        of_scan: dict[int, list[LocatedRow]] = defaultdict(list)
        for entry in located:
            of_scan[id(entry.row.scan)].append(entry)
        rows, torn = [], []
        for first, *others in of_scan.values():
            labels = {entry.row.label for entry in (first, *others)} - {None}
            torn += [first.row.scan.image] if len(labels) > 1 else []
            row = replace(first.row, center_mm=None, label=labels.pop() if len(labels) == 1 else None)
            rows.append(replace(first, row=row, lesion="", diameter_mm=first.diameter_mm if not others else None))
        lines = []
        if with_lesion and not flat:
            lines.append(
                f"lesion centres: {len(with_lesion)} of {len(scans)} scans have one, too few for cases that are "
                "lesions; whole scans are taken"
            )
        if torn:
            lines.append(f"{len(torn)} scans have lesions of both labels and stay unlabelled: {first_three(torn)}")
        return Chosen(rows, [], tuple(lines))
    without = list(dict.fromkeys(entry.row.scan.image for entry in located if entry.row.center_mm is None))
    return Chosen([entry for entry in located if entry.row.center_mm is not None], without)


def lesion_lines(
    located: Sequence[LocatedRow], lesions_of: Lesions, match: LesionMatch, *, table: Table | None
) -> list[str]:
    """Lines on how many lesions there are, where they are marked, and how they were handled.

    Notes on how ``table`` was read are left out, since they were shown before.
    """
    with_center = [entry for entry in located if entry.row.center_mm is not None]
    if not with_center:
        return []
    scans_with = list(dict.fromkeys(id(entry.row.scan) for entry in with_center))
    formats = Counter(str(lesion.format) for scan in scans_with for lesion in lesions_of.get(scan, ()))
    where = most_common(formats) if formats else "the table"
    scans = len({id(entry.row.scan) for entry in with_center})
    sized = sum(bool(entry.diameter_mm or entry.row.extra.get("diameter_mm")) for entry in with_center)
    lines = [f"lesions: {len(with_center)} in {scans} scans ({where}), {sized} with a diameter"]
    shared = Counter(entry.row.scan.image for entry in with_center if entry.lesion and entry.row.label is not None)
    if shared:
        lines.append(f"{len(shared)} scans have several lesions, which share their scan's label")
    return [*lines, *_once(match.notes, table)]


def _once(notes: Sequence[str], table: Table | None) -> Iterable[str]:
    """Notes on single files, those that say the same in one line."""
    files_of: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        file, _, text = note.rpartition(": ")
        if not (table and file == str(table.path) and set(text.split("; ")) <= set(table.notes)):
            files_of[text].append(file)
    for text, files in files_of.items():
        yield f"{text} ({first_three(files)})" if any(files) else text
