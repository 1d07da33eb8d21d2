"""Several findings in words: for the terminal and for a run's note. Nothing for a single finding."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from pipeline.cases.findings import class_names
from pipeline.console import table_text
from pipeline.evaluation.multilabel import FindingsEvaluation

_COLUMNS = ("finding", "cases", "present", "AUROC", "Brier score", "ECE (null p95)", "calibration", "operating point")
_AVERAGES = {"macro": "macro, mean of findings", "micro": "micro, one pool"}


def findings_lines(findings: FindingsEvaluation | None) -> Sequence[str]:
    """A table, a row for each finding and for the averages, as lines of text."""
    rows = _rows(findings)
    if not rows:
        return ()
    table = Table(*_COLUMNS, title="findings, each with its own probability; 95 % intervals by patient")
    for row in rows:
        table.add_row(*row)
    return ("", *table_text(table, width=200).splitlines())


def findings_markdown(findings: FindingsEvaluation | None) -> Sequence[str]:
    """The same for a note."""
    rows = _rows(findings)
    if not rows:
        return ()
    head = ["", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    return (*head, *(f"| {' | '.join(row)} |" for row in rows))


def _rows(findings: FindingsEvaluation | None) -> list[list[str]]:
    if findings is None or len(findings.evaluations) < 2:
        return []
    rows = []
    for name, evaluation in findings.evaluations.items():
        positive, negative = class_names(name)
        ece = (
            "undefined"
            if evaluation.ece is None or evaluation.null is None
            else f"{evaluation.ece:.3f} ({evaluation.null.p95:.3f})"
        )
        rows.append(
            [
                name,
                str(evaluation.n_cases),
                str(evaluation.n_positive),
                *(str(evaluation.intervals.get(key, "undefined")) for key in ("auroc", "brier_score")),
                ece,
                str(evaluation.calibration),
                evaluation.operating_point.describe(positive=positive, negative=negative),
            ]
        )
    for kind, title in _AVERAGES.items():
        averages = getattr(findings, kind)
        means = [str(averages.get(key, "undefined")) for key in ("auroc", "brier_score")]
        rows.append([title, "", "", *means, "", "", ""])
    return rows
