"""The report: one self-contained HTML page about a model, its evaluation, cases and provenance."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.evaluation.beside_headline import Details
from pipeline.evaluation.decisions.prevalence import Restated
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.multilabel import FindingsEvaluation
from pipeline.evaluation.readers.reader_study import ReaderStudy
from pipeline.evaluation.refused import NOT_KNOWN, WithRefused
from pipeline.evaluation.report.characteristics import Characteristics
from pipeline.evaluation.report.checklist import Item
from pipeline.evaluation.results import Evaluation

STATISTIC_NAMES: Mapping[str, str] = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier_score": "Brier score",
    "scaled_brier_score": "Scaled Brier score",
    "log_loss": "Log loss",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration in the large (intercept)",
    "observed_expected": "Observed over expected (O:E)",
    "ici": "ICI, mean distance of the calibration curve",
    "e50": "E50, its median",
    "e90": "E90, its 90th percentile",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "net_benefit": "Net benefit at the threshold",
}
_SECTION = re.compile(r"<h2>(.*?)</h2>")
FIGURE_TEXTS: Mapping[str, str] = {
    "roc": "Sensitivity against false alarms over all thresholds; the shaded band is pointwise, by patient.",
    "precision_recall": "How many of the called are malignant, as more of the malignant are called.",
    "reliability": "Observed against predicted share: a smooth curve (restricted cubic splines) with a pointwise 95 % "
    "band, by patient, and equal-mass bins, before and after calibration.",
    "probability_histogram": "Where the probabilities of malignant (up) and benign cases (down) lie.",
    "findings": "Each finding by itself: sensitivity against false alarms, and observed against predicted share.",
    "learning_curve": "Loss of each epoch of the training, and of the validation split where one is watched.",
    "decision_curve": "Worth of acting on the model at each threshold, against acting on all or none; the band is 95 % "
    "at each threshold by itself, by patient.",
    "decision_curve_restated": "The same where another share of the cases is malignant, as it was stated: sensitivity "
    "and false alarms at each threshold are taken to stay as they are, and probabilities are not moved.",
}


@dataclass(frozen=True)
class SplitCounts:
    """One row of the participant flow."""

    cases: int
    patients: int
    malignant: int


@dataclass(frozen=True)
class Flow:
    """Participant flow: how many of the given cases were used.

    Attributes:
        given: cases in the manifest.
        excluded: cases excluded, by code.
        unlabelled: usable cases without a label.
        splits: labelled, usable cases by split.
    """

    given: int
    excluded: Mapping[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    splits: Mapping[str, SplitCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparisonModel:
    """Another model on the same cases.

    Attributes:
        name: as shown.
        description: what it is, in a line.
        evaluation: of its own probabilities.
        gain: the model's AUROC less this one's, paired; None where undefined.
        model: the judged model on this one's cases, where these are not all that it was judged on.
    """

    name: str
    description: str
    evaluation: Evaluation
    gain: Interval | None
    model: Evaluation | None = None


@dataclass(frozen=True)
class ReportPicture:
    """A finished picture with its caption, as a confident mistake."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows. Sections without content are left out.

    Attributes:
        title: headline of the page.
        model: name and short digest.
        calibration: ``Calibrator.describe()``.
        calibration_notes: why the calibrator is not the configured one; empty when it is.
        evaluation: of the cases judged.
        judged_on: which cases these are, as ``test split``.
        badges: short warnings under the title, as ``simulated intensities``.
        summary: a sentence or two under the badges.
        flow: participant flow.
        figures: PNG bytes by name, as ``evaluation_figures`` names them, in order.
        comparisons: baseline, oracle, champion.
        no_champion: why the champion is not among them; blank where it is.
        findings: every finding's evaluation, where there are several.
        details: subgroups, label certainty, patients, refer zone, seeds.
        intervals_are: what the intervals cover, where that needs saying; blank elsewhere.
        with_refused: sensitivity and specificity with the refused cases, or why they are not known.
        characteristics: who the cases are, by split; None when only their probabilities are known.
        reader_study: the model beside readers' average, or why that is undefined, where their scores were given.
        restated: PPV and NPV at other prevalences.
        pictures: the most confident mistakes.
        data: facts about data and labels, by name.
        preprocessing: name and value.
        provenance: name and value.
        checklist: TRIPOD+AI and CLAIM items, answered or left to a person.
        made_at: when the report was made.
    """

    title: str
    model: str
    calibration: str
    evaluation: Evaluation
    judged_on: str = "test split"
    calibration_notes: tuple[str, ...] = ()
    badges: tuple[str, ...] = ("research use; not a medical device",)
    summary: str = ""
    flow: Flow | None = None
    figures: Mapping[str, bytes] = field(default_factory=dict)
    comparisons: tuple[ComparisonModel, ...] = ()
    no_champion: str = ""
    findings: FindingsEvaluation | None = None
    details: Details = field(default_factory=Details)
    intervals_are: str = ""
    with_refused: WithRefused | str = NOT_KNOWN
    characteristics: Characteristics | None = None
    reader_study: ReaderStudy | str | None = None
    restated: tuple[Restated, ...] = ()
    pictures: tuple[ReportPicture, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    checklist: tuple[Item, ...] = ()
    made_at: datetime | None = None


def render_report(report: ReportData) -> str:
    """The page as HTML text: escaped, styled inline, with pictures inside; it loads nothing from anywhere."""
    return render_page(
        "report.html.j2",
        made_at=report.made_at,
        report=report,
        evaluation=report.evaluation,
        names=STATISTIC_NAMES,
        figure_texts=FIGURE_TEXTS,
    )


def render_page(template: str, *, made_at: datetime | None, **values: object) -> str:
    """A page of one of the templates, with a list of its sections.

    Args:
        template: name of the template.
        made_at: said at the foot of the page; None for now.
        values: that the template names.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.evaluation.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["interval"] = _interval
    environment.filters["number"] = lambda value, digits=3: "undefined" if value is None else f"{value:.{digits}f}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["picture"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    moment = (made_at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    return _with_contents(environment.get_template(template).render(made_at=moment, **values))


def _with_contents(page: str) -> str:
    """The page with a list of its sections under its head, each with a link."""
    names = _SECTION.findall(page)
    numbers = itertools.count(1)
    page = _SECTION.sub(lambda heading: f'<h2 id="section-{next(numbers)}">{heading[1]}</h2>', page)
    links = " · ".join(f'<a href="#section-{number}">{name}</a>' for number, name in enumerate(names, start=1))
    return page.replace("</header>", f'</header>\n<nav aria-label="Contents">{links}</nav>', 1)


def _interval(value: Interval | None, digits: int = 3) -> str:
    if value is None:
        return "undefined"
    return f"{value.estimate:.{digits}f} ({value.lower:.{digits}f} to {value.upper:.{digits}f})"
