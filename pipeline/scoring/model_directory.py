"""The model directory: ``model.safetensors`` + ``model.json``; what training writes and scoring loads.

No pickle is in it. ``model.json`` says everything needed to turn a scan into a calibrated probability,
and everything a reviewer asks about where that came from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import ModelError
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.covariates import CovariateTerm
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.files import atomic_folder, open_file, sha256_bytes, sha256_json
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
from pipeline.scoring.model_verification import changed_weights, require_model_digest, unreadable_weights

# How layers draw their first weights: by a tensor's method, or by a function that a mode sees whole.
_DRAWS = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
_MOST_HEADER_BYTES = 8 << 20  # names and shapes of the tensors, before them in the file


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


def save_model(folder: Path, members: Sequence[Member], facts: ModelFacts) -> ModelDescription:
    """Write a model directory, whole or not at all, and return its description.

    Args:
        folder: must not exist.
        members: each with a calibrator for every finding.
        facts: of the model; an operating point for every finding.
    """
    blobs = [
        save_tensors({key: value.contiguous() for key, value in member.network.state_dict().items()})
        for member in members
    ]
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
    expected_bytes = _network_bytes(folder, description)
    members = tuple(_load_member(folder, member, description, expected_bytes) for member in description.members)
    return Model(
        description=description,
        members=members,
        operating_points=tuple(OperatingPoint.from_json(dict(each)) for each in description.operating_points),
        envelope=envelope,
        refer_zone=None if description.refer_zone is None else ReferZone.from_json(description.refer_zone),
    )


def _network_bytes(folder: Path, description: ModelDescription) -> int:
    """Bytes of one member's tensors, from a network without memory: a description may ask for any size.

    Raises:
        ModelError: when no such network can be made.
    """
    try:
        with torch.device("meta"), _Undrawn():
            network = _network(description)
        return sum(value.numel() * value.element_size() for value in network.state_dict().values())
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"{folder / JSON_NAME}: network: none can be made of it ({str(error).splitlines()[0][:200]}); "
            "the file is damaged"
        ) from None


class _Undrawn(TorchFunctionMode):
    """Leaves weights undrawn, for a network that is measured, or filled from a file at once.

    To draw normal values into tensors without memory, torch would import SymPy and its compiler.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the tensor as it is in place of drawing values into it; call anything else."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]  # torch.nn.init hands its own on by name
        return func(*args, **kwargs)


def _network(description: ModelDescription) -> nn.Module:
    return build_network(description.network, dimensions=description.dimensions, outputs=len(description.findings))


def _load_member(folder: Path, member: MemberDescription, description: ModelDescription, expected: int) -> Member:
    path = folder / Path(member.weights).name
    blob = _read_weights(path, expected)
    if sha256_bytes(blob) != member.weights_sha256:
        raise changed_weights(path)
    try:
        tensors = _tensors(blob)
        with _Undrawn():  # every weight comes from the file
            network = _network(description)  # not before its size is known to be that of the file
        network.load_state_dict(tensors)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: does not fit {folder / JSON_NAME} ({str(error).splitlines()[0]})") from None
    calibrators = tuple(Calibrator.from_json(dict(each)) for each in member.calibrators)
    return Member(network=network.eval(), calibrators=calibrators, covariates=CovariateTerm(member.covariates))


def _read_weights(path: Path, expected: int) -> bytes:
    """The bytes of a weights file, which must be about as many as the network has.

    Raises:
        ModelError: before anything is read, when it is missing, no file, or of another size.
    """
    try:
        with open_file(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            if not expected <= size <= expected + _MOST_HEADER_BYTES:
                raise ModelError(
                    f"{path}: has {size} bytes, and the network of {JSON_NAME} {expected}; "
                    "it does not fit: copy the model directory again"
                )
            return handle.read(size)
    except OSError as error:
        raise unreadable_weights(path, error) from None


def _tensors(blob: bytes) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_tensors(blob)
    return tensors
