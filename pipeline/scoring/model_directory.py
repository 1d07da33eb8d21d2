"""The model directory: ``model.safetensors`` + ``model.json``; what training writes and scoring loads.

It holds no pickle. ``model.json`` holds all that is needed to turn a scan into a calibrated probability, and the
provenance for a reviewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.covariates import CovariateTerm
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.files import atomic_folder, sha256_bytes, sha256_json
from pipeline.imaging.envelope import Envelope
from pipeline.models.networks import build_network
from pipeline.scoring.model_description import (
    JSON_NAME,
    Digests,
    MemberDescription,
    ModelDescription,
    ModelFacts,
    input_contract,
    model_digest,
    read_description,
)
from pipeline.scoring.model_verification import require_model_digest
from pipeline.scoring.weights_file import WeightsFile, load_network, network_bytes, weights_blob


@dataclass(frozen=True, eq=False)
class Member:
    """A network in evaluation mode, with what its covariates add to its logits, and a calibrator for each finding."""

    network: nn.Module
    calibrators: tuple[Calibrator, ...]
    covariates: CovariateTerm = field(default_factory=CovariateTerm)


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
        """Findings that it gives probabilities of, the label first."""
        return self.description.findings

    @property
    def operating_point(self) -> OperatingPoint:
        """Of the first finding."""
        return self.operating_points[0]

    @property
    def label(self) -> str:
        """Name and short digest, as rows and reports show it."""
        return f"{self.description.name}@{self.description.digests.model[:12]}"


def save_model(folder: Path, members: Sequence[Member], facts: ModelFacts) -> ModelDescription:
    """Write a model directory, whole or not at all, and return its description.

    Args:
        folder: must not exist.
        members: each with a calibrator for every finding.
        facts: of the model; an operating point for every finding.
    """
    blobs = [weights_blob(member.network) for member in members]
    names = [
        "model.safetensors" if len(members) == 1 else f"model-{number}.safetensors" for number in range(len(members))
    ]
    described = [_describe(*parts) for parts in zip(members, names, blobs, strict=True)]
    preprocessing = facts.preprocessing
    written = facts.model_dump(mode="json") | {"members": [member.model_dump(mode="json") for member in described]}
    description = ModelDescription(
        **{name: getattr(facts, name) for name in ModelFacts.model_fields},
        members=tuple(described),
        dimensions=preprocessing.dimensions,
        input_contract=input_contract(preprocessing, facts.modality, covariates=described[0].covariates),
        digests=Digests(model=model_digest(written), preprocessing=sha256_json(preprocessing.model_dump(mode="json"))),
    )
    with atomic_folder(folder, private=False) as temporary:
        for file, blob in zip(names, blobs, strict=True):
            (temporary / file).write_bytes(blob)
        (temporary / JSON_NAME).write_text(description.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return description


def _describe(member: Member, file: str, weights: bytes) -> MemberDescription:
    first, *others = [calibrator.to_json() for calibrator in member.calibrators]
    return MemberDescription(
        weights=file,
        weights_sha256=sha256_bytes(weights),
        calibrator=first,
        other_calibrators=tuple(others),
        covariates=dict(member.covariates.columns),
    )


def load_model(folder: Path) -> Model:
    """Load a model directory and verify every digest in it.

    Raises:
        ModelError: when it is missing, damaged, of another schema, or its digests do not fit.
    """
    description = read_description(folder)
    require_model_digest(folder, description)
    envelope = None if description.envelope is None else Envelope.from_json(description.envelope)
    expected_bytes = network_bytes(folder / JSON_NAME, lambda: _network(description))
    members = tuple(_load_member(folder, member, description, expected_bytes) for member in description.members)
    return Model(
        description=description,
        members=members,
        operating_points=tuple(OperatingPoint.from_json(dict(point)) for point in description.operating_points),
        envelope=envelope,
        refer_zone=None if description.refer_zone is None else ReferZone.from_json(description.refer_zone),
    )


def _network(description: ModelDescription) -> nn.Module:
    return build_network(description.network, dimensions=description.dimensions, outputs=len(description.findings))


def _load_member(folder: Path, member: MemberDescription, description: ModelDescription, expected: int) -> Member:
    file = WeightsFile(folder / Path(member.weights).name, member.weights_sha256)
    network = load_network(file, folder / JSON_NAME, lambda: _network(description), expected_bytes=expected)
    calibrators = tuple(Calibrator.from_json(dict(parameters)) for parameters in member.calibrators)
    return Member(network=network, calibrators=calibrators, covariates=CovariateTerm(member.covariates))
