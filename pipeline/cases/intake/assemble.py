"""Turn a folder, with or without a table, into the cases of a manifest, and report what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.intake.choose_table import choose_table
from pipeline.cases.intake.columns import Columns, guess_columns
from pipeline.cases.intake.derived_files import one_kind_of_file
from pipeline.cases.intake.joining import ScanNames
from pipeline.cases.intake.left_out import left_out_lines
from pipeline.cases.intake.located import lesion_lines, marked_lesions, one_of_each_study, only_lesions, with_lesions
from pipeline.cases.intake.masks import without_label_maps
from pipeline.cases.intake.naming import columns_of, name_cases
from pipeline.cases.intake.rows import Rows, rows_from_folders, rows_from_table
from pipeline.cases.intake.scans import SurveyedScan, UnreadScan, survey
from pipeline.cases.intake.selection import without_copies
from pipeline.cases.label_words import LabelWords
from pipeline.cases.lesions.lesion import ReadingOptions
from pipeline.cases.lesions.names import is_mask_name
from pipeline.cases.tables.table import (
    TABLE_SUFFIXES,
    Table,
    describe_notes,
    read_table,
    with_decimal_points,
)
from pipeline.errors import TableError, UsageError
from pipeline.imaging.discovery.outputs import lies_in_output
from pipeline.imaging.discovery.skipped import SkippedCount

_MOST_TABLES = 30


@dataclass(frozen=True)
class IntakeOptions:
    """What a user states about a folder; everything else is inferred.

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
        lines: about findings and decisions, to be shown.
        left_out: lines about files that become no case, to be shown.
    """

    cases: tuple[Case, ...]
    scans: tuple[SurveyedScan, ...]
    columns: tuple[str, ...]
    lines: tuple[str, ...]
    left_out: tuple[str, ...]


def assemble_intake(
    folder: Path, options: IntakeOptions, *, progress: Callable[[Iterable[object]], Iterable[object]] = iter
) -> Intake:
    """Find the scans, masks and tables of a folder and match them; nothing is written.

    Args:
        folder: of the scans; the manifest will lie in it.
        options: what the user states.
        progress: wraps the survey, which opens every scan.

    Raises:
        UsageError: when the folder holds no usable scan, or an option is needed.
    """
    skipped = SkippedCount()
    surveyed = list(progress(survey(folder, skipped=skipped)))
    unread = [scan for scan in surveyed if isinstance(scan, UnreadScan)]
    scans = [scan for scan in surveyed if isinstance(scan, SurveyedScan) and _is_asked_for(scan, options.files)]
    masks = [scan for scan in scans if scan.files is None and is_mask_name(scan.image)]
    scans = [scan for scan in scans if scan not in masks]
    scans, twins = without_label_maps(scans)
    scans, derived, kinds = one_kind_of_file(scans)
    scans, other_kind = _one_kind(scans)
    if not scans:
        raise UsageError(
            f"{folder}: holds no scan that can be read{_first_reason(unread)}; see `malignancy check {folder}`"
        )
    scans, copies = without_copies(scans)
    match = marked_lesions(folder, scans, options.reading)
    scans, lesions, series = one_of_each_study(scans, match)
    table, columns = _table(folder, scans, options)
    rows = _rows(scans, table, columns, options)
    chosen = only_lesions(with_lesions(rows.rows, lesions))
    naming = name_cases(chosen.rows, columns, keep_ids=options.keep_ids)
    lines = [
        *([kinds] if kinds else []),
        *([f"table: {table.path}" + (f" ({describe_notes(table)})" if table.notes else "")] if table else []),
        *rows.lines,
        *chosen.lines,
        *lesion_lines(chosen.rows, lesions, match, table=table),
        *naming.lines,
    ]
    return Intake(
        cases=naming.cases,
        scans=tuple(entry.row.scan for entry in chosen.rows),
        columns=columns_of(naming.cases),
        lines=tuple(lines),
        left_out=tuple(
            left_out_lines(
                unread=unread,
                masks=[*masks, *twins],
                derived=derived,
                other_kind=other_kind,
                series=[*copies, *series],
                without=chosen.without,
                match=match,
            )
        ),
    )


def _rows(scans: Sequence[SurveyedScan], table: Table | None, columns: Columns | None, options: IntakeOptions) -> Rows:
    if table and columns:
        return rows_from_table(scans, table, columns, options.words, keep=options.keep)
    return rows_from_folders(scans, options.words)


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
    """The table of the scans: the one that the user named, or the one in the folder that matches them."""
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
        if path.suffix.lower() in (*TABLE_SUFFIXES, ".txt") and path.is_file() and not lies_in_output(path, folder)
    ]
    if options.sheet is not None:
        paths = [path for path in paths if path.suffix.lower() in (".xlsx", ".xlsm")]
    for path in [path for path in paths if not path.name.startswith((".", "~"))][:_MOST_TABLES]:
        try:
            table = read_table(path, sheet=options.sheet, guess_encoding=True, find_header=True)
            candidates.append(with_decimal_points(table))
        except TableError:
            continue  # a table of another purpose; the user can name the right one
    chosen = choose_table(folder, candidates, names)
    if chosen is None:
        if options.sheet is not None:
            raise UsageError(
                f"--sheet {options.sheet}: no Excel table of {folder} has a sheet of this name that names the scans; "
                "name the table: --table FILE"
            )
        if options.columns:
            role, column = next(iter(options.columns.items()))
            raise UsageError(f"--{role} {column}: {folder} has no table that names its scans; name one: --table FILE")
        return None, None
    return chosen, _columns(chosen, names, options)


def _columns(table: Table, names: Sequence[ScanNames], options: IntakeOptions) -> Columns:
    columns = guess_columns(table, names, given=options.columns)
    return replace(columns, system=columns.system or options.reading.system) if columns.center else columns
