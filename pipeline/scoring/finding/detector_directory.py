"""The detector's directory: ``model.safetensors`` + ``model.json``; what its training writes and finding loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.detection import CandidateRules, DetectionClass, DetectionGrid, DetectorNetwork
from pipeline.config.inputs import Modality
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.files import atomic_folder, sha256_bytes, sha256_json
from pipeline.imaging.envelope import Envelope
from pipeline.models.detector import Detector
from pipeline.scoring.description_file import JSON_NAME
from pipeline.scoring.finding.detector_description import (
    DetectorDescription,
    LesionMeaning,
    detector_contract,
    detector_digest,
    read_detector_description,
)
from pipeline.scoring.model_description import Digests, PatientHashes
from pipeline.scoring.weights_file import WeightsFile, load_network, network_bytes, weights_blob

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class LoadedDetector:
    """A loaded detector directory.

    Attributes:
        description: its ``model.json``.
        network: in evaluation mode.
        calibrators: one for each class; each turns a logit into that class's probability.
        envelope: limits on its inputs; None where none was fitted.
        scan_probability: with one classifier's probabilities; None where none was fitted.
    """

    description: DetectorDescription
    network: Detector
    calibrators: tuple[Calibrator, ...]
    envelope: Envelope | None = None
    scan_probability: ScanProbability | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that it gives probabilities of, ``nodule`` first."""
        return self.description.classes

    @property
    def label(self) -> str:
        """Name and short digest, as rows and reports show it."""
        return self.description.label


@dataclass(frozen=True)
class DetectorSettings:
    """Configured properties of a detector.

    Attributes:
        name: of the experiment.
        classes: ``nodule`` first.
        network: of the weights.
        grid: of the input.
        candidates: which peaks become candidates.
        modality: of the scans.
        lesions: who marked them.
    """

    name: str
    classes: tuple[DetectionClass, ...]
    network: DetectorNetwork
    grid: DetectionGrid
    candidates: CandidateRules
    modality: Modality
    lesions: LesionMeaning


def save_detector(
    folder: Path,
    network: Detector,
    settings: DetectorSettings,
    *,
    calibrators: Sequence[Calibrator],
    patients: PatientHashes,
    provenance: Mapping[str, Any],
    envelope: Envelope | None = None,
    scan_probability: ScanProbability | None = None,
) -> DetectorDescription:
    """Write a detector directory, whole or not at all, and return its description.

    Args:
        folder: that it becomes.
        network: with the weights.
        settings: its configured properties.
        calibrators: one for each class.
        patients: salted hashes of those it has seen.
        provenance: where it comes from; changes no digest.
        envelope: limits on its inputs.
        scan_probability: fitted with one classifier's probabilities on held-out scans.
    """
    blob = weights_blob(network)
    parts = {
        "name": settings.name,
        "classes": settings.classes,
        "weights": _WEIGHTS,
        "weights_sha256": sha256_bytes(blob),
        "calibrators": tuple(calibrator.to_json() for calibrator in calibrators),
        "network": settings.network.model_dump(mode="json"),
        "grid": settings.grid.model_dump(mode="json"),
        "candidates": settings.candidates.model_dump(mode="json"),
        "modality": settings.modality,
        "input_contract": detector_contract(settings.grid, settings.modality),
        "lesions": settings.lesions.model_dump(mode="json"),
        "envelope": None if envelope is None else envelope.to_json(),
        "scan_probability": None if scan_probability is None else scan_probability.to_json(),
        "patients": patients.model_dump(mode="json"),
        "provenance": dict(provenance),
    }
    digests = Digests(model=detector_digest(parts), preprocessing=sha256_json(parts["grid"]))
    description = DetectorDescription.model_validate(parts | {"digests": digests}, strict=False)
    with atomic_folder(folder, private=False) as temporary:
        (temporary / _WEIGHTS).write_bytes(blob)
        (temporary / JSON_NAME).write_text(description.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return description


def load_detector(folder: Path) -> LoadedDetector:
    """Load a detector directory and verify every digest in it.

    Raises:
        ModelError: when it is missing, damaged, of another schema, a classifier's, or its digests do not fit.
    """
    description = read_detector_description(folder)

    def build() -> Detector:
        return Detector(description.network, classes=len(description.classes))

    described_in = folder / JSON_NAME
    expected = network_bytes(described_in, build)
    fitted = description.scan_probability
    file = WeightsFile(folder / Path(description.weights).name, description.weights_sha256)
    return LoadedDetector(
        description=description,
        network=load_network(file, described_in, build, expected_bytes=expected),
        calibrators=tuple(Calibrator.from_json(calibrator) for calibrator in description.calibrators),
        envelope=None if description.envelope is None else Envelope.from_json(description.envelope),
        scan_probability=None if fitted is None else ScanProbability.from_json(fitted),
    )
