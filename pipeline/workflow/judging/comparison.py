"""Compare two models on the same cases of patients that neither has seen, for the gate and for every report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cases.case import Case
from pipeline.config.experiment import Tracking
from pipeline.errors import ModelError, PipelineError, UndefinedMetricError
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.prevalence import adjust_prevalence
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.gate import conditions
from pipeline.evaluation.gate.records import Contender, Standing
from pipeline.evaluation.intervals.interval import Interval
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.results import Evaluation
from pipeline.scoring.model_description import ModelDescription
from pipeline.scoring.model_directory import Model, load_model
from pipeline.tracking import promotion
from pipeline.tracking.registry import CHAMPION, RegisteredVersion, model_folder
from pipeline.tracking.store import open_store
from pipeline.workflow.judging.labelled_cases import Scored, predictions_from, score_labelled, seen_cases, seen_images


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """A registered version with its model directory loaded."""

    version: RegisteredVersion
    model: Model

    def standing(self) -> Standing:
        """Facts about it for the gate."""
        return standing_of(self.model.description, str(self.version))


def standing_of(description: ModelDescription, name: str) -> Standing:
    """Facts that decide whether two models answer the same question."""
    return Standing(
        name=name,
        label_source=description.label.source,
        intensities=description.label.intensities,
        input_contract=description.input_contract,
        has_envelope=description.envelope is not None,
    )


def load_version(version: RegisteredVersion, config: Tracking) -> LoadedVersion:
    """Fetch a version's model directory and load it.

    Raises:
        ModelError: when it cannot be fetched or used.
    """
    return LoadedVersion(version, load_model(model_folder(version.uri, config)))


def contender(
    scored: Sequence[Scored], columns: Sequence[str], model: Model, *, prevalence: float | None = None
) -> Contender:
    """A model's answers on cases that it scored, judged at its own operating point.

    Args:
        scored: labelled cases, of both classes where there is a prevalence.
        columns: subgroup columns.
        model: that scored them.
        prevalence: share of malignant cases for which the model is calibrated; None where it is that of these cases.
    """
    predictions, point = predictions_from(scored, columns), model.operating_point
    restated = None
    if prevalence is not None:
        # The offset of the log odds is exact if benign and malignant cases look as they do where the model is used.
        share = float(predictions.labels.mean())
        probabilities = adjust_prevalence(predictions.probabilities, calibrated_at=prevalence, wanted=share)
        restated = evaluate(
            Predictions.from_frame(predictions.frame.assign(probability=probabilities)), operating_point=point
        )
    return Contender(predictions, evaluate(predictions, operating_point=point), model.refer_zone, restated)


@dataclass(frozen=True, eq=False)
class ChampionBeside:
    """The champion on the cases that a model is judged on, for its report.

    Attributes:
        champion: name and version.
        note: which cases both were judged on.
        evaluation: the champion's.
        model: the judged model's, on the same cases; None where these are all that it was judged on.
        gain: the model's AUROC less the champion's, paired, by patient; None where too few patients define it.
    """

    champion: str
    note: str
    evaluation: Evaluation
    model: Evaluation | None
    gain: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "champion": self.champion,
            "note": self.note,
            "evaluation": self.evaluation.to_json(),
            "model": None if self.model is None else self.model.to_json(),
            "gain": None if self.gain is None else self.gain.to_json(),
        }


def champion_beside(
    description: ModelDescription,
    judged: Predictions,
    cases: Sequence[Case],
    point: OperatingPoint,
    *,
    root: Path,
    registered: str | None,
    tracking: Tracking,
) -> ChampionBeside | str:
    """Score judged cases with the champion too, or say in a line why that cannot be.

    Cases of patients in the champion's training, validation or calibration data are left out, as the gate does.

    Args:
        description: of the judged model.
        judged: its predictions of ``cases``, in their order; later rows are of other cases.
        cases: labelled, and scored by the judged model.
        point: the judged model's operating point.
        root: folder that no image may leave.
        registered: name of the registered model; None when there is none.
        tracking: where the registry is.
    """
    champion = _champion_of(registered, description, tracking)
    if isinstance(champion, str):
        return champion
    known = seen_cases(champion.model.description, cases)
    unseen = [(row, case) for row, case in enumerate(cases) if case.case_id not in known]
    scored = score_labelled(champion.model, [case for _, case in unseen], root=root)
    known_images = seen_images(champion.model.description, scored)
    new = [
        (row, answer)
        for (row, _), answer in zip(unseen, scored, strict=True)
        if answer.case.case_id not in known_images
    ]
    shared = [(row, answer) for row, answer in new if answer.usable]
    counts = (
        f"{champion.version}, on {len(shared)} of these {len(cases)} cases: {len(cases) - len(new)} are of patients in "
        f"its training, validation or calibration data, {len(new) - len(shared)} it refuses to score"
    )
    if len({answer.case.label for _, answer in shared}) < 2:
        return f"{counts}; what is left has not both classes"
    predictions = Predictions(judged.frame.iloc[[row for row, _ in shared]].reset_index(drop=True))
    of_model = Contender(predictions, evaluate(predictions, operating_point=point))
    of_champion = contender([answer for _, answer in shared], (), champion.model)
    return ChampionBeside(
        champion=str(champion.version),
        note=counts,
        evaluation=of_champion.evaluation,
        model=of_model.evaluation if len(shared) < len(cases) else None,
        gain=_gain(of_model, of_champion),
    )


def _champion_of(registered: str | None, description: ModelDescription, tracking: Tracking) -> LoadedVersion | str:
    """The champion of a registered model, where it answers the same question as a judged model; else the reason."""
    if registered is None:
        return "no registered model is named"
    try:
        version = promotion.find_version(open_store(tracking), f"models:/{registered}@{CHAMPION}")
    except ModelError:
        return f"{registered} has no champion"
    except PipelineError as error:  # an unreachable store must not stop the report
        return str(error)
    try:
        champion = load_version(version, tracking)
    except PipelineError as error:
        return str(error)
    if champion.model.description.digests.model == description.digests.model:
        return f"this is the champion, {version}"
    for condition in conditions.same_question(standing_of(description, "model"), champion.standing()):
        if not condition.holds:
            return f"{version} answers another question: {condition.name} does not hold"
    return champion


def _gain(model: Contender, champion: Contender) -> Interval | None:
    try:
        return conditions.auroc_gain(model, champion)
    except UndefinedMetricError:
        return None
