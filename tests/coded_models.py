"""Registered models whose answers are known: a network that reads its logit from grey values painted into a picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from pipeline.config.experiment import Tracking
from pipeline.config.inputs import Intensity, Preprocessing
from pipeline.config.training import Network
from pipeline.evaluation.calibration.calibrator import Calibrator, logit, sigmoid
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.imaging.envelope import Envelope
from pipeline.scoring.model_description import LabelMeaning, ModelFacts, PatientHashes
from pipeline.scoring.model_directory import Member, save_model
from pipeline.scoring.rows import schema
from pipeline.tracking.registry import log_model, register
from pipeline.tracking.runs import open_run

SIDE, MIDDLE, STEP = 32, 128, 25.0  # grey = MIDDLE + STEP * z
PREPROCESSING = Preprocessing(
    dimensions=2, region="image", size=(SIDE, SIDE), spacing_mm=None, intensity=Intensity(lower=0.0, upper=255.0)
)
NETWORK = Network(name="compact", width=4)


class CodedNetwork(nn.Module):
    """Logit = slope of the site times z; z is painted into one half of the picture, the site into the other."""

    def __init__(self, north: float = 0.0, south: float = 0.0) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([north, south]))

    def forward(self, images):
        halves = [images[:, 0, : SIDE // 2].mean(dim=(1, 2)), images[:, 0, SIDE // 2 :].mean(dim=(1, 2))]
        z = (255 * halves[0] - MIDDLE) / STEP
        return (torch.where(halves[1] > 0.5, self.slopes[1], self.slopes[0]) * z)[:, None]


def use_coded_networks(patch) -> None:
    """Let model directories load ``CodedNetwork`` where they name a network."""
    patch.setattr(
        "pipeline.scoring.model_directory.build_network", lambda config, *, dimensions, outputs: CodedNetwork()
    )


def write_pictures(folder: Path, *, patients=360, south_every=4, seed=0, shift=0.0, first=0, slope=1.8) -> Path:
    """A manifest of pictures, one case a patient; the probability of malignancy is sigmoid(slope z + shift)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    path = folder / "manifest.csv"
    with open(path, "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["case_id", "patient_id", "image", "label", "site"])
        for number in range(first, first + patients):
            south = number % south_every == 0
            grey = int(np.clip(MIDDLE + STEP * rng.normal(), 1, 254))
            label = int(rng.random() < sigmoid(slope * (grey - MIDDLE) / STEP + shift))
            pixels = np.zeros((SIDE, SIDE), np.uint8)
            pixels[:, SIDE // 2 :] = grey  # columns run to the patient's left: this half has the lower R
            pixels[:, : SIDE // 2] = 200 if south else 40
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            site = "south" if south else "north"
            rows.writerow([f"c{number}", f"P{number}", f"images/{number}.png", label, site])
    return path


def save_coded(
    folder: Path,
    *,
    north=1.8,
    south=1.8,
    temperature=1.0,
    envelope=True,
    trained_on=("other",),
    case_ids=(),
    images=(),
    refer_zone=None,
    threshold=0.2,
    shift=0.0,
    provenance=None,
    **label,
):
    """A model directory with a coded network."""
    # The same decisions, whatever the temperature and the shift of the log odds.
    threshold = float(sigmoid(logit(threshold) / temperature + shift))
    point = OperatingPoint(threshold, "sensitivity", 0.9, None, 50, 50, 0.9, 0.6)
    return save_model(
        folder,
        [
            Member(
                CodedNetwork(north, south),
                (Calibrator("temperature", {"temperature": temperature}, -shift * temperature),),
            )
        ],
        ModelFacts(
            name="coded",
            network=NETWORK,
            preprocessing=label.pop("preprocessing", PREPROCESSING),
            modality="other",
            operating_points=(point.to_json(),),
            label=LabelMeaning(**{"source": "made up", "intensities": "simulated", **label}),
            envelope=Envelope(modality="other", cases=9, limits={}).to_json() if envelope else None,
            prevalence_at_calibration=0.5,
            patients=PatientHashes.of(
                "salt",
                {"train": trained_on, "validation": ["v"], "calibration": ["k"]},
                case_ids=case_ids,
                images=images,
            ),
            provenance=provenance or {},
            refer_zone=refer_zone and refer_zone.to_json(),
        ),
    )


def register_coded(folder: Path, tracking: Tracking, *, name="coded", **settings) -> str:
    """Save, log and register a coded model; returns its URI."""
    tracking = tracking.model_copy(update={"experiment": "coded"})
    with open_run(tracking, name=name, tags={}) as run:
        model = folder / run.run_id
        save_coded(model, **settings)
        log_model(
            run,
            model,
            input_example={"case_id": "a", "patient_id": "b", "image": "a.png"},
            columns=tuple(schema().names),
        )
        return register(run, name=name, description="as trained", tags={}).uri
