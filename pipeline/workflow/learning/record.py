"""Record a training in the tracking store, for a reviewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.config.detection import DetectionConfig
from pipeline.config.experiment import Config
from pipeline.evaluation.results import Evaluation
from pipeline.scoring.model_description import ModelDescription
from pipeline.scoring.rows import schema
from pipeline.tracking.registry import RegisteredVersion, log_model, package_versions, register
from pipeline.tracking.runs import TrackedRun
from pipeline.tracking.store import experiment_id
from pipeline.tracking.views import HEADLINE, PREFIX, prepare_experiment
from pipeline.workflow.judging.comparison import ChampionBeside
from pipeline.workflow.judging.labelled_cases import example_record
from pipeline.workflow.learning.provenance import git_commit, public_config
from pipeline.workflow.reporting.training_summary import note

if TYPE_CHECKING:
    from pipeline.workflow.learning.finish import Trained


def record_start(run: TrackedRun, config: Config | DetectionConfig) -> None:
    """Record what is known before the first scan is read."""
    run.params(public_config(config))
    run.text("".join(f"{name}=={version}\n" for name, version in package_versions().items()), "environment.txt")
    commit = git_commit()
    if commit:
        run.tags({"mlflow.source.git.commit": commit, "git_commit": commit})


def record_model(run: TrackedRun, trained: Trained) -> RegisteredVersion | None:
    """Record results, data and model; register it when the configuration names one and a calibrator was fitted."""
    run.metrics(final_metrics(trained))
    prepare_experiment(run.store, experiment_id(run.store, trained.config.tracking), kind="training")
    run.dataset(
        _dataset_table(trained),
        name=trained.config.name,
        digest=trained.dataset_digest,
        source=trained.experiment.manifest.path.name,
        context="training",
    )
    run.tags(
        {
            "dataset_sha256": trained.dataset_digest,
            "split_sha256": trained.experiment.splits.digest,
            "mlflow.note.content": note(trained),
        }
    )
    for name in ("report.html", "predictions.parquet", "evaluation.json", "splits.csv", "figures"):
        run.artifact(trained.folder / name, "figures" if name == "figures" else None)
    run.text(trained.description.model_dump_json(indent=1), "model.json")
    example = example_record(trained.description)
    log_model(run, trained.folder / "model", input_example=example, columns=row_columns(trained.description))
    registered = trained.config.tracking.registered_model
    if registered is None or not trained.judgement.is_calibrated:
        return None
    tags = version_tags(trained.description, trained.dataset_digest) | {
        "findings": ", ".join(trained.description.findings),
        "calibration_outcome": trained.judgement.evaluation.calibration.verdict,
    }
    return register(run, name=registered, description=note(trained), tags=tags)


def final_metrics(trained: Trained) -> dict[str, float]:
    """The headline metrics, each finding's AUROC, and the best epoch's (mean over folds); evaluation.json has all."""
    judgement, champion = trained.judgement, trained.champion
    metrics = headline(judgement.evaluation)
    if isinstance(champion, ChampionBeside) and champion.gain is not None:
        metrics[f"{PREFIX}auroc_gain_over_champion"] = champion.gain.estimate
    aurocs = judgement.findings.metrics(PREFIX)
    metrics |= {name: value for name, value in aurocs.items() if name.endswith("_auroc")}
    if judgement.fold_aurocs:
        metrics["mean_fold_auroc"] = float(np.mean(judgement.fold_aurocs))
    best = [{"best_epoch": fitted.best_epoch, **fitted.validation} for fitted in trained.fitted]
    return metrics | {name: float(np.mean([metrics_of_best[name] for metrics_of_best in best])) for name in best[0]}


def headline(evaluation: Evaluation, prefix: str = PREFIX) -> dict[str, float]:
    """The metrics of an evaluation that a reviewer needs, named like the UI's columns."""
    metrics = evaluation.metrics(prefix)
    return {prefix + name: metrics[prefix + name] for name in HEADLINE if prefix + name in metrics}


def row_columns(description: ModelDescription) -> tuple[str, ...]:
    """Columns of the rows that a model gives."""
    members, findings = len(description.members), description.findings
    several = findings if len(findings) > 1 else ()
    return tuple(schema(members if members > 1 else 0, several).names)


def _dataset_table(trained: Trained) -> pd.DataFrame:
    rows = [
        (prepared.case.case_id, prepared.case.label, prepared.split, prepared.input.scan.digest)
        for prepared in trained.cohort.usable
    ]
    return pd.DataFrame(rows, columns=["case_id", "label", "split", "image_sha256"])


def version_tags(description: ModelDescription, dataset_digest: str) -> dict[str, str]:
    """Tags of every registered version: meaning of its probabilities, model and data."""
    return {
        "label_source": description.label.source,
        "intensities": description.label.intensities,
        "input_contract": description.input_contract,
        "model_digest": description.digests.model,
        "dataset_sha256": dataset_digest,
    }
