"""``malignancy lesions``: a manifest with the lesions that masks, DICOM objects, markups and tables mark."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cases.case import CENTER_COLUMNS, Case
from pipeline.cases.inputs import Inputs, read_inputs
from pipeline.cases.lesions.lesion import Labels, ReadingOptions, counted, parse_system
from pipeline.cases.lesions.locate import DIAMETER, SOURCE, Located, LocatedLesion, locate
from pipeline.cases.lesions.report import report_lines
from pipeline.cases.lesions.sign_trap import swapped_signs
from pipeline.cases.manifest import read_manifest
from pipeline.cases.remote import is_url
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.console import one_line
from pipeline.errors import Code, TableError, UsageError
from pipeline.files import is_formula, write_csv

# Annotations whose image is not in the input: usual where a table or a folder is about more scans than the manifest.
_OTHERS_LESIONS = frozenset({Code.E_MIXED_SERIES, Code.E_CASE_ID, Code.E_NOT_FOUND, Code.E_AFFINE_DISAGREE})


@dataclass(frozen=True, kw_only=True)
class LesionsRequest:
    """Options of ``lesions``.

    Attributes:
        sources: annotation files, and folders that are searched for them.
        images: a manifest, a folder of scans or one scan.
        out: the new manifest; beside the images by default.
        replace_centers: whether centres of the annotations replace those of the manifest.
        options: for what the files leave unspecified.
    """

    sources: Sequence[Path]
    images: Path
    out: Path | None
    replace_centers: bool
    options: ReadingOptions


def local(images: str) -> Path:
    """The path of the images.

    Raises:
        UsageError: when it is a URL.
    """
    if is_url(images):
        raise UsageError(f"--for {images}: is a URL; annotations are matched with images on this machine")
    return Path(images)


def reading_options(
    *, labels: Labels, only: str | None, threshold: float | None, system: str | None, index_base: int | None
) -> ReadingOptions:
    """The options of the command line, checked.

    Raises:
        UsageError: when a number or a coordinate system is none.
    """
    numbers = None if only is None else [part.strip() for part in only.split(",")]
    if numbers is not None and not all(part.isdecimal() and len(part) < 10 for part in numbers):
        raise UsageError(f"--only {only!r}: expected numbers with commas between, as 2 or 1,3")
    known = None if system is None else parse_system(system)
    if system is not None and known is None:
        raise UsageError(f"--system {system!r}: expected RAS (NIfTI) or LPS (DICOM)")
    return ReadingOptions(
        labels=labels,
        only=None if numbers is None else frozenset(map(int, numbers)),
        threshold=threshold,
        system=known,
        index_base=None if index_base is None else (1 if index_base else 0),
    )


@dataclass(frozen=True)
class LesionsResult:
    """A manifest of lesions.

    Attributes:
        manifest: the new table, one row a lesion.
        located: the lesions, and the images and annotations without a counterpart.
        swapped_signs: warning about the signs of the centres; None without one.
    """

    manifest: Path
    located: Located
    swapped_signs: str | None

    @property
    def is_complete(self) -> bool:
        """Whether every image has a lesion and every annotation of one could be used."""
        match = self.located.match
        damaged = any(refused.error.code not in _OTHERS_LESIONS for refused in match.homeless)
        return not (self.located.without or match.refused or damaged or self.swapped_signs)

    @property
    def summary(self) -> str:
        """What the command prints last."""
        cases, without = [lesion.case for lesion in self.located.lesions], len(self.located.without)
        images = counted(len({case.path for case in cases}), "image")
        left_out = f"; {counted(without, 'image')} without one left out" if without else ""
        line = f"{self.manifest}: {counted(len(cases), 'lesion')} of {images}, one row each{left_out}"
        return "\n".join([*([one_line(self.swapped_signs)] if self.swapped_signs else []), line])


def lesions(request: LesionsRequest) -> LesionsResult:
    """Write a manifest with one row a lesion, and report the lesions, those matched and those not.

    Raises:
        UsageError: when nothing matches, the file exists, or images would not lie under its folder.
        TableError: when the manifest cannot be read, or has labels that would be lost.
    """
    inputs = read_inputs(request.images)
    _refuse_lost_labels(request.images)
    out = _out(request, inputs)
    located = locate(inputs, request.sources, options=request.options, replace_centers=request.replace_centers)
    for line in report_lines(located):
        print(one_line(line))
    if not located.lesions:
        raise UsageError(f"{request.images}: none of its images has a lesion in the sources, so nothing is written")
    _write(out, inputs, located.lesions)
    cases = [lesion.case for lesion in located.lesions]
    return LesionsResult(out, located, swapped_signs(cases, root=inputs.root, limits=request.options.limits))


def _refuse_lost_labels(path: Path) -> None:
    """A label that is neither 0 nor 1 reads as blank, and would be blank in the new table."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return
    for fault in read_manifest(path).faults:
        if fault.code is Code.E_LABEL_VALUE:
            raise TableError(fault.code, path, f"{fault.reason}; correct it before lesions are added")


def _out(request: LesionsRequest, inputs: Inputs) -> Path:
    """Where the manifest goes.

    Raises:
        UsageError: when that is taken, no CSV, or a folder that does not hold the images.
    """
    images = request.images
    if request.out is not None:
        out = request.out
    elif images.is_dir():
        out = images / "lesions.csv"
    else:
        out = images.with_name(f"{images.name.removesuffix('.gz').rpartition('.')[0] or images.name}-lesions.csv")
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out}: expected a name that ends in .csv")
    if os.path.lexists(out):
        raise UsageError(f"{out}: exists already and is not overwritten; --out names another file")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: no such folder; make it first")
    root = inputs.root or images.parent.resolve()
    if not root.resolve().is_relative_to(out.parent.resolve()):
        raise UsageError(f"--out {out}: images lie under their manifest's folder; choose {root} or a folder above it")
    return out


def _write(out: Path, inputs: Inputs, rows: Sequence[LocatedLesion]) -> None:
    cases = [row.case for row in rows]
    extra = list(dict.fromkeys(name for case in cases for name in case.extra if name not in (DIAMETER, SOURCE)))
    split = ["split"] if any(case.split for case in cases) else []
    header = [
        "case_id", "patient_id", "image", "label", *split,
        *CENTER_COLUMNS, "coordinate_system", DIAMETER, SOURCE, *extra,
    ]  # fmt: skip
    table: list[Sequence[object]] = []
    for case in cases:
        assert case.center_mm is not None
        table.append([
            case.case_id, case.patient_id, _image(case, inputs, out), case.label,
            *([case.split] if split else []), *(f"{value:.3f}" for value in case.center_mm), "RAS",
            case.extra.get(DIAMETER), case.extra[SOURCE], *(case.extra.get(name) for name in extra),
        ])  # fmt: skip
    neutral = write_csv(out, header, table, exact=("case_id", "patient_id", "image"), new=True)
    if neutral:
        print(f"{out}: an apostrophe stands before {neutral} cells that a spreadsheet would run", file=sys.stderr)


def _image(case: Case, inputs: Inputs, out: Path) -> str:
    """The image as before, the part after a ``#`` included, from the new manifest's folder."""
    name = case.image if inputs.root is not None else Path(case.image).name
    root = (inputs.root or case.path.parent).resolve()
    image = (root.relative_to(out.parent.resolve()) / name).as_posix()
    return f"./{image}" if is_formula(image) else image
