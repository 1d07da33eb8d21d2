"""Configuration of a search: what ``malignancy search`` may try."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from pipeline.config.inputs import PositiveCount, Section, Seed


class Range(Section):
    """Values that a search may try for one key: ``choices``, or anything from ``low`` to ``high``."""

    choices: tuple[Any, ...] | None = Field(None, description="values to choose from", min_length=2, strict=False)
    low: float | None = Field(None, description="smallest value")
    high: float | None = Field(None, description="largest value")
    log: bool = Field(default=False, description="try orders of magnitude evenly")
    integer: bool = Field(default=False, description="whole numbers alone")

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
    trials: PositiveCount = Field(20, description="how many settings are tried")
    seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="a trial is judged by its mean over these", strict=False
    )
    prune: bool = Field(default=True, description="stop a trial early when it lags behind the others' median")

    @model_validator(mode="after")
    def _keys_can_be_searched(self) -> Self:
        for key in self.ranges:
            if key.split(".")[0] not in ("network", "training", "augmentation"):
                raise ValueError(f"ranges: {key!r} cannot be searched; keys of network, training or augmentation can")
        return self
