"""Give cases the centres of their lesions, for checking, scoring, or a new manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs
from pipeline.cases.lesions.collect import Collected, collect_annotations
from pipeline.cases.lesions.dicom.dicom_object import annotation_format
from pipeline.cases.lesions.images import ImageIndex
from pipeline.cases.lesions.lesion import Lesion, ReadingOptions, RefusedAnnotation
from pipeline.cases.lesions.match import LesionMatch, match_lesions
from pipeline.cases.lesions.names import is_mask_name
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code, TableError, UsageError
from pipeline.imaging.discovery.skipped import SkippedCount

DIAMETER, SOURCE = "diameter_mm", "lesion_source"
_SAME_MM = 0.01  # a centre that was written with two decimals
_NUMBERED = re.compile(r"#\d{1,4}$")  # of a lesion; a series has eight hexadecimal digits


@dataclass(frozen=True)
class LocatedLesion:
    """One lesion of one case: the case with its own id and centre."""

    case: Case
    lesion: Lesion


@dataclass(frozen=True)
class Located:
    """The cases of an input with their lesions.

    Attributes:
        cases: every row in the input's order: one a lesion, one a refused annotation with its fault, and one a case
            without either. Of these, one that has its centre already keeps it, and another has E_CENTER_MISSING.
        lesions: the rows that have a lesion.
        without: cases of the input without a lesion, a refused annotation and a centre of their own.
        match: what was found, and what has no counterpart.
        collected: which files were read.
        skipped: files that are neither scans nor annotations, by suffix.
    """

    cases: tuple[Case, ...]
    lesions: tuple[LocatedLesion, ...]
    without: tuple[Case, ...]
    match: LesionMatch
    collected: Collected
    skipped: Counter[str]


def locate(
    inputs: Inputs, sources: Sequence[Path], *, options: ReadingOptions | None = None, replace_centers: bool = False
) -> Located:
    """Find the lesions of an input's cases in annotation files.

    In a searched folder, files that turn out to be annotations are no scans.

    Args:
        inputs: a manifest, a folder or one scan.
        sources: annotation files, and folders that are searched for them.
        options: what the files may leave open.
        replace_centers: whether centres of the annotations replace those of the table.

    Raises:
        UsageError: when a source is missing, or the table has other centres already.
        TableError: when the ids of several lesions would not be unique.
    """
    options = options or ReadingOptions()
    listed = list(inputs.cases())
    is_folder = inputs.digest is None and inputs.root is not None
    scans = [case for case in listed if not (is_folder and _is_annotation(case, sources, options.limits))]
    images = ImageIndex(scans, root=inputs.root, limits=options.limits)
    is_table = inputs.source.lower().endswith(TABLE_SUFFIXES)
    collected = collect_annotations(
        sources, images, options, leave_out=(Path(inputs.source),) if is_table and "://" not in inputs.source else ()
    )
    used = {file.path.resolve() for file in collected.files}
    cases = [case for case in listed if not (is_folder and _files(case) <= used)]
    match = match_lesions(images, collected.annotations)
    if not replace_centers:
        _refuse_other_centers(inputs, cases, match)
    rows: list[Case] = []
    lesions: list[LocatedLesion] = []
    without: list[Case] = []
    for case in cases:
        marked, refused = match.lesions.get(case.case_id, ()), match.refused.get(case.case_id, ())
        located = _located(case, marked, refused, inputs.root)
        lesions += [LocatedLesion(row, lesion) for row, lesion in zip(located, marked, strict=False)]
        if not located:
            located = [case if case.center_mm is not None else _without_lesion(case)]
            without += [case] if case.center_mm is None else []
        rows += located
    _check_ids(inputs, rows)
    return Located(tuple(rows), tuple(lesions), tuple(without), match, collected, Counter(inputs.skipped))


def require_lesion_model(name: str, region: str) -> None:
    """Refuse lesion centres for a model of whole images, before images without a lesion are rejected.

    Args:
        name: of the model.
        region: of its preprocessing.

    Raises:
        UsageError: when it takes whole images.
    """
    if region != "lesion":
        raise UsageError(f"--lesions: {name} takes whole images and needs no lesion centres; leave it out")


def located_inputs(inputs: Inputs, located: Located) -> Inputs:
    """The same input, listing the located cases."""

    def listing(skipped: SkippedCount) -> Iterable[Case]:
        skipped.by_suffix.update(located.skipped)
        return located.cases

    return replace(inputs, listing=listing, total=len(located.cases), skipped=Counter())


def superseded(case_ids: Collection[str], inputs: Inputs) -> frozenset[str]:
    """Of case ids that an input no longer lists, those of images that it still lists with other lesions.

    In a folder, a case that is gone was moved away and its row is kept; but where an annotation now marks two lesions
    instead of one, or one less, the earlier row is of a case that does not exist any more.
    """
    if not case_ids:
        return frozenset()
    present = {_NUMBERED.sub("", case.case_id) for case in inputs.cases()}
    return frozenset(case_id for case_id in case_ids if _NUMBERED.sub("", case_id) in present)


def _files(case: Case) -> set[Path]:
    return {path.resolve() for path in case.files or (case.path,)}


def _is_annotation(case: Case, sources: Sequence[Path], limits: Limits) -> bool:
    """Whether a scan that a search found is an annotation: a DICOM object of one, or a mask (by name) of a source."""
    first = (case.files or (case.path,))[0]
    if case.files is None and is_mask_name(case.image):
        return any(first.resolve().is_relative_to(source.resolve()) for source in sources)
    try:
        return annotation_format(first, limits) is not None
    except CaseError:
        return False


def _located(
    case: Case, lesions: Sequence[Lesion], refused: Sequence[RefusedAnnotation], root: Path | None
) -> list[Case]:
    """One case a lesion, then one a refusal; numbered when there are several."""
    count = len(lesions) + len(refused)
    ids = [case.case_id] if count == 1 else [f"{case.case_id}#{number}" for number in range(1, count + 1)]
    rows = []
    for case_id, lesion in zip(ids, lesions, strict=False):
        extra = dict(case.extra)
        if lesion.diameter_mm is not None:
            extra[DIAMETER] = f"{lesion.diameter_mm:.10g}"
        elif count > 1:
            extra[DIAMETER] = ""  # the row's own diameter is of one of the lesions, and it is unknown which
        extra[SOURCE] = f"{_short(lesion.source, root)} ({lesion.name})" if lesion.name else _short(lesion.source, root)
        rows.append(replace(case, case_id=case_id, center_mm=lesion.center_mm, extra=extra))
    for case_id, annotation in zip(ids[len(lesions) :], refused, strict=True):
        error = annotation.error
        where = _short(Path(error.path), root) + (f" ({annotation.name})" if annotation.name else "")
        fault = CaseError(error.code, case.image, f"{where}: {error.reason}")
        rows.append(replace(case, case_id=case_id, center_mm=None, fault=case.fault or fault))
    return rows


def _short(path: Path, root: Path | None) -> str:
    """A source's path relative to the images' folder, or its name."""
    if root is not None and path.resolve().is_relative_to(root.resolve()):
        return path.resolve().relative_to(root.resolve()).as_posix()
    return path.name


def _without_lesion(case: Case) -> Case:
    reason = "no annotation marks a lesion in it; mark one, or fill in its centre"
    return replace(case, fault=case.fault or CaseError(Code.E_CENTER_MISSING, case.image, reason))


def _refuse_other_centers(inputs: Inputs, cases: Sequence[Case], match: LesionMatch) -> None:
    others = [case.case_id for case in cases if _differs(case, match.lesions)]
    if others:
        raise UsageError(
            f"{inputs.source}: {len(others)} cases have a centre already, and another one in the annotations (first: "
            f"{others[0]!r}); clear the centre columns, or `malignancy lesions --replace` writes the new ones"
        )


def _differs(case: Case, lesions: Mapping[str, tuple[Lesion, ...]]) -> bool:
    marked = lesions.get(case.case_id, ())
    if case.center_mm is None or not marked:
        return False
    return len(marked) > 1 or float(np.linalg.norm(np.subtract(case.center_mm, marked[0].center_mm))) > _SAME_MM


def _check_ids(inputs: Inputs, rows: Sequence[Case]) -> None:
    twice = [case_id for case_id, count in Counter(case.case_id for case in rows).items() if count > 1]
    if twice:
        reason = f"case_id {twice[0]!r} would stand twice, once for a lesion of another case; rename that case"
        raise TableError(Code.E_CASE_ID, inputs.source, reason)
