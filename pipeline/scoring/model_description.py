"""``model.json``: everything needed to turn a scan into a probability, and where that came from; no torch needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.cases.ids import plain_id
from pipeline.config.inputs import MALIGNANT, Modality, Preprocessing, Scale, Section
from pipeline.config.training import Network
from pipeline.errors import CalibrationError
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.covariates import Covariate
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.files import sha256_bytes, sha256_json
from pipeline.imaging.envelope import Envelope
from pipeline.scoring.description_file import JSON_NAME as JSON_NAME
from pipeline.scoring.description_file import read_description_file
from pipeline.scoring.drift import references_from_json


class LabelMeaning(Section):
    """Meaning of the first finding's probability, and whose opinion all labels are."""

    positive: Literal["malignant"] = "malignant"
    negative: Literal["benign"] = "benign"
    source: str
    intensities: Literal["real", "simulated"]


class MemberDescription(Section):
    """One network: its weights file, its covariates' term, and the calibrators of the first finding and the others."""

    weights: str
    weights_sha256: str
    calibrator: dict[str, Any]
    other_calibrators: tuple[dict[str, Any], ...] = ()
    covariates: dict[str, Covariate] = Field(default_factory=dict)

    @property
    def calibrators(self) -> tuple[dict[str, Any], ...]:
        """One for each finding, in order."""
        return (self.calibrator, *self.other_calibrators)


FITTED_ON = ("train", "validation", "calibration")


class PatientHashes(Section):
    """Salted hashes of the patients that a model has seen, so that a later test set can leave them out.

    Ids and images of their cases are hashed too, by which a patient with a differently spelt id is recognised.
    """

    salt: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    calibration: tuple[str, ...]
    case_ids: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        salt: str,
        patients: Mapping[str, Iterable[str]],
        *,
        case_ids: Iterable[str] = (),
        images: Iterable[str] = (),
    ) -> PatientHashes:
        """Hash the patients of each split, and the ids and images' digests of all their cases."""
        return cls(
            salt=salt,
            **{name: _hashes(salt, patients[name]) for name in FITTED_ON},
            case_ids=_hashes(salt, case_ids),
            images=_hashes(salt, images),
        )

    def joined(self, other: PatientHashes) -> PatientHashes:
        """Union of both; they must have the same salt."""
        return PatientHashes(
            salt=self.salt,
            **{
                name: tuple(sorted({*getattr(self, name), *getattr(other, name)}))
                for name in (*FITTED_ON, "case_ids", "images")
            },
        )

    def seen_patients(self, patients: Iterable[str], *, splits: Sequence[str] = FITTED_ON) -> set[str]:
        """Those that the model has seen in one of the splits, in any spelling of their ids."""
        hashes = {patient for split in splits for patient in getattr(self, split)}
        # The earliest models hold hashes of the ids as they were spelt.
        return {
            patient
            for patient in patients
            if not hashes.isdisjoint((hash_id(self.salt, patient), _hash(self.salt, patient)))
        }

    def seen_case_ids(self, case_ids: Iterable[str]) -> set[str]:
        """Those that are ids of cases that the model has seen; of two tables they may name different cases."""
        hashes = set(self.case_ids)
        return {case_id for case_id in case_ids if hash_id(self.salt, case_id) in hashes}

    def seen_images(self, digests: Iterable[str]) -> set[str]:
        """Digests of images that the model has seen."""
        hashes = set(self.images)
        return {digest for digest in digests if hash_id(self.salt, digest) in hashes}


def _hashes(salt: str, ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({hash_id(salt, identifier) for identifier in ids}))


def hash_id(salt: str, text: str) -> str:
    """An id in its plainest spelling as 16 hex digits, which cannot be read back without the salt and a guess."""
    return _hash(salt, plain_id(text))


def _hash(salt: str, text: str) -> str:
    return sha256_bytes(f"{salt}\0{text}".encode())[:16]


class Digests(Section):
    """Digests of what a probability depends on, as hex SHA-256."""

    model: str
    preprocessing: str


class ModelFacts(Section):
    """Facts about a model beside its weights and their calibrators.

    Attributes:
        findings: that it gives probabilities of, the label first.
        operating_points: one for each finding, in order; ``OperatingPoint.to_json``.
        envelope: limits on inputs, ``Envelope.to_json``; None accepts all that the declared modality allows.
        prevalence_at_calibration: share of malignant cases that the calibrators were fitted on.
        patients: hashes of those that it has seen.
        provenance: where it came from; changes no probability.
        drift_reference: of the training cases, for scoring to compare with; changes no probability.
        refer_zone: ``ReferZone.to_json``; None refers no case.
    """

    name: str
    findings: tuple[str, ...] = (MALIGNANT,)
    network: Network
    preprocessing: Preprocessing
    modality: Modality
    operating_points: tuple[dict[str, Any], ...]
    label: LabelMeaning
    envelope: dict[str, Any] | None
    prevalence_at_calibration: float
    patients: PatientHashes
    provenance: dict[str, Any]
    drift_reference: dict[str, Any] = Field(default_factory=dict)
    refer_zone: dict[str, Any] | None = None


class ModelDescription(ModelFacts):
    """``model.json``: the facts, with what is derived from them and from the weights."""

    schema_version: Literal[1] = 1
    members: tuple[MemberDescription, ...] = Field(min_length=1)
    dimensions: Literal[2, 3]
    input_contract: str
    digests: Digests

    @property
    def covariates(self) -> dict[str, Scale]:
        """Columns that a case must have to be scored, and their scales; the same for all members."""
        return {name: column.scale for name, column in self.members[0].covariates.items()}

    @model_validator(mode="after")
    def _one_of_each_for_every_finding(self) -> Self:
        counts = {len(self.operating_points), *(len(member.calibrators) for member in self.members)}
        counts |= {len(column.weights) for member in self.members for column in member.covariates.values()}
        if counts != {len(self.findings)}:
            raise ValueError(
                f"findings: {len(self.findings)} findings have {sorted(counts)} calibrators, weights or thresholds"
            )
        return self

    @model_validator(mode="after")
    def _each_member_has_a_file(self) -> Self:
        """Refuse members that share a weights file, each of which would take its memory."""
        if len({member.weights for member in self.members}) < len(self.members):
            raise ValueError("members: two have one weights file")
        return self

    @model_validator(mode="after")
    def _every_part_can_be_read(self) -> Self:
        """Check every part when a model is opened, not in the middle of a run."""
        try:
            for member in self.members:
                for calibrator in member.calibrators:
                    Calibrator.from_json(calibrator)
            for point in self.operating_points:
                OperatingPoint.from_json(point)
        except CalibrationError as error:
            raise ValueError(str(error)) from None
        readers: dict[str, tuple[Any, Callable[[Any], object]]] = {
            "envelope": (self.envelope, Envelope.from_json),
            "refer_zone": (self.refer_zone, lambda zone: ReferZone.from_json(zone).describe()),
            "drift_reference": (self.drift_reference, references_from_json),
        }
        for name, (value, read) in readers.items():
            try:
                if value is not None:
                    read(value)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                detail = str(error).removeprefix(f"{name}: ") if isinstance(error, ValueError) else ""
                raise ValueError(f"{name}: {detail or 'is not what this program writes'}") from None
        return self


def input_contract(preprocessing: Preprocessing, modality: str, *, covariates: Iterable[str] = ()) -> str:
    """One line: what a case must be for a model with this preprocessing."""
    size = " x ".join(map(str, preprocessing.size))
    spacing = (
        "resized"
        if preprocessing.spacing_mm is None
        else f"{' x '.join(f'{mm:g}' for mm in preprocessing.spacing_mm)} mm"
    )
    region = "lesion centre needed" if preprocessing.region == "lesion" else "whole image"
    if preprocessing.zoom:
        spacing += f" for {preprocessing.zoom.column} {preprocessing.zoom.reference_mm:g}, finer for smaller"
    columns = "".join(f", column {name} needed" for name in covariates)
    return f"{modality} {preprocessing.dimensions}D, {region}{columns}, {size} voxels, {spacing}"


def model_digest(description: Mapping[str, Any]) -> str:
    """Digest of the weights and of all other values that change or withhold a probability or a decision.

    With several findings also of their names and operating points, so that none can be taken for another.

    Args:
        description: the object of ``model.json`` as it is written; its digests are ignored.
    """
    members = description["members"]
    covered = {
        "weights": [member["weights_sha256"] for member in members],
        "calibrators": [
            calibrator
            for member in members
            for calibrator in (member["calibrator"], *member.get("other_calibrators", ()))
        ],
        **{name: description[name] for name in ("network", "preprocessing", "modality", "envelope")},
    }
    # Absent, not null, where there is none, so that the digests of other models do not change.
    if description.get("refer_zone") is not None:
        covered["refer_zone"] = description["refer_zone"]
    if len(description.get("findings", ())) > 1:
        covered |= {name: description[name] for name in ("findings", "operating_points")}
    covariates = [member.get("covariates", {}) for member in members]
    if any(covariates):
        covered["covariates"] = covariates
    return sha256_json(covered)


def read_description(folder: Path) -> ModelDescription:
    """Read and check a classifier's ``model.json`` alone; no weights, no torch tensors.

    Raises:
        ModelError: when it is missing, damaged, of another schema, or a detector's.
    """
    return read_description_file(folder, ModelDescription, task=None)
