"""Result of an evaluation, and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluation.calibration.outcome import CalibrationOutcome
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.intervals.bootstrap import OUT_OF_FOLD
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation
from pipeline.files import atomic_folder
from pipeline.scoring.rows import ScoreRow
from pipeline.workflow.reporting.evaluation_files import write_evaluation
from pipeline.workflow.reporting.report_sources import ReportSources
from pipeline.workflow.reporting.training_summary import evaluation_text, refused_text


@dataclass(frozen=True)
class EvaluationResult:
    """Result of an evaluation.

    Attributes:
        folder: ``report.html``, ``evaluation.json``, ``predictions.parquet`` and figures.
        evaluation: of the label.
        rejected: score rows of the cases that got no probability.
        summary: what the command prints.
    """

    folder: Path
    evaluation: Evaluation
    rejected: tuple[ScoreRow, ...]
    summary: str

    @property
    def intervals(self) -> Mapping[str, Interval]:
        """Statistics with their intervals, as ``intervals["auroc"]``; those that the cases do not define are absent."""
        return self.evaluation.intervals

    @property
    def calibration(self) -> CalibrationOutcome:
        """Whether calibration is shown, not shown or refuted, and why."""
        return self.evaluation.calibration

    @property
    def report(self) -> Path:
        """The page about the model."""
        return self.folder / "report.html"


def write_result(
    judged: ReportSources,
    out: Path,
    *,
    all_predictions: Predictions | None = None,
    calibration: Predictions | None = None,
    refer_zone: ReferZone | None = None,
) -> list[str]:
    """Write the folder, and return the lines that the command prints."""
    with atomic_folder(out) as folder:
        write_evaluation(
            judged, folder, all_predictions=all_predictions, calibration=calibration, refer_zone=refer_zone
        )
    lines = [evaluation_text(judged.title, judged.evaluation, judged.findings)]
    lines.append(f"  {refused_text(judged.judge_refused())}")
    if judged.predictions.out_of_fold:
        lines.append(f"  {OUT_OF_FOLD}")
    study = judged.reader_study
    if isinstance(study, str):
        lines.append(f"  {study}")
    elif study is not None:
        lines.append(
            f"  AUROC less that of {len(study.readers)} readers on average: {study.gain}, on {study.n_cases} cases"
        )
    return [*lines, f"report: {out / 'report.html'}"]
