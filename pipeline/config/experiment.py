"""Configuration of one experiment; ``pipeline.config.file`` reads it from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    PositiveFloat,
    model_validator,
)

from pipeline.config.inputs import MALIGNANT, Data, FilePath, Fraction, Name, Preprocessing, Section, Seed
from pipeline.config.search import Search
from pipeline.config.training import Augmentation, Network, Training


class Calibration(Section):
    """How logits become probabilities; fitted on the calibration split only."""

    method: Literal["temperature", "platt", "isotonic"] = Field(
        "temperature", description="slope of the logit; slope and intercept; or any non-decreasing line"
    )
    prior_correction: bool = Field(default=False, description="subtract what class balancing added to the logit")


class OperatingPointRule(Section):
    """The rule that chooses the threshold, on the calibration split only."""

    rule: Literal["sensitivity", "specificity", "youden", "cost"] = Field(
        "sensitivity",
        description="reach the target sensitivity or specificity, the largest Youden index, or the least expected cost",
    )
    target: Fraction | None = Field(0.95, description="of rules sensitivity and specificity; null for the others")
    cost_ratio: PositiveFloat | None = Field(None, description="cost of a missed malignancy over that of a false alarm")
    confidence: Fraction | None = Field(
        None,
        description="probability with which the true sensitivity or specificity is at least the target; null asks for "
        "the target on the calibration cases alone",
    )
    refer_coverage: Fraction | None = Field(
        None, description="share of each class that its side of the refer zone must hold; null refers no case"
    )

    @model_validator(mode="after")
    def _target_fits_the_rule(self) -> Self:
        if (self.target is not None) != (self.rule in ("sensitivity", "specificity")):
            raise ValueError(
                f"target is {self.target} for rule {self.rule!r}; it belongs to 'sensitivity' and 'specificity' alone"
            )
        if self.confidence is not None and self.target is None:
            raise ValueError(
                f"confidence is {self.confidence} for rule {self.rule!r}; it belongs to 'sensitivity' and 'specificity'"
            )
        if (self.cost_ratio is not None) != (self.rule == "cost"):
            raise ValueError(f"cost_ratio is {self.cost_ratio} for rule {self.rule!r}; it belongs to 'cost' alone")
        return self


class EvaluationSettings(Section):
    """What the test split is asked."""

    resamples: Annotated[int, Field(ge=100)] = Field(2000, description="of the bootstrap over patients")
    baseline_columns: tuple[str, ...] = Field(
        (), description="logistic regression beside the model; diameter_mm by default, where there is one", strict=False
    )
    oracle_columns: tuple[str, ...] = Field(
        (), description="a regression on more than a reader would know", strict=False
    )
    image_baseline: bool = Field(
        default=False, description="logistic regression on simple measures of the image beside the model"
    )
    subgroups: tuple[str, ...] = Field(
        (), description="columns whose values are judged apart, beside the usual ones", strict=False
    )
    readers: tuple[str, ...] = Field(
        (),
        description="columns of several readers' ratings, or one column that holds them as 5|4|3; rating_1 and on, or "
        "ratings, by default, where the manifest has them",
        strict=False,
    )
    rating_middle: float = Field(3.0, description="the rating that is neither benign nor malignant")
    champion: bool = Field(
        default=True, description="score the test split with the registered model's champion too, for the report"
    )
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of malignant cases where the model is to be used: restates net benefit and PPV"
    )
    pictures: bool = Field(
        default=False, description="show the most confident mistakes, images of patients, in the report"
    )


class Tracking(Section):
    """Where the run is recorded. ``MLFLOW_TRACKING_URI`` in the environment wins over ``uri``."""

    uri: str = Field("sqlite:///mlflow.db", description="MLflow tracking URI: a local database or a server")
    artifacts: FilePath = Field(
        Path("mlartifacts"), description="where artifacts go when the store is a local database"
    )
    experiment: str = Field("malignancy", min_length=1, description="MLflow experiment")
    registered_model: Name | None = Field("malignancy", description="null registers nothing")


def _without(key: str) -> str:
    """What a dotted key of the configuration is set to so that it asks for nothing."""
    nothing = {
        "augmentation": "{}",
        "network.head": "sigmoid",
        "training.class_balance": "none",
        "training.precise_batch_norm": "false",
    }
    ones = ("training.devices", "training.layer_decay")
    return nothing.get(key) or ("1" if key in ones else "0" if key.endswith(("decay", "freeze")) else "null")


class Config(Section):
    """One experiment, whole."""

    name: Name = Field(description="of the experiment; runs and models carry it")
    task: Literal["binary", "multilabel"] = Field("binary", description="one label, or several findings")
    seed: Seed = Field(0, description="of weights, augmentation and the order of cases")
    output: FilePath = Field(Path("runs"), description="folder that gets one folder a run")
    data: Data
    preprocessing: Preprocessing
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    training: Training = Training()
    calibration: Calibration = Calibration()
    operating_point: OperatingPointRule = OperatingPointRule()
    evaluation: EvaluationSettings = EvaluationSettings()
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
            if name in self.data.covariates:
                raise ValueError(f"data.covariates: {name!r} is a finding, which is what is predicted; leave it out")
        zoom = self.preprocessing.zoom
        if zoom and self.data.covariates.get(zoom.column) != "log":
            raise ValueError(
                f"preprocessing.zoom: {zoom.column!r} is no covariate on the log scale; add it as "
                f"data.covariates={{{zoom.column}: log}}: a network that sees all lesions alike must be told their size"
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
        if self.training.members != 1:
            self._members_leave_parts_untouched()
        if self.network.weights_input != "as_is" and self.preprocessing.intensity.scaling == "zscore":
            raise ValueError(
                f"network.weights_input: {self.network.weights_input!r} starts from values in [0, 1], and "
                "preprocessing.intensity.scaling 'zscore' gives others; use 'window' or 'range', or set it to as_is"
            )
        if self.training.mode == "frozen_features":
            self._features_can_stay()
        elif self.training.precise_batch_norm:
            self._statistics_can_be_estimated()
        shifts = self.training.class_balance != "none"
        mends = self.calibration.method == "platt" or self.calibration.prior_correction
        if shifts and not mends:
            raise ValueError(
                f"calibration.method: {self.calibration.method!r} cannot correct the intercept that "
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

    def _features_can_stay(self) -> None:
        """Refuse settings that logistic regression on features computed once would silently ignore."""
        training = self.training
        if self.network.weights is None:
            raise ValueError(
                "training.mode: 'frozen_features' needs the weights that make the features; name network.weights"
            )
        means_nothing = {
            "augmentation": self.augmentation != Augmentation(probability=self.augmentation.probability),
            "network.head": self.network.head != "sigmoid",
            "network.freeze": self.network.freeze not in (0, "features"),
            "training.auxiliary": training.auxiliary is not None,
            "training.soft_labels": training.soft_labels is not None,
            "training.early_stopping": training.early_stopping is not None,
            "training.class_balance": training.class_balance == "balanced_sampler",
            "training.devices": training.devices * training.num_nodes > 1,
            "training.ema_decay": training.ema_decay != 0,
            "training.layer_decay": training.layer_decay != 1,
            "training.precise_batch_norm": training.precise_batch_norm,
        }
        if named := [key for key, is_given in means_nothing.items() if is_given]:
            raise ValueError(
                f"{named[0]}: has no meaning with training.mode 'frozen_features', which fits one layer on features "
                f"that are computed once; set {' '.join(f'{key}={_without(key)}' for key in named)}"
            )

    def _statistics_can_be_estimated(self) -> None:
        """Refuse estimating batch normalisation where nothing is averaged, or after an epoch was picked without it."""
        training, key = self.training, "training.precise_batch_norm: true"
        if training.ema_decay == 0:
            raise ValueError(f"{key} is for averaged weights, and training.ema_decay is 0; set that, or this to false")
        if training.early_stopping:
            raise ValueError(
                f"{key} would change the epoch that training.early_stopping picked by other statistics; set "
                "early_stopping to null, or this to false"
            )

    def _members_leave_parts_untouched(self) -> None:
        if self.training.early_stopping:
            raise ValueError(
                f"training.early_stopping: with training.members {self.training.members}, the part that a network "
                "leaves out fits the calibrator and must not pick its epoch too; set early_stopping to null"
            )
        if self.calibration.method == "isotonic":
            raise ValueError(
                "calibration.method: 'isotonic' of a mean logit is not the mean of isotonic members; "
                "use 'temperature' or 'platt' with training.members"
            )

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
