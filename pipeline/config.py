"""Typed configuration: one strict, frozen schema. ``pipeline.config_file`` reads it from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
FilePath = Annotated[Path, Field(strict=False)]
Modality = Literal["CT", "MR", "US", "XR", "mask", "other"]
SPLITS = ("train", "validation", "calibration", "test")
MALIGNANT = "malignant"  # the finding that the manifest's column ``label`` holds


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys and silent type changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitFractions(Section):
    """Share of the patients in each split, used when the manifest has no ``split`` column."""

    train: Fraction = 0.55
    validation: Fraction = 0.15
    calibration: Fraction = 0.15
    test: Fraction = 0.15

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.calibration + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four fractions add up to {total:g}, not 1; change one of them")
        return self


class InputCache(Section):
    """Prepared inputs on disk, shared by all runs, folds and processes that name the folder."""

    folder: FilePath
    max_gb: PositiveFloat = Field(20.0, description="above it, the inputs that were not used longest are removed")


class Data(Section):
    """Where the cases are and what their labels mean."""

    manifest: FilePath
    extra_columns: FilePath | None = Field(
        None, description="a table with a case_id column; its other columns are added to the manifest's, for training"
    )
    modality: Modality
    label_source: str = Field(min_length=3, description="whose opinion or which test the label is")
    intensities: Literal["real", "simulated"] = "real"
    findings: tuple[Name, ...] = Field(
        (MALIGNANT,),
        description="what is predicted: the label, called malignant, then columns of 0, 1 and blank",
        strict=False,
    )
    splits: SplitFractions = SplitFractions()
    split_seed: NonNegativeInt = 0
    cache: InputCache | None = Field(None, description="null reads every scan in every run, and keeps inputs in memory")


class Intensity(Section):
    """How voxel values become the network's input."""

    scaling: Literal["window", "zscore", "range"] = "window"
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


class Preprocessing(Section):
    """From a scan on disk to the network's input; the same for training, evaluation and scoring."""

    dimensions: Literal[2, 3] = 3
    region: Literal["lesion", "image"] = Field(description="a cube around the lesion centre, or the whole image")
    size: tuple[PositiveInt, ...] = Field(description="voxels of the input along R, A (and S)", strict=False)
    spacing_mm: tuple[PositiveFloat, ...] | None = Field(
        description="millimetres between voxels along R, A (and S); null resizes the whole image to size", strict=False
    )
    intensity: Intensity = Intensity()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, value in (("size", self.size), ("spacing_mm", self.spacing_mm)):
            if value is not None and len(value) != self.dimensions:
                raise ValueError(
                    f"{name} has {len(value)} values for dimensions={self.dimensions}; give {self.dimensions}"
                )
        if min(self.size) < 8:
            raise ValueError(f"size {self.size} is below 8 voxels; no network here accepts that")
        if self.region == "lesion" and self.spacing_mm is None:
            raise ValueError("region 'lesion' needs spacing_mm, because its size is a length in millimetres")
        if self.region == "lesion" and self.dimensions == 2:
            raise ValueError("region 'lesion' needs dimensions 3; for slices cut around the lesion use region 'image'")
        return self


class Augmentation(Section):
    """Random changes of training inputs (MONAI transforms); all off is a valid choice."""

    flip_axes: tuple[Literal[0, 1, 2], ...] = Field(
        (), description="axes (0 = R, 1 = A, 2 = S) that may be mirrored", strict=False
    )
    quarter_turns: bool = Field(default=False, description="turn by 0, 90, 180 or 270 degrees in the R-A plane")
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="zoom drawn from 1 ± this")
    translate_voxels: NonNegativeFloat = 0.0
    intensity_scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="values times 1 ± this")
    intensity_shift: NonNegativeFloat = Field(0.0, description="values plus ± this")
    noise_std: NonNegativeFloat = 0.0
    blur_sigma: NonNegativeFloat = Field(0.0, description="largest Gaussian blur, in voxels")
    probability: Probability = Field(0.5, description="chance of each flip and of each intensity change")


NETWORKS = ("compact", "planes", "cnn_lstm", "resnet10", "resnet18", "resnet34", "resnet50", "densenet121")
OWN_NETWORKS = ("compact", "planes", "cnn_lstm")  # built of the same blocks


class Network(Section):
    """The network; it always ends in one logit."""

    name: Literal["compact", "planes", "cnn_lstm", "resnet10", "resnet18", "resnet34", "resnet50", "densenet121"] = (
        "compact"
    )
    width: PositiveInt | None = Field(
        None, description="channels of the first stage of our own networks; null is their default"
    )
    activation: Literal["relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "sigmoid"] = Field(
        "relu", description="hidden units of our own networks"
    )
    head: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="one logit, or the difference of two: the same model with twice the last weights"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    pooling: Literal["mean", "center"] = Field(
        "mean", description="of features over the image, in our own networks; center: weighted towards the middle"
    )
    average_flips: bool = Field(
        default=False, description="outside training, the mean logit over all mirror images: 4 or 8 passes a case"
    )
    average_turns: bool = Field(
        default=False, description="and over the quarter turn in the R-A plane, with average_flips: twice the passes"
    )

    @model_validator(mode="after")
    def _options_fit_the_network(self) -> Self:
        if self.average_turns and not self.average_flips:
            raise ValueError("average_turns: true without average_flips covers no symmetry; set average_flips: true")
        if self.name in OWN_NETWORKS:
            return self
        if self.width is not None:
            raise ValueError(f"width {self.width} has no meaning for {self.name!r}; remove it or choose 'compact'")
        if self.pooling != "mean":
            raise ValueError(
                f"pooling {self.pooling!r} has no meaning for {self.name!r}; remove it or choose 'compact'"
            )
        if self.activation != "relu":
            raise ValueError(
                f"activation {self.activation!r} cannot be given to {self.name!r}; set 'relu' or choose 'compact'"
            )
        return self


class EarlyStopping(Section):
    """When to stop before ``max_epochs``; the monitored quantity is measured on the validation split."""

    monitor: Literal["auroc", "log_loss"] = "log_loss"
    patience: PositiveInt = 10


class SoftLabels(Section):
    """Readers' disagreement as the target of the loss; calibration, thresholds and every metric use the hard label."""

    column: str = Field(min_length=1, description="numeric column of the manifest, for example the mean rating")
    lowest: float = Field(description="the value that means surely benign")
    highest: float = Field(description="the value that means surely malignant")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.lowest < self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) is not below highest ({self.highest:g}); swap or correct them")
        return self


class Auxiliary(Section):
    """Columns that the network learns to predict beside the logit, in training only.

    What they teach (a lesion's size, its texture) helps the logit where cases are few; scoring never needs them.
    """

    columns: dict[str, Literal["linear", "log"]] = Field(
        min_length=1,
        description="numeric columns of the manifest and the scale they are learnt on; blanks are left out",
    )
    weight: PositiveFloat = Field(1.0, description="of their mean squared error, in units of each column's variance")


class Training(Section):
    """How the weights are found."""

    max_epochs: PositiveInt = 30
    batch_size: PositiveInt = Field(32, description="cases of one step, on all devices together")
    accumulate_batches: PositiveInt = Field(1, description="batches whose gradients make one optimiser step")
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-2
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    class_balance: Literal["none", "weighted_loss", "balanced_sampler"] = Field(
        "none", description="weighting shifts the intercept; see calibration.method and calibration.prior_correction"
    )
    soft_labels: SoftLabels | None = Field(None, description="null trains on the hard label")
    auxiliary: Auxiliary | None = Field(None, description="null trains on the label alone")
    early_stopping: EarlyStopping | None = Field(
        EarlyStopping(), description="null runs all epochs and keeps the last weights: for few validation cases"
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="exponential moving average of the weights; 0 is off"
    )
    gradient_clip: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 is off")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = Field(1, description="of each node; more than one process is started by torchrun")
    num_nodes: PositiveInt = 1
    loader_workers: NonNegativeInt = Field(0, description="processes that read batches ahead; 0 reads between steps")


class Calibration(Section):
    """How logits become probabilities; fitted on the calibration split only."""

    method: Literal["temperature", "platt", "isotonic"] = "temperature"
    prior_correction: bool = Field(default=False, description="subtract what class balancing added to the logit")


class OperatingPoint(Section):
    """The rule that chooses the threshold, on the calibration split only."""

    rule: Literal["sensitivity", "specificity", "youden", "cost"] = "sensitivity"
    target: Fraction | None = 0.95
    cost_ratio: PositiveFloat | None = Field(None, description="cost of a missed malignancy over that of a false alarm")
    refer_coverage: Fraction | None = Field(
        None, description="share of each class that its side of the refer zone must hold; null refers no case"
    )

    @model_validator(mode="after")
    def _target_fits_the_rule(self) -> Self:
        if (self.target is not None) != (self.rule in ("sensitivity", "specificity")):
            raise ValueError(
                f"target is {self.target} for rule {self.rule!r}; it belongs to 'sensitivity' and 'specificity' alone"
            )
        if (self.cost_ratio is not None) != (self.rule == "cost"):
            raise ValueError(f"cost_ratio is {self.cost_ratio} for rule {self.rule!r}; it belongs to 'cost' alone")
        return self


class Evaluation(Section):
    """What the test split is asked."""

    resamples: Annotated[int, Field(ge=100)] = 2000
    baseline_columns: tuple[str, ...] = Field(
        (), description="logistic regression beside the model; diameter_mm by default, where there is one", strict=False
    )
    oracle_columns: tuple[str, ...] = Field(
        (), description="a regression on more than a reader would know", strict=False
    )
    subgroups: tuple[str, ...] = Field((), strict=False)
    champion: bool = Field(
        default=True, description="score the test split with the registered model's champion too, for the report"
    )
    pictures: bool = Field(
        default=False, description="show the most confident mistakes, images of patients, in the report"
    )


class Tracking(Section):
    """Where the run is recorded. ``MLFLOW_TRACKING_URI`` in the environment wins over ``uri``."""

    uri: str = "sqlite:///mlflow.db"
    artifacts: FilePath = Field(
        Path("mlartifacts"), description="where artifacts go when the store is a local database"
    )
    experiment: str = Field("malignancy", min_length=1)
    registered_model: Name | None = Field("malignancy", description="null registers nothing")


class Range(Section):
    """Values that a search may try for one key: ``choices``, or anything from ``low`` to ``high``."""

    choices: tuple[Any, ...] | None = Field(None, min_length=2, strict=False)
    low: float | None = None
    high: float | None = None
    log: bool = Field(default=False, description="try orders of magnitude evenly")
    integer: bool = False

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        bounds = self.low is not None and self.high is not None and self.low < self.high
        if bounds == (self.choices is not None) or (self.choices is not None and (self.log or self.integer)):
            raise ValueError("give either choices, or low below high (optionally log, integer)")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"low ({self.low:g}) has no logarithm; give a positive number, or log: false")
        return self


class Search(Section):
    """What ``malignancy search`` tries; it reads the training and validation splits alone."""

    ranges: dict[str, Range] = Field(min_length=1, description="dotted keys of network, training or augmentation")
    trials: PositiveInt = 20
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0,), min_length=1, description="a trial is judged by its mean over these", strict=False
    )
    prune: bool = Field(default=True, description="stop a trial early when it lags behind the others' median")

    @model_validator(mode="after")
    def _keys_can_be_searched(self) -> Self:
        for key in self.ranges:
            if key.split(".")[0] not in ("network", "training", "augmentation"):
                raise ValueError(f"ranges: {key!r} cannot be searched; keys of network, training or augmentation can")
        return self


class Config(Section):
    """One experiment, whole."""

    name: Name
    task: Literal["binary", "multilabel"] = "binary"
    seed: NonNegativeInt = 0
    output: FilePath = Field(Path("runs"), description="folder that gets one folder a run")
    data: Data
    preprocessing: Preprocessing
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    training: Training = Training()
    calibration: Calibration = Calibration()
    operating_point: OperatingPoint = OperatingPoint()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()
    search: Search | None = Field(None, description="for malignancy search alone")

    @model_validator(mode="after")
    def _findings_fit_the_task(self) -> Self:
        findings = self.data.findings
        if self.task == "binary" and findings != (MALIGNANT,):
            raise ValueError(
                f"data.findings: {list(findings)} needs task: multilabel; set it, or leave [{MALIGNANT}] alone"
            )
        if self.task == "multilabel" and (len(findings) < 2 or findings[0] != MALIGNANT):
            raise ValueError(
                f"data.findings: {list(findings)} is no list for task multilabel, which starts with {MALIGNANT!r} "
                "(the column 'label') and goes on with other columns of the manifest; correct it"
            )
        for name in findings:
            if findings.count(name) > 1 or name in ("macro", "micro") or name.startswith("member_"):
                raise ValueError(
                    f"data.findings: {name!r} stands twice or is a name that score rows and summaries use themselves; "
                    "rename the column"
                )
        if self.task == "multilabel" and self.training.class_balance != "none":
            raise ValueError(
                f"training.class_balance: {self.training.class_balance!r} balances one label and would shift every "
                "finding; set it to none with task multilabel"
            )
        return self

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        stop = self.training.early_stopping
        if stop and stop.patience >= self.training.max_epochs:
            raise ValueError(
                f"training.early_stopping.patience: {stop.patience} is not below training.max_epochs "
                f"({self.training.max_epochs}), so it could never stop early; lower it"
            )
        shifts = self.training.class_balance != "none"
        mends = self.calibration.method == "platt" or self.calibration.prior_correction
        if shifts and not mends:
            raise ValueError(
                f"calibration.method: {self.calibration.method!r} cannot mend the intercept that "
                f"training.class_balance={self.training.class_balance!r} shifts; use 'platt' or set "
                "calibration.prior_correction: true"
            )
        if self.calibration.prior_correction and not shifts:
            raise ValueError(
                "calibration.prior_correction: true has nothing to correct with training.class_balance 'none'; "
                "set it to false"
            )
        is_cube = self.preprocessing.dimensions == 3 and len(set(self.preprocessing.size)) == 1
        if self.network.name == "planes" and not is_cube:
            raise ValueError(
                f"network.name: 'planes' needs a cube, and preprocessing.size is {list(self.preprocessing.size)}; "
                "give three equal sides, or choose 'compact'"
            )
        if self.network.average_turns and self.preprocessing.size[0] != self.preprocessing.size[1]:
            raise ValueError(
                f"network.average_turns: a quarter turn needs equal sides, and preprocessing.size is "
                f"{list(self.preprocessing.size)}; make the first two equal, or set it to false"
            )
        if self.network.name == "cnn_lstm":
            self._slices_can_be_told_from_padding()
        if self.preprocessing.dimensions == 2 and 2 in self.augmentation.flip_axes:
            raise ValueError(
                f"augmentation.flip_axes: {self.augmentation.flip_axes} names axis 2 of a 2D input; use 0 and 1"
            )
        return self

    def _slices_can_be_told_from_padding(self) -> None:
        if self.preprocessing.dimensions != 3:
            raise ValueError(
                "network.name: 'cnn_lstm' reads slices along the third axis, and preprocessing.dimensions is 2; "
                "set it to 3, or choose 'compact'"
            )
        if self.augmentation.noise_std:
            raise ValueError(
                f"augmentation.noise_std: {self.augmentation.noise_std:g} would make padding look like slices to "
                "network 'cnn_lstm', which knows them by being constant; set it to 0"
            )
