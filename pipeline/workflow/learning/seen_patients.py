"""Check that a training is not calibrated or evaluated on patients that its initial weights were learnt from.

Weights of this program name their patients as salted hashes: a model directory in the ``model.json`` beside them, a
pretraining in the file itself. Of other files the patients are unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from pipeline.errors import ModelError, UsageError
from pipeline.scoring.model_description import PatientHashes, read_description
from pipeline.workflow.learning.experiment import Experiment

_KEY = "patients"


def held_out_patients(experiment: Experiment) -> set[str | None]:
    """The patients on whom a training calibrates, picks its epoch, or judges.

    With folds, and with several members, that is each labelled patient; else those outside the training split.
    """
    everyone = bool(experiment.folds) or experiment.config.training.member_count > 1
    split_of = experiment.splits.of
    return {
        case.patient_id
        for case in experiment.manifest.cases
        if case.case_id in split_of and (everyone or split_of[case.case_id] != "train")
    }


def patients_metadata(salt: str, patients: Iterable[str], case_ids: Iterable[str]) -> dict[str, str]:
    """Safetensors metadata of a file of pretrained weights that name its patients as hashes."""
    hashes = PatientHashes.of(salt, {"train": patients, "validation": (), "calibration": ()}, case_ids=case_ids)
    return {_KEY: hashes.model_dump_json()}


def require_unseen(experiment: Experiment) -> None:
    """Refuse weights that were learnt from patients whom the training is to be calibrated or judged on.

    Raises:
        UsageError: saying how many.
    """
    file = experiment.config.network.weights
    seen = None if file is None else _hashes_of(file)
    if seen is None:
        return
    held_out = {str(patient) for patient in held_out_patients(experiment)}
    both = seen.seen_patients(held_out)
    if both:
        raise UsageError(
            f"network.weights: {file}: was learnt from {len(both)} of the {len(held_out)} patients that this training "
            "is calibrated or judged on, and its figures would say too much; start from weights of other patients "
            "(pretrain with these very splits, or these --folds)"
        )


def _hashes_of(file: Path) -> PatientHashes | None:
    """Hashes of the patients that a file of this program was learnt from; None where they are unknown."""
    try:
        with safe_open(file, "np") as handle:
            text = (handle.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError):
        return None  # of another format, as PyTorch's
    if text is not None:
        try:
            return PatientHashes.model_validate_json(text)
        except ValidationError:
            return None  # another program's key of that name
    try:
        return read_description(file.parent).patients
    except ModelError:
        return None  # no model directory of this program
