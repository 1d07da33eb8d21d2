"""What is wrong with a table as a whole: ids, labels, patients, splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipeline.cases.case import LABEL_VALUES, Case
from pipeline.config.inputs import SPLITS
from pipeline.errors import Code, TableError


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
    """What to say of rows without case_id that name one image and differ elsewhere."""
    same_place = len({case.center_mm for case in cases}) == 1
    if same_place and len({case.label for case in cases}) > 1:
        return Code.E_LABEL_CONFLICT, path, f"{cases[0].image!r} is labelled both 0 and 1; keep the right row"
    return (
        Code.E_CASE_ID,
        path,
        f"{cases[0].image!r} stands {len(cases)} times in rows that differ; add a unique case_id column",
    )


def table_faults(
    path: Path, header: list[str], records: Sequence[tuple[int, dict[str, str]]], cases: Sequence[Case]
) -> Iterable[TableError]:
    """Faults that stop training and evaluation, in the order in which a person would mend them.

    Args:
        path: of the table.
        header: its columns.
        records: row number and cells of each row.
        cases: the same rows as cases.
    """
    for name in ("label", "patient_id"):
        if name not in header:
            yield TableError(
                Code.E_LABEL_COLUMNS, path, f"has no column {name!r}, which training and evaluation need; add it"
            )
    for row, record in records:
        label = record.get("label", "").strip()
        if label and label not in LABEL_VALUES:
            yield TableError(
                Code.E_LABEL_VALUE, path, f"row {row}: label {label!r}, expected 1 (malignant), 0 (benign) or blank"
            )
    labelled = [case for case in cases if case.label is not None]
    if "patient_id" in header:
        yield from _patient_faults(path, labelled)
    yield from _label_conflicts(path, labelled)
    yield from _split_faults(path, labelled)
    classes = {case.label for case in labelled}
    if "label" in header and len(classes) < 2:
        found = f"only label {classes.pop()}" if classes else "no label"
        yield TableError(
            Code.E_ONE_CLASS, path, f"{found} in {len(cases)} rows; training and evaluation need both classes"
        )


def _patient_faults(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    blank = [case.case_id for case in cases if case.patient_id is None]
    if blank:
        yield TableError(
            Code.E_LABEL_COLUMNS,
            path,
            f"{len(blank)} labelled cases have no patient_id (first: {blank[0]!r}); "
            "fill it, or a patient could be in two splits",
        )
    for case in cases:
        if case.patient_id is not None and case.patient_id != case.patient_id.strip():
            yield TableError(
                Code.E_LABEL_COLUMNS, path, f"patient_id {case.patient_id!r} has spaces around it; remove them"
            )
            return


def _label_conflicts(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    for places in _grouped(cases, lambda case: (case.image, case.center_mm)):
        if len({case.label for case in places}) > 1:
            ids = ", ".join(repr(case.case_id) for case in places)
            yield TableError(
                Code.E_LABEL_CONFLICT,
                path,
                f"cases {ids} are the same place of {places[0].image!r} with different labels; keep the right one",
            )


def _split_faults(path: Path, cases: Sequence[Case]) -> Iterable[TableError]:
    for case in cases:
        if case.split is not None and case.split not in SPLITS:
            yield TableError(
                Code.E_SPLIT_VALUE,
                path,
                f"case {case.case_id!r}: split {case.split!r}, expected one of {', '.join(SPLITS)} or blank",
            )
    for patient in _grouped((case for case in cases if case.patient_id and case.split), lambda case: case.patient_id):
        splits = sorted({str(case.split) for case in patient})
        if len(splits) > 1:
            yield TableError(
                Code.E_PATIENT_LEAK,
                path,
                f"patient {patient[0].patient_id!r} is in splits {' and '.join(splits)}; keep each patient in one",
            )


def _grouped(cases: Iterable[Case], key: Callable[[Case], object]) -> Iterable[list[Case]]:
    groups: dict[object, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups.values()
