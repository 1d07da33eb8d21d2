"""The page and figures of a detector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from detection_studies import hand_made, simulated
from test_report_page import Page

from pipeline.evaluation.detection.evaluate_detection import DIAMETER_EDGES_MM, evaluate_detection
from pipeline.evaluation.detection.matching import match_scans
from pipeline.evaluation.detection.probabilities import LabelledProbabilities, judge_probabilities
from pipeline.evaluation.detection.second_stage import judge_second_stage
from pipeline.evaluation.report.detection_figures import detection_figures
from pipeline.evaluation.report.detection_page import DetectionReport, render_detection_report
from pipeline.evaluation.report.figure_frame import Caption, to_png
from pipeline.evaluation.report.page import ReportPicture

CAPTION = Caption("detector", "temperature 1.2", "test split, 78 scans of 60 patients")


def labelled(n=120, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(n)
    labels = (rng.random(n) < probabilities).astype(np.int64)
    return LabelledProbabilities(labels, probabilities, np.array([f"p{k // 2}" for k in range(n)]))


@pytest.fixture(scope="module")
def report():
    matches, scans = match_scans(simulated(60)), labelled()
    evaluation = evaluate_detection(matches, resamples=100)
    figures = detection_figures(matches, evaluation, caption=CAPTION, edges_mm=DIAMETER_EDGES_MM, scans=scans)
    noise = np.random.default_rng(1).normal(0.0, 0.05, scans.labels.size)
    return DetectionReport(
        title="small <detector> on scans.csv",
        detector="small 0123abcd",
        calibration="temperature 1.2",
        evaluation=evaluation,
        badges=("simulated intensities",),
        flow={"given": 80, "rejected, E_SLICE_GAP": 2, "judged": 78},
        second_stage=judge_second_stage(scans.labels, scans.probabilities + noise, scans.probabilities, scans.patients),
        classifier="lesions 89abcdef",
        scans=judge_probabilities(scans, rng=np.random.default_rng(0)),
        scan_probability="leaky noisy-or, leak 0.05, weight 0.9",
        figures={name: to_png(figure) for name, figure in figures.items()},
        pictures=(ReportPicture("Hit, 0.98", "9.1 mm", to_png(figures["froc"])),),
        data={"Label": "simulated"},
        provenance={"Detector digest": "0123"},
    )


def test_every_figure_is_drawn(report):
    assert list(report.figures) == [
        "froc",
        "froc_by_diameter",
        "localisation",
        "candidate_reliability",
        "scan_reliability",
    ]
    assert all(png.startswith(b"\x89PNG") for png in report.figures.values())


def test_froc_figure_shows_the_curve_and_its_mean():
    matches = match_scans(simulated(60))
    evaluation = evaluate_detection(matches, resamples=100)
    axes = detection_figures(matches, evaluation, caption=CAPTION, edges_mm=DIAMETER_EDGES_MM)["froc"].axes[0]
    curve, circles = axes.get_lines()
    np.testing.assert_allclose(curve.get_ydata(), evaluation.curve.at(curve.get_xdata()))
    assert circles.get_ydata().mean() == pytest.approx(evaluation["cpm"].estimate)
    assert f"{evaluation['cpm']}" in circles.get_label()
    assert axes.get_xscale() == "log"


def test_scans_that_define_little_still_have_a_froc_figure():
    matches = match_scans(hand_made())
    figures = detection_figures(
        matches, evaluate_detection(matches, resamples=50), caption=CAPTION, edges_mm=DIAMETER_EDGES_MM
    )
    assert list(figures) == ["froc", "localisation", "candidate_reliability"]


def test_page_is_whole_and_loads_nothing(report):
    page = Page(render_detection_report(report))
    assert all(value.startswith(("data:image/png;base64,", "#section-")) for value in page.fetched)
    assert page.headings == [
        "Flow of scans",
        "Figures",
        "Finding lesions",
        "Lesions by diameter and other properties",
        "Calibration of candidates",
        "The classifier at found centres",
        "Probability of a malignant lesion in the scan",
        "Candidates",
        "Data and label",
        "Provenance",
    ]


def test_page_states_every_figure_with_its_interval(report):
    html = render_detection_report(report)
    for interval in (
        report.evaluation["cpm"],
        report.evaluation["sensitivity_at_0.125"],
        report.evaluation.candidates.intervals["calibration_slope"],
        report.scans.intervals["auroc"],
        report.second_stage.intervals["auroc_difference"],
    ):
        assert f"{interval.estimate:.3f} ({interval.lower:.3f} to {interval.upper:.3f})" in html
    assert "small &lt;detector&gt; on scans.csv" in html
    assert "simulated intensities" in html
    assert "E_slice_gap" not in html


def test_page_without_a_classifier_candidates_or_pictures_leaves_their_sections_out(report):
    empty = tuple(replace(scan, candidates=()) for scan in simulated(60))
    bare = replace(
        report,
        evaluation=evaluate_detection(empty, resamples=50),
        second_stage=None,
        classifier="",
        scans=None,
        scan_probability="",
        figures={},
        pictures=(),
        flow={},
    )
    page = Page(render_detection_report(bare))
    assert "The classifier at found centres" not in page.headings
    assert "Probability of a malignant lesion in the scan" not in page.headings
    assert "No candidate was found." in render_detection_report(bare)
    assert "localisation: hits in 0 patients" in render_detection_report(bare)


def test_second_stage_compares_the_same_lesions_at_both_centres():
    given = labelled(200)
    same = judge_second_stage(given.labels, given.probabilities, given.probabilities, given.patients, resamples=100)
    assert same.intervals["auroc_found"] == same.intervals["auroc_true"]
    assert same.intervals["auroc_difference"].estimate == 0.0
    worse = judge_second_stage(given.labels, 1 - given.probabilities, given.probabilities, given.patients)
    assert worse.intervals["auroc_difference"].upper < 0.0
    one_class = judge_second_stage(np.ones(20), given.probabilities[:20], given.probabilities[:20], given.patients[:20])
    assert "expected both classes" in one_class.undefined["auroc_found"]
