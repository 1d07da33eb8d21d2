"""Figures of an evaluation, with matplotlib without pyplot, legible without colour vision.

Every figure names the model and the calibration that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.arrays import as_labels, as_probabilities, as_scores
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.calibration.curve import CalibrationCurve, fit_calibration_curve
from pipeline.evaluation.decisions.decision_curve import decision_curve
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.report import curves
from pipeline.evaluation.report.figure_frame import (
    AMBER,
    BLUE,
    COMPARISON_STYLES,
    GREEN,
    INK,
    MUTED,
    VERMILION,
    Caption,
    add_legend,
    add_legend_below,
    new_frame,
    new_frame_with_strip,
    unit_square,
)
from pipeline.evaluation.results import Evaluation

_CURVE_POINTS = 101
_CURVE_ENDS = (0.02, 0.98)  # quantiles of the probabilities, beyond which too few cases support the curve


def evaluation_figures(
    predictions: Predictions,
    evaluation: Evaluation,
    *,
    caption: Caption,
    comparisons: Mapping[str, npt.ArrayLike] | None = None,
    prevalence: float | None = None,
) -> dict[str, Figure]:
    """All figures of an evaluation by name, for the labelled rows it judged; none where there is one class only.

    Args:
        predictions: those that were judged, with probabilities.
        evaluation: what was found.
        caption: said on every figure.
        comparisons: probabilities of other models on the labelled rows, in order, by name; drawn beside the model.
        prevalence: to restate the decision curve for, in a figure of its own; None for none.
    """
    labelled = predictions.labelled()
    labels, probabilities = labelled.labels, labelled.probabilities
    if not 0 < labels.sum() < labels.size:
        return {}
    patients, rng = labelled.patients, np.random.default_rng(0)
    others, intervals = dict(comparisons or {}), evaluation.intervals
    threshold, counts = evaluation.operating_point.threshold, evaluation.confusion
    figures = {
        "roc": roc_figure(
            labels,
            probabilities,
            patients,
            caption=caption,
            rng=rng,
            interval=intervals.get("auroc"),
            comparisons=others,
            operating=(1.0 - counts.specificity, counts.sensitivity),
        ),
        "precision_recall": precision_recall_figure(
            labels, probabilities, caption=caption, interval=intervals.get("average_precision"), comparisons=others
        ),
        "reliability": reliability_figure(
            labels,
            probabilities,
            patients,
            caption=caption,
            uncalibrated=sigmoid(labelled.logits),
            curve=_calibration_curve(labelled, rng=rng),
            bins=evaluation.calibrated.bins,
        ),
        "probability_histogram": histogram_figure(labels, probabilities, caption=caption, threshold=threshold),
    }
    draw = partial(decision_curve_figure, labels, probabilities, caption=caption, patients=patients)
    figures["decision_curve"] = draw(comparisons=others, threshold=threshold)
    if prevalence is not None:
        figures["decision_curve_restated"] = draw(comparisons=others, threshold=threshold, prevalence=prevalence)
    return figures


def _calibration_curve(labelled: Predictions, *, rng: np.random.Generator) -> CalibrationCurve | None:
    try:
        return fit_calibration_curve(labelled.labels, labelled.probabilities, labelled.patients, rng=rng)
    except UndefinedMetricError:  # the report says why beside its ICI
        return None


def roc_figure(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    caption: Caption,
    rng: np.random.Generator,
    interval: Interval | None = None,
    comparisons: Mapping[str, npt.ArrayLike] | None = None,
    operating: tuple[float, float] | None = None,
) -> Figure:
    """ROC curve with a pointwise 95 % band over patients.

    Args:
        labels: 0 or 1, both present, shape (n,).
        scores: shape (n,).
        patients: patient id of each case, shape (n,).
        caption: model, calibration and cases.
        rng: source of the band's resamples.
        interval: AUROC, for the legend.
        comparisons: scores of other models on the same cases, by name.
        operating: (1 - specificity, sensitivity) at the operating point.
    """
    truth = as_labels(labels)
    figure, axes = new_frame("ROC curve", caption, probabilities=False)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (2, 3)), zorder=1)
    band = curves.roc_band(truth, as_scores(scores, truth), patients, rng=rng)
    curve = curves.roc(truth, as_scores(scores, truth))
    text = f"model: AUROC {interval or format(curve.area, '.3f')}"
    axes.plot(curve.x, curve.y, color=BLUE, lw=2.2, label=text, solid_joinstyle="round", zorder=4)
    axes.fill_between(band.x, band.lower, band.upper, color=BLUE, alpha=0.16, lw=0, label="95 % band over patients")
    for (name, comparison_scores), (color, dashes) in zip((comparisons or {}).items(), COMPARISON_STYLES, strict=False):
        curve = curves.roc(truth, as_scores(comparison_scores, truth))
        axes.plot(curve.x, curve.y, color=color, lw=1.6, ls=dashes, label=f"{name}: {curve.area:.3f}")
    if operating is not None:
        axes.plot(*operating, "o", ms=8, mfc="white", mec=INK, mew=1.8, label="operating point", zorder=5)
    unit_square(axes, "1 - specificity", "Sensitivity")
    add_legend(axes, "lower right")
    return figure


def precision_recall_figure(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    caption: Caption,
    interval: Interval | None = None,
    comparisons: Mapping[str, npt.ArrayLike] | None = None,
) -> Figure:
    """Precision-recall curve, with the prevalence as the line of a useless score."""
    truth = as_labels(labels)
    figure, axes = new_frame("Precision and recall", caption, probabilities=False)
    prevalence = float(truth.mean())
    curve = curves.precision_recall(truth, as_scores(scores, truth))
    text = f"model: average precision {interval or format(curve.area, '.3f')}"
    axes.plot(curve.x, curve.y, color=BLUE, lw=2.2, drawstyle="steps-pre", label=text, zorder=4)
    for (name, comparison_scores), (color, dashes) in zip((comparisons or {}).items(), COMPARISON_STYLES, strict=False):
        curve = curves.precision_recall(truth, as_scores(comparison_scores, truth))
        label = f"{name}: {curve.area:.3f}"
        axes.plot(curve.x, curve.y, color=color, lw=1.6, ls=dashes, drawstyle="steps-pre", label=label)
    axes.axhline(prevalence, color=MUTED, lw=1, ls=(0, (2, 3)), label=f"prevalence: {prevalence:.2f}")
    unit_square(axes, "Recall (sensitivity)", "Precision (PPV)")
    add_legend(axes, "lower left")
    return figure


def reliability_figure(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    caption: Caption,
    uncalibrated: npt.ArrayLike | None = None,
    curve: CalibrationCurve | None = None,
    bins: int,
    event: str = "malignancy",
) -> Figure:
    """Observed against predicted share in equal-mass bins, with intervals, and where the probabilities lie.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: calibrated, in [0, 1], shape (n,).
        patients: patient id of each case, shape (n,).
        caption: model, calibration and cases.
        uncalibrated: bare sigmoid of the logits, shape (n,), drawn beside.
        curve: smooth calibration curve of the probabilities, drawn with its band; None where it is undefined.
        bins: equal-mass bins, those of the ECE beside it; never more than cases.
        event: what a label of 1 means.
    """
    truth = as_labels(labels)
    values = as_probabilities(probabilities, truth)
    count = min(bins, truth.size)
    figure, axes, strip = new_frame_with_strip("Reliability", caption)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (2, 3)), label="perfect calibration", zorder=1)
    if uncalibrated is not None:
        before = curves.reliability(truth, as_probabilities(uncalibrated, truth), patients, bins=count)
        axes.plot(before.x, before.y, "s-", color=AMBER, lw=1, ms=5, mfc="white", mew=1.4, label="before calibration")
    if curve is not None:
        first, last = (float(end) for end in np.quantile(values, _CURVE_ENDS))
        smooth = curve.band(np.linspace(first, last, _CURVE_POINTS))
        axes.plot(smooth.x, smooth.y, color=GREEN, lw=1.8, ls=(0, (5, 1.5)), label="calibration curve", zorder=3)
        label = "its 95 % band over patients"
        axes.fill_between(smooth.x, smooth.lower, smooth.upper, color=GREEN, alpha=0.15, lw=0, label=label, zorder=2)
    after = curves.reliability(truth, values, patients, bins=count)
    reach = np.array([after.y - after.lower, after.upper - after.y])
    label = f"calibrated, 95 % interval ({len(after.x)} equal-mass bins)"
    axes.errorbar(
        after.x, after.y, yerr=reach, fmt="o-", color=BLUE, lw=1.8, ms=6, elinewidth=1.3, label=label, zorder=4
    )
    unit_square(axes, "", f"Observed share, {event}")
    axes.tick_params(labelbottom=False)
    edges = np.linspace(0.0, 1.0, 41)
    strip.hist(values, bins=edges.tolist(), color=BLUE, alpha=0.75)
    strip.set_xlim(-0.02, 1.02)
    strip.set_xlabel(f"Predicted probability of {event}", color=INK)
    strip.set_ylabel("Cases", color=INK)
    add_legend_below(figure, axes)
    return figure


def histogram_figure(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, caption: Caption, threshold: float | None = None
) -> Figure:
    """Where the probabilities of malignant (above) and benign cases (below) lie."""
    truth = as_labels(labels)
    values = as_probabilities(probabilities, truth)
    figure, axes = new_frame("Probabilities by class", caption)
    edges = np.linspace(0.0, 1.0, 26)
    above, below = (np.histogram(values[truth == value], bins=edges)[0] for value in (1, 0))
    left, width = edges[:-1], np.diff(edges)
    malignant, benign = f"malignant ({int(truth.sum())})", f"benign ({int((truth == 0).sum())})"
    axes.bar(left, above, width=width, align="edge", color=VERMILION, edgecolor="white", lw=0.6, label=malignant)
    axes.bar(left, -below, width=width, align="edge", color=BLUE, edgecolor="white", lw=0.6, label=benign)
    axes.axhline(0.0, color=INK, lw=0.9)
    if threshold is not None:
        axes.axvline(threshold, color=INK, lw=1.2, ls=(0, (4, 2)), label=f"threshold {threshold:.3g}")
    top, bottom = max(int(above.max()), 1), max(int(below.max()), 1)
    axes.set_ylim(-bottom * 1.12, top * 1.12 + 0.28 * (top + bottom))
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Predicted probability of malignancy", color=INK)
    axes.set_ylabel("Cases", color=INK)
    add_legend(axes, "upper center", columns=3)
    return figure


def decision_curve_figure(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    caption: Caption,
    patients: npt.ArrayLike | None = None,
    comparisons: Mapping[str, npt.ArrayLike] | None = None,
    threshold: float | None = None,
    prevalence: float | None = None,
) -> Figure:
    """Net benefit against treating all and treating none, with pointwise limits of two patients and more.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: of the model, shape (n,).
        caption: of the figure.
        patients: patient id of each case, shape (n,), for the limits.
        comparisons: probabilities of other models on the same cases, by name.
        threshold: the operating point's.
        prevalence: to restate the curves for; None for that of the cases.
    """
    truth = as_labels(labels)
    where = "" if prevalence is None else f" where {100 * prevalence:g} % are malignant"
    figure, axes = new_frame(f"Decision curve{where}", caption)
    several = patients is not None and np.unique(np.asarray(patients)).size > 1
    curve = decision_curve(truth, probabilities, patients=patients if several else None, prevalence=prevalence)
    if curve.lower is not None and curve.upper is not None:
        axes.fill_between(curve.thresholds, curve.lower, curve.upper, color=BLUE, alpha=0.15, lw=0)
    axes.plot(curve.thresholds, curve.model, color=BLUE, lw=2.2, label="model", zorder=4)
    for (name, comparison_probabilities), (color, dashes) in zip(
        (comparisons or {}).items(), COMPARISON_STYLES, strict=False
    ):
        beside = decision_curve(truth, comparison_probabilities, prevalence=prevalence)
        axes.plot(beside.thresholds, beside.model, color=color, lw=1.6, ls=dashes, label=name)
    axes.plot(curve.thresholds, curve.treat_all, color=MUTED, lw=1.4, ls=(0, (2, 3)), label="treat all")
    axes.axhline(0.0, color=INK, lw=1.1, label="treat none")
    if threshold is not None:
        axes.axvline(threshold, color=INK, lw=1.0, ls=(0, (4, 2)), label=f"threshold {threshold:.3g}")
    highest = float(truth.mean()) if prevalence is None else prevalence
    axes.set_ylim(-0.25 * highest, 1.12 * highest)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("Threshold probability of malignancy", color=INK)
    axes.set_ylabel("Net benefit (true positives a case)", color=INK)
    add_legend(axes, "upper right")
    return figure
