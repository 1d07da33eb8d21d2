"""Finish a training: save the model and write the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cases.covariates import fit_envelope_of_cases
from pipeline.config.body_parts import usual_body_parts
from pipeline.config.experiment import Config
from pipeline.config.inputs import SPLITS
from pipeline.evaluation.readers.agreement import ReaderColumns
from pipeline.evaluation.refused import RefusedCases
from pipeline.evaluation.report.characteristics import Characteristics, characteristics
from pipeline.evaluation.report.page import ReportPicture
from pipeline.files import write_csv
from pipeline.imaging.envelope import Envelope
from pipeline.scoring.drift import (
    PROBABILITY,
    DriftReference,
    fit_probability_references,
    fit_references,
    references_to_json,
)
from pipeline.scoring.golden import add_golden
from pipeline.scoring.model_description import LabelMeaning, ModelDescription, ModelFacts, PatientHashes
from pipeline.scoring.model_directory import Member, save_model
from pipeline.tracking.runs import TrackedRun
from pipeline.training.fit import Fitted
from pipeline.training.initial_weights import InitialWeights
from pipeline.workflow.cohort import Cohort, Usable, extra_frame
from pipeline.workflow.judging.comparison import ChampionBeside, champion_beside
from pipeline.workflow.judging.judge import Judgement
from pipeline.workflow.learning.experiment import Experiment
from pipeline.workflow.learning.provenance import provenance
from pipeline.workflow.reporting.evaluation_files import described_columns, write_evaluation
from pipeline.workflow.reporting.mistakes import mistake_pictures
from pipeline.workflow.reporting.report_sources import ReportSources, preprocessing_facts, provenance_facts


@dataclass(frozen=True, eq=False)
class Trained:
    """A training whose model is saved and judged, and not tracked yet.

    Attributes:
        folder: of the run: ``model``, ``predictions.parquet``, ``report.html``, ``summary.txt``, checkpoints.
        experiment: configuration, table and splits.
        cohort: usable cases and those left out.
        fitted: the model's networks: one, the configured members, or those of every fold, fold by fold.
        judgement: on the test split, or on every case by the network that never saw its patient.
        description: the model directory's.
        dataset_digest: of the data as used.
        champion: on the same judged cases, or why it is not beside the model.
    """

    folder: Path
    experiment: Experiment
    cohort: Cohort
    fitted: tuple[Fitted, ...]
    judgement: Judgement
    description: ModelDescription
    dataset_digest: str
    champion: ChampionBeside | str

    @property
    def config(self) -> Config:
        """Of the experiment."""
        return self.experiment.config

    @property
    def judged_on(self) -> str:
        """Which cases the judgement is of."""
        folds = len(self.judgement.fold_aurocs)
        return f"out of fold, {folds} folds" if folds else "test split"

    def refused(self) -> RefusedCases:
        """Labelled cases for evaluation that could not be read."""
        return self.cohort.refused(self.experiment.splits.of)


def finish(
    folder: Path,
    experiment: Experiment,
    cohort: Cohort,
    fitted: tuple[Fitted, ...],
    judgement: Judgement,
    *,
    run: TrackedRun,
    weights: InitialWeights | None = None,
) -> Trained:
    """Save the model directory and write the report; everything but the registry."""
    digest = cohort.digest(experiment.manifest)
    origin = provenance(experiment, digest, run.run_id, weights=weights)
    description = _save(folder / "model", experiment.config, cohort, fitted, judgement, provenance=origin)
    trained = Trained(
        folder=folder,
        experiment=experiment,
        cohort=cohort,
        fitted=fitted,
        judgement=judgement,
        description=description,
        dataset_digest=digest,
        champion=_champion_beside(experiment, cohort, judgement, description),
    )
    write_evaluation(
        _report_sources(trained),
        folder,
        all_predictions=judgement.predictions,
        calibration=judgement.of_first("calibration"),
        refer_zone=judgement.refer_zone,
    )
    _write_splits(trained)
    return trained


def _report_sources(trained: Trained) -> ReportSources:
    config, description, judgement = trained.config, trained.description, trained.judgement
    simulated = ": simulated intensities" if config.data.intensities == "simulated" else ""
    return ReportSources(
        title=f"{config.name}{simulated}",
        model=f"{description.name}@{description.digests.model[:12]}",
        calibration=judgement.calibration,
        calibration_notes=judgement.calibration_notes,
        predictions=judgement.of_first("test"),
        evaluation=judgement.evaluation,
        findings=judgement.findings,
        judged_on=trained.judged_on,
        description=description,
        label=description.label,
        flow=trained.cohort.flow(),
        refused=trained.refused(),
        regressions=judgement.comparisons,
        champion=trained.champion,
        pictures=_pictures(trained),
        histories=[network.history for network in trained.fitted],
        subgroups=config.evaluation.subgroups,
        prevalence=config.evaluation.prevalence,
        characteristics=_characteristics(trained),
        readers=ReaderColumns(config.evaluation.readers, config.evaluation.rating_middle)
        if config.evaluation.readers
        else None,
        data={
            "manifest": trained.experiment.manifest.path.name,
            "modality": config.data.modality,
            "label": f"1 = malignant; {config.data.label_source}",
            "intensities": config.data.intensities,
            "splits": f"{trained.experiment.splits.source}, by patient",
        },
        preprocessing=preprocessing_facts(description),
        provenance=provenance_facts(description),
    )


def _characteristics(trained: Trained) -> Characteristics:
    """Labelled cases of each split; with folds every case judges and trains, so there is one group."""
    usable, config = trained.cohort.usable, trained.config
    wanted = described_columns(config.evaluation.subgroups, list(config.data.covariates))
    columns = [name for name in wanted if name in trained.experiment.manifest.columns]
    table = extra_frame([prepared.case for prepared in usable], columns)
    folds = bool(trained.judgement.fold_aurocs)
    table["patient_id"] = [str(prepared.case.patient_id) for prepared in usable]
    table["label"] = [prepared.case.label for prepared in usable]
    table["split"] = ["all folds" if folds else prepared.split for prepared in usable]
    order = sorted(range(len(usable)), key=lambda row: [*SPLITS, "all folds"].index(table["split"][row]))
    return characteristics(table.iloc[order], columns)


def _champion_beside(
    experiment: Experiment, cohort: Cohort, judgement: Judgement, description: ModelDescription
) -> ChampionBeside | str:
    config = experiment.config
    if not config.evaluation.champion:
        return "not asked for (evaluation.champion: false)"
    test = judgement.of_first("test")
    cases = {prepared.case.case_id: prepared.case for prepared in cohort.usable}
    return champion_beside(
        description,
        test,
        [cases[case_id] for case_id in test.case_ids],
        judgement.operating_point,
        root=experiment.manifest.root,
        registered=config.tracking.registered_model,
        tracking=config.tracking,
    )


def _pictures(trained: Trained) -> tuple[ReportPicture, ...]:
    if not trained.config.evaluation.pictures:
        return ()
    inputs = {prepared.case.case_id: prepared.input.voxels for prepared in trained.cohort.usable}
    test = trained.judgement.of_first("test")
    # Out of fold, only the networks of the case's fold are shown; the others were trained on the case.
    folds = dict(zip(test.case_ids, test.frame["fold"].fillna(0).astype(int), strict=True))
    networks, members = [member.network for member in trained.fitted], trained.config.training.member_count
    of_fold = [networks[first : first + members] for first in range(0, len(networks), members)]
    spacing = trained.config.preprocessing.spacing_mm
    return mistake_pictures(test, lambda case_id: of_fold[folds[case_id]], inputs.get, spacing_mm=spacing)


def _write_splits(trained: Trained) -> None:
    """``splits.csv``: which usable case was in which split."""
    cases = (*trained.cohort.usable, *trained.cohort.training_alone())
    rows = [(prepared.case.case_id, prepared.case.patient_id, prepared.split) for prepared in cases]
    write_csv(trained.folder / "splits.csv", ("case_id", "patient_id", "split"), rows)


def _save(
    folder: Path,
    config: Config,
    cohort: Cohort,
    fitted: Sequence[Fitted],
    judgement: Judgement,
    *,
    provenance: Mapping[str, Any],
) -> ModelDescription:
    fitted_on = {
        "train": cohort.training(),
        "validation": cohort.of("validation"),
        "calibration": cohort.of("calibration"),
    }
    if judgement.fold_aurocs:  # each case trained the networks of all folds but one
        fitted_on = {"train": [*cohort.usable, *cohort.partly], "validation": [], "calibration": []}
    patients = {name: [str(prepared.case.patient_id) for prepared in cases] for name, cases in fitted_on.items()}
    measures = [prepared.input.measures for prepared in fitted_on["train"]]
    description = save_model(
        folder,
        [
            Member(network.network, tuple(fit.calibrator for fit in judgement.calibrations), judgement.covariates)
            for network in fitted
        ],
        ModelFacts(
            name=config.name,
            network=config.network.architecture,
            preprocessing=config.preprocessing,
            modality=config.data.modality,
            findings=config.data.findings,
            operating_points=tuple(point.to_json() for point in judgement.operating_points.values()),
            label=LabelMeaning(source=config.data.label_source, intensities=config.data.intensities),
            envelope=_envelope(config, fitted_on["train"]).to_json(),
            prevalence_at_calibration=judgement.prevalence_at_calibration,
            patients=PatientHashes.of(
                provenance["mlflow_run_id"],
                patients,
                case_ids=[prepared.case.case_id for cases in fitted_on.values() for prepared in cases],
                images=[prepared.input.scan.digest for cases in fitted_on.values() for prepared in cases],
            ),
            provenance={**provenance, "calibration": judgement.calibration_to_json()},
            drift_reference=references_to_json(_drift_references(measures, patients["train"], cohort, judgement)),
            refer_zone=None if judgement.refer_zone is None else judgement.refer_zone.to_json(),
        ),
    )
    add_golden(folder)
    return description


def _envelope(config: Config, training: Sequence[Usable]) -> Envelope:
    """Envelope of the training cases; their body part is the configuration's, else that of their headers."""
    envelope = fit_envelope_of_cases(
        [case.input.measures for case in training], modality=config.data.modality, scales=config.data.covariates
    )
    named = (config.data.body_part,) if config.data.body_part else (case.input.scan.body_part for case in training)
    body_parts = usual_body_parts(named)
    refuses = bool(body_parts) and config.data.other_body_parts == "refuse"
    return replace(envelope, body_parts=body_parts, refuses_other_body_parts=refuses)


def _drift_references(
    measures: Sequence[Mapping[str, float]], patients: Sequence[str], cohort: Cohort, judgement: Judgement
) -> dict[str, DriftReference]:
    """Measures of the training cases, which the envelope knows too, and probabilities of the calibration cases."""
    names = set.intersection(*(set(case) for case in measures))
    references = fit_references({name: [case[name] for case in measures] for name in names}, patients)
    of_case = {prepared.case.case_id: prepared.input.measures for prepared in cohort.usable}
    calibration = judgement.predictions.where(split="calibration")
    for name in judgement.operating_points:
        column = PROBABILITY if name == judgement.first_finding else f"{PROBABILITY}_{name}"
        cases = calibration.where(finding=name)
        references |= fit_probability_references(
            column,
            cases.probabilities.tolist(),
            [of_case[case_id] for case_id in cases.case_ids],
            cases.patients.tolist(),
        )
    return references
