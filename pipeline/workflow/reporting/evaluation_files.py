"""Writing an evaluation down: predictions, figures and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UndefinedMetricError
from pipeline.evaluation.beside_headline import Details, evaluate_details
from pipeline.evaluation.decisions.decision_curve import decision_curve
from pipeline.evaluation.decisions.prevalence import Restated, restate_prevalence
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.intervals.bootstrap import OUT_OF_FOLD
from pipeline.evaluation.multilabel import FindingsEvaluation
from pipeline.evaluation.predictions import Predictions, write_predictions
from pipeline.evaluation.readers.agreement import ReaderColumns
from pipeline.evaluation.readers.reader_study import ReaderStudy
from pipeline.evaluation.refused import RefusedCases, WithRefused, with_refused
from pipeline.evaluation.report.characteristics import Characteristics, characteristics
from pipeline.evaluation.report.figure_frame import Caption, to_png
from pipeline.evaluation.report.figures import evaluation_figures
from pipeline.evaluation.report.finding_figures import findings_figure
from pipeline.evaluation.report.learning_curve import Epochs, learning_curve_figure
from pipeline.evaluation.report.page import ComparisonModel, Flow, ReportInputs, ReportPicture, render_report
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.usual_columns import RATING_SCALE, SUBGROUP_COLUMNS
from pipeline.files import write_csv, write_json, write_text
from pipeline.scoring.model_description import LabelMeaning, ModelDescription
from pipeline.workflow.judging.candidates import ChampionBeside
from pipeline.workflow.judging.regressions import Comparison
from pipeline.workflow.reporting.guidelines import answered_items

_PREVALENCES = (0.01, 0.05, 0.2)


@dataclass(frozen=True)
class Judged:
    """An evaluation with everything that its report shows.

    Attributes:
        title: of the page.
        model: name and short digest.
        calibration: the calibrator in a few words.
        calibration_notes: why it is another one than was configured; empty when it is not.
        predictions: the cases that were judged, of the first finding.
        evaluation: of them.
        findings: every finding's; None where there is one alone.
        judged_on: which cases these are.
        description: of the model; None for predictions of unknown origin.
        label: what the label means; None for predictions of unknown origin.
        flow: where the given cases went; None when that is unknown.
        differences: how the judged cases' labels or intensities differ in kind from the model's.
        comparisons: regressions on the same cases.
        champion: on the same cases, or why it is not beside the model.
        pictures: the most confident mistakes, where they were asked for.
        histories: each network's epochs, for the learning curve; empty when nothing was trained.
        subgroups: columns, beside the usual ones.
        prevalence: share of malignant cases where the model is to be used; None where none is stated.
        reader_study: the model beside readers' average, or why that is undefined; None where no table was given.
        characteristics: who the cases of each split are; None describes those judged by their subgroup columns.
        readers: columns of several readers' ratings; None takes the usual ones.
        all_seeds: the same cases under every seed; None when there is one.
        refused: labelled cases that could not be read; None where that is not known.
        data, preprocessing, provenance: name and value of what is known.
    """

    title: str
    model: str
    calibration: str
    predictions: Predictions
    evaluation: Evaluation
    judged_on: str = "test split"
    calibration_notes: tuple[str, ...] = ()
    findings: FindingsEvaluation | None = None
    description: ModelDescription | None = None
    label: LabelMeaning | None = None
    flow: Flow | None = None
    differences: tuple[str, ...] = ()
    comparisons: Sequence[Comparison] = ()
    champion: ChampionBeside | str = "predictions alone name no model"
    pictures: tuple[ReportPicture, ...] = ()
    histories: Sequence[Epochs] = ()
    subgroups: Sequence[str] = ()
    prevalence: float | None = None
    reader_study: ReaderStudy | str | None = None
    characteristics: Characteristics | None = None
    readers: ReaderColumns | None = None
    all_seeds: Predictions | None = None
    refused: RefusedCases | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def with_refused(self) -> WithRefused | str:
        """Sensitivity and specificity with the refused cases, or why they are not known."""
        return with_refused(self.predictions, self.refused, threshold=self.evaluation.operating_point.threshold)


def write_evaluation(
    judged: Judged,
    folder: Path,
    *,
    all_predictions: Predictions | None = None,
    calibration: Predictions | None = None,
    refer_zone: ReferZone | None = None,
) -> None:
    """Write ``predictions.parquet``, ``evaluation.json``, ``characteristics.csv``, ``figures`` and ``report.html``.

    Args:
        judged: what to write down.
        folder: exists.
        all_predictions: what ``predictions.parquet`` holds, when it is more than what was judged.
        calibration: predictions of the calibration split, for the refer zone; None when they are not at hand.
        refer_zone: the model's own, which is judged; None judges what one of 90 % coverage would do.
    """
    write_predictions(all_predictions or judged.predictions, folder / "predictions.parquet")
    details = evaluate_details(
        judged.predictions,
        operating_point=judged.evaluation.operating_point,
        columns=judged.subgroups,
        calibration=calibration,
        refer_zone=refer_zone,
        all_seeds=judged.all_seeds,
        readers=judged.readers,
    )
    champion = judged.champion if isinstance(judged.champion, str) else judged.champion.to_json()
    several = judged.findings.to_json() if judged.findings else {}
    beside = {other.name: other.to_json() for other in judged.comparisons}
    study = judged.reader_study
    found = {
        **judged.evaluation.to_json(),
        **details.to_json(),
        "champion": champion,
        "comparisons": beside,
        "intervals_are": OUT_OF_FOLD if judged.predictions.out_of_fold else None,
        "decision_curve": _decision_curves(judged),
        "refused": refused if isinstance(refused := judged.with_refused, str) else refused.to_json(),
        "reader_study": study.to_json() if isinstance(study, ReaderStudy) else study,
        **several,
    }
    write_json(folder / "evaluation.json", found)
    cases = f"{judged.judged_on}, {judged.evaluation.n_cases} cases of {judged.evaluation.n_patients} patients"
    if judged.label is not None and judged.label.intensities == "simulated":
        cases += ", simulated intensities"
    caption = Caption(judged.model, judged.calibration, cases)
    figures = evaluation_figures(
        judged.predictions,
        judged.evaluation,
        caption=caption,
        comparisons={other.name: other.predictions.probabilities for other in judged.comparisons},
        prevalence=judged.prevalence,
    )
    if judged.findings and (picture := findings_figure(judged.findings, caption=caption)):
        figures["findings"] = picture
    if curve := learning_curve_figure(judged.histories, caption=caption):
        figures["learning_curve"] = curve
    pictures = {name: to_png(figure) for name, figure in figures.items()}
    (folder / "figures").mkdir(exist_ok=True)
    for name, png in pictures.items():
        (folder / "figures" / f"{name}.png").write_bytes(png)
    described = judged.characteristics or _of_judged(judged)
    rows = [(row.name, row.value, *row.cells) for row in described.rows]
    write_csv(folder / "characteristics.csv", ("characteristic", "value", *described.groups), rows)
    write_text(folder / "report.html", render_report(_report(judged, details, described, pictures)))


def described_columns(configured: Sequence[str], covariates: Sequence[str]) -> list[str]:
    """Columns that the table of characteristics may show: those that subgroups and covariates use, and the rating."""
    return list(dict.fromkeys([*covariates, *configured, *SUBGROUP_COLUMNS, RATING_SCALE.column]))


def _of_judged(judged: Judged) -> Characteristics:
    covariates = judged.description.covariates if judged.description else ()
    table = judged.predictions.labelled().frame.assign(split=judged.judged_on)
    return characteristics(table, described_columns(judged.subgroups, list(covariates)))


def _report(
    judged: Judged, details: Details, described: Characteristics, pictures: Mapping[str, bytes]
) -> ReportInputs:
    evaluation, label = judged.evaluation, judged.label
    badges = ["research use; not a medical device", "probability of malignancy (1 = malignant)"]
    if label is not None:
        badges.append(f"{label.intensities} intensities")
        badges.append(f"label: {label.source}")
    badges += judged.differences
    return ReportInputs(
        title=judged.title,
        model=judged.model,
        calibration=judged.calibration,
        calibration_notes=judged.calibration_notes,
        evaluation=evaluation,
        judged_on=judged.judged_on,
        badges=tuple(badges),
        flow=judged.flow,
        figures=pictures,
        comparisons=_comparisons(judged),
        no_champion=judged.champion if isinstance(judged.champion, str) else "",
        details=details,
        characteristics=described,
        reader_study=judged.reader_study,
        findings=judged.findings,
        intervals_are=OUT_OF_FOLD if judged.predictions.out_of_fold else "",
        with_refused=judged.with_refused,
        restated=_restated(evaluation, judged.prevalence),
        pictures=judged.pictures,
        data=judged.data,
        preprocessing=judged.preprocessing,
        provenance=judged.provenance,
        checklist=answered_items(judged, details),
    )


def _comparisons(judged: Judged) -> tuple[ComparisonModel, ...]:
    comparisons = [
        ComparisonModel(other.name, other.describe(), other.evaluation, other.gain) for other in judged.comparisons
    ]
    if isinstance(judged.champion, ChampionBeside):
        beside = judged.champion
        comparisons.append(ComparisonModel("champion", beside.note, beside.evaluation, beside.gain, model=beside.model))
    return tuple(comparisons)


def _decision_curves(judged: Judged) -> dict[str, Any]:
    """The curve of these cases, and for the stated prevalence; or why there is none."""
    cases = judged.predictions.labelled()
    found: dict[str, Any] = {}
    for name, prevalence in (("here", None), ("restated", judged.prevalence)):
        if name == "here" or prevalence is not None:
            try:
                curve = decision_curve(
                    cases.labels, cases.probabilities, patients=cases.patients, prevalence=prevalence
                )
                found[name] = curve.to_json()
            except UndefinedMetricError as error:
                found[name] = str(error)
    return found


def _restated(evaluation: Evaluation, stated: float | None) -> tuple[Restated, ...]:
    """At the usual prevalences, and at the stated one first."""
    prevalences = [*([] if stated is None else [stated]), *(each for each in _PREVALENCES if each != stated)]
    try:
        return tuple(
            restate_prevalence(evaluation["sensitivity"], evaluation["specificity"], prevalence=prevalence)
            for prevalence in prevalences
        )
    except UndefinedMetricError:
        return ()


def preprocessing_facts(description: ModelDescription) -> dict[str, str]:
    """How scans become inputs, for the report."""
    preprocessing = description.preprocessing
    intensity = preprocessing.intensity
    window = f" {intensity.lower:g} to {intensity.upper:g}" if intensity.lower is not None else ""
    return {
        "input": description.input_contract,
        "intensity": f"{intensity.scaling}{window}",
        "network": f"{description.network.name}, {description.dimensions}D",
        "preprocessing digest": description.digests.preprocessing[:16],
    }


def provenance_facts(description: ModelDescription) -> dict[str, str]:
    """Where the model comes from, for the report."""
    known = description.provenance
    names = ("created_at", "git_commit", "mlflow_run_id", "manifest_sha256", "dataset_sha256", "split_sha256", "seed")
    facts = {name.replace("_", " "): str(known[name]) for name in names if known.get(name) is not None}
    return {
        "model digest": description.digests.model,
        **facts,
        "prevalence at calibration": f"{description.prevalence_at_calibration:.3f}",
    }
