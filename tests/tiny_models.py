"""A tiny model directory and small scans, for tests that score."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from pipeline.cases.case import Case
from pipeline.config.inputs import Preprocessing
from pipeline.config.training import Network
from pipeline.evaluation.calibration.fit import fit_calibrator
from pipeline.evaluation.decisions.operating_points import choose_operating_point
from pipeline.models.networks import build_network
from pipeline.scoring.golden import add_golden
from pipeline.scoring.model_description import LabelMeaning, ModelFacts, PatientHashes
from pipeline.scoring.model_directory import Member, save_model

PREPROCESSING = Preprocessing(dimensions=3, region="lesion", size=(28, 28, 28), spacing_mm=(1.0, 1.0, 1.0))
NETWORK = Network(name="compact", width=4)


def save_tiny(
    folder: Path,
    *,
    seed: int = 0,
    method: str = "temperature",
    envelope=None,
    provenance=None,
    preprocessing=PREPROCESSING,
    refer_zone=None,
    findings: tuple[str, ...] = ("malignant",),
):
    """Save a model with random weights and calibrators of the given method; its description."""
    rng = np.random.default_rng(seed)
    labels = np.arange(80) % 2
    logits = [rng.normal(labels * 2 - 1, 2) for _ in findings]
    calibrators = tuple(fit_calibrator(method, column, labels) for column in logits)
    torch.manual_seed(seed)
    return save_model(
        folder,
        [Member(build_network(NETWORK, dimensions=3, outputs=len(findings)), calibrators)],
        ModelFacts(
            name="tiny",
            network=NETWORK,
            preprocessing=preprocessing,
            modality="CT",
            operating_points=tuple(
                choose_operating_point(labels, calibrator.apply(column), rule="sensitivity", target=0.9).to_json()
                for calibrator, column in zip(calibrators, logits, strict=True)
            ),
            findings=findings,
            label=LabelMeaning(source="made up", intensities="simulated"),
            envelope=envelope and envelope.to_json(),
            prevalence_at_calibration=0.5,
            patients=PatientHashes.of("salt", {"train": ["a", "b"], "validation": ["c"], "calibration": ["d"]}),
            provenance=provenance or {},
            refer_zone=refer_zone and refer_zone.to_json(),
        ),
    )


def write_model(folder: Path, **settings) -> Path:
    """A whole model directory, with golden scans, as training leaves it."""
    save_tiny(folder, **settings)
    add_golden(folder)
    return folder


def write_scans(folder: Path, count: int, *, seed: int = 0) -> list[Case]:
    """Small CT crops, each another, as cases with their lesion in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -16
    for number in range(count):
        voxels = rng.normal(-850, 40, (16, 16, 16))
        voxels[6:10, 6:10, 6:10] += rng.uniform(200, 900)
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / f"{number:04d}.nii.gz")
    return cases_of(folder)


def cases_of(folder: Path) -> list[Case]:
    """One case for each file of a folder."""
    return [
        Case(case_id=path.name, image=path.name, path=path, center_mm=(0.0, 0.0, 0.0))
        for path in sorted(folder.iterdir())
    ]


def write_manifest(folder: Path) -> Path:
    """A manifest of a folder's scans, with their centres."""
    lines = ["case_id,image,center_x_mm,center_y_mm,center_z_mm,coordinate_system"]
    lines += [f"{path.name},{path.name},0,0,0,RAS" for path in sorted(folder.glob("*.nii.gz"))]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"
