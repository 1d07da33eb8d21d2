"""``malignancy recalibrate``: a model's calibration intercept and thresholds, refitted on local cases."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.config import Tracking
from pipeline.errors import CalibrationError, UndefinedMetricError, UsageError
from pipeline.evaluation.arrays import FloatArray
from pipeline.evaluation.calibrator import Calibrator
from pipeline.evaluation.clustered import calibration_intercept_interval
from pipeline.evaluation.conformal import ReferZone, fit_refer_zone
from pipeline.evaluation.local_recalibration import fit_intercept_shift, shift_intercept
from pipeline.evaluation.metrics import log_odds
from pipeline.evaluation.operating_points import OperatingPoint, choose_operating_point
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.prevalence import prevalence_shift
from pipeline.jobs.labelled import (
    Scored,
    cases_digest,
    labelled_cases,
    manifest_record,
    patients_by_class,
    predictions_from,
    score_labelled,
    seen_cases,
)
from pipeline.jobs.provenance import git_commit
from pipeline.scoring.drift import PROBABILITY
from pipeline.scoring.golden import add_golden
from pipeline.scoring.model_directory import (
    Member,
    Model,
    ModelDescription,
    PatientHashes,
    hash_patient,
    load_model,
    save_model,
)
from pipeline.scoring.rows import schema
from pipeline.tracking.promotion import Version, find_version
from pipeline.tracking.registry import RegisteredVersion, log_model, model_folder, package_versions, register
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.tracking.store import experiment_of, open_store

_PATIENTS_A_CLASS = 10  # below which an intercept says more about chance than about the place


@dataclass(frozen=True, eq=False)
class Refit:
    """What local cases changed.

    Attributes:
        shift: added to the log odds.
        calibrators: of the members, shifted.
        operating_points: by the rules of the model's own, on the local cases.
        prevalence: that the new probabilities are calibrated at.
        before: calibration in the large before, with its interval, in words.
        refer_zone: refitted where the model has one and the local cases are enough for it.
    """

    shift: float
    calibrators: tuple[Calibrator, ...]
    operating_points: tuple[OperatingPoint, ...]
    prevalence: float
    before: str
    refer_zone: ReferZone | None


def recalibrate(model_name: str, manifest_path: Path, *, prevalence: float | None = None) -> int:
    """Refit on local labelled cases, track, register as ``challenger``; the last line names the new model.

    Returns:
        0, or 1 when cases were rejected.

    Raises:
        UsageError: when a case's patient trained the model, too few patients are left, or a prevalence cannot be meant.
        TableError: when the manifest has a fault.
        ModelError: when there is no such model.
    """
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise UsageError(f"recalibrate: --prevalence {prevalence:g} is not in (0, 1); give a share, as 0.05")
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    config = Tracking()
    model = load_model(model_folder(model_name, config))
    scored = _score_unseen(model, manifest)
    usable = [each for each in scored if each.usable]
    _require_enough(usable, manifest)
    refit = refit_model(model, predictions_from(usable, ()), prevalence=prevalence)
    origin = find_version(open_store(config), model_name) if model_name.startswith("models:/") else None
    parent_run = origin.run_id if origin else str(model.description.provenance.get("mlflow_run_id"))
    experiment = experiment_of(open_store(config), parent_run, otherwise=config.experiment)
    tags = {"kind": "recalibration", "recalibrated_from": model_name, "training_run": parent_run}
    title = f"recalibration of {model.description.name} on {manifest_path.name}"
    with open_run(config.model_copy(update={"experiment": experiment}), name=title, tags=tags) as run:
        version = _record(run, model, refit, usable, manifest, origin)
    print(_text(model, refit, scored))
    print(f"model: {version.uri if version else f'runs:/{run.run_id}/model'}")
    return int(len(usable) < len(scored))


def _score_unseen(model: Model, manifest: Manifest) -> list[Scored]:
    cases = labelled_cases(manifest)
    trained = seen_cases(model.description, cases, splits=("train", "validation"))
    if trained:
        raise UsageError(
            f"{manifest.path}: {len(trained)} of {len(cases)} labelled cases are of patients that the model was "
            "trained on, where its probabilities are better than anywhere else; leave those patients out"
        )
    scored = score_labelled(model, cases, root=manifest.root)
    for each in scored:
        if not each.usable:
            print(f"rejected {each.case.case_id}: {each.row.code}: {each.row.reason}", file=sys.stderr)
    return scored


def _require_enough(usable: Sequence[Scored], manifest: Manifest) -> None:
    malignant, benign = patients_by_class([each.case for each in usable])
    if min(malignant, benign) < _PATIENTS_A_CLASS:
        raise UsageError(
            f"{manifest.path}: {malignant} patients with malignant and {benign} with benign cases can be scored; "
            f"expected at least {_PATIENTS_A_CLASS} of each to refit an intercept; give more cases"
        )


def refit_model(model: Model, local: Predictions, *, prevalence: float | None = None) -> Refit:
    """Fit the shift and the thresholds on local predictions; nothing is judged here.

    Args:
        model: whose calibrators are shifted.
        local: its labelled predictions.
        prevalence: share of malignant cases to calibrate for; that of the local cases by default.

    Raises:
        UsageError: for an ensemble with an isotonic member, whose probability no shift of its members moves exactly.
        CalibrationError: when no shift fits.
    """
    old = [member.calibrator for member in model.members]
    if len(old) > 1 and any(calibrator.method == "isotonic" for calibrator in old):
        raise UsageError(
            "recalibrate: an ensemble with isotonic members cannot be shifted; train with temperature or platt"
        )
    # Of an ensemble, the mean of calibrated logits is what moves: the log odds of its probability.
    single = old[0] if len(old) == 1 else Calibrator("none")
    logits = local.logits if len(old) == 1 else log_odds(local.probabilities)
    observed = float(local.labels.mean())
    wanted = prevalence if prevalence is not None else observed
    shift = fit_intercept_shift(single, logits, local.labels) + prevalence_shift(calibrated_at=observed, wanted=wanted)
    probabilities = shift_intercept(single, shift).apply(logits)
    points = [OperatingPoint.from_json(dict(each)) for each in model.description.operating_points]
    return Refit(
        shift=shift,
        calibrators=tuple(shift_intercept(calibrator, shift) for calibrator in old),
        operating_points=tuple(
            choose_operating_point(
                local.labels, probabilities, rule=each.rule, target=each.target, cost_ratio=each.cost_ratio
            )
            for each in points
        ),
        prevalence=wanted,
        before=_in_the_large(local),
        refer_zone=_refit_zone(model.refer_zone, local, probabilities),
    )


def _refit_zone(old: ReferZone | None, local: Predictions, probabilities: FloatArray) -> ReferZone | None:
    """The zone of the same coverage on local cases; the old one means nothing once probabilities have moved."""
    if old is None:
        return None
    try:
        return fit_refer_zone(local.labels, probabilities, coverage=old.coverage)
    except CalibrationError as error:
        print(f"the new version refers no case: {error}", file=sys.stderr)
        return None


def _in_the_large(local: Predictions) -> str:
    try:
        return str(calibration_intercept_interval(local.labels, local.probabilities, local.patients))
    except UndefinedMetricError as error:
        return f"undefined: {error}"


def _record(
    run: TrackedRun,
    model: Model,
    refit: Refit,
    usable: Sequence[Scored],
    manifest: Manifest,
    origin: Version | None,
) -> RegisteredVersion | None:
    """Save, log and register the new model."""
    cases = [each.case for each in usable]
    digest = cases_digest(cases)
    run.metrics({"intercept_shift": refit.shift, "calibration_cases": len(cases), "prevalence": refit.prevalence})
    table = pd.DataFrame([(case.case_id, case.label) for case in cases], columns=["case_id", "label"])
    run.dataset(table, name=manifest.path.name, digest=digest, source=str(manifest.path), context="recalibration")
    with tempfile.TemporaryDirectory() as folder:
        description = _save(Path(folder) / "model", model, refit, usable, manifest, run)
        run.text(description.model_dump_json(indent=1), "model.json")
        log_model(run, Path(folder) / "model", input_example=manifest_record(cases[0]), columns=tuple(schema().names))
    note = _text(model, refit, usable)
    run.tags({"mlflow.note.content": note, "dataset_sha256": digest})
    configured = (model.description.provenance.get("config") or {}).get("tracking") or {}
    name = origin.name if origin else configured.get("registered_model")
    if name is None:
        return None
    return register(run, name=name, description=note, tags=_version_tags(description, digest, model))


def _save(
    folder: Path, model: Model, refit: Refit, usable: Sequence[Scored], manifest: Manifest, run: TrackedRun
) -> ModelDescription:
    old = model.description
    local = {hash_patient(old.patients.salt, str(each.case.patient_id)) for each in usable}
    description = save_model(
        folder,
        [
            Member(member.network, calibrator)
            for member, calibrator in zip(model.members, refit.calibrators, strict=True)
        ],
        name=old.name,
        network=old.network,
        preprocessing=old.preprocessing,
        modality=old.modality,
        operating_points=refit.operating_points,
        label=old.label,
        envelope=model.envelope,
        prevalence_at_calibration=refit.prevalence,
        patients=PatientHashes(
            salt=old.patients.salt,
            train=old.patients.train,
            validation=old.patients.validation,
            calibration=tuple(sorted({*old.patients.calibration, *local})),
        ),
        provenance={**old.provenance, "recalibration": _provenance(model, refit, manifest, run)},
        drift_reference={name: each for name, each in old.drift_reference.items() if name != PROBABILITY},
        refer_zone=refit.refer_zone,
    )
    add_golden(folder)
    return description


def _provenance(model: Model, refit: Refit, manifest: Manifest, run: TrackedRun) -> dict[str, Any]:
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_model_digest": model.description.digests.model,
        "from_recalibration": model.description.provenance.get("recalibration"),
        "intercept_shift": refit.shift,
        "manifest_sha256": manifest.digest,
        "git_commit": git_commit(),
        "packages": package_versions(),
        "mlflow_run_id": run.run_id,
    }


def _version_tags(description: ModelDescription, digest: str, model: Model) -> dict[str, str]:
    return {
        "label_source": description.label.source,
        "intensities": description.label.intensities,
        "input_contract": description.input_contract,
        "model_digest": description.digests.model,
        "dataset_sha256": digest,
        "recalibrated_from": model.label,
    }


def _text(model: Model, refit: Refit, scored: Sequence[Scored]) -> str:
    usable = [each.case for each in scored if each.usable]
    malignant, patients = sum(case.label == 1 for case in usable), len({case.patient_id for case in usable})
    lines = [
        f"{model.label}, recalibrated on {len(usable)} local cases of {patients} patients, {malignant} malignant",
        f"calibration in the large before: {refit.before}; 0 is right",
        f"log odds shifted by {refit.shift:+.3f}, for a prevalence of {refit.prevalence:.3f}",
        *(f"operating point: {point.describe()}" for point in refit.operating_points),
        *([refit.refer_zone.describe()] if refit.refer_zone else []),
        "The ranking, and so the AUROC, is as before. Fitted to these cases, so judge it on others. Research use.",
    ]
    return "\n".join(lines)
