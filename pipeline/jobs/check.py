"""``malignancy check``: a preflight of each case, before any compute is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cases.inputs import Inputs, read_inputs
from pipeline.cases.inspection import (
    Finding,
    conflicting_labels,
    duplicates,
    finding_of,
    inspect_case,
    label_balance,
    leaks,
    unusual,
)
from pipeline.cases.lesions.sign_trap import swapped_signs
from pipeline.cases.manifest import read_manifest
from pipeline.cases.tables.table import TABLE_SUFFIXES
from pipeline.config.experiment import Tracking
from pipeline.config.inputs import Limits
from pipeline.console import one_line
from pipeline.errors import Code, TableError
from pipeline.files import write_json
from pipeline.imaging.envelope import Envelope
from pipeline.machine import garbage_collection_paused, usable_cores
from pipeline.progress import with_progress
from pipeline.scoring.model_description import read_description
from pipeline.tracking.registry import model_folder
from pipeline.workflow.reporting.json_file import require_own_or_free

_SITES = ("site", "scanner", "manufacturer")
_SHOWN, _SHOWN_OK = 20, 5  # lines printed; --json has all


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        findings: one a case, with its error and warnings.
        faults: of the table as a whole.
        notes: about the cases together, in words.
        balance: cases by label, for each split and each site or scanner.
        skipped: files that are no scans, by suffix.
    """

    findings: tuple[Finding, ...]
    faults: tuple[TableError, ...]
    notes: tuple[str, ...]
    balance: dict[str, dict[str, Counter[str]]]
    skipped: dict[str, int]

    @property
    def rejected(self) -> tuple[Finding, ...]:
        """Cases that would get no probability, with the error of each."""
        return tuple(finding for finding in self.findings if finding.error is not None)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Cases that would be scored and flagged, with the warnings of each."""
        return tuple(finding for finding in self.findings if finding.error is None and finding.warnings)

    @property
    def summary(self) -> str:
        """Text that the command prints: rejected and flagged cases first, a line each; the counts last."""
        return "\n".join(_lines(self))


def check(
    source: Path, *, model_name: str | None = None, json_file: Path | None = None, lesions: Sequence[Path] = ()
) -> CheckResult:
    """Look at every case of a manifest, folder or scan.

    Args:
        source: the manifest, folder or scan.
        model_name: whose preprocessing and envelope are asked as well.
        json_file: file for all findings.
        lesions: annotation files or folders that lesion centres are taken from.

    Raises:
        UsageError: when there is no such input, or ``json_file`` is a file that no check wrote.
    """
    if json_file is not None:
        require_own_or_free(json_file, command="check", keys=("cases", "counts", "table_faults"))
    try:
        faults = read_manifest(source).faults if source.suffix.lower() in TABLE_SUFFIXES else ()
        inputs = read_inputs(source)
        lines: list[str] = []
        if lesions:
            from pipeline.cases.lesions.locate import locate, located_inputs, require_lesion_model
            from pipeline.cases.lesions.report import report_lines

            if model_name is not None:
                model = read_description(model_folder(model_name, Tracking()))
                require_lesion_model(model.name, model.preprocessing.region)
            located = locate(inputs, lesions)
            inputs, lines = located_inputs(inputs, located), list(report_lines(located))
    except TableError as error:
        result = CheckResult((), (error,), (), {}, {})
    else:
        findings = duplicates(list(_inspect(inputs, model_name)))
        conflict = conflicting_labels(source, findings)
        if conflict and all(fault.code != conflict.code for fault in faults):
            faults = (*faults, conflict)
        trap = swapped_signs([finding.case for finding in findings], root=inputs.root)
        if trap is not None:
            faults = (*faults, TableError(Code.E_ROI_OUTSIDE, source, trap))
        result = _result_of(inputs, findings, faults, labelled=source.suffix.lower() in TABLE_SUFFIXES)
        result = replace(result, notes=(*result.notes, *lines))
    if json_file is not None:
        write_json(json_file, _json(result))
    return result


def _inspect(inputs: Inputs, model_name: str | None) -> Iterable[Finding]:
    if model_name is None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            findings = pool.map(lambda case: inspect_case(case, root=inputs.root, limits=Limits()), inputs.cases())
            yield from with_progress(findings, "scans checked", total=inputs.total)
        return
    with garbage_collection_paused():
        from pipeline.cases.prepare import prepare_cases  # torch and MONAI, which files alone do not need

    model = read_description(model_folder(model_name, Tracking()))
    envelope = None if model.envelope is None else Envelope.from_json(model.envelope)
    outcomes = prepare_cases(
        inputs.cases(),
        model.preprocessing,
        modality=model.modality,
        root=inputs.root,
        envelope=envelope,
        covariates=model.covariates,
    )
    for case, outcome in with_progress(outcomes, "scans checked", total=inputs.total):
        yield finding_of(case, outcome)


def _result_of(
    inputs: Inputs, findings: list[Finding], faults: tuple[TableError, ...], *, labelled: bool
) -> CheckResult:
    notes = [*leaks(findings), *unusual(findings)]
    if inputs.repeated_rows:
        notes.append(f"{Code.W_DUPLICATE_ROW}: {inputs.repeated_rows} rows repeat an earlier one and count once")
    balance = {}
    if labelled:
        cases = [finding.case for finding in findings]
        balance["split"] = label_balance(cases)
        for column in _SITES:
            if any(column in case.extra for case in cases):
                balance[column] = label_balance(cases, column)
        unlabelled = sum(case.label is None for case in cases)
        if unlabelled:
            notes.append(f"{Code.W_UNLABELLED}: {unlabelled} cases have no label: counted, never trained on")
    return CheckResult(tuple(findings), faults, tuple(notes), balance, dict(inputs.skipped))


def _row(finding: Finding) -> dict[str, Any]:
    scan = finding.scan
    return {
        "case_id": finding.case.case_id,
        "image": finding.case.image,
        "status": finding.status,
        "code": str(finding.error.code) if finding.error else str(finding.warnings[0].code) if finding.warnings else "",
        "reason": finding.error.reason if finding.error else "; ".join(warning.detail for warning in finding.warnings),
        "warnings": [str(warning.code) for warning in finding.warnings],
        "shape": scan and scan.shape,
        "spacing_mm": scan and scan.spacing_mm,
        "orientation": scan and scan.orientation,
        "modality": scan and scan.modality,
        "image_sha256": scan and scan.digest,
    }


def _json(result: CheckResult) -> dict[str, Any]:
    return {
        "cases": [_row(finding) for finding in result.findings],
        "counts": dict(Counter(finding.status for finding in result.findings)),
        "codes": dict(Counter(_row(finding)["code"] for finding in result.findings if finding.status != "ok")),
        "table_faults": [{"code": str(fault.code), "reason": fault.reason} for fault in result.faults],
        "notes": list(result.notes),
        "label_balance": result.balance,
        "skipped_files": result.skipped,
    }


def _lines(result: CheckResult) -> Iterator[str]:
    odd = [finding for finding in result.findings if finding.status != "ok"]
    shown = sorted(odd, key=lambda finding: finding.status != "rejected")[:_SHOWN] or result.findings[:_SHOWN_OK]
    for finding in shown:
        yield one_line(_line(finding))
    if len(odd) > _SHOWN:
        yield f"... and {len(odd) - _SHOWN} more; --json FILE has all"
    for column, groups in result.balance.items():
        for group, counts in sorted(groups.items()):
            numbers = ", ".join(f"{counts[name]} {name}" for name in ("malignant", "benign", "unlabelled"))
            yield f"{column} {group}: {numbers}"
    yield from (f"{fault.code}: {fault.reason}" for fault in result.faults)
    yield from result.notes
    counts = Counter(finding.status for finding in result.findings)
    yield (
        f"{len(result.findings)} cases: {counts['ok']} ok, {counts['flagged']} flagged, "
        f"{counts['rejected']} rejected; {len(result.faults)} table faults; "
        f"{sum(result.skipped.values())} files skipped as no scans"
    )


def _line(finding: Finding) -> str:
    row = _row(finding)
    size, spacing = (
        " x ".join(f"{value:.3g}" for value in values or ()) for values in (row["shape"], row["spacing_mm"])
    )
    voxels = f"{size} voxels" + f" of {spacing} mm" * bool(spacing)
    facts = [voxels if size else "", row["orientation"] or "", row["modality"] or ""]
    parts = [row["case_id"], row["status"], row["code"], ", ".join(fact for fact in facts if fact), row["reason"]]
    return "  ".join(part for part in parts if part)
