"""``malignancy evaluate --predictions``: judge predictions made before, without a model or an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.cases.findings import class_names
from pipeline.errors import UsageError
from pipeline.evaluation.decisions.operating_points import OperatingPoint, choose_operating_point
from pipeline.evaluation.multilabel import evaluate_findings, in_order
from pipeline.evaluation.predictions import Predictions, read_predictions
from pipeline.evaluation.seeds import seeds_of
from pipeline.files import require_free
from pipeline.workflow.judging.reader_table import reader_scores, study_or_reason
from pipeline.workflow.reporting.evaluation_result import EvaluationResult, write_result
from pipeline.workflow.reporting.report_sources import ReportSources


def evaluate_predictions(
    path: Path, out: Path, *, prevalence: float | None = None, readers: Path | None = None
) -> EvaluationResult:
    """Judge the test split of a predictions file, each finding by itself.

    The operating points are chosen on its calibration split.

    Args:
        path: of the predictions.
        out: new folder.
        prevalence: share of malignant cases to restate net benefit and predictive values for.
        readers: table of readers' scores of the test cases, whose average the model is compared with.

    Raises:
        UsageError: when the file cannot be used, or a finding lacks a class in one of the two splits.
    """
    require_free(out)
    predictions = read_predictions(path)
    scores = reader_scores(readers, predictions.case_ids.tolist(), "the predictions")
    seeds = seeds_of(predictions)
    first = predictions.where(seed=seeds[0]) if len(seeds) > 1 else predictions
    names = in_order(predictions.frame["finding"].tolist())
    points = {name: _point(first.where(finding=name), name, path) for name in names}
    findings = evaluate_findings(first.where(split="test"), points)
    judged = ReportSources(
        title=path.name,
        model="predictions of unnamed origin",
        calibration="as given",
        predictions=first.where(split="test", finding=names[0]),
        evaluation=findings.first,
        findings=findings,
        # The lowest seed number, not the best seed: the others are shown as a spread.
        judged_on="test split" if len(seeds) < 2 else f"test split, seed {seeds[0]} of {len(seeds)}",
        all_seeds=predictions.where(split="test", finding=names[0]) if len(seeds) > 1 else None,
        prevalence=prevalence,
    )
    judged = replace(judged, reader_study=study_or_reason(judged.predictions, scores))
    calibration = first.where(split="calibration", finding=names[0])
    lines = write_result(judged, out, all_predictions=predictions, calibration=calibration)
    return EvaluationResult(out, judged.evaluation, (), "\n".join(lines))


def _point(predictions: Predictions, finding: str, path: Path) -> OperatingPoint:
    """Choose the threshold of one finding; both splits must have both classes."""
    positive, negative = class_names(finding)
    calibration, test = (predictions.where(split=name).labelled() for name in ("calibration", "test"))
    if not len(calibration) or not len(test):
        raise UsageError(
            f"{path}: has {len(calibration)} labelled calibration and {len(test)} labelled test rows of finding "
            f"{finding!r}; a threshold is chosen on the one and judged on the other, so both are needed"
        )
    for name, split in (("calibration", calibration), ("test", test)):
        present = int(split.labels.sum())
        if present in (0, len(split)):
            raise UsageError(
                f"{path}: split {name!r} has {len(split) - present} {negative} and {present} {positive} rows; each "
                "split needs both; add cases, or leave the finding out"
            )
    return choose_operating_point(calibration.labels, calibration.probabilities, rule="sensitivity", target=0.95)
