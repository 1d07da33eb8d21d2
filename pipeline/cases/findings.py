"""Findings that cases are labelled with. The first is the label itself; others are columns of 0, 1 and blank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.cases.case import ZERO_AND_ONE, Case
from pipeline.cases.manifest import Manifest
from pipeline.config.inputs import MALIGNANT
from pipeline.errors import Code, TableError


def class_names(finding: str) -> tuple[str, str]:
    """Words for 1 and 0: ``("malignant", "benign")``, or ``("calcified", "not calcified")``."""
    return (finding, "benign" if finding == MALIGNANT else f"not {finding}")


def finding_labels(cases: Sequence[Case], findings: Sequence[str]) -> npt.NDArray[np.float64]:
    """Labels (N, F): 1 present, 0 absent, NaN unknown; the first column is the cases' own label.

    Args:
        cases: of a manifest whose columns were checked (`require_findings`); of one that lacks a column, all unknown.
        findings: names, the label's first.
    """
    columns = [[np.nan if case.label is None else float(case.label) for case in cases]]
    columns += [[_value(case.extra.get(name, "")) for case in cases] for name in findings[1:]]
    return np.array(columns, dtype=np.float64).T


def _value(text: str) -> float:
    return float(text) if text.strip() in ZERO_AND_ONE else np.nan


def require_findings(manifest: Manifest, findings: Sequence[str]) -> None:
    """Refuse a table that lacks a finding's column, holds anything but 0, 1 and blank there, or contradicts itself.

    Raises:
        TableError: at the first fault.
    """
    for name in findings[1:]:
        if name not in manifest.columns:
            extra_columns = ", ".join(manifest.columns) or "none"
            raise TableError(
                Code.E_LABEL_COLUMNS,
                manifest.path,
                f"has no column {name!r}, which is one of the findings (extra columns: {extra_columns}); "
                "add it, blank where it is unknown",
            )
        for case in manifest.cases:
            text = case.extra[name].strip()
            if text and text not in ZERO_AND_ONE:
                raise TableError(
                    Code.E_LABEL_VALUE,
                    manifest.path,
                    f"case {case.case_id!r}: {name} is {text!r}, expected 1 (present), 0 (absent) or blank (unknown)",
                )
    if len(findings) > 1 and findings[0] in manifest.columns:
        _require_same_label(manifest, findings[0])


def _require_same_label(manifest: Manifest, name: str) -> None:
    for case in manifest.cases:
        text = case.extra[name].strip()
        if (int(float(text)) if text in ZERO_AND_ONE else text or None) != case.label:
            raise TableError(
                Code.E_LABEL_CONFLICT,
                manifest.path,
                f"case {case.case_id!r}: column {name!r} holds {text!r} and column 'label' "
                f"{'a blank' if case.label is None else case.label}; both mean the label: correct or remove {name!r}",
            )


def require_both_values(
    labels: npt.NDArray[np.float64], findings: Sequence[str], *, path: Path, split: str, why: str = ""
) -> None:
    """Refuse a split in which a finding is never present, or never absent.

    Args:
        labels: (N, F) of the split's cases, NaN where unknown.
        findings: F names.
        path: of the table.
        split: its name.
        why: appended to the message, as how many cases were rejected.

    Raises:
        TableError: naming finding and split.
    """
    for name, column in zip(findings, labels.T, strict=True):
        present, absent = int((column == 1).sum()), int((column == 0).sum())
        if not present or not absent:
            positive, negative = class_names(name)
            raise TableError(
                Code.E_ONE_CLASS,
                path,
                f"split {split!r} has {absent} {negative} and {present} {positive} cases, each split needs both{why}",
            )


def partly_labelled(cases: Sequence[Case], findings: Sequence[str]) -> list[Case]:
    """Cases without a label that can train another finding: with a patient, and a split that is blank or ``train``."""
    partly = []
    for case in cases:
        may_train = case.label is None and case.patient_id is not None and case.split in (None, "train")
        if may_train and any(case.extra[name].strip() for name in findings[1:]):
            partly.append(case)
    return partly


def training_alone(cases: Sequence[Case], findings: Sequence[str], split_of: Mapping[str, str]) -> list[Case]:
    """The partly labelled cases whose patient is in no split but ``train``.

    Args:
        cases: of a manifest.
        findings: the label's name first.
        split_of: split of each labelled case by case_id.
    """
    held_out = {case.patient_id for case in cases if split_of.get(case.case_id, "train") != "train"}
    return [case for case in partly_labelled(cases, findings) if case.patient_id not in held_out]


def require_findings_in_splits(manifest: Manifest, findings: Sequence[str], split_of: Mapping[str, str]) -> None:
    """Refuse splits in which a finding has one class only, before any scan is read.

    Args:
        manifest: with the findings' columns (`require_findings`).
        findings: the label's name first.
        split_of: split of each labelled case by case_id.

    Raises:
        TableError: naming finding and split.
    """
    partly = training_alone(manifest.cases, findings, split_of)
    for split in dict.fromkeys(split_of.values()):
        cases = [case for case in manifest.cases if split_of.get(case.case_id) == split]
        cases += partly if split == "train" else []
        require_both_values(finding_labels(cases, findings), findings, path=manifest.path, split=split)
