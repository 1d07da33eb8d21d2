"""``malignancy pretrain``: a network learns readers' ratings and measures, from cases that are not evaluated later.

Scans without a diagnosis often have readings: sizes, ratings, an outline's volume. Weights learnt from them can
initialise a network that learns the label (``network.weights``). The patients on whom that one is calibrated or
evaluated are left out before any of their scans is opened.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import save

from pipeline.cases.cache import StoredInputs
from pipeline.cases.case import Case
from pipeline.cases.prepare import prepare_cases
from pipeline.config.experiment import Config
from pipeline.config.training import Auxiliary
from pipeline.console import one_line
from pipeline.errors import CaseError, ConfigError, UsageError
from pipeline.files import atomic_write, require_free, sha256_bytes
from pipeline.imaging.preprocess import ModelInput
from pipeline.progress import with_progress
from pipeline.training.data import CaseTensors, ImageRows
from pipeline.training.fit import Fitted, fit
from pipeline.training.initial_weights import initial_weights
from pipeline.training.progress import NetworkPlace
from pipeline.training.tracker import NullTracker
from pipeline.workflow.cohort import auxiliary_targets
from pipeline.workflow.learning.experiment import Experiment
from pipeline.workflow.learning.seen_patients import held_out_patients, patients_metadata

_FEWEST = 8  # cases; with fewer, the statistics of batch normalisation are meaningless


@dataclass(frozen=True)
class PretrainingResult:
    """Result of a pretraining.

    Attributes:
        weights: the file, which ``network.weights`` takes.
        cases: how many it was learnt from.
        patients: whose they are.
        held_out: patients that were left out, because a network that starts from the file is calibrated or judged on
            them.
        rejected: cases that could not be read, with the reason.
        summary: what the command prints.
    """

    weights: Path
    cases: int
    patients: int
    held_out: int
    rejected: tuple[tuple[Case, CaseError], ...]
    summary: str


def run_pretraining(experiment: Experiment, out: Path) -> PretrainingResult:
    """Learn ``training.auxiliary`` alone, and write the network's weights.

    Args:
        experiment: configuration, table and splits, as the later training will have them.
        out: file to write, safetensors; must not exist.

    Raises:
        UsageError: without auxiliary columns, or with too few cases that may be learnt from.
        FileExistsError: when the file exists.
    """
    require_free(out)
    config = experiment.config
    columns = config.training.auxiliary
    if columns is None:
        raise ConfigError(
            "training.auxiliary: null; name the readings to learn, as "
            "training.auxiliary='{columns: {texture: linear, readers_volume_mm3: log}}'"
        )
    config = _settings(config)
    initial_weights(config)  # a file that does not fit is refused before any scan is read
    cases, held_out = pretraining_cases(experiment)
    read, rejected = _read(cases, experiment, config)
    if len(read) < _FEWEST:
        raise UsageError(
            f"{experiment.manifest.path}: {len(read)} readable cases may be learnt from, expected {_FEWEST} or more: "
            "with readings, of patients who neither calibrate nor judge; add scans without a label and their readings, "
            "or train with a test split (training.folds=null training.members=1)"
        )
    fitted = _fit(read, columns, config)
    patients = len({case.patient_id for case, _ in read})
    error = fitted.history[-1]["train_loss"] / columns.weight  # of columns with variance 1
    names = ", ".join(columns.columns)
    whose = patients_metadata(
        experiment.manifest.digest, [str(case.patient_id) for case, _ in read], [case.case_id for case, _ in read]
    )
    lines = [
        f"learnt {names} from {len(read)} cases of {patients} patients",
        f"mean squared error in the last of {fitted.epochs} epochs: {error:.2f} of the readings' variance",
        f"left out: {held_out} patients, on whom a training of this configuration calibrates or judges",
        f"weights: {out}, SHA-256 {_write(out, fitted, whose)[:12]}",
        f"train from them with: network.weights={out} 'network.weights_source=readings of our own scans ({names})'",
    ]
    return PretrainingResult(
        weights=out,
        cases=len(read),
        patients=patients,
        held_out=held_out,
        rejected=rejected,
        summary="\n".join(lines),
    )


def pretraining_cases(experiment: Experiment) -> tuple[list[Case], int]:
    """Cases with a reading, of patients who are used for neither calibration nor evaluation; and the number of others.

    With folds, and with several members, each labelled patient is (`held_out_patients`), so only patients without any
    label are used. Otherwise those of the training split are used too.

    Args:
        experiment: configuration, table and splits.
    """
    training, held_out = experiment.config.training, held_out_patients(experiment)
    columns = tuple(training.auxiliary.columns) if training.auxiliary else ()
    cases = [
        case
        for case in experiment.manifest.cases
        if case.patient_id not in held_out and any(case.extra[name].strip() for name in columns)
    ]
    return cases, len(held_out)


def _settings(config: Config) -> Config:
    """One network that learns the auxiliary columns alone, to the last epoch."""
    alone = {"early_stopping": None, "soft_labels": None, "class_balance": "none", "mode": "end_to_end"}
    return config.model_copy(update={"training": config.training.model_copy(update=alone)})


def _read(
    cases: Sequence[Case], experiment: Experiment, config: Config
) -> tuple[list[tuple[Case, ModelInput]], tuple[tuple[Case, CaseError], ...]]:
    outcomes = prepare_cases(
        cases,
        config.preprocessing,
        modality=config.data.modality,
        root=experiment.manifest.root,
        stored=StoredInputs(config.data.cache) if config.data.cache else None,
        covariates=config.data.covariates if config.preprocessing.zoom else {},
    )
    read, rejected = [], []
    for case, outcome in with_progress(outcomes, "scans read", total=len(cases)):
        if isinstance(outcome, CaseError):
            rejected.append((case, outcome))
            print(one_line(f"rejected {case.case_id}: {outcome.code}: {outcome.reason}"), file=sys.stderr)
        else:
            read.append((case, outcome))
    return read, tuple(rejected)


def _fit(read: Sequence[tuple[Case, ModelInput]], columns: Auxiliary, config: Config) -> Fitted:
    """A network that learnt the columns; its logit of the label, which it was not trained on, is meaningless."""
    cases = [case for case, _ in read]
    tensors = CaseTensors.from_arrays(
        ImageRows([prepared.voxels for _, prepared in read]),
        np.full((len(read), 1), np.nan),
        [case.case_id for case in cases],
        auxiliary=auxiliary_targets(cases, columns),
    )
    with tempfile.TemporaryDirectory(prefix="malignancy-pretrain-") as folder:
        return fit(tensors, None, config, folder=Path(folder), tracker=NullTracker(), place=NetworkPlace())


def _write(out: Path, fitted: Fitted, whose: dict[str, str]) -> str:
    """Write the weights, with hashes of whom they were learnt from, and give the file's digest."""
    content = save({name: value.contiguous() for name, value in fitted.network.state_dict().items()}, whose)
    with atomic_write(out, new=True) as temporary:
        temporary.write_bytes(content)
    return sha256_bytes(content)
