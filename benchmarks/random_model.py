"""A model directory with weights from a seed, for benchmarks that need no trained one."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.config.inputs import Preprocessing
from pipeline.config.training import Network
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.models.networks import build_network
from pipeline.scoring.golden import add_golden
from pipeline.scoring.model_description import LabelMeaning, ModelFacts, PatientHashes
from pipeline.scoring.model_directory import Member, save_model


def write_random_model(folder: Path, network: Network, *, side: int) -> Path:
    """Write a 3D lesion model for cubes of ``side`` voxels of 1 mm, uncalibrated, without an envelope."""
    torch.manual_seed(0)
    save_model(
        folder,
        [Member(build_network(network, dimensions=3), (Calibrator("temperature", {"temperature": 1.0}),))],
        ModelFacts(
            name="benchmark",
            network=network,
            preprocessing=Preprocessing(region="lesion", size=(side,) * 3, spacing_mm=(1.0,) * 3),
            modality="CT",
            operating_points=(OperatingPoint(0.5, "youden", None, None, 1, 1, 1.0, 1.0).to_json(),),
            label=LabelMeaning(source="none: random weights", intensities="simulated"),
            envelope=None,
            prevalence_at_calibration=0.5,
            patients=PatientHashes.of("none", {"train": [], "validation": [], "calibration": []}),
            provenance={},
        ),
    )
    add_golden(folder)
    return folder
