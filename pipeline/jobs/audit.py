"""``malignancy audit``: find leakage between training and test cases, and contradictory labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cases.audit.fingerprint import Fingerprint, Listed, fingerprints
from pipeline.cases.audit.matches import KINDS, Kind, Match, find_matches
from pipeline.cases.audit.similar import MOST_PAIRS
from pipeline.cases.case import Case
from pipeline.cases.inputs import read_inputs
from pipeline.config.experiment import Tracking
from pipeline.console import one_line
from pipeline.errors import UsageError
from pipeline.files import write_json
from pipeline.progress import with_progress
from pipeline.redaction import redact
from pipeline.scoring.model_description import FITTED_ON, ModelDescription, read_description
from pipeline.tracking.registry import model_folder
from pipeline.workflow.reporting.json_file import require_own_or_free

_NAMES: dict[Kind, str] = {
    "patient": "shared patients",
    "file": "shared scans, the same bytes",
    "voxels": "shared scans, the same voxels in another file",
    "similar": "images that look the same",
}
_CONFIGURATIONS = (".yaml", ".yml")
_SHOWN = 3  # examples of each kind; --json has all


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        cases: every case that was compared.
        matches: what cases share.
        notes: what could not be compared, in words.
    """

    cases: tuple[Fingerprint, ...]
    matches: tuple[Match, ...]
    notes: tuple[str, ...]

    @property
    def leaks(self) -> tuple[Match, ...]:
        """Matches between two splits or tables, or one and a model."""
        return tuple(match for match in self.matches if match.is_leak)

    @property
    def conflicts(self) -> tuple[Match, ...]:
        """Images that are labelled both benign and malignant, in one split or in two."""
        return tuple(match for match in self.matches if match.is_conflict)

    @property
    def summary(self) -> str:
        """Text that the command prints, with case ids and never a patient's id."""
        return "\n".join(one_line(redact(line)) for line in _lines(self))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: counts, and a row for each match."""
        return {
            "groups": dict(Counter(case.group or "" for case in self.cases)),
            "leaks": {kind: sum(match.kind == kind for match in self.leaks) for kind in KINDS},
            "label_conflicts": len(self.conflicts),
            "matches": [_row(match) for match in self.matches],
            "unread": [
                {"case_id": case.case.case_id, "code": str(case.error.code)} for case in self.cases if case.error
            ],
            "notes": list(self.notes),
        }


def audit(inputs: Sequence[str], *, json_file: Path | None = None) -> AuditResult:
    """Compare the splits of tables, several tables, and tables with models.

    Args:
        inputs: manifests or folders of scans; configurations, whose table is split as training would; models.
        json_file: file for all findings.

    Raises:
        UsageError: without a case, when an input is none of these, or ``json_file`` is a file that no audit wrote.
    """
    if json_file is not None:
        require_own_or_free(json_file, command="audit", keys=("leaks", "label_conflicts", "matches"))
    models = [_read_model(name) for name in inputs if _is_model(name)]
    sources = [name for name in inputs if not _is_model(name)]
    if not sources:
        raise UsageError("audit: name a manifest, a folder of scans or a configuration; a model alone has no cases")
    listed = [image for name in sources for image in _listed(name, several=len(sources) > 1)]
    cases = tuple(with_progress(fingerprints(listed), "cases read", total=len(listed)))
    matches = find_matches(cases)
    for description in models:
        matches += _seen_by(description, cases)
    result = AuditResult(cases, tuple(matches), tuple(_notes(cases, matches, models)))
    if json_file is not None:
        write_json(json_file, result.to_json())
    return result


def _is_model(name: str) -> bool:
    nested = Path(name) / "artifacts" / "model_directory"
    return name.startswith(("models:/", "runs:/")) or (Path(name) / "model.json").is_file() or nested.is_dir()


def _read_model(name: str) -> ModelDescription:
    return read_description(model_folder(name, Tracking()))


def _listed(name: str, *, several: bool) -> list[Listed]:
    """Cases of one input with the split that each is in; beside other inputs, the input's name comes first."""
    if Path(name).suffix.lower() in _CONFIGURATIONS:
        from pipeline.workflow.learning.experiment import read_experiment

        experiment = read_experiment(Path(name))
        cases: Sequence[Case] = experiment.manifest.cases
        root: Path | None = experiment.manifest.root
        splits: dict[str, str | None] = {case.case_id: experiment.splits.of.get(case.case_id) for case in cases}
    else:
        inputs = read_inputs(Path(name))
        cases, root = tuple(inputs.cases()), inputs.root
        splits = {case.case_id: case.split for case in cases}
    if not any(splits.values()):
        return [Listed(case, name, root) for case in cases]
    prefix = f"{name}:" if several else ""
    return [
        Listed(case, None if split is None else f"{prefix}{split}", root)
        for case, split in ((case, splits[case.case_id]) for case in cases)
    ]


def _seen_by(description: ModelDescription, cases: Sequence[Fingerprint]) -> list[Match]:
    """Cases for evaluating a model whose patient or image it was fitted on.

    The other splits of the table that trained it are left out, because the model was fitted on them.
    """
    judging = [case for case in cases if case.group and case.group.rpartition(":")[2] not in FITTED_ON]
    patients = description.patients.seen_patients({case.case.patient_id for case in judging if case.case.patient_id})
    images = description.patients.seen_images({case.digest for case in judging if case.digest})
    return [
        *(Match("patient", (case,), model=description.name) for case in judging if case.case.patient_id in patients),
        *(Match("file", (case,), model=description.name) for case in judging if case.digest in images),
    ]


def _notes(cases: Sequence[Fingerprint], matches: Sequence[Match], models: Sequence[ModelDescription]) -> Iterator[str]:
    unread = [case for case in cases if case.error]
    if unread:
        yield (
            f"{len(unread)} cases could not be read, and only their patients are compared (first: "
            f"{unread[0].case.case_id!r}, {unread[0].error and unread[0].error.code}); malignancy check says why"
        )
    unknown = sum(not case.case.patient_id for case in cases)
    if unknown:
        yield f"{unknown} cases have no patient_id: shared patients among them cannot be found"
    groups = {case.group for case in cases}
    if None in groups:
        yield f"{sum(case.group is None for case in cases)} cases are in no split, and leak nowhere"
    if len(groups - {None}) == 1 and not models:
        yield "one table without splits: nothing can leak; name its configuration to audit the splits of training"
    if sum(match.kind == "similar" for match in matches) >= MOST_PAIRS:
        yield f"the search for images that look the same ended at {MOST_PAIRS:,} pairs"
    if models:
        yield "a model knows its patients and the bytes of its scans; changed copies of these are found in tables only"


def _row(match: Match) -> dict[str, Any]:
    return {
        "kind": match.kind,
        "leak": match.is_leak,
        "label_conflict": match.is_conflict,
        "groups": list(match.groups),
        "case_ids": [case.case.case_id for case in match.cases],
        "case_groups": [case.group for case in match.cases],
        "labels": [case.case.label for case in match.cases],
        "similarity": match.similarity,
        "mirrored": match.mirrored,
    }


def _lines(result: AuditResult) -> Iterator[str]:
    counts = Counter(case.group or "in no split" for case in result.cases)
    yield "; ".join(f"{group}: {count} cases" for group, count in counts.items())
    for kind in KINDS:
        leaks = [match for match in result.leaks if match.kind == kind]
        inside = sum(match.kind == kind for match in result.matches) - len(leaks)
        more = f" (and {inside} inside one split or table)" if inside else ""
        yield f"leaks, {_NAMES[kind]}: {len(leaks)}{more}"
        yield from _examples(leaks)
    yield f"label conflicts, one image labelled benign and malignant: {len(result.conflicts)}"
    yield from _examples(result.conflicts)
    yield from result.notes
    verdict = f"{len(result.leaks)} leaks, {len(result.conflicts)} label conflicts"
    yield f"audit: {verdict}" if result.leaks or result.conflicts else "audit: clean"


def _examples(matches: Sequence[Match]) -> Iterator[str]:
    for match in matches[:_SHOWN]:
        groups = dict.fromkeys([case.group for case in match.cases])
        one_a_group = [next(case for case in match.cases if case.group == group) for group in groups]
        shown = one_a_group if len(one_a_group) > 1 else match.cases[:2]
        if match.is_conflict:  # one of each label
            shown = [next(case for case in match.cases if case.case.label == label) for label in (0, 1)]
        texts = [f"{case.case.case_id!r} ({_where(match, case)})" for case in shown[:2]]
        texts += [f"model {match.model}"] if match.model else []
        alike = f", correlation {match.similarity:.3f}" if match.similarity is not None else ""
        yield f"  {' and '.join(texts)}{alike}{', mirrored' if match.mirrored else ''}"
    if len(matches) > _SHOWN:
        yield f"  ... and {len(matches) - _SHOWN} more; --json FILE has all"


def _where(match: Match, case: Fingerprint) -> str:
    group = case.group or "in no split"
    return f"{group}, label {case.case.label}" if match.is_conflict else group
