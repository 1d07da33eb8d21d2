"""Write an evaluation: predictions, figures and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.beside_headline import Details, evaluate_details
from pipeline.evaluation.decisions.decision_curve import decision_curve
from pipeline.evaluation.decisions.prevalence import Restated, restate_prevalence
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.intervals.bootstrap import OUT_OF_FOLD
from pipeline.evaluation.predictions import Predictions, write_predictions
from pipeline.evaluation.readers.reader_study import ReaderStudy
from pipeline.evaluation.report.characteristics import Characteristics, characteristics
from pipeline.evaluation.report.figure_frame import Caption, to_png
from pipeline.evaluation.report.figures import evaluation_figures
from pipeline.evaluation.report.finding_figures import findings_figure
from pipeline.evaluation.report.learning_curve import learning_curve_figure
from pipeline.evaluation.report.page import ComparisonModel, ReportData, render_report
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.usual_columns import RATING_SCALE, SUBGROUP_COLUMNS
from pipeline.files import write_csv, write_json, write_text
from pipeline.workflow.judging.comparison import ChampionBeside
from pipeline.workflow.reporting.guidelines import answered_items
from pipeline.workflow.reporting.report_sources import ReportSources

_PREVALENCES = (0.01, 0.05, 0.2)


def write_evaluation(
    sources: ReportSources,
    folder: Path,
    *,
    all_predictions: Predictions | None = None,
    calibration: Predictions | None = None,
    refer_zone: ReferZone | None = None,
) -> None:
    """Write ``predictions.parquet``, ``evaluation.json``, ``characteristics.csv``, ``figures`` and ``report.html``.

    Args:
        sources: to write.
        folder: exists.
        all_predictions: content of ``predictions.parquet``, when it is more than those of the sources.
        calibration: predictions of the calibration split, for the refer zone; None when they are missing.
        refer_zone: the model's own, which is evaluated; None evaluates one of 90 % coverage.
    """
    write_predictions(all_predictions or sources.predictions, folder / "predictions.parquet")
    details = evaluate_details(
        sources.predictions,
        operating_point=sources.evaluation.operating_point,
        columns=sources.subgroups,
        calibration=calibration,
        refer_zone=refer_zone,
        all_seeds=sources.all_seeds,
        readers=sources.readers,
    )
    write_json(folder / "evaluation.json", _to_json(sources, details))
    pictures = _pictures(sources)
    (folder / "figures").mkdir(exist_ok=True)
    for name, png in pictures.items():
        (folder / "figures" / f"{name}.png").write_bytes(png)
    described = sources.characteristics or _described(sources)
    rows = [(row.name, row.value, *row.cells) for row in described.rows]
    write_csv(folder / "characteristics.csv", ("characteristic", "value", *described.groups), rows)
    write_text(folder / "report.html", render_report(_filled(sources, details, described, pictures)))


def _to_json(sources: ReportSources, details: Details) -> dict[str, Any]:
    """``evaluation.json``."""
    champion, study, refused = sources.champion, sources.reader_study, sources.judge_refused()
    return {
        **sources.evaluation.to_json(),
        **details.to_json(),
        "champion": champion if isinstance(champion, str) else champion.to_json(),
        "comparisons": {regression.name: regression.to_json() for regression in sources.regressions},
        "intervals_are": OUT_OF_FOLD if sources.predictions.out_of_fold else None,
        "decision_curve": _decision_curves(sources),
        "refused": refused if isinstance(refused, str) else refused.to_json(),
        "reader_study": study.to_json() if isinstance(study, ReaderStudy) else study,
        **(sources.findings.to_json() if sources.findings else {}),
    }


def _pictures(sources: ReportSources) -> dict[str, bytes]:
    """PNG bytes of every figure, by name."""
    cases = f"{sources.judged_on}, {sources.evaluation.n_cases} cases of {sources.evaluation.n_patients} patients"
    if sources.label is not None and sources.label.intensities == "simulated":
        cases += ", simulated intensities"
    caption = Caption(sources.model, sources.calibration, cases)
    figures = evaluation_figures(
        sources.predictions,
        sources.evaluation,
        caption=caption,
        comparisons={regression.name: regression.predictions.probabilities for regression in sources.regressions},
        prevalence=sources.prevalence,
    )
    if sources.findings and (picture := findings_figure(sources.findings, caption=caption)):
        figures["findings"] = picture
    if curve := learning_curve_figure(sources.histories, caption=caption):
        figures["learning_curve"] = curve
    return {name: to_png(figure) for name, figure in figures.items()}


def described_columns(configured: Sequence[str], covariates: Sequence[str]) -> list[str]:
    """Columns that the table of characteristics may show: those that subgroups and covariates use, and the rating."""
    return list(dict.fromkeys([*covariates, *configured, *SUBGROUP_COLUMNS, RATING_SCALE.column]))


def _described(sources: ReportSources) -> Characteristics:
    covariates = sources.description.covariates if sources.description else ()
    table = sources.predictions.labelled().frame.assign(split=sources.judged_on)
    return characteristics(table, described_columns(sources.subgroups, list(covariates)))


def _filled(
    sources: ReportSources, details: Details, described: Characteristics, figures: Mapping[str, bytes]
) -> ReportData:
    """The report's data with everything that is computed."""
    badges = ["research use; not a medical device", "probability of malignancy (1 = malignant)"]
    if sources.label is not None:
        badges += [f"{sources.label.intensities} intensities", f"label: {sources.label.source}"]
    return replace(
        sources,
        badges=(*badges, *sources.differences),
        figures=figures,
        comparisons=_comparisons(sources),
        no_champion=sources.champion if isinstance(sources.champion, str) else "",
        details=details,
        characteristics=described,
        intervals_are=OUT_OF_FOLD if sources.predictions.out_of_fold else "",
        with_refused=sources.judge_refused(),
        restated=_restated(sources.evaluation, sources.prevalence),
        checklist=answered_items(sources, details),
    )


def _comparisons(sources: ReportSources) -> tuple[ComparisonModel, ...]:
    comparisons = [
        ComparisonModel(other.name, other.describe(), other.evaluation, other.gain) for other in sources.regressions
    ]
    if isinstance(sources.champion, ChampionBeside):
        beside = sources.champion
        comparisons.append(ComparisonModel("champion", beside.note, beside.evaluation, beside.gain, model=beside.model))
    return tuple(comparisons)


def _decision_curves(sources: ReportSources) -> dict[str, Any]:
    """The curve of these cases, and for the stated prevalence; or why there is none."""
    cases = sources.predictions.labelled()
    curves: dict[str, Any] = {}
    for name, prevalence in (("here", None), ("restated", sources.prevalence)):
        if name == "here" or prevalence is not None:
            try:
                curve = decision_curve(
                    cases.labels, cases.probabilities, patients=cases.patients, prevalence=prevalence
                )
                curves[name] = curve.to_json()
            except UndefinedMetricError as error:
                curves[name] = str(error)
    return curves


def _restated(evaluation: Evaluation, stated: float | None) -> tuple[Restated, ...]:
    """At the usual prevalences, and at the stated one first."""
    prevalences = [
        *([] if stated is None else [stated]),
        *(prevalence for prevalence in _PREVALENCES if prevalence != stated),
    ]
    try:
        return tuple(
            restate_prevalence(evaluation["sensitivity"], evaluation["specificity"], prevalence=prevalence)
            for prevalence in prevalences
        )
    except UndefinedMetricError:
        return ()
