"""Configuration of the inputs: where cases lie, how they are split, and how a scan becomes a network's input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.config.body_parts import body_part_term

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveCount = Annotated[PositiveInt, Field(le=1_000_000)]
Seed = Annotated[NonNegativeInt, Field(le=2**32 - 1)]  # what all generators of random numbers take
SourceText = Annotated[str, Field(min_length=3, max_length=1000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
FilePath = Annotated[Path, Field(strict=False)]
Modality = Literal["CT", "MR", "US", "XR", "mask", "other"]
Scale = Literal["linear", "log"]
# One word or several; 0 and 1 are words too, where a table holds them.
Words = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(map(str, value if isinstance(value, list | tuple) else (value,)))),
]
SPLITS = ("train", "validation", "calibration", "test")
MALIGNANT = "malignant"  # the finding that the manifest's column ``label`` holds


def _known_body_part(text: object) -> object:
    term = body_part_term(text) if isinstance(text, str) else text
    if term is None:
        raise ValueError(f"{text!r} is no body part of DICOM's list, as CHEST, BRAIN, BREAST or ABDOMEN; give its term")
    return term


BodyPart = Annotated[str, BeforeValidator(_known_body_part)]


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys and silent type changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SplitFractions(Section):
    """Share of the patients in each split, used when the manifest has no ``split`` column."""

    train: Fraction = Field(0.55, description="fits the weights")
    validation: Fraction = Field(0.15, description="stops training and picks the epoch")
    calibration: Fraction = Field(0.15, description="fits the calibrator and chooses the threshold")
    test: Fraction = Field(0.15, description="judges")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.calibration + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four fractions add up to {total:g}, not 1; change one of them")
        return self


class InputCache(Section):
    """Prepared inputs on disk, shared by all runs, folds and processes that name the folder."""

    folder: FilePath = Field(description="made when missing")
    max_gb: PositiveFloat = Field(20.0, description="above it, the inputs that were not used longest are removed")


class Data(Section):
    """Where the cases are and what their labels mean."""

    manifest: FilePath = Field(
        description="table of the cases, CSV or Parquet, beside this file or in the current folder"
    )
    extra_columns: FilePath | None = Field(
        None, description="a table with a case_id column; its other columns are added to the manifest's, for training"
    )
    lesions: tuple[FilePath, ...] = Field(
        (),
        description="annotation files or folders of them: masks, DICOM SEG, RTSTRUCT and SR, Slicer's markups, tables; "
        "each lesion that they mark is a case of its image, with centre and diameter",
        strict=False,
    )
    modality: Modality = Field(description="decides which voxel values are plausible")
    body_part: BodyPart | None = Field(
        None, description="DICOM's term, as CHEST, where the scans do not say it; null takes what their headers name"
    )
    other_body_parts: Literal["flag", "refuse"] = Field(
        "flag", description="what scoring does with a case whose header names another body part"
    )
    label_source: SourceText = Field(description="whose opinion or which test the label is")
    intensities: Literal["real", "simulated"] = Field("real", description="shown wherever a result is shown")
    positive_label: Words = Field(
        (), description="word or words of the label column that mean malignant; none reads 1 and 0"
    )
    negative_label: Words = Field(
        (), description="words that mean benign; none takes the only other word; what is neither stays unlabelled"
    )
    findings: tuple[Name, ...] = Field(
        (MALIGNANT,),
        description="what is predicted: the label, called malignant, then columns of 0, 1 and blank",
        strict=False,
    )
    covariates: dict[str, Scale] = Field(
        default_factory=dict,
        description="numeric columns that every case has, also when it is scored, and the scale they are used on; "
        "a regression adds them to the network's logit",
    )
    splits: SplitFractions = SplitFractions()
    split_seed: Seed = Field(0, description="who is in which split; independent of ``seed``")
    cache: InputCache | None = Field(None, description="null reads every scan in every run, and keeps inputs in memory")

    @field_validator("label_source")
    @classmethod
    def _is_filled_in(cls, value: str) -> str:
        if value.strip().upper().startswith("CHANGE"):
            raise ValueError(
                f"label_source is still {value!r}; say whose opinion or which test the labels are, as "
                "data.label_source='histology of the resected lesion': it stands beside every probability of the model"
            )
        return value


class Intensity(Section):
    """How voxel values become the network's input."""

    scaling: Literal["window", "zscore", "range"] = Field(
        "window", description="a window of values, mean 0 and variance 1, or the region's own range"
    )
    lower: float | None = Field(-1000.0, description="window: this value becomes 0 (for CT, in HU)")
    upper: float | None = Field(400.0, description="window: this value becomes 1 (for CT, in HU)")

    @model_validator(mode="after")
    def _limits_fit_the_scaling(self) -> Self:
        if self.scaling == "window":
            if self.lower is None or self.upper is None or not self.lower < self.upper:
                raise ValueError(
                    f"lower ({self.lower}) is not below upper ({self.upper}); a window needs both, in order"
                )
        elif self.lower is not None or self.upper is not None:
            raise ValueError(f"lower and upper have no meaning for scaling {self.scaling!r}; set both to null")
        return self


class Limits(Section):
    """What a reader may allocate before it refuses a file."""

    max_voxels: PositiveInt = Field(1_000_000_000, description="voxels that a header may claim")
    max_bytes: PositiveInt = Field(4_000_000_000, description="bytes of a decompressed file")
    max_ratio: PositiveInt = Field(200, description="decompressed bytes per compressed byte, above the first 16 MiB")


class Zoom(Section):
    """Enlarging small lesions: the input's spacing follows a size that is known of every case."""

    column: Name = Field(description="a covariate on the log scale: the lesion's size in mm, as diameter_mm")
    reference_mm: PositiveFloat = Field(description="a lesion of this size is shown at spacing_mm")
    power: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="1 shows all lesions equally large; below 1 smaller ones stay smaller"
    )
    smallest: PositiveFloat = Field(0.5, description="least factor by which a large lesion is shrunk")
    largest: PositiveFloat = Field(3.0, description="greatest factor by which a small one is enlarged")

    @model_validator(mode="after")
    def _holds_no_zoom(self) -> Self:
        if not self.smallest <= 1 <= self.largest:
            raise ValueError(f"smallest ({self.smallest:g}) to largest ({self.largest:g}) does not hold 1; widen it")
        return self

    def factor(self, size_mm: float) -> float:
        """How much a lesion of a size in mm is enlarged.

        Example:
            >>> Zoom(column="diameter_mm", reference_mm=9.0, largest=2.0).factor(6.0)
            1.5
        """
        factor = math.pow(self.reference_mm / size_mm, self.power)
        return min(max(factor, self.smallest), self.largest)


MOST_INPUT_VOXELS = 2**27  # half a gigabyte a case


class Preprocessing(Section):
    """From a scan on disk to the network's input; the same for training, evaluation and scoring."""

    dimensions: Literal[2, 3] = Field(3, description="of the network's input")
    region: Literal["lesion", "image"] = Field(description="a cube around the lesion centre, or the whole image")
    size: tuple[Annotated[PositiveInt, Field(le=4096)], ...] = Field(
        description="voxels of the input along R, A (and S)", strict=False
    )
    spacing_mm: tuple[PositiveFloat, ...] | None = Field(
        description="millimetres between voxels along R, A (and S); null resizes the whole image to size", strict=False
    )
    zoom: Zoom | None = Field(
        None,
        description="null, or the covariate by which small lesions are enlarged",
        exclude_if=lambda zoom: zoom is None,  # digests of inputs and models without it stay what they were
    )
    intensity: Intensity = Intensity()
    limits: Limits = Limits()

    def for_size(self, size_mm: float) -> Preprocessing:
        """The preprocessing of a case whose zoom column holds this size in mm: spacing divided by the factor."""
        if self.zoom is None or self.spacing_mm is None:
            return self
        factor = self.zoom.factor(size_mm)
        return self.model_copy(update={"spacing_mm": tuple(mm / factor for mm in self.spacing_mm), "zoom": None})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, value in (("size", self.size), ("spacing_mm", self.spacing_mm)):
            if value is not None and len(value) != self.dimensions:
                raise ValueError(
                    f"{name} has {len(value)} values for dimensions={self.dimensions}; give {self.dimensions}"
                )
        if math.prod(self.size) > MOST_INPUT_VOXELS:
            raise ValueError(
                f"size {self.size} is {math.prod(self.size):,} voxels, expected at most {MOST_INPUT_VOXELS:,}; "
                "give fewer"
            )
        if min(self.size) < 8:
            raise ValueError(f"size {self.size} is below 8 voxels; no network here accepts that")
        if self.region == "lesion" and self.spacing_mm is None:
            raise ValueError("region 'lesion' needs spacing_mm, because its size is a length in millimetres")
        if self.zoom and self.spacing_mm is None:
            raise ValueError("zoom needs spacing_mm, which it divides by the factor of each case")
        if self.region == "lesion" and self.dimensions == 2:
            raise ValueError("region 'lesion' needs dimensions 3; for slices cut around the lesion use region 'image'")
        return self
