"""Figures of a detector's evaluation: FROC, FROC of groups, localisation, reliability."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.calibration.curve import fit_calibration_curve
from pipeline.evaluation.detection.evaluate_detection import DIAMETER_GROUP, DetectionEvaluation, lesion_groups
from pipeline.evaluation.detection.froc import RATES, froc
from pipeline.evaluation.detection.matching import Matches
from pipeline.evaluation.detection.probabilities import LabelledProbabilities, candidate_labels
from pipeline.evaluation.evaluate import default_bins
from pipeline.evaluation.report.figure_frame import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    VERMILION,
    Caption,
    add_legend_below,
    new_frame,
)
from pipeline.evaluation.report.figures import reliability_figure
from pipeline.evaluation.subgroups import FEWEST_PATIENTS

_LEAST_RATE, _MOST_RATE = 1.0 / 16.0, 16.0
_STYLES = (
    (BLUE, "solid"),
    (VERMILION, (0, (5, 2))),
    (GREEN, (0, (1, 1.2))),
    (PURPLE, (0, (4, 1, 1, 1))),
    (AMBER, "solid"),
)
_FRACTIONS = {0.125: "1/8", 0.25: "1/4", 0.5: "1/2"}


def detection_figures(
    matches: Matches,
    evaluation: DetectionEvaluation,
    *,
    caption: Caption,
    edges_mm: tuple[float, ...],
    scans: LabelledProbabilities | None = None,
) -> dict[str, Figure]:
    """All figures of a detector's evaluation by name; those that the scans do not define are left out.

    Args:
        matches: that were judged.
        evaluation: what was found.
        caption: said on every figure.
        edges_mm: that part the lesions by diameter.
        scans: probabilities of scans with a known label, where there are any.
    """
    figures: dict[str, Figure | None] = {
        "froc": froc_figure(evaluation, caption=caption),
        "froc_by_diameter": froc_by_diameter_figure(matches, edges_mm, caption=caption),
        "localisation": localisation_figure(matches, caption=caption),
        "candidate_reliability": _reliability(candidate_labels(matches), caption=caption, event="a lesion"),
    }
    if scans is not None:
        figures["scan_reliability"] = _reliability(scans, caption=caption, event="a malignant lesion")
    return {name: figure for name, figure in figures.items() if figure is not None}


def froc_figure(evaluation: DetectionEvaluation, *, caption: Caption) -> Figure:
    """Sensitivity against false positives a scan, with its band and the rates that CPM is the mean of."""
    figure, axes = new_frame("FROC", caption)
    band, curve = evaluation.band, evaluation.curve
    if band is not None:
        label = "95 % at each rate by itself, over patients"
        axes.fill_between(band.x, band.lower, band.upper, color=BLUE, alpha=0.15, lw=0, label=label)
    rates = np.geomspace(_LEAST_RATE, _MOST_RATE, 400)
    axes.plot(rates, curve.at(rates), color=BLUE, lw=2.2, label=f"all {curve.n_lesions} lesions", zorder=3)
    cpm = evaluation.intervals.get("cpm")
    axes.plot(
        RATES,
        curve.at(RATES),
        "o",
        ms=6,
        mfc="white",
        mec=INK,
        mew=1.4,
        zorder=4,
        label=f"mean of these seven (CPM) {cpm or format(curve.cpm, '.3f')}",
    )
    _froc_axes(axes)
    add_legend_below(figure, axes)
    return figure


def froc_by_diameter_figure(matches: Matches, edges_mm: tuple[float, ...], *, caption: Caption) -> Figure | None:
    """A curve a diameter class, with the false positives of all scans; None where no class has enough patients."""
    figure, axes = new_frame("FROC by diameter in mm", caption)
    classes = [(value, members) for name, value, members in lesion_groups(matches, edges_mm) if name == DIAMETER_GROUP]
    large = [
        (value, members)
        for value, members in classes
        if np.unique(matches.lesion_patients[members]).size >= FEWEST_PATIENTS
    ]
    if not large:
        return None
    rates = np.geomspace(_LEAST_RATE, _MOST_RATE, 400)
    for (value, members), (colour, dashes) in zip(large, _STYLES, strict=False):
        label = f"{value} ({int(members.sum())} lesions)"
        axes.plot(rates, froc(matches, among=members).at(rates), color=colour, ls=dashes, lw=2.0, label=label)
    _froc_axes(axes)
    add_legend_below(figure, axes)
    return figure


def localisation_figure(matches: Matches, *, caption: Caption) -> Figure | None:
    """Distance of each hit from its lesion's centre against the lesion's diameter; None without hits."""
    hits = [match for match in matches.lesions if match.distance_mm is not None]
    if not hits:
        return None
    figure, axes = new_frame("Distance of hits from the lesion's centre", caption)
    distances = [match.distance_mm for match in hits if match.distance_mm is not None]
    diameters = [2.0 * match.lesion.radius_mm for match in hits]
    far = 1.08 * max(diameters)
    axes.plot([0, far], [0, far / 2], color=MUTED, lw=1, ls=(0, (2, 3)), label="the lesion's radius: beyond, no hit")
    axes.plot(diameters, distances, "o", ms=4.5, color=BLUE, alpha=0.55, mew=0, label=f"{len(hits)} hits")
    axes.axhline(float(np.median(distances)), color=VERMILION, lw=1.4, label=f"median {np.median(distances):.2f} mm")
    axes.set_xlim(0.0, far)
    axes.set_ylim(0.0, 1.15 * max(max(distances), 1.0))
    axes.set_xlabel("Diameter of the lesion, mm", color=INK)
    axes.set_ylabel("Distance of the hit, mm", color=INK)
    add_legend_below(figure, axes)
    return figure


def _reliability(given: LabelledProbabilities, *, caption: Caption, event: str) -> Figure | None:
    """Observed against predicted share; None where there is one class only."""
    if not 0 < given.labels.sum() < given.labels.size:
        return None
    try:
        curve = fit_calibration_curve(given.labels, given.probabilities, given.patients, rng=np.random.default_rng(0))
    except UndefinedMetricError:  # the page says why beside the ICI
        curve = None
    bins = default_bins(given.labels.size)
    return reliability_figure(
        given.labels, given.probabilities, given.patients, caption=caption, curve=curve, bins=bins, event=event
    )


def _froc_axes(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(_LEAST_RATE, _MOST_RATE)
    axes.set_ylim(-0.02, 1.04)
    axes.xaxis.set_major_locator(FixedLocator(list(RATES)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _FRACTIONS.get(value, f"{value:g}")))
    axes.set_xlabel("False positives a scan", color=INK)
    axes.set_ylabel("Sensitivity (share of lesions hit)", color=INK)
