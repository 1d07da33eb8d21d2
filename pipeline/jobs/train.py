"""``malignancy train``: from a configuration to a calibrated, judged, tracked, registered model."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.splits import Splits, assign_splits
from pipeline.config import Config
from pipeline.config_file import load_config
from pipeline.evaluation.report import Picture
from pipeline.files import atomic_write, write_text
from pipeline.imaging.envelope import Envelope, fit_envelope
from pipeline.jobs.candidates import ChampionBeside, champion_beside
from pipeline.jobs.cohort import (
    Cohort,
    auxiliary_targets,
    prepare_cohort,
    require_both_classes,
    resolve_columns,
    soft_targets,
)
from pipeline.jobs.judge import Judgement, judge
from pipeline.jobs.mistakes import mistake_pictures
from pipeline.jobs.provenance import provenance
from pipeline.jobs.record import record_model, record_start
from pipeline.jobs.reporting import Judged, preprocessing_facts, provenance_facts, write_evaluation
from pipeline.jobs.summary import summary_text
from pipeline.models.networks import predict_logits
from pipeline.scoring.drift import PROBABILITY, Reference, fit_references, references_to_json
from pipeline.scoring.golden import add_golden
from pipeline.scoring.model_directory import (
    LabelMeaning,
    Member,
    ModelDescription,
    PatientHashes,
    save_model,
)
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.training.data import CaseTensors
from pipeline.training.fit import Fitted, fit


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
        folder: of the run: ``model``, ``predictions.parquet``, ``report.html``, ``summary.txt``, checkpoints.
        description: the model directory's.
        judgement: on the test split.
        cohort: what was used and what was not.
        champion: on the same test cases, or why it is not beside the model.
    """

    folder: Path
    config: Config
    splits: Splits
    cohort: Cohort
    fitted: Fitted
    judgement: Judgement
    description: ModelDescription
    dataset_digest: str
    champion: ChampionBeside | str


def train(config_path: Path, overrides: Sequence[str] = ()) -> int:
    """Train as configured and print what came of it; the last line is ``model: <URI>``.

    Returns:
        0, or 1 when cases were rejected.
    """
    config = load_config(config_path, overrides)
    manifest = read_manifest(config.data.manifest)
    manifest.require_usable()
    config = resolve_columns(config, manifest)
    splits = assign_splits(manifest, config.data.splits, seed=config.data.split_seed)
    started = datetime.now(UTC)
    folder = _new_folder(config, started)
    with open_run(config.tracking, name=_run_name(config, started), tags=_tags(config)) as run:
        record_start(run, config)
        trained = run_training(config, manifest, splits, folder, run)
        version = record_model(run, trained, manifest)
    text = summary_text(trained, version)
    write_text(folder / "summary.txt", text)
    print(text)
    print(f"model: {version.uri if version else f'runs:/{run.run_id}/model'}")
    return int(bool(trained.cohort.rejected))


def run_training(config: Config, manifest: Manifest, splits: Splits, folder: Path, run: TrackedRun) -> Trained:
    """Prepare, fit, calibrate, judge and save; everything but the registry."""
    cohort = prepare_cohort(manifest, splits.of, config)
    for case, error in cohort.rejected:
        print(f"rejected {case.case_id}: {error.code}: {error.reason}", file=sys.stderr)
    require_both_classes(cohort, manifest)
    train_cases, validation_cases = (case_tensors(cohort, name, config) for name in ("train", "validation"))
    fitted = fit(
        train_cases, validation_cases, config, folder=folder / "checkpoints", tracker=run, progress=sys.stderr.isatty()
    )
    judgement = judge(cohort.usable, held_out_logits(cohort, fitted, config), config, prior_offset=fitted.prior_offset)
    envelope = fit_envelope([each.input.measures for each in cohort.of("train")], modality=config.data.modality)
    digest = cohort.digest(manifest)
    description = _save(config, manifest, splits, cohort, fitted, judgement, envelope, digest, folder, run)
    champion = _champion_beside(cohort, judgement, description, config, root=manifest.root)
    trained = Trained(folder, config, splits, cohort, fitted, judgement, description, digest, champion)
    write_evaluation(
        _judged(trained, manifest),
        folder,
        all_predictions=judgement.predictions,
        calibration=judgement.predictions.where(split="calibration"),
    )
    _write_splits(trained)
    return trained


def held_out_logits(cohort: Cohort, fitted: Fitted, config: Config) -> np.ndarray:
    """Logits (N,) float64 of all usable cases but the training ones, which stay NaN."""
    logits = np.full(len(cohort.usable), np.nan)
    held_out = [index for index, each in enumerate(cohort.usable) if each.split != "train"]
    images = torch.from_numpy(np.stack([cohort.usable[index].input.voxels for index in held_out]))
    logits[held_out] = predict_logits(fitted.network, images, batch_size=config.training.batch_size).numpy()
    return logits


def _judged(trained: Trained, manifest: Manifest) -> Judged:
    config, description, judgement = trained.config, trained.description, trained.judgement
    simulated = ": simulated intensities" if config.data.intensities == "simulated" else ""
    return Judged(
        title=f"{config.name}{simulated}",
        model=f"{description.name}@{description.digests.model[:12]}",
        calibration=judgement.calibrator.describe(),
        predictions=judgement.predictions.where(split="test"),
        evaluation=judgement.evaluation,
        label=description.label,
        flow=trained.cohort.flow(),
        comparisons=judgement.comparisons,
        champion=trained.champion,
        pictures=_pictures(trained),
        subgroups=config.evaluation.subgroups,
        data={
            "manifest": manifest.path.name,
            "modality": config.data.modality,
            "label": f"1 = malignant; {config.data.label_source}",
            "intensities": config.data.intensities,
            "splits": f"{trained.splits.source}, by patient",
        },
        preprocessing=preprocessing_facts(description),
        provenance=provenance_facts(description),
    )


def _champion_beside(
    cohort: Cohort, judgement: Judgement, description: ModelDescription, config: Config, *, root: Path
) -> ChampionBeside | str:
    if not config.evaluation.champion:
        return "not asked for (evaluation.champion: false)"
    return champion_beside(
        description,
        judgement.predictions.where(split="test"),
        [each.case for each in cohort.of("test")],
        judgement.operating_point,
        root=root,
        registered=config.tracking.registered_model,
        tracking=config.tracking,
    )


def _pictures(trained: Trained) -> tuple[Picture, ...]:
    if not trained.config.evaluation.pictures:
        return ()
    inputs = {each.case.case_id: each.input.voxels for each in trained.cohort.of("test")}
    test = trained.judgement.predictions.where(split="test")
    return mistake_pictures(test, [trained.fitted.network], inputs.get)


def _write_splits(trained: Trained) -> None:
    """``splits.csv``: which usable case was in which split."""
    with (
        atomic_write(trained.folder / "splits.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as handle,
    ):
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(("case_id", "patient_id", "split"))
        rows.writerows((each.case.case_id, each.case.patient_id, each.split) for each in trained.cohort.usable)


def case_tensors(cohort: Cohort, split: str, config: Config) -> CaseTensors:
    """Inputs, hard labels and the targets of the loss of one split's cases."""
    cases = [each.case for each in cohort.of(split)]
    labels = [case.label for case in cases if case.label is not None]
    targets = soft_targets(cases, config.training.soft_labels) if config.training.soft_labels else None
    columns = config.training.auxiliary if split == "train" else None
    auxiliary = auxiliary_targets(cases, columns) if columns else None
    inputs = [each.input.voxels for each in cohort.of(split)]
    ids = [case.case_id for case in cases]
    return CaseTensors.from_arrays(inputs, labels, ids, targets=targets, auxiliary=auxiliary)


def _save(
    config: Config,
    manifest: Manifest,
    splits: Splits,
    cohort: Cohort,
    fitted: Fitted,
    judgement: Judgement,
    envelope: Envelope,
    dataset_digest: str,
    folder: Path,
    run: TrackedRun,
) -> ModelDescription:
    patients = {
        name: [str(each.case.patient_id) for each in cohort.of(name)] for name in ("train", "validation", "calibration")
    }
    description = save_model(
        folder / "model",
        [Member(fitted.network, judgement.calibrator)],
        name=config.name,
        network=config.network,
        preprocessing=config.preprocessing,
        modality=config.data.modality,
        operating_points=[judgement.operating_point],
        label=LabelMeaning(source=config.data.label_source, intensities=config.data.intensities),
        envelope=envelope,
        prevalence_at_calibration=judgement.prevalence_at_calibration,
        patients=PatientHashes.of(run.run_id, patients),
        provenance=provenance(config, manifest, splits, dataset_digest, run.run_id),
        drift_reference=references_to_json(_drift_references(cohort, judgement)),
    )
    add_golden(folder / "model")
    return description


def _drift_references(cohort: Cohort, judgement: Judgement) -> dict[str, Reference]:
    """Measures of the training cases, which the envelope knows too, and probabilities of the calibration cases."""
    measures = [each.input.measures for each in cohort.of("train")]
    names = set.intersection(*(set(case) for case in measures))
    values = {name: [case[name] for case in measures] for name in names}
    calibration = judgement.predictions.where(split="calibration")
    return fit_references(values | {PROBABILITY: calibration.probabilities.tolist()})


def _new_folder(config: Config, started: datetime) -> Path:
    """A folder that no other run has, whatever starts in the same second."""
    config.output.mkdir(parents=True, exist_ok=True)
    name = f"{config.name}-{started:%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = config.output / (name + suffix)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{config.output / name}: a thousand runs of this second; remove some")


def _run_name(config: Config, started: datetime) -> str:
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    return f"{config.name} {started:%Y-%m-%d %H:%M}{simulated}"


def _tags(config: Config) -> dict[str, str]:
    return {
        "label_source": config.data.label_source,
        "intensities": config.data.intensities,
        "modality": config.data.modality,
        "network": config.network.name,
        "calibration": config.calibration.method,
        "kind": "training",
    }
