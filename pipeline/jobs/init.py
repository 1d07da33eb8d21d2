"""``malignancy init``: make a manifest and a configuration for training from a folder of scans."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.cases.case import CENTER_COLUMNS, Case
from pipeline.cases.covariates import read_covariates
from pipeline.cases.intake.assemble import Intake, IntakeOptions, assemble_intake
from pipeline.cases.intake.settings import configuration_text, prepare_for
from pipeline.cases.manifest import read_manifest
from pipeline.cases.plan import CaseCount
from pipeline.config.inputs import Modality, Name, SourceText
from pipeline.console import one_line
from pipeline.errors import CaseError, UsageError
from pipeline.files import is_formula, write_csv, write_text
from pipeline.progress import with_progress

MANIFEST, FACTS, CONFIG = "manifest.csv", "manifest.yaml", "config.yaml"
UNKNOWN_SOURCE = "CHANGE whose opinion or which test the label is"
_SIZE = "diameter_mm"
_SUBGROUPS = ("sex", "manufacturer", "kernel", "site", "scanner")
_LEAST_PATIENTS = 4  # of a class, to train on at all


@dataclass(frozen=True)
class InitOptions:
    """Options of ``init``.

    Attributes:
        intake: of table, columns, words and annotations.
        name: of experiment and registered model; None takes the folder's.
        modality: None guesses it from the files.
        label_source: whose opinion or which test the labels are; None leaves a mark that training refuses.
        intensities: of the scans.
    """

    intake: IntakeOptions
    name: str | None = None
    modality: Modality | None = None
    label_source: str | None = None
    simulated: bool = False


@dataclass(frozen=True)
class InitResult:
    """A manifest and a configuration for a folder of scans.

    Attributes:
        manifest: ``manifest.csv``.
        config: ``config.yaml``.
        cases: the manifest's.
        summary: what was found and written.
        missing: values that a training still needs, a line each.
        next_commands: what to run next.
    """

    manifest: Path
    config: Path
    cases: tuple[Case, ...]
    summary: str
    missing: tuple[str, ...]
    next_commands: tuple[str, ...]


def init(folder: Path, options: InitOptions) -> InitResult:
    """Write ``manifest.csv``, ``manifest.yaml`` and ``config.yaml`` into a folder; nothing is overwritten.

    Raises:
        UsageError: when the folder is missing, holds no scan, has one of the files already, or something must be said
            first, as which label word means malignant.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the folder that holds your scans")
    for name in (MANIFEST, FACTS, CONFIG):
        if os.path.lexists(folder / name):
            raise UsageError(f"{folder / name}: exists already and is not overwritten; edit it, or move it away")
    _require_usable(options)
    intake = assemble_intake(folder, options.intake, progress=lambda scans: with_progress(scans, "scans looked at"))
    source = options.label_source or UNKNOWN_SOURCE
    config = _configuration(folder, intake, options, source)
    facts = {"label_source": options.label_source, "intensities": "simulated" if options.simulated else "real"}
    known = {name: value for name, value in facts.items() if value}
    with ExitStack() as undo:  # all three files or none, also on Ctrl-C: a leftover file would block the next init
        _write_manifest(folder / MANIFEST, intake)
        undo.callback((folder / MANIFEST).unlink)
        for name, text in ((FACTS, yaml.safe_dump(known, allow_unicode=True, sort_keys=False)), (CONFIG, config)):
            write_text(folder / name, text, new=True)
            undo.callback((folder / name).unlink)
        read_manifest(folder / MANIFEST)  # check that the other commands can read it
        undo.pop_all()
    return _result(folder, intake, options)


def _require_usable(options: InitOptions) -> None:
    """Check the options before every scan is opened."""
    options_given = {"--label-source": (SourceText, options.label_source), "--name": (Name, options.name)}
    for option, (kind, value) in options_given.items():
        try:
            if value is not None:
                TypeAdapter[str](kind).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{option} {str(value)[:100]!r}: {error.errors()[0]['msg']}; give another") from None


def _configuration(folder: Path, intake: Intake, options: InitOptions, source: str) -> str:
    labelled = [case for case in intake.cases if case.label is not None]
    preparation = prepare_for(
        intake.scans,
        [case.center_mm for case in intake.cases],
        [_diameter(case) for case in intake.cases],
        modality=options.modality,
        folder=folder.resolve().name,
    )
    sized = preparation.region == "lesion" and all(_diameter(case) is not None for case in intake.cases)
    number_of_scans = len({scan.image for scan in intake.scans})
    return configuration_text(
        name=options.name or re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "mine",
        preparation=preparation,
        label_source=source,
        intensities="simulated" if options.simulated else "real",
        covariates=(_SIZE,) if sized else (),
        subgroups=[name for name in _SUBGROUPS if _varies(intake, name)],
        cases=len(labelled),
        what=f"{len(intake.cases)} cases of {number_of_scans} scans: {CaseCount.of(labelled)}",
    )


def _diameter(case: Case) -> float | None:
    try:
        (value,) = read_covariates(case, {_SIZE: "log"}).values()
    except CaseError:
        return None
    return value


def _varies(intake: Intake, name: str) -> bool:
    return name in intake.columns and len({case.extra.get(name) for case in intake.cases if case.extra.get(name)}) > 1


def _write_manifest(path: Path, intake: Intake) -> None:
    with_centers = any(case.center_mm is not None for case in intake.cases)
    with_splits = any(case.split for case in intake.cases)
    places = (*CENTER_COLUMNS, "coordinate_system") if with_centers else ()
    header = ["case_id", "patient_id", "image", "label", *(["split"] if with_splits else []), *places, *intake.columns]
    rows = []
    for case in intake.cases:
        center = [f"{value:.3f}" for value in case.center_mm] if case.center_mm else ["", "", ""]
        rows.append(
            [
                _below_here(case.case_id, case),
                _below_here(case.patient_id or "", case),
                _below_here(case.image, case),
                case.label,
                *([case.split or ""] if with_splits else []),
                *([*center, "RAS" if case.center_mm else ""] if with_centers else []),
                *(case.extra.get(name, "") for name in intake.columns),
            ]
        )
    neutral = write_csv(path, header, rows, exact=("case_id", "patient_id", "image"), new=True)
    if neutral:
        print(f"{path}: an apostrophe stands before {neutral} cells that a spreadsheet would run", file=sys.stderr)


def _below_here(text: str, case: Case) -> str:
    """A path, or an id made of it, that no spreadsheet runs as a formula: ``./-a.nii`` is ``-a.nii``."""
    return f"./{text}" if is_formula(text) and text.startswith(case.image) else text


def _result(folder: Path, intake: Intake, options: InitOptions) -> InitResult:
    count = CaseCount.of([case for case in intake.cases if case.label is not None])
    unlabelled = sum(case.label is None for case in intake.cases)
    left_out = ["left out:", *(f"  {one_line(line)}" for line in intake.left_out)] if intake.left_out else []
    lines = [
        *map(one_line, intake.lines),
        *left_out,
        f"{folder / MANIFEST}: {count}{f'; {unlabelled} cases without a label' if unlabelled else ''}",
        f"{folder / CONFIG}: every value is a usable one",
    ]
    return InitResult(
        manifest=folder / MANIFEST,
        config=folder / CONFIG,
        cases=tuple(intake.cases),
        summary="\n".join(lines),
        missing=tuple(_missing(folder, count, options)),
        next_commands=tuple(_next(folder, count, options)),
    )


def _missing(folder: Path, count: CaseCount, options: InitOptions) -> Iterable[str]:
    if count.rarer_patients < _LEAST_PATIENTS:
        yield (
            f"{folder / MANIFEST}: training needs {_LEAST_PATIENTS} patients of each class, and there are "
            f"{count.malignant_patients} with malignant and {count.benign_patients} with benign cases; give a table "
            "(--table), say which folders or words mean malignant (--positive WORD), or fill in the column label"
        )
    if options.label_source is None:
        yield (
            "training asks whose opinion or which test the labels are: --label-source, or as in the command below; "
            "it stands beside every probability"
        )


def _next(folder: Path, count: CaseCount, options: InitOptions) -> Sequence[str]:
    source = "" if options.label_source else " data.label_source='histology'"
    manifest, config = (shlex.quote(str(folder / name)) for name in (MANIFEST, CONFIG))
    train = [f"malignancy train {config}{source}"] if count.rarer_patients >= _LEAST_PATIENTS else []
    return [f"malignancy check {manifest}", *train]
