"""``malignancy recalibrate``: refit a model's calibration intercept and thresholds on local cases."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cases.findings import class_names, require_findings
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.plan import CaseCount
from pipeline.config.experiment import Tracking
from pipeline.console import one_line
from pipeline.errors import UsageError
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.evaluation.metrics import log_odds
from pipeline.scoring.drift import GIVEN_MEASURES, PROBABILITY, fit_probability_references, references_to_json
from pipeline.scoring.golden import add_golden
from pipeline.scoring.model_description import LabelMeaning, ModelDescription, ModelFacts, PatientHashes
from pipeline.scoring.model_directory import Member, Model, load_model, save_model
from pipeline.scoring.rows import ScoreRow
from pipeline.tracking.promotion import find_version
from pipeline.tracking.registry import RegisteredVersion, log_model, model_folder, package_versions, register
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.tracking.store import experiment_of, open_store
from pipeline.workflow.judging.labelled_cases import (
    Scored,
    cases_digest,
    doubted_patients,
    example_record,
    known_images_text,
    predictions_from,
    score_labelled,
    seen_cases,
    seen_images,
)
from pipeline.workflow.judging.refit import PATIENTS_A_CLASS, Refit, refit_findings
from pipeline.workflow.judging.table_truth import truth_differences
from pipeline.workflow.learning.experiment import labelled_cases
from pipeline.workflow.learning.provenance import git_commit, public_values
from pipeline.workflow.learning.record import row_columns, version_tags


@dataclass(frozen=True, eq=False)
class RecalibrationResult:
    """A recalibrated model.

    Attributes:
        model_uri: MLflow URI of the new model: a registered version, or the run's.
        version: in the registry; None when the model has no registered name.
        refits: by finding, its calibrators, operating point and what changed.
        rejected: score rows of the cases that got no probability.
        summary: what the command prints.
    """

    model_uri: str
    version: RegisteredVersion | None
    refits: Mapping[str, Refit]
    rejected: tuple[ScoreRow, ...]
    summary: str


def recalibrate(model_name: str, manifest_path: Path, *, prevalence: float | None = None) -> RecalibrationResult:
    """Refit on local labelled cases, track, and register as ``challenger``.

    Raises:
        UsageError: when a case's patient trained the model, too few patients are left, or a prevalence is out of range.
        TableError: when the manifest has a fault.
        ModelError: when there is no such model.
    """
    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise UsageError(f"recalibrate: --prevalence {prevalence:g} is not in (0, 1); give a share, as 0.05")
    manifest = read_manifest(manifest_path)
    manifest.require_usable()
    config = Tracking()
    model = load_model(model_folder(model_name, config))
    label = model.description.label
    differences = truth_differences(manifest.facts, label_source=label.source, intensities=label.intensities)
    if differences.intensities:
        raise UsageError(
            f"{manifest.path}: {differences.intensities}; probabilities fitted to the one are not those of the other: "
            "give cases like the model's"
        )
    first, *others = model.findings
    require_findings(manifest, (first, *(name for name in others if name in manifest.columns)))
    scored = _score_unseen(model, manifest)
    usable = [answer for answer in scored if answer.usable]
    _require_enough(usable, manifest)
    refits = refit_findings(model, predictions_from(usable, (), model.findings), prevalence=prevalence)
    origin = find_version(open_store(config), model_name) if model_name.startswith("models:/") else None
    parent_run = origin.run_id if origin else str(model.description.provenance.get("mlflow_run_id"))
    experiment = experiment_of(open_store(config), parent_run, otherwise=config.experiment)
    tags = {"kind": "recalibration", "recalibrated_from": model_name, "training_run": parent_run}
    title = f"recalibration of {model.description.name} on {manifest_path.name}"
    with open_run(config.model_copy(update={"experiment": experiment}), name=title, tags=tags) as run:
        version = _record(run, model, refits, usable, manifest, origin)
    lines = [_text(model, refits, scored), *differences.lines, *([version.describe()] if version else [])]
    return RecalibrationResult(
        model_uri=version.uri if version else f"runs:/{run.run_id}/model",
        version=version,
        refits=refits,
        rejected=tuple(case.row for case in scored if not case.usable),
        summary="\n".join(lines),
    )


def _score_unseen(model: Model, manifest: Manifest) -> list[Scored]:
    cases = labelled_cases(manifest)
    trained = seen_cases(model.description, cases, splits=("train", "validation"))
    if trained:
        raise UsageError(
            f"{manifest.path}: {len(trained)} of {len(cases)} labelled cases are of patients that the model was "
            "trained on, where its probabilities are better than anywhere else; leave those patients out"
        )
    scored = score_labelled(model, cases, root=manifest.root)
    known = known_images_text(seen_images(model.description, scored))
    doubt = known or doubted_patients(model.description, cases)
    if doubt:
        raise UsageError(f"{manifest.path}: {doubt}")
    for answer in scored:
        if not answer.usable:
            print(one_line(f"rejected {answer.case.case_id}: {answer.row.code}: {answer.row.reason}"), file=sys.stderr)
    return scored


def _require_enough(usable: Sequence[Scored], manifest: Manifest) -> None:
    count = CaseCount.of([scored.case for scored in usable])
    if count.rarer_patients < PATIENTS_A_CLASS:
        raise UsageError(
            f"{manifest.path}: {count.malignant_patients} patients with malignant and {count.benign_patients} with "
            f"benign cases can be scored; expected at least {PATIENTS_A_CLASS} of each to refit an intercept; give "
            "more cases"
        )


def _record(
    run: TrackedRun,
    model: Model,
    refits: Mapping[str, Refit],
    usable: Sequence[Scored],
    manifest: Manifest,
    origin: RegisteredVersion | None,
) -> RegisteredVersion | None:
    """Save, log and register the new model."""
    cases = [answer.case for answer in usable]
    digest = cases_digest(cases)
    first = refits[model.findings[0]]
    run.metrics({"intercept_shift": first.shift, "calibration_cases": len(cases), "prevalence": first.prevalence})
    run.metrics({f"intercept_shift_{name}": refit.shift for name, refit in refits.items() if refit is not first})
    table = pd.DataFrame([(case.case_id, case.label) for case in cases], columns=["case_id", "label"])
    run.dataset(table, name=manifest.path.name, digest=digest, source=manifest.path.name, context="recalibration")
    with tempfile.TemporaryDirectory() as folder:
        description = _save(Path(folder) / "model", model, refits, usable, manifest, run)
        run.text(description.model_dump_json(indent=1), "model.json")
        log_model(
            run,
            Path(folder) / "model",
            input_example=example_record(description),
            columns=row_columns(description),
        )
    note = _text(model, refits, usable)
    run.tags({"mlflow.note.content": note, "dataset_sha256": digest})
    configured = (model.description.provenance.get("config") or {}).get("tracking") or {}
    name = origin.name if origin else configured.get("registered_model")
    if name is None:
        return None
    tags = version_tags(description, digest) | {"recalibrated_from": model.label}
    return register(run, name=name, description=note, tags=tags)


def _save(
    folder: Path,
    model: Model,
    refits: Mapping[str, Refit],
    usable: Sequence[Scored],
    manifest: Manifest,
    run: TrackedRun,
) -> ModelDescription:
    old, first = model.description, refits[model.findings[0]]
    description = save_model(
        folder,
        [
            Member(
                member.network,
                tuple(
                    refits[name].calibrators[number] if name in refits else calibrator
                    for name, calibrator in zip(model.findings, member.calibrators, strict=True)
                ),
                member.covariates,
            )
            for number, member in enumerate(model.members)
        ],
        ModelFacts(
            name=old.name,
            network=old.network,
            preprocessing=old.preprocessing,
            modality=old.modality,
            findings=model.findings,
            operating_points=tuple(
                (refits[name].operating_point if name in refits else point).to_json()
                for name, point in zip(model.findings, model.operating_points, strict=True)
            ),
            label=_label(old, manifest),
            envelope=old.envelope,
            prevalence_at_calibration=first.prevalence,
            patients=old.patients.joined(
                PatientHashes.of(
                    old.patients.salt,
                    {"train": (), "validation": (), "calibration": [str(answer.case.patient_id) for answer in usable]},
                    case_ids=[answer.case.case_id for answer in usable],
                    images=[str(answer.row.image_sha256) for answer in usable],
                )
            ),
            provenance={**public_values(old.provenance), "recalibration": _provenance(model, refits, manifest, run)},
            drift_reference=_drift_reference(old, refits, usable),
            refer_zone=None if first.refer_zone is None else first.refer_zone.to_json(),
        ),
    )
    add_golden(folder)
    return description


def _drift_reference(old: ModelDescription, refits: Mapping[str, Refit], usable: Sequence[Scored]) -> dict[str, Any]:
    """The old references of measures, with new ones of refitted probabilities on the local cases.

    A refit adds its shift to every case's log odds, so a case's new probability follows from its row.
    """
    references = dict(old.drift_reference)
    for place, name in enumerate(old.findings):
        if name not in refits:
            continue
        column = PROBABILITY if place == 0 else f"{PROBABILITY}_{name}"
        for stored in (column, column + GIVEN_MEASURES):
            references.pop(stored, None)
        scores = [answer.row.findings[place] if answer.row.findings else answer.row for answer in usable]
        before = np.array([score.probability for score in scores], dtype=np.float64)
        fitted = fit_probability_references(
            column,
            sigmoid(log_odds(before) + refits[name].shift).tolist(),
            [answer.row.measures for answer in usable],
            [str(answer.case.patient_id) for answer in usable],
        )
        references |= references_to_json(fitted)
    return references


def _label(old: ModelDescription, manifest: Manifest) -> LabelMeaning:
    """The label's source, and that of the cases that the new version is calibrated to where it is another."""
    differences = truth_differences(manifest.facts, label_source=old.label.source, intensities=old.label.intensities)
    if differences.labels is None:
        return old.label
    local = ", ".join(manifest.facts.label_sources)
    return old.label.model_copy(update={"source": f"{old.label.source}; calibrated to: {local}"})


def _provenance(model: Model, refits: Mapping[str, Refit], manifest: Manifest, run: TrackedRun) -> dict[str, Any]:
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_model_digest": model.description.digests.model,
        "from_recalibration": model.description.provenance.get("recalibration"),
        "intercept_shift": refits[model.findings[0]].shift,
        "intercept_shift_by_finding": {name: refit.shift for name, refit in refits.items()},
        "manifest_sha256": manifest.digest,
        "git_commit": git_commit(),
        "packages": package_versions(),
        "mlflow_run_id": run.run_id,
    }


def _text(model: Model, refits: Mapping[str, Refit], scored: Sequence[Scored]) -> str:
    usable = [answer.case for answer in scored if answer.usable]
    malignant, patients = sum(case.label == 1 for case in usable), len({case.patient_id for case in usable})
    lines = [f"{model.label}, recalibrated on {len(usable)} local cases of {patients} patients, {malignant} malignant"]
    for name in model.findings:
        which = f"{name}: " if len(model.findings) > 1 else ""
        if name not in refits:
            lines.append(f"{which}left as it was; expected {PATIENTS_A_CLASS} patients of each class with that finding")
            continue
        refit, (positive, negative) = refits[name], class_names(name)
        lines += [
            f"{which}calibration in the large before: {refit.before}; 0 is right",
            f"{which}log odds shifted by {refit.shift:+.3f}, for a prevalence of {refit.prevalence:.3f}",
            f"{which}operating point: {refit.operating_point.describe(positive=positive, negative=negative)}",
        ]
    if (zone := refits[model.findings[0]].refer_zone) is not None:
        lines.append(zone.describe())
    lines.append(
        "The ranking, and so the AUROC, is as before. Fitted to these cases, so judge it on others. Research use."
    )
    return "\n".join(lines)
