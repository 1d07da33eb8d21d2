"""The stages of each network, from the image to the logit, for freezing and for slower learning of early layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import ConfigError
from pipeline.models.networks import unwrapped

# The first group of a match identifies the stage; names without a match are the last stage, with the logit.
_STAGES = (
    r"(conv1|bn1)\.",  # MONAI's residual networks
    r"(layer\d)\.",
    r"features\.(conv0|norm0)\.",  # and dense ones; a transition belongs to the block before it
    r"features\.(?:denseblock|transition|norm)(\d)\b",
    r"(_conv_stem|_bn0)\.",  # EfficientNet
    r"(_blocks\.\d)\.",
    r"(_conv_head|_bn1)\.",
    r"(stem)\.",  # compact
    r"(stages\.\d)\.",
    r"(encoder\.0)\.",  # planes and cnn_lstm: a compact encoder
    r"(encoder\.1\.\d)\.",
)
_WITH_THE_ONE_BEFORE = {"bn1": "conv1", "norm0": "conv0", "_bn0": "_conv_stem", "_bn1": "_conv_head", "5": "4"}


def stages(network: nn.Module) -> list[list[str]]:
    """Names of the network's parameters, stage by stage from the image on; the last one holds the logit's layer.

    A stage is a block of layers at one resolution: a network of four residual stages has six, with its stem and its
    head.

    Args:
        network: as `pipeline.models.networks.build_network` gives it.
    """
    core = unwrapped(network)
    prefix = next((name for name, module in network.named_modules() if module is core), "")
    names: dict[str, list[str]] = {}
    for name, _ in core.named_parameters():
        names.setdefault(_stage_of(name), []).append(f"{prefix}.{name}" if prefix else name)
    return list(names.values())


def _stage_of(name: str) -> str:
    for pattern in _STAGES:
        if match := re.match(pattern, name):
            return _WITH_THE_ONE_BEFORE.get(match[1], match[1])
    return "head"


def freeze_stages(network: nn.Module, freeze: int | Literal["features"]) -> set[str]:
    """Freeze the weights of the first stages, in place; see `keep_frozen_statistics` too.

    Args:
        network: to change.
        freeze: how many stages; ``features`` is all but the last.

    Returns:
        Names of the frozen weights.

    Raises:
        ConfigError: when all weights would be frozen.
    """
    parts = stages(network)
    count = len(parts) - 1 if freeze == "features" else freeze
    if count >= len(parts):
        raise ConfigError(
            f"network.freeze: {freeze} stages leave nothing to learn: this network has {len(parts)} with its head; "
            f"freeze at most {len(parts) - 1}"
        )
    frozen = {name for part in parts[:count] for name in part}
    for name, parameter in network.named_parameters():
        if name in frozen:
            parameter.requires_grad = False
    return frozen


def keep_frozen_statistics(network: nn.Module) -> None:
    """Put batch normalisations whose weights are frozen into evaluation mode, in place.

    Their running means and variances were loaded too; in training mode they would follow the new images.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad:
            module.eval()


def learning_rates(network: nn.Module, rate: float, decay: float) -> Sequence[tuple[list[str], float]]:
    """Names of the parameters that learn, with their learning rate, stage by stage.

    Args:
        network: some of whose parameters may be frozen.
        rate: of the last stage.
        decay: of each stage over the one after it, in (0, 1].
    """
    learnt = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    parts = stages(network)
    groups = [
        ([name for name in part if name in learnt], rate * decay ** (len(parts) - 1 - at))
        for at, part in enumerate(parts)
    ]
    return [(names, of_part) for names, of_part in groups if names]
