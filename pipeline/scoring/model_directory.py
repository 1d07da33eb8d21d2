"""The model directory: ``model.safetensors`` + ``model.json``; what training writes and scoring loads.

No pickle is in it. ``model.json`` says everything needed to turn a scan into a calibrated probability,
and everything a reviewer asks about where that came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from pipeline.config_inputs import MALIGNANT, Modality, Preprocessing, Section
from pipeline.config_training import Network
from pipeline.errors import CalibrationError, ModelError
from pipeline.evaluation.calibrator import Calibrator
from pipeline.evaluation.conformal import ReferZone
from pipeline.evaluation.operating_points import OperatingPoint
from pipeline.files import atomic_folder, sha256_bytes, sha256_json
from pipeline.imaging.envelope import Envelope
from pipeline.models.networks import build_network

SCHEMA_VERSION: Literal[1] = 1
_JSON = "model.json"


class LabelMeaning(Section):
    """What the first finding's probability is the probability of, and whose opinion all labels are."""

    positive: Literal["malignant"] = "malignant"
    negative: Literal["benign"] = "benign"
    source: str
    intensities: Literal["real", "simulated"]


class MemberDescription(Section):
    """One network: its weights file and the calibrators fitted to it, the first finding's and those of the others."""

    weights: str
    weights_sha256: str
    calibrator: dict[str, Any]
    other_calibrators: tuple[dict[str, Any], ...] = ()

    @property
    def calibrators(self) -> tuple[dict[str, Any], ...]:
        """One for each finding, in order."""
        return (self.calibrator, *self.other_calibrators)


class PatientHashes(Section):
    """Salted hashes of the patients that a model has seen, so that a later test set can leave them out."""

    salt: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    calibration: tuple[str, ...]

    @classmethod
    def of(cls, salt: str, patients: Mapping[str, Iterable[str]]) -> PatientHashes:
        """Hash the patients of each split."""
        return cls(
            salt=salt,
            **{
                name: tuple(sorted({hash_patient(salt, who) for who in patients[name]}))
                for name in ("train", "validation", "calibration")
            },
        )

    def contains(self, patient: str) -> bool:
        """Whether the model has seen this patient in any way."""
        return hash_patient(self.salt, patient) in {*self.train, *self.validation, *self.calibration}


def hash_patient(salt: str, patient: str) -> str:
    """A patient id as 16 hex digits that cannot be read back without the salt and a guess."""
    return sha256_bytes(f"{salt}\0{patient}".encode())[:16]


class Digests(Section):
    """What a probability depends on, as hex SHA-256."""

    model: str
    preprocessing: str


class ModelDescription(Section):
    """``model.json``; ``operating_points`` has one for each finding, in order."""

    schema_version: Literal[1] = 1
    name: str
    findings: tuple[str, ...] = (MALIGNANT,)
    members: tuple[MemberDescription, ...]
    network: Network
    dimensions: Literal[2, 3]
    preprocessing: Preprocessing
    modality: Modality
    input_contract: str
    operating_points: tuple[dict[str, Any], ...]
    label: LabelMeaning
    envelope: dict[str, Any] | None
    prevalence_at_calibration: float
    patients: PatientHashes
    digests: Digests
    provenance: dict[str, Any]
    drift_reference: dict[str, Any] = Field(default_factory=dict)  # changes no probability
    refer_zone: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of_each_for_every_finding(self) -> Self:
        counts = {len(self.operating_points), *(len(member.calibrators) for member in self.members)}
        if counts != {len(self.findings)}:
            raise ValueError(f"{len(self.findings)} findings have {sorted(counts)} calibrators or operating points")
        return self


@dataclass(frozen=True, eq=False)
class Member:
    """A network in evaluation mode, with a calibrator for each finding."""

    network: nn.Module
    calibrators: tuple[Calibrator, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model directory."""

    description: ModelDescription
    members: tuple[Member, ...]
    operating_points: tuple[OperatingPoint, ...]
    envelope: Envelope | None
    refer_zone: ReferZone | None = None

    @property
    def findings(self) -> tuple[str, ...]:
        """What it gives probabilities of, the label first."""
        return self.description.findings

    @property
    def operating_point(self) -> OperatingPoint:
        """Of the first finding."""
        return self.operating_points[0]

    @property
    def label(self) -> str:
        """Name and short digest, as rows and reports show it."""
        return f"{self.description.name}@{self.description.digests.model[:12]}"


def input_contract(preprocessing: Preprocessing, modality: str) -> str:
    """One line: what a case must be for a model with this preprocessing."""
    size = " x ".join(map(str, preprocessing.size))
    spacing = (
        "resized"
        if preprocessing.spacing_mm is None
        else f"{' x '.join(f'{mm:g}' for mm in preprocessing.spacing_mm)} mm"
    )
    what = "lesion centre needed" if preprocessing.region == "lesion" else "whole image"
    return f"{modality} {preprocessing.dimensions}D, {what}, {size} voxels, {spacing}"


def model_digest(
    weights_sha256: Sequence[str],
    calibrators: Sequence[Mapping[str, Any]],
    network: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    modality: str,
    envelope: Envelope | None,
    *,
    refer_zone: Mapping[str, Any] | None = None,
    findings: Sequence[str] = (MALIGNANT,),
    operating_points: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Digest of the weights and of whatever else changes a probability, or withholds it or a decision.

    With several findings also of their names and operating points, so that none can be taken for another.
    """
    covered = {
        "weights": list(weights_sha256),
        "calibrators": [dict(calibrator) for calibrator in calibrators],
        "network": dict(network),
        "preprocessing": dict(preprocessing),
        "modality": modality,
        "envelope": None if envelope is None else envelope.to_json(),
    }
    # Absent, not null, where there is none: the digests of other models stay what they were.
    if refer_zone is not None:
        covered["refer_zone"] = dict(refer_zone)
    if len(findings) > 1:
        covered |= {"findings": list(findings), "operating_points": [dict(point) for point in operating_points]}
    return sha256_json(covered)


def save_model(
    folder: Path,
    members: Sequence[Member],
    *,
    name: str,
    network: Network,
    preprocessing: Preprocessing,
    modality: Modality,
    operating_points: Sequence[OperatingPoint],
    label: LabelMeaning,
    envelope: Envelope | None,
    prevalence_at_calibration: float,
    patients: PatientHashes,
    provenance: Mapping[str, Any],
    drift_reference: Mapping[str, Any] | None = None,
    refer_zone: ReferZone | None = None,
    findings: Sequence[str] = (MALIGNANT,),
) -> ModelDescription:
    """Write a model directory, whole or not at all, and return its description.

    Members have a calibrator, and ``operating_points`` a point, for each of ``findings``.
    """
    blobs = [
        save_tensors({key: value.contiguous() for key, value in member.network.state_dict().items()})
        for member in members
    ]
    names = [
        "model.safetensors" if len(members) == 1 else f"model-{number}.safetensors" for number in range(len(members))
    ]
    digests = [sha256_bytes(blob) for blob in blobs]
    zone = None if refer_zone is None else refer_zone.to_json()
    calibrators = [[calibrator.to_json() for calibrator in member.calibrators] for member in members]
    points = tuple(point.to_json() for point in operating_points)
    description = ModelDescription(
        name=name,
        findings=tuple(findings),
        members=tuple(
            MemberDescription(weights=file, weights_sha256=digest, calibrator=first, other_calibrators=tuple(others))
            for file, digest, (first, *others) in zip(names, digests, calibrators, strict=True)
        ),
        network=network,
        dimensions=preprocessing.dimensions,
        preprocessing=preprocessing,
        modality=modality,
        input_contract=input_contract(preprocessing, modality),
        operating_points=points,
        label=label,
        envelope=None if envelope is None else envelope.to_json(),
        prevalence_at_calibration=prevalence_at_calibration,
        patients=patients,
        digests=Digests(
            model=model_digest(
                digests,
                [each for member in calibrators for each in member],
                network.model_dump(mode="json"),
                preprocessing.model_dump(mode="json"),
                modality,
                envelope,
                refer_zone=zone,
                findings=findings,
                operating_points=points,
            ),
            preprocessing=sha256_json(preprocessing.model_dump(mode="json")),
        ),
        provenance=dict(provenance),
        drift_reference=dict(drift_reference or {}),
        refer_zone=zone,
    )
    with atomic_folder(folder) as temporary:
        for file, blob in zip(names, blobs, strict=True):
            (temporary / file).write_bytes(blob)
        (temporary / _JSON).write_text(description.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return description


def load_model(folder: Path) -> Model:
    """Load a model directory and verify every digest in it.

    Raises:
        ModelError: when it is missing, damaged, of another schema, or its digests do not fit.
    """
    description = read_description(folder)
    members = tuple(_load_member(folder, member, description) for member in description.members)
    envelope = None if description.envelope is None else Envelope.from_json(description.envelope)
    expected = model_digest(
        [member.weights_sha256 for member in description.members],
        [each for member in description.members for each in member.calibrators],
        # As written: a key that a later version of this program adds was not there to be covered.
        description.network.model_dump(mode="json", exclude_unset=True),
        description.preprocessing.model_dump(mode="json", exclude_unset=True),
        description.modality,
        envelope,
        refer_zone=description.refer_zone,
        findings=description.findings,
        operating_points=description.operating_points,
    )
    if expected != description.digests.model:
        raise ModelError(
            f"{folder / _JSON}: was edited after training (its model digest does not fit); train or recalibrate instead"
        )
    return Model(
        description=description,
        members=members,
        operating_points=tuple(OperatingPoint.from_json(dict(each)) for each in description.operating_points),
        envelope=envelope,
        refer_zone=None if description.refer_zone is None else ReferZone.from_json(description.refer_zone),
    )


def read_description(folder: Path) -> ModelDescription:
    """Read and check ``model.json`` alone; no weights, no torch tensors.

    Raises:
        ModelError: when it is missing, damaged or of another schema.
    """
    path = folder / _JSON
    try:
        text = path.read_text(encoding="utf-8")
        version = json.loads(text).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ModelError(
                f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; "
                "use the release that wrote it"
            )
        return ModelDescription.model_validate_json(text)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder}: holds no {_JSON}; give a model directory or an MLflow model URI") from None
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"]) or "findings"
        raise ModelError(f"{path}: {key}: {error.errors()[0]['msg']}; the file is damaged") from None
    except (ValueError, AttributeError):
        raise ModelError(f"{path}: is not a JSON object; the file is damaged") from None


def _load_member(folder: Path, member: MemberDescription, description: ModelDescription) -> Member:
    path = folder / Path(member.weights).name
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); copy the whole model directory") from None
    if sha256_bytes(blob) != member.weights_sha256:
        raise ModelError(
            f"{path}: its bytes are not those that were trained (SHA-256 differs); copy the model directory again"
        )
    network = build_network(description.network, dimensions=description.dimensions, outputs=len(description.findings))
    try:
        network.load_state_dict(_tensors(blob))
        calibrators = tuple(Calibrator.from_json(dict(each)) for each in member.calibrators)
    except (RuntimeError, SafetensorError, CalibrationError) as error:
        raise ModelError(f"{path}: does not fit {folder / _JSON} ({str(error).splitlines()[0]})") from None
    return Member(network=network.eval(), calibrators=calibrators)


def _tensors(blob: bytes) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_tensors(blob)
    return tensors
