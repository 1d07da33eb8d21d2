"""Preflight findings about each case, and about all cases together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cases.case import Case
from pipeline.config.inputs import Limits
from pipeline.errors import CaseError, Code, TableError
from pipeline.imaging.checks import within_root
from pipeline.imaging.image import ScanFacts, Warning, scan_facts
from pipeline.imaging.read import open_scan

if TYPE_CHECKING:
    from pipeline.cases.prepare import PreparationResult

_FAR = 8.0  # median absolute deviations from the cohort's median that make a case unusual


@dataclass(frozen=True)
class Finding:
    """One case after the preflight.

    Attributes:
        case: which.
        error: why it would be rejected; None when it would be scored.
        warnings: why it would be flagged.
        scan: what is known of its scan; None when it could not be read.
    """

    case: Case
    error: CaseError | None = None
    warnings: tuple[Warning, ...] = ()
    scan: ScanFacts | None = None

    @property
    def status(self) -> str:
        """``rejected``, ``flagged`` or ``ok``."""
        return "rejected" if self.error else "flagged" if self.warnings else "ok"


def inspect_case(case: Case, *, root: Path | None, limits: Limits) -> Finding:
    """Read a whole case without any model: headers, length, checksum and every voxel."""
    try:
        if case.fault:
            raise case.fault
        path = case.path if root is None else within_root(case.path, root)
        scan = open_scan(path, limits=limits, files=case.files, part=case.part)
        voxels = scan.read((slice(None), slice(None), slice(None)))
        if voxels.min() == voxels.max():
            raise CaseError(Code.E_CONSTANT, case.image, f"every voxel is {voxels.flat[0]:g}; look at the export")
    except CaseError as error:
        return Finding(case, error=error)
    return Finding(case, warnings=tuple(scan.warnings), scan=scan_facts(scan))


def finding_of(case: Case, outcome: PreparationResult) -> Finding:
    """The finding of a case that went through a model's own preprocessing."""
    if isinstance(outcome, CaseError):
        return Finding(case, error=outcome)
    return Finding(case, warnings=outcome.warnings, scan=outcome.scan)


def duplicates(findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, with a warning on each case that repeats an earlier one's place in the same image.

    ``W_DUPLICATE_FILE``: the same path and centre; ``W_DUPLICATE_CONTENT``: other path, same bytes and centre.
    """
    first: dict[object, Finding] = {}
    marked = []
    for finding in findings:
        key = (finding.scan.digest, finding.case.center_mm) if finding.scan else None
        earlier = first.setdefault(key, finding) if key else finding
        if earlier is not finding:
            same = earlier.case.place[0] == finding.case.place[0]
            code = Code.W_DUPLICATE_FILE if same else Code.W_DUPLICATE_CONTENT
            warning = Warning(code, f"the same image and place as case {earlier.case.case_id!r}")
            finding = replace(finding, warnings=(*finding.warnings, warning))
        marked.append(finding)
    return marked


def conflicting_labels(table: Path, findings: Iterable[Finding]) -> TableError | None:
    """The fault of cases with the same bytes and centre but different labels; None without such cases."""
    groups: dict[object, list[Case]] = defaultdict(list)
    for finding in findings:
        if finding.scan and finding.case.label is not None:
            groups[finding.scan.digest, finding.case.part, finding.case.center_mm].append(finding.case)
    torn = [cases for cases in groups.values() if len({case.label for case in cases}) > 1]
    if not torn:
        return None
    ids = " and ".join(repr(next(case.case_id for case in torn[0] if case.label == label)) for label in (0, 1))
    count = f"{len(torn)} image has" if len(torn) == 1 else f"{len(torn)} images have"
    return TableError(
        Code.E_LABEL_CONFLICT, table, f"{count} cases of both labels: {ids} are the same image; keep the right one"
    )


def leaks(findings: Iterable[Finding]) -> list[str]:
    """Images with the same bytes under two patients, or in two splits."""
    lines = []
    for cases in _by_image(findings):
        ids = ", ".join(repr(case.case_id) for case in cases)
        if len({case.patient_id for case in cases}) > 1:
            lines.append(f"cases {ids} are the same image under different patients")
        elif len({case.split for case in cases if case.split}) > 1:
            lines.append(f"cases {ids} are the same image in different splits")
    return lines


def across_splits(findings: Iterable[Finding]) -> list[list[Case]]:
    """Cases with the same bytes in several splits, image by image."""
    return [cases for cases in _by_image(findings) if len({case.split for case in cases if case.split}) > 1]


def _by_image(findings: Iterable[Finding]) -> Iterable[list[Case]]:
    groups: dict[str, list[Case]] = defaultdict(list)
    for finding in findings:
        if finding.scan:
            groups[finding.scan.digest].append(finding.case)
    return groups.values()


def unusual(findings: Sequence[Finding]) -> list[str]:
    """Cases whose spacing or size is far from the cohort's, with the cohort's median."""
    usable = [
        (finding.case, finding.scan.shape, finding.scan.spacing_mm)
        for finding in findings
        if finding.scan and finding.scan.spacing_mm
    ]
    lines = []
    for name, values in (
        ("smallest spacing in mm", [min(spacing) for _, _, spacing in usable]),
        ("largest spacing in mm", [max(spacing) for _, _, spacing in usable]),
        ("voxels", [float(np.prod(shape)) for _, shape, _ in usable]),
    ):
        logs = np.log(values)
        middle = np.median(logs) if len(logs) else 0.0
        spread = max(float(np.median(np.abs(logs - middle))) if len(logs) else 0.0, 0.05)
        lines += [
            f"case {case.case_id!r}: {name} {value:.4g}, half of the cohort is near {np.exp(middle):.4g}"
            for (case, _, _), value, log in zip(usable, values, logs, strict=True)
            if abs(log - middle) > _FAR * spread
        ]
    return lines


def label_balance(cases: Iterable[Case], column: str | None = None) -> dict[str, Counter[str]]:
    """Counts of malignant, benign and unlabelled cases by split, or by an extra column."""
    names = {1: "malignant", 0: "benign", None: "unlabelled"}
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        group = case.split if column is None else case.extra.get(column)
        table[group or "(blank)"][names[case.label]] += 1
    return dict(table)
