"""Configuration of what is learnt, and how: augmentation, network, optimiser, and what a search may try."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.config.inputs import FilePath, PositiveCount, Probability, Scale, Section

NetworkName = Literal[
    "compact",
    "planes",
    "cnn_lstm",
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_lite0",
    "i3resnet152",
]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)
WeightsSource = Annotated[str, Field(min_length=3, max_length=1000)]
WeightsInput = Literal["as_is", "imagenet", "plus_minus_one"]
OWN_NETWORKS = ("compact", "planes", "cnn_lstm")  # built of the same blocks
RESIDUAL_NETWORKS = ("resnet10", "resnet18", "resnet34", "resnet50", "i3resnet152")


class Augmentation(Section):
    """Random changes of training inputs (MONAI transforms); all off is a valid choice."""

    flip_axes: tuple[Literal[0, 1, 2], ...] = Field(
        (), description="axes (0 = R, 1 = A, 2 = S) that may be mirrored", strict=False
    )
    quarter_turns: bool = Field(default=False, description="turn by 0, 90, 180 or 270 degrees in the R-A plane")
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="turn by up to ± this")
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="zoom drawn from 1 ± this")
    translate_voxels: NonNegativeFloat = Field(0.0, description="shift by up to ± this along each axis")
    intensity_scale: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="values times 1 ± this")
    intensity_shift: NonNegativeFloat = Field(0.0, description="values plus ± this")
    noise_std: NonNegativeFloat = Field(0.0, description="standard deviation of Gaussian noise, after scaling")
    blur_sigma: NonNegativeFloat = Field(0.0, description="largest Gaussian blur, in voxels")
    probability: Probability = Field(0.5, description="chance of each flip and of each intensity change")


class Network(Section):
    """The network; it always ends in one logit."""

    name: NetworkName = Field(
        "compact",
        description="compact (2D or 3D), planes (a 2D network on three planes), cnn_lstm (thick slices), or one of "
        "MONAI's residual, dense and efficient networks; i3resnet152 is Merlin's encoder",
    )
    width: Annotated[PositiveInt, Field(le=4096)] | None = Field(
        None, description="channels of the first stage of our own networks; null is their default"
    )
    activation: Literal["relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "sigmoid"] = Field(
        "relu", description="hidden units of our own networks"
    )
    head: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="one logit, or the difference of two: the same model with twice the last weights"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of features, before the last layer")
    pooling: Literal["mean", "center"] = Field(
        "mean",
        description="of features over the image, in our own and residual networks; center: weighted towards the middle",
    )
    stages: Annotated[PositiveInt, Field(le=4)] | None = Field(
        None,
        description="of a residual network, so many of its four stages, with the last layer on their features: for "
        "pretrained weights and small lesions; null is all",
        exclude_if=lambda value: value is None,  # digests of models stay what they were
    )
    average_flips: bool = Field(
        default=False, description="outside training, the mean logit over all mirror images: 4 or 8 passes a case"
    )
    average_turns: bool = Field(
        default=False, description="and over the quarter turn in the R-A plane, with average_flips: twice the passes"
    )
    weights: FilePath | None = Field(
        None,
        description="file of pretrained weights, safetensors or PyTorch's, beside this file or in the current folder; "
        "null starts at random",
        exclude_if=lambda value: value is None,  # digests of models stay what they were
    )
    weights_source: WeightsSource | None = Field(
        None,
        description="where the weights are from, what they were learnt on, and their licence; stands in every model",
        exclude_if=lambda value: value is None,
    )
    weights_input: WeightsInput = Field(
        "as_is",
        description="what the weights were learnt on: as_is (images scaled as preprocessing.intensity does), imagenet "
        "(its channels' means and deviations), plus_minus_one; folded into the first convolution",
        exclude_if=lambda value: value == "as_is",
    )
    freeze: Annotated[NonNegativeInt, Field(le=100)] | Literal["features"] = Field(
        0,
        description="stages, from the image on, that stay as they were loaded; features: all but the last",
        exclude_if=lambda value: value == 0,
    )

    @property
    def architecture(self) -> Network:
        """The network as a model directory describes it: without the source of its initial weights."""
        return self.model_copy(update={"weights": None, "weights_source": None, "weights_input": "as_is", "freeze": 0})

    @model_validator(mode="after")
    def _weights_are_described(self) -> Self:
        if self.weights is None:
            given = {
                "weights_source": self.weights_source is not None,
                "weights_input": self.weights_input != "as_is",
                "freeze": self.freeze != 0,
            }
            for key, is_given in given.items():
                if is_given:
                    raise ValueError(f"{key} has no meaning without weights; name a file, or remove it")
        elif self.weights_source is None:
            raise ValueError(
                "weights_source is missing; say where the weights are from, what they were learnt on and under which "
                "licence, as weights_source='ImageNet, torchvision, BSD-3-Clause': it stands in every model"
            )
        return self

    @model_validator(mode="after")
    def _options_fit_the_network(self) -> Self:
        if self.average_turns and not self.average_flips:
            raise ValueError("average_turns: true without average_flips covers no symmetry; set average_flips: true")
        if self.stages is not None and self.name not in RESIDUAL_NETWORKS:
            raise ValueError(
                f"stages {self.stages} has no meaning for {self.name!r}; remove it or choose a residual network"
            )
        if self.name in OWN_NETWORKS:
            return self
        if self.width is not None:
            raise ValueError(f"width {self.width} has no meaning for {self.name!r}; remove it or choose 'compact'")
        if self.pooling != "mean" and self.name not in RESIDUAL_NETWORKS:
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

    monitor: Literal["auroc", "log_loss"] = Field("log_loss", description="what must improve")
    patience: PositiveCount = Field(10, description="epochs without an improvement")


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

    columns: dict[str, Scale] = Field(
        min_length=1,
        description="numeric columns of the manifest and the scale they are learnt on; blanks are left out",
    )
    weight: PositiveFloat = Field(1.0, description="of their mean squared error, in units of each column's variance")


class Gpu(Section):
    """How a GPU computes; without one none of these changes anything."""

    tf32: bool = Field(
        default=False, description="fp32 convolutions and products in TF32: faster, with three digits; bf16 ignores it"
    )
    deterministic: bool = Field(
        default=True, description="operations that repeat themselves, where torch has them; false lets cuDNN choose"
    )
    channels_last: bool = Field(default=True, description="weights and features channels last, as tensor cores want")
    compile: Literal["off", "cuda_graphs", "inductor"] = Field(
        "off",
        description="of training steps, in one process without accumulated batches: cuda_graphs for networks whose "
        "kernels are short, inductor for long trainings",
    )


class Training(Section):
    """How the weights are found."""

    folds: Annotated[int, Field(ge=2)] | Literal["auto"] | None = Field(
        None,
        description="of cross-validation by patient: every case is judged by the network that never saw its patient, "
        "and the model is all of them; null judges on a test split; auto: folds where a test split would be too small",
    )
    members: PositiveCount | Literal["auto"] = Field(
        1,
        description="networks of one model; with several, each leaves out one part of the patients not tested on, "
        "and what they say of the parts they left out fits calibrator and thresholds; auto: by the number of patients",
    )
    mode: Literal["end_to_end", "frozen_features"] = Field(
        "end_to_end",
        description="end_to_end learns all weights; frozen_features computes the features of network.weights once and "
        "fits their last layer by logistic regression, for few cases",
    )
    max_epochs: PositiveCount = Field(30, description="passes over the training cases, at most")
    min_steps: Annotated[NonNegativeInt, Field(le=1_000_000)] = Field(
        0, description="optimiser steps that are made at least; few cases run more than max_epochs for them"
    )
    batch_size: PositiveCount = Field(32, description="cases of one step, on all devices together")
    accumulate_batches: PositiveCount = Field(1, description="batches whose gradients make one optimiser step")
    learning_rate: PositiveFloat = Field(1e-3, description="of AdamW; the largest of a schedule")
    weight_decay: NonNegativeFloat = Field(1e-2, description="of AdamW")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="a stage's learning rate over that of the stage after it; below 1 the first ones learn slowest"
    )
    schedule: Literal["constant", "cosine", "one_cycle"] = Field("one_cycle", description="of the learning rate")
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
    precise_batch_norm: bool = Field(
        default=False,
        description="at the end, means and variances of batch normalisation are those of the training images under the "
        "averaged weights, and no average of earlier ones: with ema_decay, for trainings of few steps",
    )
    gradient_clip: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 is off")
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = Field(
        "32-true", description="auto: bf16-mixed where the device computes in bf16, else 32-true"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: a GPU when there is one")
    gpu: Gpu = Field(Gpu(), description="how a GPU computes")
    devices: PositiveCount = Field(1, description="of each node; more than one process is started by torchrun")
    num_nodes: PositiveCount = Field(1, description="machines of a distributed training")
    networks_at_once: PositiveCount | None = Field(
        None,
        description="members or folds fitted at a time on a CPU, each with its share of the threads; null: as many as "
        "there are threads, where the training takes minutes",
    )
    loader_workers: Annotated[NonNegativeInt, Field(le=1024)] = Field(
        0, description="processes that read batches ahead; 0 reads between steps"
    )

    @property
    def member_count(self) -> int:
        """``members`` as a number; ``auto`` is settled before anything is trained."""
        if self.members == "auto":
            raise ValueError("training.members is still 'auto'; settle it by the number of patients first")
        return self.members

    @property
    def fold_count(self) -> int | None:
        """``folds`` as a number, None without them; ``auto`` is settled before anything is trained."""
        if self.folds == "auto":
            raise ValueError("training.folds is still 'auto'; settle it by the number of patients first")
        return self.folds
