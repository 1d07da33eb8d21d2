"""Small cohorts of scans that the tests write, and a configuration that trains on them in seconds."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from pipeline.cli import run
from pipeline.config.experiment import Config


def write_scan(path: Path, *, malignant: bool, rng: np.random.Generator) -> None:
    """A CT crop of 40 mm: lung, and a soft ball of 6 or 14 mm at world (0, 0, 0)."""
    spacing, shape = np.array([1.0, 1.0, 2.0]), (40, 40, 20)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) // 2)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * spacing + affine[:3, 3]
    radius = (7 if malignant else 3) + rng.uniform(-0.5, 0.5)
    voxels = rng.normal(-850, 40, shape)
    voxels[np.linalg.norm(grid, axis=-1) < radius] += 880
    image = nib.Nifti1Image(voxels.astype(np.int16), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def write_cohort(folder: Path, *, patients: int = 96) -> Path:
    """Scans and a manifest: one case a patient, every third malignant, the last unlabelled."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with open(folder / "manifest.csv", "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(
            [
                "case_id",
                "patient_id",
                "image",
                "label",
                "center_x_mm",
                "center_y_mm",
                "center_z_mm",
                "coordinate_system",
                "diameter_mm",
            ]
        )
        for number in range(patients):
            malignant = number % 3 == 0
            looks_malignant = malignant != (
                number % 7 == 3
            )  # some look like the other class, or all would be separable
            name = f"images/{number:03d}.nii.gz"
            write_scan(folder / name, malignant=looks_malignant, rng=rng)
            label = "" if number == patients - 1 else int(malignant)
            # A diameter that says something, but not all.
            rows.writerow(
                [
                    f"{number:03d}",
                    f"P{number:03d}",
                    name,
                    label,
                    0,
                    0,
                    0,
                    "RAS",
                    round(6 + 3 * malignant + rng.normal(0, 3), 1),
                ]
            )
    return folder / "manifest.csv"


def tiny_config(manifest: Path, folder: Path, **sections) -> dict:
    """A configuration that trains in seconds, with everything it writes under ``folder``."""
    base = {
        "name": "tiny",
        "output": str(folder / "runs"),
        "data": {
            "manifest": str(manifest),
            "modality": "CT",
            "label_source": "made up for a test",
            "intensities": "simulated",
        },
        "preprocessing": {"dimensions": 3, "region": "lesion", "size": [28, 28, 28], "spacing_mm": [1.25, 1.25, 1.25]},
        "augmentation": {"flip_axes": [0, 1], "noise_std": 0.05, "intensity_shift": 0.05},
        "network": {"name": "compact", "width": 4},
        "training": {
            "max_epochs": 3,
            "batch_size": 8,
            "learning_rate": 0.01,
            "loader_workers": 0,
            "early_stopping": {"patience": 2},
        },
        "calibration": {"method": "platt"},
        "evaluation": {"resamples": 200, "baseline_columns": ["diameter_mm"]},
        "tracking": {
            "uri": f"sqlite:///{folder / 'mlflow.db'}",
            "artifacts": str(folder / "mlartifacts"),
            "experiment": "tiny",
            "registered_model": "tiny",
        },
    }
    for section, values in sections.items():
        base[section] = {**base[section], **values} if isinstance(values, dict) else values
    Config.model_validate(base)
    return base


def train_tiny(folder, config, *options):
    """Train a configuration inside a folder, with whatever else the command line holds, and give the folder back."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert run(["train", "tiny.yaml", *options]) == 0
    return folder


def run_folder(workspace):
    """The folder of the only run of a workspace."""
    (folder,) = (workspace / "runs").iterdir()
    return folder
