"""Summary of a training, and the note on its run's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from pipeline.console import table_text
from pipeline.evaluation.intervals.bootstrap import OUT_OF_FOLD
from pipeline.evaluation.multilabel import FindingsEvaluation
from pipeline.evaluation.refused import WithRefused, with_refused
from pipeline.evaluation.report.page import STATISTIC_NAMES
from pipeline.evaluation.results import Evaluation
from pipeline.tracking.registry import RegisteredVersion
from pipeline.workflow.judging.comparison import ChampionBeside
from pipeline.workflow.reporting.findings_text import findings_lines, findings_markdown

if TYPE_CHECKING:
    from pipeline.workflow.judging.judge import Judgement
    from pipeline.workflow.learning.finish import Trained


NOT_CALIBRATED = "no calibrator could be fitted, so its numbers are no probabilities; give more labelled cases"

_FOLDS_APART = 0.1  # excess of the mean AUROC within folds over the pooled one that is reported


def training_summary(trained: Trained, version: RegisteredVersion | None) -> str:
    """The table that ``malignancy train`` prints, with the commands to look further."""
    config, judgement, evaluation = trained.config, trained.judgement, trained.judgement.evaluation
    where = f", {version.name} version {version.version} ({version.alias})" if version else ""
    lines = [
        f"{config.name}{_simulated(trained)}{where}",
        (f"{trained.judged_on}: {evaluation.counts}; label: {config.data.label_source}"),
        "",
        _table(trained),
        *fold_lines(judgement),
        *findings_lines(judgement.findings),
        f"calibrated: {evaluation.calibration}",
        *(f"calibrator: {note}" for note in judgement.calibration_notes),
        *([] if judgement.is_calibrated else [f"not registered: {NOT_CALIBRATED}"]),
        champion_text(trained.champion),
        f"operating point: {judgement.operating_point.describe()}",
        refused_text(
            with_refused(
                judgement.of_first("test"),
                trained.refused(),
                threshold=judgement.operating_point.threshold,
            )
        ),
        *([judgement.refer_zone.describe()] if judgement.refer_zone else []),
        (
            f"best epoch {_epochs(trained)}; "
            f"{len(trained.cohort.rejected)} cases rejected; research use, not a medical device"
        ),
        f"report: {trained.folder / 'report.html'}",
        "MLflow: malignancy ui",
    ]
    return "\n".join(lines)


def note(trained: Trained) -> str:
    """Markdown for the run's page: discrimination, comparisons and calibration."""
    config, evaluation = trained.config, trained.judgement.evaluation
    rows = [
        f"**{config.name}{_simulated(trained)}**, probability of malignancy. Research use; not a medical device.",
        "",
        (f"{trained.judged_on.capitalize()}: {evaluation.counts}. Label: {config.data.label_source}."),
        "",
        # First, because MLflow folds long notes: discrimination and calibration.
        f"AUROC {_cell(evaluation, 'auroc')}; calibration {evaluation.calibration}.",
        "",
        "| | model | " + " | ".join(comparison.name for comparison in trained.judgement.comparisons) + " |",
        "|---|---|" + "---|" * len(trained.judgement.comparisons),
    ]
    evaluations = [evaluation, *(comparison.evaluation for comparison in trained.judgement.comparisons)]
    rows += [
        f"| {title} | " + " | ".join(_cell(judged, name) for judged in evaluations) + " |"
        for name, title in STATISTIC_NAMES.items()
    ]
    for comparison in trained.judgement.comparisons:
        rows += [
            "",
            f"AUROC gain over the {comparison.name} ({comparison.read}): {comparison.gain or 'undefined'}, by patient.",
        ]
    rows += ["", champion_text(trained.champion)]
    rows += ["", f"Calibration ({trained.judgement.calibration}): {evaluation.calibration}."]
    rows += [line for text in trained.judgement.calibration_notes for line in ("", f"Calibrator: {text}.")]
    rows += [line for text in fold_lines(trained.judgement) for line in ("", f"{text}.")]
    rows += ["", f"Operating point: {trained.judgement.operating_point.describe()}."]
    if trained.judgement.refer_zone:
        rows += ["", f"Refer zone: {trained.judgement.refer_zone.describe()}."]
    rows += findings_markdown(trained.judgement.findings)
    return "\n".join(rows)


def _epochs(trained: Trained) -> str:
    return ", ".join(f"{fitted.best_epoch} of {fitted.epochs}" for fitted in trained.fitted)


def fold_lines(judgement: Judgement) -> list[str]:
    """AUROC within the folds, beside the pooled one, which also depends on agreement between the folds."""
    aurocs = judgement.fold_aurocs
    if not aurocs:
        return []
    of_folds = ", ".join(f"{value:.3f}" for value in aurocs)
    together = f"the model is all {len(aurocs)} networks together, which these figures do not judge"
    lines = [f"AUROC within folds: mean {np.mean(aurocs):.3f} ({of_folds}); {together}", OUT_OF_FOLD]
    pooled = judgement.evaluation["auroc"].estimate
    if np.mean(aurocs) - pooled > _FOLDS_APART:
        lines.append(
            f"the folds' networks rank alike but answer on different scales, which costs the pooled AUROC "
            f"{np.mean(aurocs) - pooled:.2f} and the calibration more: train longer (training.min_steps), or with more "
            "folds (training.folds)"
        )
    return lines


def _simulated(trained: Trained) -> str:
    return " (simulated intensities)" if trained.config.data.intensities == "simulated" else ""


def _table(trained: Trained) -> str:
    judgement = trained.judgement
    unit = "case (patients are unknown)" if judgement.evaluation.patients_unknown else "patient"
    title = f"results{_simulated(trained)}, 95 % intervals by {unit}"
    table = Table(
        "", "model", *(comparison.name for comparison in judgement.comparisons), title=title, title_justify="left"
    )
    evaluations = [judgement.evaluation, *(comparison.evaluation for comparison in judgement.comparisons)]
    for name, label in STATISTIC_NAMES.items():
        table.add_row(label, *(_cell(judged, name) for judged in evaluations))
    table.add_row(
        "AUROC, model minus this", "", *(str(comparison.gain or "undefined") for comparison in judgement.comparisons)
    )
    table.add_section()
    for label, name in (("Brier score", "brier_score"), ("ECE", "ece")):
        table.add_row(f"{label}, uncalibrated to calibrated", *(_change(judged, name) for judged in evaluations))
    table.add_row(
        "ECE of a perfect model (95th percentile)",
        *(_number(judged.null.p95 if judged.null else None) for judged in evaluations),
    )
    table.add_row(
        "columns",
        f"{trained.config.network.name} network",
        *(comparison.read for comparison in judgement.comparisons),
    )
    return table_text(table, width=140)


def _cell(evaluation: Evaluation, name: str) -> str:
    return str(evaluation.intervals[name]) if name in evaluation.intervals else "undefined"


def _change(evaluation: Evaluation, name: str) -> str:
    return f"{_number(getattr(evaluation.uncalibrated, name))} to {_number(getattr(evaluation.calibrated, name))}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def champion_text(champion: ChampionBeside | str) -> str:
    """A line on how the model stands beside the champion, or why it does not."""
    if isinstance(champion, str):
        return f"Not beside the champion: {champion}."
    theirs = champion.evaluation.intervals.get("auroc", "undefined")
    return f"AUROC gain over the champion: {champion.gain or 'undefined'}, by patient; {champion.note}, AUROC {theirs}."


def refused_text(refused: WithRefused | str) -> str:
    """A line on sensitivity and specificity with the refused cases, or why they are not known."""
    return f"refused cases: {refused if isinstance(refused, str) else refused.describe()}"


def evaluation_text(title: str, evaluation: Evaluation, findings: FindingsEvaluation | None = None) -> str:
    """Text that ``malignancy evaluate`` prints."""
    rows = [f"{title}: {evaluation.counts}"]
    rows += [f"  {label}: {_cell(evaluation, name)}" for name, label in STATISTIC_NAMES.items()]
    rows += [f"  operating point: {evaluation.decided_at}"]
    if "calibration_slope" in evaluation.cautions:
        rows += [f"  {evaluation.cautions['calibration_slope']}"]
    rows += [f"  calibrated: {evaluation.calibration}", *findings_lines(findings)]
    return "\n".join(rows)
