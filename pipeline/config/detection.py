"""Configuration of a detector: which whole scans, how it sees them, and how it is trained. ``task: detection``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.config.experiment import Tracking
from pipeline.config.inputs import (
    FilePath,
    Limits,
    Modality,
    Name,
    PositiveCount,
    Probability,
    Section,
    Seed,
    SourceText,
    SplitFractions,
)

DETECTION = "detection"  # the task
NODULE = "nodule"  # the class that a candidate is found by
LEAST_REPORTED = 0.1  # probability of being a lesion; candidates below it are in no DICOM report
DetectionClass = Literal["nodule", "solid", "part_solid_or_ground_glass", "calcified"]


class DetectionData(Section):
    """Where the whole scans and the lesions in them are."""

    scans: FilePath = Field(description="table of the scans, one row each: image, patient_id, label, optionally split")
    lesions: FilePath = Field(
        description="table of the lesions in these scans, a manifest with a centre and diameter_mm for each row"
    )
    modality: Modality = Field("CT", description="decides which voxel values are plausible")
    label_source: SourceText = Field(description="who marked the lesions, and how")
    intensities: Literal["real", "simulated"] = Field("real", description="shown wherever a result is shown")
    splits: SplitFractions = SplitFractions()
    split_seed: Seed = Field(0, description="who is in which split; independent of ``seed``")
    cache: FilePath | None = Field(None, description="folder that keeps resampled scans; null reads them in every run")


class DetectionGrid(Section):
    """How a whole scan becomes the detector's input; the same in training and in finding."""

    spacing_mm: Annotated[float, Field(ge=0.5, le=5)] = Field(1.5, description="millimetres between voxels, all axes")
    lower: float = Field(-1000.0, description="this value becomes 0 (for CT, in HU)")
    upper: float = Field(400.0, description="this value becomes 1 (for CT, in HU)")
    patch: Annotated[PositiveInt, Field(ge=32, le=256, multiple_of=16)] = Field(
        48, description="voxels along each side of a training patch"
    )
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _window_in_order(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower:g}) is not below upper ({self.upper:g}); swap or correct them")
        return self


class DetectorNetwork(Section):
    """A small 3D encoder-decoder; its heat maps have half the resolution of its input."""

    name: Literal["encoder_decoder"] = Field("encoder_decoder", description="residual U-Net of MONAI's blocks")
    width: Annotated[PositiveInt, Field(ge=4, le=128)] = Field(16, description="channels of the finest features")
    levels: Annotated[PositiveInt, Field(ge=2, le=4)] = Field(3, description="how often the resolution is halved again")
    average_flips: bool = Field(
        default=False,
        description="finding averages over the scan and its mirror image along all axes: twice the time",
    )


class CandidateRules(Section):
    """Which peaks of the heat map become candidates."""

    lowest_probability: Probability = Field(0.02, description="uncalibrated, of the class nodule, at the peak")
    separation_mm: NonNegativeFloat = Field(
        4.0, description="of two peaks closer than this, or than the stronger one's radius, the weaker one is dropped"
    )
    most: PositiveCount = Field(64, description="candidates of a scan; the strongest are kept")


class DetectionTraining(Section):
    """How the detector's weights are found."""

    max_epochs: PositiveCount = Field(8, description="each is judged on the validation split; the best one is kept")
    steps_per_epoch: PositiveCount = Field(150, description="optimiser steps; whole scans have no natural epoch")
    batch_size: PositiveCount = Field(8, description="patches of one step")
    positive_share: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="share of patches that hold a lesion")
    hard_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="share of patches around false positives of the training scans, once some have been mined"
    )
    mined_scans: NonNegativeInt = Field(
        16, description="training scans that are searched for false positives after each epoch; 0 mines none"
    )
    learning_rate: PositiveFloat = Field(2e-3, description="of AdamW; the largest of a one-cycle schedule")
    weight_decay: NonNegativeFloat = Field(1e-2, description="of AdamW")
    gradient_clip: NonNegativeFloat = Field(5.0, description="largest gradient norm; 0 is off")
    flip_axes: tuple[Literal[0, 1, 2], ...] = Field((0, 1, 2), description="axes that may be mirrored", strict=False)
    quarter_turns: bool = Field(default=True, description="turn by 0, 90, 180 or 270 degrees in the R-A plane")
    intensity_shift: NonNegativeFloat = Field(0.02, description="values plus ± this, after scaling to [0, 1]")
    noise_std: NonNegativeFloat = Field(0.02, description="largest Gaussian noise, after scaling to [0, 1]")
    precision: Literal["32-true", "bf16-mixed", "auto"] = Field("auto", description="auto: bf16 where it is native")
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: a GPU when there is one")

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Self:
        if self.positive_share + self.hard_share > 1:
            raise ValueError(
                f"positive_share ({self.positive_share:g}) and hard_share ({self.hard_share:g}) add up to more than 1; "
                "lower one"
            )
        return self


class DetectionEvaluationSettings(Section):
    """What the test split is asked."""

    resamples: Annotated[int, Field(ge=100)] = Field(1000, description="of the bootstrap over patients")
    groups: tuple[str, ...] = Field((), description="columns of the lesions that are judged apart", strict=False)
    pictures: bool = Field(default=False, description="show candidates, images of patients, in the report")


class DetectionConfig(Section):
    """One training of a detector, whole."""

    name: Name = Field(description="of the experiment; runs and models carry it")
    task: Literal["detection"] = Field(description="what tells a detector from a classifier")
    seed: Seed = Field(0, description="of weights, patches and augmentation")
    output: FilePath = Field(Path("runs"), description="folder that gets one folder a run")
    data: DetectionData
    classes: tuple[DetectionClass, ...] = Field(
        ("nodule", "solid", "part_solid_or_ground_glass", "calcified"),
        description="one sigmoid each: nodule, and columns of the lesions' table",
        strict=False,
    )
    grid: DetectionGrid = DetectionGrid()
    network: DetectorNetwork = DetectorNetwork()
    candidates: CandidateRules = CandidateRules()
    training: DetectionTraining = DetectionTraining()
    evaluation: DetectionEvaluationSettings = DetectionEvaluationSettings()
    tracking: Tracking = Tracking(registered_model="malignancy-detector")

    @field_validator("classes")
    @classmethod
    def _start_with_nodule(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or value[0] != NODULE or len(set(value)) < len(value):
            raise ValueError(f"{list(value)} must start with {NODULE!r} and name each class once; correct it")
        return value
