"""Record the training of a detector in the tracking store."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.config.detection import DetectionConfig
from pipeline.scoring.finding.detector_directory import LoadedDetector
from pipeline.scoring.finding.finding_frames import finding_columns
from pipeline.tracking.registry import RegisteredVersion, log_model, register
from pipeline.tracking.runs import TrackedRun
from pipeline.workflow.detection.judge_detector import JudgedScans

_ARTIFACTS = ("report.html", "evaluation.json", "candidates.parquet", "splits.csv", "figures")
_ABOUT = "Detector of lesions in whole scans. Research use; not a medical device."


def record_detector(
    run: TrackedRun,
    config: DetectionConfig,
    detector: LoadedDetector,
    judged: JudgedScans,
    folder: Path,
    *,
    registered: bool,
) -> RegisteredVersion | None:
    """Record results, data and the detector; register it when the configuration names a model.

    Args:
        run: of the training.
        config: of the training.
        detector: as saved in ``folder / "model"``.
        judged: on the test split.
        folder: of the run.
        registered: whether it may be registered; not where its probabilities could not be calibrated.
    """
    description = detector.description
    run.metrics(judged.evaluation.metrics())
    table = pd.read_csv(folder / "splits.csv", dtype=str)
    dataset = str(description.provenance["dataset_sha256"])
    run.dataset(table, name=config.name, digest=dataset, source=config.data.scans.name, context="training")
    note = detector_note(config, judged)
    run.tags({"dataset_sha256": dataset, "mlflow.note.content": note})
    for artifact in _ARTIFACTS:
        run.artifact(folder / artifact, "figures" if artifact == "figures" else None)
    run.text(description.model_dump_json(indent=1), "model.json")
    log_model(
        run,
        folder / "model",
        input_example={"case_id": "scan", "image": "scan.nii.gz"},
        columns=finding_columns(description.classes),
    )
    name = config.tracking.registered_model
    if name is None or not registered:
        return None
    tags = {
        "label_source": description.lesions.source,
        "intensities": description.lesions.intensities,
        "input_contract": description.input_contract,
        "model_digest": description.digests.model,
        "dataset_sha256": dataset,
    }
    return register(run, name=name, description=note, tags=tags, about=_ABOUT)


def detector_note(config: DetectionConfig, judged: JudgedScans) -> str:
    """Markdown for the run's page."""
    evaluation = judged.evaluation
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    rows = [
        f"**{config.name}{simulated}**, detector of lesions in whole scans. Research use; not a medical device.",
        "",
        f"Test split: {evaluation.counts}. Lesions: {config.data.label_source}.",
        "",
        "| | with 95 % interval by patient |",
        "|---|---|",
        *(f"| {name} | {interval} |" for name, interval in evaluation.intervals.items()),
    ]
    return "\n".join(rows)
