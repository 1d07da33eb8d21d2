"""Writing and loading the directory of a detector that was just trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.detection import DetectionConfig
from pipeline.config.inputs import Modality
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.imaging.envelope import Envelope, fit_envelope
from pipeline.imaging.whole_scans.searchable import ENVELOPE_MEASURES
from pipeline.scoring.finding.detector_description import LesionMeaning
from pipeline.scoring.finding.detector_directory import (
    DetectorSettings,
    LoadedDetector,
    load_detector,
    save_detector,
)
from pipeline.scoring.finding.golden_detector import add_golden_scans
from pipeline.scoring.model_description import FITTED_ON, PatientHashes
from pipeline.training.detection.fit import FittedDetector
from pipeline.workflow.detection.detection_experiment import DetectionExperiment

_UNCALIBRATED = "uncalibrated"


def as_found(
    folder: Path, experiment: DetectionExperiment, fitted: FittedDetector, calibrators: list[Calibrator]
) -> LoadedDetector:
    """The fitted network as finding loads it, so that calibration uses the same outputs as finding.

    Args:
        folder: of the run.
        experiment: configuration, tables and splits.
        fitted: result of the training.
        calibrators: one for each class.
    """
    place = folder / "checkpoints" / _UNCALIBRATED
    shutil.rmtree(place, ignore_errors=True)  # of the run that is resumed
    save_detector(
        place,
        fitted.network,
        _settings(experiment.config),
        calibrators=calibrators,
        patients=PatientHashes.of("", dict.fromkeys(FITTED_ON, ())),
        provenance={},
    )
    detector = load_detector(place)
    shutil.rmtree(place)
    return detector


def save_trained(
    folder: Path,
    experiment: DetectionExperiment,
    fitted: FittedDetector,
    calibrators: list[Calibrator],
    digests: Mapping[str, Sequence[str]],
    provenance: Mapping[str, Any],
    *,
    measures: Sequence[Mapping[str, float]],
) -> LoadedDetector:
    """Write the detector's directory with its golden scans, and load it.

    Args:
        folder: that it becomes.
        experiment: configuration, tables and splits.
        fitted: what training found.
        calibrators: one for each class.
        digests: of the scans' bytes, by split.
        provenance: where it comes from.
        measures: of the training scans, from which the acceptance envelope is learned.
    """
    cases = {name: experiment.of(name) for name in FITTED_ON}
    save_detector(
        folder,
        fitted.network,
        _settings(experiment.config),
        calibrators=calibrators,
        patients=PatientHashes.of(
            str(provenance["mlflow_run_id"]),
            {name: [str(case.patient_id) for case in split] for name, split in cases.items()},
            case_ids=[case.case_id for split in cases.values() for case in split],
            images=[digest for name in FITTED_ON for digest in digests[name]],
        ),
        provenance=provenance,
        envelope=detector_envelope(measures, modality=experiment.config.data.modality),
    )
    add_golden_scans(folder)
    return load_detector(folder)


def detector_envelope(measures: Sequence[Mapping[str, float]], *, modality: Modality) -> Envelope:
    """What the training scans allow: spacing and, for CT, the density of lung.

    Args:
        measures: of each training scan.
        modality: of the scans.
    """
    judged = [{name: scan[name] for name in ENVELOPE_MEASURES if name in scan} for scan in measures]
    return fit_envelope(judged, modality=modality)


def _settings(config: DetectionConfig) -> DetectorSettings:
    return DetectorSettings(
        name=config.name,
        classes=config.classes,
        network=config.network,
        grid=config.grid,
        candidates=config.candidates,
        modality=config.data.modality,
        lesions=LesionMeaning(source=config.data.label_source, intensities=config.data.intensities),
    )
