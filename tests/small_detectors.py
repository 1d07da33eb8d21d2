"""A small detector with untrained weights, for tests of everything around it."""

from __future__ import annotations

import torch

from pipeline.config.detection import CandidateRules, DetectionGrid, DetectorNetwork
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.models.detector import Detector
from pipeline.scoring.finding.detector_description import DetectorDescription, LesionMeaning
from pipeline.scoring.finding.detector_directory import DetectorSettings, save_detector
from pipeline.scoring.model_description import PatientHashes

CLASSES = ("nodule", "solid", "calcified")


def small_settings(**changes) -> DetectorSettings:
    """Four channels, two levels, a 2 mm grid."""
    values = {
        "name": "small",
        "classes": CLASSES,
        "network": DetectorNetwork(width=4, levels=2),
        "grid": DetectionGrid(spacing_mm=2.0, patch=32),
        "candidates": CandidateRules(lowest_probability=0.0, most=5),
        "modality": "CT",
        "lesions": LesionMeaning(source="made for a test", intensities="simulated"),
    }
    return DetectorSettings(**(values | changes))


def small_detector(*, seed: int = 0, settings: DetectorSettings | None = None) -> Detector:
    """Untrained, with heat maps that differ from place to place."""
    settings = settings or small_settings()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Detector(settings.network, classes=len(settings.classes)).eval()


def save_small_detector(folder, *, seed: int = 0, **changes) -> DetectorDescription:
    """An untrained detector's directory."""
    settings = small_settings(
        **{name: value for name, value in changes.items() if name in ("classes", "grid", "candidates", "network")}
    )
    return save_detector(
        folder,
        small_detector(seed=seed, settings=settings),
        settings,
        calibrators=[Calibrator("none") for _ in settings.classes],
        patients=PatientHashes.of("salt", {"train": ["a"], "validation": ["b"], "calibration": ["c"]}),
        provenance=changes.get("provenance", {}),
        scan_probability=changes.get("scan_probability"),
    )
