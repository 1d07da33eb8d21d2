"""Faults of a table as a whole: ids, labels, patients, splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline.cases.case import Case
from pipeline.cases.ids import is_rounded, spelt_apart
from pipeline.cases.tables.table import MISSING_WORDS
from pipeline.config.inputs import SPLITS
from pipeline.errors import Code, TableError

_SHOWN = 3  # examples in a line
_SPLIT_WORDS = {
    "train": {"training"},
    "validation": {"val", "valid", "dev"},
    "calibration": {"cal", "calib"},
    "test": {"testing", "holdout"},
}


def check_case_ids(path: Path, cases: Sequence[Case], *, given: bool) -> None:
    """Refuse ids that are not unique, or not plain text.

    Args:
        path: of the table.
        cases: its rows.
        given: whether the table has a ``case_id`` column; without it the image's path is the id.

    Raises:
        TableError: E_CASE_ID or E_LABEL_CONFLICT.
    """
    counts = Counter(case.case_id for case in cases)
    twice = [case_id for case_id, count in counts.items() if count > 1]
    if twice and not given:
        raise TableError(*_same_image_twice(path, [case for case in cases if case.case_id == twice[0]]))
    if twice:
        raise TableError(
            Code.E_CASE_ID,
            path,
            f"case_id {twice[0]!r} stands {counts[twice[0]]} times in rows that differ; make it unique",
        )
    for case in cases:
        if not case.case_id.isprintable() or case.case_id != case.case_id.strip():
            raise TableError(
                Code.E_CASE_ID,
                path,
                f"case_id {case.case_id!r} has control characters or spaces around it; remove them",
            )


def _same_image_twice(path: Path, cases: Sequence[Case]) -> tuple[Code, Path, str]:
    """The fault of rows without case_id that name one image and differ elsewhere."""
    same_place = len({case.center_mm for case in cases}) == 1
    if same_place and len({case.label for case in cases}) > 1:
        return Code.E_LABEL_CONFLICT, path, f"{cases[0].image!r} is labelled both 0 and 1; keep the right row"
    return (
        Code.E_CASE_ID,
        path,
        f"{cases[0].image!r} stands {len(cases)} times in rows that differ; add a unique case_id column",
    )


def table_faults(
    path: Path, header: Sequence[str], cases: Sequence[Case], *, word_fault: str | None = None
) -> Iterable[TableError]:
    """Faults that stop training and evaluation, in the order in which to correct them, one line for each kind.

    Args:
        path: of the table.
        header: its columns.
        cases: its rows.
        word_fault: what is wrong with the words of its label column.
    """
    for name in ("label", "patient_id"):
        if name not in header:
            near = get_close_matches(name, header, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield TableError(
                Code.E_LABEL_COLUMNS, path, f"has no column {name!r}, which training and evaluation need{hint}; add it"
            )
    if word_fault:
        yield TableError(
            Code.E_LABEL_VALUE,
            path,
            f"column 'label': {word_fault} (data.positive_label, or positive_label in {path.stem}.yaml beside it)",
        )
    labelled = [case for case in cases if case.label is not None]
    if "patient_id" in header:
        yield from patient_faults(path, labelled)
    yield from _label_conflicts(path, labelled)
    yield from split_faults(path, labelled)
    classes = {case.label for case in labelled}
    if "label" in header and len(classes) < 2 and not word_fault:
        labels = f"only label {classes.pop()}" if classes else "no label"
        yield TableError(
            Code.E_ONE_CLASS, path, f"{labels} in {len(cases)} rows; training and evaluation need both classes"
        )


def patient_faults(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    """Ids of patients that are missing, or that may be two spellings of one, one line for a kind."""
    blank = [case.case_id for case in cases if case.patient_id is None]
    if blank:
        yield TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"{_count(len(blank), 'labelled case has', 'labelled cases have')} no patient_id ({_examples(blank)}); "
            "fill it, or a patient could be in two splits",
        )
    ids = [case.patient_id for case in cases if case.patient_id is not None]
    spaces = list(dict.fromkeys(patient for patient in ids if patient != patient.strip()))
    if spaces:
        yield TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"{_count(len(spaces), 'patient_id has', 'patient_ids have')} spaces around ({_examples(spaces)}); "
            "remove them",
        )
    apart = spelt_apart(ids)
    if apart:
        pairs = [f"{first!r} and {second!r}" for first, second in apart]
        yield TableError(
            Code.E_PATIENT_LEAK,
            path,
            f"{_count(len(apart), 'patient_id is', 'patient_ids are')} another one but for the spelling "
            f"({_some(pairs)}), and one person could be in two splits; write one patient's id alike everywhere, or "
            "make those of two differ by more",
        )
    rounded = Counter(patient for patient in ids if is_rounded(patient))
    if rounded:
        yield TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"patient_id {_examples(list(rounded))} in {rounded.total()} rows was shortened by a spreadsheet, which "
            "makes one patient of several; export the column as text",
        )
    missing = Counter(patient for patient in ids if patient.strip().casefold() in MISSING_WORDS)
    if missing:
        yield TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"patient_id {_examples(list(missing))} in {missing.total()} rows stands for a missing id, and would make "
            "one patient of all of them; fill it in",
        )


def _label_conflicts(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    places = [
        group
        for group in _grouped(cases, lambda case: (*case.place, case.center_mm))
        if len({case.label for case in group}) > 1
    ]
    if places:
        ids = ", ".join(repr(case.case_id) for case in places[0])
        yield TableError(
            Code.E_LABEL_CONFLICT,
            path,
            f"{_count(len(places), 'place has', 'places have')} cases with different labels: {ids} are the same place "
            f"of {places[0][0].image!r}; keep the right one",
        )


def split_faults(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    """Names that are no split, and patients in several of them, one line for a kind."""
    strange = Counter(case.split for case in cases if case.split is not None and case.split not in SPLITS)
    if strange:
        word = next(iter(strange))
        near = [name for name, words in _SPLIT_WORDS.items() if str(word).casefold() in words]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield TableError(
            Code.E_SPLIT_VALUE,
            path,
            f"split {_examples(list(map(str, strange)))} in {strange.total()} rows, "
            f"expected one of {', '.join(SPLITS)} or blank{hint}",
        )
    with_both = (case for case in cases if case.patient_id and case.split)
    torn = [
        group for group in _grouped(with_both, lambda case: case.patient_id) if len({case.split for case in group}) > 1
    ]
    if torn:
        splits = sorted({str(case.split) for case in torn[0]})
        yield TableError(
            Code.E_PATIENT_LEAK,
            path,
            f"{_count(len(torn), 'patient is', 'patients are')} in several splits "
            f"({torn[0][0].patient_id!r} in {' and '.join(splits)}); keep each patient in one",
        )


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"


def _examples(values: Sequence[str]) -> str:
    """The first three, as ``'a', 'b', 'c' and 4 more``."""
    return _some([repr(value) for value in values])


def _some(texts: Sequence[str]) -> str:
    """The first three, as ``a, b, c and 4 more``."""
    shown = ", ".join(texts[:_SHOWN])
    return f"{shown} and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else shown


def _grouped(cases: Iterable[Case], key: Callable[[Case], object]) -> Iterable[list[Case]]:
    groups: dict[object, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups.values()
