import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from studies import calibrator, frame, point, predictions, several_seeds

from pipeline.evaluation.beside_headline import evaluate_details
from pipeline.evaluation.decisions.prevalence import restate_prevalence
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals.bootstrap import paired_auroc_difference
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.report.checklist import ANSWERS, checklist
from pipeline.evaluation.report.figure_frame import Caption, to_png
from pipeline.evaluation.report.figures import evaluation_figures
from pipeline.evaluation.report.page import (
    ComparisonModel,
    Flow,
    ReportData,
    ReportPicture,
    SplitCounts,
    render_report,
)
from pipeline.workflow.reporting.training_summary import evaluation_text

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Tags in balance, and everything a browser would fetch."""

    def __init__(self, html):
        super().__init__()
        self.open, self.fetched, self.headings = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def rated(n):
    return np.random.default_rng(5).integers(1, 6, n).astype(float)


@pytest.fixture(scope="module")
def full():
    ratings = ["|".join(map(str, row)) for row in np.random.default_rng(5).integers(1, 6, (240, 3))]
    test = Predictions.from_frame(predictions(240, seed=3).frame.assign(mean_malignancy=rated(240), ratings=ratings))
    found = evaluate(test, operating_point=point(), resamples=50)
    other = test.with_probabilities(lambda logits: calibrator(3.0).apply(np.round(logits)))
    rng = np.random.default_rng(0)
    gain = paired_auroc_difference(
        test.labels, test.probabilities, other.probabilities, test.patients, rng=rng, resamples=50
    )
    drawn = evaluation_figures(test, found, caption=Caption("demo@01", "temperature 1.6"))
    return ReportData(
        title="Nodules & <b>more</b>",
        model="demo@01",
        calibration="temperature 1.6",
        evaluation=found,
        badges=("simulated intensities", "research use; not a medical device"),
        summary="A sentence.",
        flow=Flow(300, {"E_CHECKSUM": 2}, 58, {"test": SplitCounts(240, found.n_patients, found.n_positive)}),
        figures={name: to_png(figure) for name, figure in drawn.items()},
        comparisons=(
            ComparisonModel(
                "baseline",
                "logistic regression on diameter_mm",
                evaluate(other, operating_point=point(), resamples=50),
                gain,
            ),
        ),
        details=evaluate_details(
            test.with_probabilities(calibrator().apply),
            operating_point=point(),
            columns=["site"],
            calibration=predictions(700, seed=8),
            all_seeds=several_seeds(test),
            resamples=50,
        ),
        restated=(restate_prevalence(found["sensitivity"], found["specificity"], prevalence=0.01),),
        pictures=(ReportPicture("case 7", "probability 0.98, benign", b"\x89PNG"),),
        data={"Manifest": "manifest.csv"},
        preprocessing={"Spacing": "1 x 1 x 1 mm"},
        provenance={"Git commit": "abc"},
        checklist=checklist({"size": "240 cases"}),
        made_at=datetime(2025, 1, 2, 3, 4, tzinfo=UTC),
    )


def test_the_page_is_whole_and_fetches_nothing(full):
    html = render_report(full)
    page = Page(html)
    assert all(each.startswith(("data:image/png;base64,", "#section-")) for each in page.fetched)
    assert "http" not in re.sub("data:image/png;base64,[A-Za-z0-9+/=]+", "", html).replace("http-equiv", "")
    assert "<script" not in html
    assert len(html.encode()) < 3_000_000
    assert "width=device-width" in html
    assert "@media print" in html


def test_the_contents_lead_to_every_section(full):
    html = render_report(full)
    links = re.findall(r'<a href="#(section-\d+)">(.*?)</a>', html)
    assert dict(links) == dict(re.findall(r'<h2 id="(section-\d+)">(.*?)</h2>', html))
    assert [name for _, name in links] == Page(html).headings


def test_the_page_shows_every_section(full):
    assert Page(render_report(full)).headings == [
        "Participant flow",
        "Figures",
        "All statistics, beside other models",
        "Operating point",
        "Calibration, before and after",
        "Subgroups",
        "Label certainty",
        "Readers",
        "By patient",
        "Left to a human",
        "Spread over seeds",
        "The most confident mistakes",
        "Data and label",
        "Preprocessing",
        "Provenance",
        "TRIPOD+AI and CLAIM",
    ]


def test_sections_without_content_are_left_out(full):
    bare = ReportData(title="t", model="m", calibration="c", evaluation=full.evaluation)
    assert Page(render_report(bare)).headings == ["All statistics", "Operating point", "Calibration, before and after"]
    assert "not a medical device" in render_report(bare)


def test_what_was_found_stands_on_the_page(full):
    html = render_report(full)
    found = full.evaluation
    for name in ("auroc", "brier_score", "calibration_slope", "npv"):
        assert str(found[name]) in html
    assert f"{found.n_cases} cases of {found.n_patients} patients" in html
    assert f"{found.null.p95:.3f}" in html
    assert full.comparisons[0].gain.__str__() in html
    assert "simulated intensities" in html
    assert "E_CHECKSUM" in html
    assert "Lesions of 6 to 15 mm" in html
    assert "indeterminate counted malignant" in html
    assert f"Krippendorff's alpha, 1 is perfect and 0 chance) {full.details.readers.alpha}" in html
    assert "a ceiling is for labels that are these readers" in html
    assert f'site: north, less south</th><td>AUROC</td><td class="nowrap">{full.details.gaps[0].difference}' in html
    assert f"{len(full.details.gaps)} comparisons: of so many" in html
    for share in ("referred", "error_of_rest", "sensitivity_of_rest", "specificity_of_rest"):
        assert str(getattr(full.details.refer, share)) in html
    assert f"{full.details.seeds[0].standard_deviation:.3f}" in html
    assert f"{found.calibrated.cumulative_error:.3f}" in html
    assert base64.b64encode(full.figures["roc"]).decode() in html
    assert "2025-01-02 03:04 UTC" in html


def test_text_from_outside_is_escaped(full):
    html = render_report(replace(full, summary="<script>alert(1)</script>", data={"<i>": '"><img src=x>'}))
    assert "Nodules &amp; &lt;b&gt;more&lt;/b&gt;" in html
    assert "<script>" not in html
    assert "<img src=x>" not in html


def test_the_same_inputs_give_the_same_page(full):
    assert render_report(full) == render_report(full)


def test_failing_calibration_is_said_with_its_reasons(full):
    bare = Predictions.from_frame(frame(2000, temperature=2.5)).with_probabilities(calibrator(1.0).apply)
    html = render_report(replace(full, evaluation=evaluate(bare, operating_point=point(), resamples=20)))
    assert '<div class="verdict bad"><strong>Calibration is refuted here:</strong>' in html
    assert "overconfident" in html


@pytest.mark.parametrize(("reach", "verdict", "style"), [(0.1, "shown", "verdict"), (0.5, "not shown", "verdict open")])
def test_calibration_that_is_shown_or_open_is_said_so(full, reach, verdict, style):
    intervals = {
        **full.evaluation.intervals,
        "calibration_slope": Interval(1.0, 1.0 - reach, 1.0 + reach),
        "calibration_intercept": Interval(0.0, -0.1, 0.1),
        "ici": Interval(0.01, 0.0, 0.03),
    }
    html = render_report(replace(full, evaluation=replace(full.evaluation, intervals=intervals)))
    assert f'<div class="{style}"><strong>Calibration is {verdict} here:</strong>' in html
    assert f'<tr><th scope="row">Calibration</th><td>{verdict}</td>' in html
    assert f"slope 1.00 ({1 - reach:.2f} to {1 + reach:.2f})" in html


def test_probabilities_of_0_and_1_are_said_with_what_they_do(full):
    cautions = {"calibration_slope": "2 of 90 probabilities are 0 or 1"}
    html = render_report(replace(full, evaluation=replace(full.evaluation, cautions=cautions)))
    assert "<strong>Probabilities of 0 or 1:</strong> 2 of 90 probabilities are 0 or 1." in html
    assert "may be too narrow" not in html
    assert "Probabilities of 0 or 1" not in render_report(full)


def test_undefined_statistics_are_said_and_never_shown_as_numbers(full):
    benign = Predictions.from_frame(frame(40).assign(label=0)).with_probabilities(calibrator().apply)
    html = render_report(replace(full, evaluation=evaluate(benign, operating_point=point(), resamples=20), restated=()))
    assert "undefined" in html
    assert "all 40 cases are benign" in html
    assert not re.search(r"\bnan\b", re.sub('base64,[^"]*', "", html), re.IGNORECASE)


def test_an_interval_of_too_few_patients_is_told_so(full):
    few = Predictions.from_frame(frame(30)).with_probabilities(calibrator().apply)
    evaluation = evaluate(few, operating_point=point(0.02), resamples=20)
    html = render_report(replace(full, evaluation=evaluation))
    assert "Intervals that may be too narrow, because there are few patients: Sensitivity (" in html
    assert evaluation.to_json()["cautions"]["sensitivity"] in html
    assert "may be too narrow" not in render_report(full)


def test_intervals_are_said_to_be_by_case_where_patients_are_unknown(full):
    alone = frame(120)
    unknown = Predictions.from_frame(alone.assign(patient_id=alone["case_id"])).with_probabilities(calibrator().apply)
    evaluation = evaluate(unknown, operating_point=point(), resamples=20)
    html = render_report(replace(full, evaluation=evaluation))
    assert "120 cases of unknown patients" in html
    assert "by case, because patients are unknown" in html
    assert evaluation.to_json()["patients_unknown"] is True
    assert evaluation_text("test", evaluation).startswith("test: 120 cases of unknown patients, ")
    known = Predictions.from_frame(alone.assign(patient_id="p" + alone["case_id"]))
    assert not known.patients_unknown  # one case a patient, whose ids are ids
    assert "patients are unknown" not in render_report(full)


def test_a_zone_that_is_refused_says_why(full):
    test = predictions(240, seed=3)
    few = evaluate_details(test, operating_point=point(), calibration=predictions(90), resamples=50)
    assert few.refer is None
    html = render_report(replace(full, details=few))
    assert "No zone: refer zone:" in html
    assert "expected at least 100 of each" in html


def test_items_that_nobody_answered_are_left_to_a_person(full):
    items = checklist({"size": "240 cases"})
    assert [item.answer for item in items if item.answer] == ["240 cases"]
    assert render_report(full).count("to be filled in by a person") == len(items) - 1
    everything = checklist(dict.fromkeys(ANSWERS, "known"))
    # Whatever a program knows, who was eligible, who labelled and who consented is a person's to say.
    for topic in ("Eligibility", "Who labelled", "consent", "Interpretation"):
        (item,) = [item for item in everything if topic in item.topic]
        assert item.answer is None
    assert checklist({"size": ""}) == checklist({})
    with pytest.raises(KeyError, match="no item of the checklist"):
        checklist({"mood": "good"})


def test_every_item_of_tripod_ai_is_listed_once_and_in_order():
    letters = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab"}
    letters[27] = "abc"
    expected = [f"{number}{letter}" for number in range(1, 28) for letter in letters.get(number, " ")]
    places = [item.place.removeprefix("TRIPOD+AI ").split(",")[0] for item in checklist({})]
    assert [place for place in places if place != "CLAIM"] == [each.strip() for each in expected]
