"""One picture of several findings: a panel each with its ROC curve, and one with its reliability."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation.arrays import FloatArray, IntArray
from pipeline.evaluation.multilabel import FindingsEvaluation
from pipeline.evaluation.report import curves
from pipeline.evaluation.report.figure_frame import BLUE, INK, MUTED, Caption, tidy, unit_square
from pipeline.evaluation.results import Evaluation

_PANEL = 2.7  # inches


def findings_figure(findings: FindingsEvaluation, *, caption: Caption) -> Figure | None:
    """ROC curve above, observed against predicted share below, for each finding; None for a single one."""
    if len(findings.evaluations) < 2:
        return None
    count = len(findings.evaluations)
    figure = Figure(figsize=(_PANEL * count, 2 * _PANEL + 0.6), layout="constrained")
    figure.suptitle(f"{caption.line}\neach finding has its own probability, calibration and threshold", fontsize=9)
    axes = figure.subplots(2, count, squeeze=False)
    for column, (name, evaluation) in enumerate(findings.evaluations.items()):
        judged = findings.predictions.where(finding=name).labelled()
        labels, probabilities = judged.labels, judged.probabilities
        for panel in axes[:, column]:
            tidy(panel)
            panel.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (2, 3)), zorder=1)
        axes[0, column].set_title(f"{name}\n{evaluation.n_positive} of {evaluation.n_cases} cases", fontsize=9)
        if 0 < evaluation.n_positive < evaluation.n_cases:
            _roc(axes[0, column], labels, probabilities, evaluation)
        _reliability(axes[1, column], labels, probabilities, judged.patients, bins=evaluation.calibrated.bins)
    return figure


def _roc(axes: Axes, labels: IntArray, probabilities: FloatArray, evaluation: Evaluation) -> None:
    curve = curves.roc(labels, probabilities)
    axes.plot(curve.x, curve.y, color=BLUE, lw=2)
    counts = evaluation.confusion
    axes.plot(1.0 - counts.specificity, counts.sensitivity, "o", ms=7, mfc="white", mec=INK, mew=1.6, zorder=5)
    unit_square(axes, "1 - specificity", "Sensitivity")
    area = evaluation.intervals.get("auroc")
    axes.text(0.98, 0.04, f"AUROC {area or format(curve.area, '.3f')}", fontsize=7.5, ha="right", color=INK)


def _reliability(axes: Axes, labels: IntArray, probabilities: FloatArray, patients: np.ndarray, *, bins: int) -> None:
    band = curves.reliability(labels, probabilities, patients, bins=min(bins, labels.size))
    reach = np.array([band.y - band.lower, band.upper - band.y])
    axes.errorbar(band.x, band.y, yerr=reach, fmt="o-", color=BLUE, lw=1.6, ms=4.5, elinewidth=1.1)
    unit_square(axes, "Predicted probability", "Observed share")
