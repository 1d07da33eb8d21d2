"""``malignancy train``: from a configuration to a calibrated, judged, tracked, registered model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cases.findings import require_findings, require_findings_in_splits
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.splits import JOINED_SPLITS, Splits, assign_folds, assign_splits
from pipeline.config.experiment import Config
from pipeline.config.file import load_config
from pipeline.config.inputs import SPLITS
from pipeline.files import write_text
from pipeline.tracking.runs import open_run
from pipeline.tracking.system_metrics import system_metrics
from pipeline.training.processes import Processes, join
from pipeline.training.tracker import NullTracker
from pipeline.workflow.cohort import Cohort, prepare_cohort, require_both_classes, resolve_columns
from pipeline.workflow.folds import around_fold, fold_names, learn_folds
from pipeline.workflow.learn import fit_members, learn
from pipeline.workflow.record import record_model, record_start
from pipeline.workflow.run_folder import SUMMARY, RunRecord, find_run, new_folder
from pipeline.workflow.summary import summary_text
from pipeline.workflow.trained import Learnt, finish


def train(
    config_path: Path,
    overrides: Sequence[str] = (),
    *,
    folds: int | None = None,
    resume: str | None = None,
    profile: bool = False,
) -> int:
    """Train as configured and print what came of it; the last line is ``model: <URI>``.

    Args:
        config_path: the experiment.
        overrides: ``section.key=value``.
        folds: train one network a fold, judge every case by the one that never saw its patient, and make one model of
            all of them; None trains one network on the configured splits.
        resume: folder or MLflow id of a run that was killed; it goes on to what it would have been, at most one epoch
            being trained again. None starts a new run.
        profile: print and track where the time of the training goes.

    Returns:
        0, or 1 when cases were rejected or no calibrator could be fitted.
    """
    config = load_config(config_path, overrides)
    manifest = read_manifest(config.data.manifest, config.data.extra_columns)
    manifest.require_usable()
    config = resolve_columns(config, manifest)
    group = join(config.training)
    findings, seed, several = config.data.findings, config.data.split_seed, config.training.members > 1
    require_findings(manifest, findings)
    splits = (
        assign_folds(manifest, folds, seed=seed)
        if folds
        else assign_splits(manifest, config.data.splits, seed=seed, joined=several)
    )
    if not folds:
        require_findings_in_splits(manifest, findings, splits.of)
    if group.rank > 0:
        return _follow(config, manifest, splits, folds, group)
    started = datetime.now(UTC)
    name = _run_name(config, started, folds)
    record = RunRecord(None, name, config.model_dump(mode="json"), folds, manifest.digest)
    if resume:
        folder, record = find_run(resume, config, record)
    else:
        folder = new_folder(config, started)
    with (
        open_run(config.tracking, name=record.name, tags=_tags(config), resume=record.run_id) as run,
        system_metrics(run),
    ):
        replace(record, run_id=run.run_id).write(folder)
        record_start(run, config)
        cohort = _read_cases(config, manifest, splits)
        for parts in [around_fold(cohort, fold, config) for fold in fold_names(cohort)] if folds else [cohort]:
            require_both_classes(parts, manifest, findings, splits=JOINED_SPLITS if several else SPLITS)
        group.from_first(folder)
        if folds:
            fitted, judgement = learn_folds(
                cohort,
                config,
                folder / "checkpoints",
                run,
                name=record.name,
                tags=_tags(config),
                profile=profile,
            )
        else:
            fitted, judgement = learn(cohort, config, folder / "checkpoints", run, profile=profile)
        trained = finish(Learnt(folder, config, manifest, splits, cohort, fitted, judgement), run)
        version = record_model(run, trained)
    text = summary_text(trained, version)
    write_text(folder / SUMMARY, text + "\n")
    print(text)
    print(f"model: {version.uri if version else f'runs:/{run.run_id}/model'}")
    return int(bool(cohort.rejected) or not trained.judgement.is_calibrated)


def _follow(config: Config, manifest: Manifest, splits: Splits, folds: int | None, group: Processes) -> int:
    """What the other processes of a training do: the steps, and nothing that anyone sees."""
    folder = group.from_first(Path()) / "checkpoints"  # comes when the first process has read, and cached, every scan
    cohort = prepare_cohort(manifest, splits.of, config)
    parts = {fold: around_fold(cohort, fold, config) for fold in fold_names(cohort)} if folds else {"": cohort}
    for fold, part in parts.items():
        fit_members(part, config, folder / fold, NullTracker())
    return 0


def _read_cases(config: Config, manifest: Manifest, splits: Splits) -> Cohort:
    cohort = prepare_cohort(manifest, splits.of, config)
    for case, error in cohort.rejected:
        print(f"rejected {case.case_id}: {error.code}: {error.reason}", file=sys.stderr)
    return cohort


def _run_name(config: Config, started: datetime, folds: int | None) -> str:
    simulated = " (simulated intensities)" if config.data.intensities == "simulated" else ""
    of_folds = f", {folds} folds" if folds else ""
    return f"{config.name} {started:%Y-%m-%d %H:%M}{of_folds}{simulated}"


def _tags(config: Config) -> dict[str, str]:
    return {
        "label_source": config.data.label_source,
        "intensities": config.data.intensities,
        "modality": config.data.modality,
        "network": config.network.name,
        "calibration": config.calibration.method,
        "kind": "training",
    }
