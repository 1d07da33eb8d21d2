"""What the parts of the GPU benchmark share: how they are run, what they find, and the cases that they train on."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.experiment import Config
from pipeline.training.data import CaseTensors


@dataclass(frozen=True)
class Setting:
    """How the benchmark is run.

    Attributes:
        device: ``cuda`` or ``cpu``.
        tiny: sizes that a CPU does in seconds, whose figures mean nothing.
        folder: of the data and of what the parts write.
        cores: that read and prepare.
        profile: say where the time of trainings goes.
        stock: the script that trains as a MONAI user does, if there is one.
        stock_scoring: the one that scores so.
    """

    device: str
    tiny: bool
    folder: Path
    cores: int
    profile: bool = False
    stock: Path | None = None
    stock_scoring: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU's figures that are asked for."""
        return self.device == "cuda"

    @property
    def scoring_device(self) -> str:
        """On a CPU a name that is not ``cpu``, so that the networks run in the asking process as on a GPU."""
        return "cuda" if self.on_gpu else "cpu:0"

    @property
    def manifest(self) -> Path:
        """Of the demonstration cases that trainings are compared on."""
        return self.folder / "demo" / "manifest.csv"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: was measured or tried.
        result: as it is printed.
        goal: as it is printed; empty where there is none.
        passed: whether the goal was reached; None where there is no goal, or nothing could be measured.
        figures: numbers for the JSON line.
    """

    what: str
    result: str
    goal: str = ""
    passed: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the JSON line."""
        return asdict(self)


def wait_for(device: str) -> None:
    """Until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def training_arguments(setting: Setting, *, network: str, size: int, epochs: int, batch: int) -> argparse.Namespace:
    """What ``training_speed`` is given on its command line."""
    return argparse.Namespace(
        manifest=setting.manifest,
        network=[network],
        size=size,
        stock=setting.stock,
        stock_workers=setting.cores,
        stock_bf16="cuda" if setting.on_gpu else None,
        epochs=epochs,
        compact_epochs=None,
        batch=batch,
        precision="bf16-mixed",
    )


def made_cases(count: int, side: int, *, seed: int = 0) -> CaseTensors:
    """Cubes of noise, brighter in the middle where the label is 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.normal(0.3, 0.1, (count, 1, side, side, side)).astype(np.float32)
    middle = slice(side // 3, 2 * side // 3)
    images[labels == 1, :, middle, middle, middle] += 0.3
    return CaseTensors.from_arrays(list(images), labels.tolist(), [str(number) for number in range(count)])


def made_config(setting: Setting, *, network: str, side: int, **training: Any) -> Config:
    """A training of :func:`made_cases` on the benchmark's device."""
    return Config.model_validate(
        {
            "name": "gpu",
            "data": {"manifest": "none.csv", "modality": "CT", "label_source": "made up"},
            "preprocessing": {"region": "image", "size": [side] * 3, "spacing_mm": [1.0] * 3},
            "augmentation": {"flip_axes": [0, 1, 2], "noise_std": 0.02},
            "network": {"name": network},
            "training": {
                "accelerator": "gpu" if setting.on_gpu else "cpu",
                "early_stopping": None,
                "schedule": "constant",
                "learning_rate": 1e-4,
                **training,
            },
        }
    )
