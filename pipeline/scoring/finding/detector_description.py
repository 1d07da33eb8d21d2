"""``model.json`` of a detector: everything needed to turn a whole scan into candidates; no torch needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.detection import DETECTION, NODULE, CandidateRules, DetectionClass, DetectionGrid, DetectorNetwork
from pipeline.config.inputs import Modality, Section, SourceText
from pipeline.errors import CalibrationError, ModelError
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.files import sha256_json
from pipeline.imaging.envelope import Envelope
from pipeline.scoring.description_file import JSON_NAME, read_description_file
from pipeline.scoring.model_description import Digests, PatientHashes
from pipeline.scoring.model_verification import require_weights
from pipeline.scoring.rows import ModelIdentity


class LesionMeaning(Section):
    """Meaning of a candidate's probability, and who marked the lesions."""

    positive: Literal["a lesion was marked here"] = "a lesion was marked here"
    source: SourceText
    intensities: Literal["real", "simulated"]


class DetectorDescription(Section):
    """``model.json`` of a detector; ``calibrators`` has one for each class, in order."""

    schema_version: Literal[1] = 1
    task: Literal["detection"] = "detection"
    name: str
    classes: tuple[DetectionClass, ...] = Field(min_length=1)
    weights: str
    weights_sha256: str
    calibrators: tuple[dict[str, Any], ...]
    network: DetectorNetwork
    grid: DetectionGrid
    candidates: CandidateRules
    modality: Modality
    input_contract: str
    lesions: LesionMeaning
    envelope: dict[str, Any] | None = None
    scan_probability: dict[str, Any] | None = None
    patients: PatientHashes
    digests: Digests
    provenance: dict[str, Any]

    @property
    def label(self) -> str:
        """Name and short digest, as rows and reports show it."""
        return f"{self.name}@{self.digests.model[:12]}"

    @property
    def identity(self) -> ModelIdentity:
        """What rows say about who searched."""
        return ModelIdentity(self.label, self.digests.model, self.digests.preprocessing)

    def scan_probability_with(self, classifier_digest: str) -> ScanProbability | None:
        """What turns a scan's candidates into its probability; None where none was fitted with this classifier.

        Args:
            classifier_digest: model digest of the classifier.
        """
        if self.scan_probability is None:
            return None
        fitted = ScanProbability.from_json(self.scan_probability)
        return fitted if fitted.classifier_digest == classifier_digest else None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.classes[0] != NODULE or len(self.calibrators) != len(self.classes):
            raise ValueError(
                f"classes: {len(self.classes)} classes from {self.classes[0]!r} have {len(self.calibrators)} "
                f"calibrators, expected one each, {NODULE!r} first"
            )
        try:
            for calibrator in self.calibrators:
                Calibrator.from_json(calibrator)
            if self.scan_probability is not None:
                ScanProbability.from_json(self.scan_probability)
        except CalibrationError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _envelope_can_be_read(self) -> Self:
        try:
            if self.envelope is not None:
                Envelope.from_json(self.envelope)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            detail = str(error).removeprefix("envelope: ") if isinstance(error, ValueError) else ""
            raise ValueError(f"envelope: {detail or 'is not what this program writes'}") from None
        return self


def detector_contract(grid: DetectionGrid, modality: str) -> str:
    """One line: what a scan must be for a detector with this grid."""
    return f"{modality} 3D, whole scan, {grid.spacing_mm:g} mm"


def detector_digest(description: Mapping[str, Any]) -> str:
    """Digest of all values that change or withhold a candidate or a scan's probability; provenance is not covered.

    Args:
        description: the values of a ``model.json``; of sections only the keys that it holds are covered, so that a key
            that a later version adds leaves older digests as they were.
    """
    covered = ("classes", "weights_sha256", "calibrators", "network", "grid", "candidates", "modality", "envelope")
    values = {name: description.get(name) for name in covered}
    # Absent, not null, where there is none, so that only fitting one changes the digest.
    if description.get("scan_probability") is not None:
        values["scan_probability"] = description["scan_probability"]
    return sha256_json(values)


def verify_detector(folder: Path) -> DetectorDescription:
    """Read a detector's ``model.json`` and verify every digest, that of the weights' bytes among them; no torch.

    Raises:
        ModelError: when the directory is missing, damaged or of another schema.
    """
    description = read_detector_description(folder)
    require_weights(folder / Path(description.weights).name, description.weights_sha256)
    return description


def read_detector_description(folder: Path) -> DetectorDescription:
    """Read a detector's ``model.json`` and verify its digest; no weights, no torch tensors.

    Raises:
        ModelError: when it is missing, damaged, edited, of another schema, or a classifier's.
    """
    description = read_description_file(folder, DetectorDescription, task=DETECTION)
    if detector_digest(description.model_dump(mode="json", exclude_unset=True)) != description.digests.model:
        raise ModelError(
            f"{folder / JSON_NAME}: was edited after training (its model digest does not fit); train it again"
        )
    return description
