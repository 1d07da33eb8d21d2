"""Load pretrained weights into our networks: match the tensors of a file, and report those left out.

A file's names are compared with the network's under each style of naming that such weights are published in, and with
any prefix that many of them share (``module.``, ``backbone.``, ``model.encoder.``); the best match is used. The last
layer is never loaded: it is the head of another task.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config.training import Network, WeightsInput
from pipeline.errors import ConfigError
from pipeline.models.inflated import with_slices_last
from pipeline.models.networks import last_linear, unwrapped
from pipeline.models.weight_names import NameStyle, styles_of
from pipeline.models.weights_file import read_weights

_COMMON_PREFIX = 0.1  # share of a file's tensors that have it
_LEAST_LOADED = 0.5  # share of the network's weights below which a file is of another network
_HEADS = re.compile(r"(.*\.)?(fc|_fc|classifier|head|class_layers|last_linear|conv_seg)\b")
_NORMALISATION: dict[WeightsInput, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's, of channels in [0, 1]
    "plus_minus_one": ((0.5,), (0.5,)),
}


@dataclass(frozen=True)
class WeightMap:
    """Mapping of the tensors of a weights file to those of the network.

    Attributes:
        style: of the file's names.
        loaded: name in the file by name in the network.
        summed: the first convolution, when its input channels were made one; else None.
        skipped: why, by name in the file.
        missing: of the network's features, not in the file: random, as without a file.
    """

    style: str
    loaded: Mapping[str, str]
    summed: str | None
    skipped: Mapping[str, str]
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """Lines to print: names with their numbers as ``N``, so that a network of 400 tensors is a few lines."""
        renamed = {ours: theirs for ours, theirs in self.loaded.items() if ours != theirs}
        counts = f"{len(self.loaded)} tensors loaded ({self.style}), {len(renamed)} of them renamed"
        lines = [f"weights: {counts}; {len(self.skipped)} skipped; {len(self.missing)} random, not in the file"]
        pairs = Counter((_numberless(_layer(theirs)), _numberless(_layer(ours))) for ours, theirs in renamed.items())
        lines += [f"  renamed: {theirs} -> {ours} ({count})" for (theirs, ours), count in pairs.items()]
        if self.summed:
            lines.append(f"  adapted: {self.summed}: its input channels summed to one")
        reasons = Counter((_numberless(_layer(name)), why) for name, why in self.skipped.items())
        lines += [f"  skipped: {name} ({count}): {why}" for (name, why), count in reasons.items()]
        random = Counter(_numberless(_layer(name)) for name in self.missing)
        lines += [f"  not in the file, random: {name} ({count})" for name, count in random.items()]
        return lines


def load_pretrained(network: nn.Module, config: Network, *, dimensions: int) -> WeightMap:
    """Fill a network with the weights of the file that the configuration names, all but its last layer, in place.

    Args:
        network: of that configuration.
        config: names the file and what its images were like.
        dimensions: of the network, for messages.

    Returns:
        What was loaded, renamed and skipped.

    Raises:
        ConfigError: when the file cannot be read, is of another network, or its input cannot be adapted.
    """
    if config.weights is None:
        raise ValueError("the configuration names no weights")
    core = unwrapped(network)
    file = read_weights(config.weights)
    if config.name == "i3resnet152":
        file = with_slices_last(file, dimensions=dimensions)
    weight_map, tensors = match_weights(file, core, config)
    _require_fit(weight_map, core, config, dimensions)
    if broken := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ConfigError(f"network.weights: {config.weights}: {broken[0]!r} is not finite; copy the file again")
    stem = _first_convolution(core)
    if (file_stem := tensors.get(f"{stem}.weight")) is not None:
        tensors |= _adapted(core, stem, file_stem, config, tensors)
    core.load_state_dict(tensors, strict=False)
    return weight_map


def match_weights(file: Mapping[str, Tensor], core: nn.Module, config: Network) -> tuple[WeightMap, dict[str, Tensor]]:
    """Find the style and prefix of a file's names that fit a network best.

    Args:
        file: its tensors.
        core: the network, without wrappers.
        config: names the network.

    Returns:
        The map, and the tensors by their names in the network, the first convolution as it is in the file.
    """
    ours = core.state_dict()
    head, stem = last_linear(core)[0] + ".", f"{_first_convolution(core)}.weight"
    best: tuple[int, str, dict[str, str]] = (-1, "", {})
    for prefix in _prefixes(file):
        for label, style in styles_of(config.name).items():
            names = _renamed(file, prefix, style)
            fitting = sum(_fits(file[theirs], ours.get(name), stem=name == stem) for theirs, name in names.items())
            if fitting > best[0]:
                best = fitting, label, names
    _, label, names = best
    loaded, skipped = {}, {}
    for theirs, tensor in sorted(file.items()):
        name = names.get(theirs, "")
        if name.startswith(head) or (name not in ours and _HEADS.match(theirs)):
            skipped[theirs] = "the head of another task"
        elif name not in ours:
            skipped[theirs] = "no such layer"
        elif not _fits(tensor, ours[name], stem=name == stem):
            skipped[theirs] = f"{_shape(tensor)}, and the network has {_shape(ours[name])}"
        else:
            loaded[name] = theirs
    tensors = {name: file[theirs] for name, theirs in loaded.items()}
    absent = [name for name in ours if name not in loaded and not name.startswith(head)]
    for name in absent:
        if name.endswith("downsample.0.bias") and name.replace("bias", "weight") in loaded:
            tensors[name] = torch.zeros_like(ours[name])  # MONAI's has one, those of others none
    missing = tuple(name for name in absent if name not in tensors and not name.endswith("num_batches_tracked"))
    summed = stem if stem in loaded and file[loaded[stem]].shape != ours[stem].shape else None
    return WeightMap(label, loaded, summed, skipped, missing), tensors


def _prefixes(file: Mapping[str, Tensor]) -> list[str]:
    """No prefix, and the prefixes that many names share, shortest first."""
    starts: Counter[str] = Counter()
    for name in file:
        parts = name.split(".")
        starts.update(".".join(parts[:depth]) + "." for depth in range(1, min(len(parts), 4)))
    return ["", *(start for start, count in starts.items() if count >= _COMMON_PREFIX * len(file))]


def _renamed(file: Mapping[str, Tensor], prefix: str, style: NameStyle) -> dict[str, str]:
    return {name: style(name.removeprefix(prefix)) for name in file if name.startswith(prefix)}


def _fits(tensor: Tensor, ours: Tensor | None, *, stem: bool) -> bool:
    if ours is None:
        return False
    several = stem and tensor.ndim == ours.ndim and ours.shape[1] == 1
    return (
        (tensor.shape[0], *tensor.shape[2:]) == (ours.shape[0], *ours.shape[2:])
        if several
        else (tensor.shape == ours.shape)
    )


def _first_convolution(core: nn.Module) -> str:
    names: list[str] = [name for name, module in core.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    return names[0]


def _require_fit(weight_map: WeightMap, core: nn.Module, config: Network, dimensions: int) -> None:
    head = last_linear(core)[0] + "."
    sizes = {name: value.numel() for name, value in core.named_parameters() if not name.startswith(head)}
    share = sum(size for name, size in sizes.items() if name in weight_map.loaded) / sum(sizes.values())
    if share < _LEAST_LOADED:
        shapes = [f"{name} is {why}" for name, why in weight_map.skipped.items() if "the network has" in why]
        example = shapes[0] if shapes else f"it holds {next(iter(weight_map.skipped), 'nothing')!r}"
        raise ConfigError(
            f"network.weights: {config.weights}: fits {share:.0%} of the weights of {config.name!r} in {dimensions}D "
            f"({example}); name the file's own network and preprocessing.dimensions, or another file"
        )


def _adapted(
    core: nn.Module, stem: str, file: Tensor, config: Network, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The first convolution for one channel in [0, 1], and the batch normalisation after it.

    A grey image is the same in all channels, so their kernels add up. Where the file's images were normalised, (x - m)
    / s in each channel, s divides the kernels, and what m takes off each sum is added to the running mean, which is
    subtracted next; only at the border, where zeros are padded, this is not exact.

    Raises:
        ConfigError: when the number of channels is not that of the normalisation.
    """
    weight = file.float()
    if config.weights_input == "as_is":
        same = weight.shape == core.state_dict()[f"{stem}.weight"].shape
        return {} if same else {f"{stem}.weight": weight.sum(dim=1, keepdim=True)}
    means, deviations = (torch.tensor(values) for values in _NORMALISATION[config.weights_input])
    if len(means) not in (1, weight.shape[1]):
        raise ConfigError(
            f"network.weights_input: {config.weights_input!r} is of {len(means)} channels, and the first layer of "
            f"{config.weights} has {weight.shape[1]}; set it to as_is or plus_minus_one"
        )
    ones = [1] * (weight.ndim - 2)
    weight = weight / deviations.view(1, -1, *ones)
    taken_off = (weight * means.view(1, -1, *ones)).flatten(1).sum(dim=1)  # (O,), from every sum
    mean = f"{_norm_after(core, stem)}.running_mean"
    if mean not in tensors:
        raise ConfigError(
            f"network.weights_input: {config.weights_input!r} needs the running mean after the first layer, which "
            f"{config.weights} lacks; set it to as_is"
        )
    return {f"{stem}.weight": weight.sum(dim=1, keepdim=True), mean: tensors[mean].float() + taken_off}


def _norm_after(core: nn.Module, stem: str) -> str:
    names: list[str] = [name for name, module in core.named_modules() if name == stem or isinstance(module, _BatchNorm)]
    return names[names.index(stem) + 1]


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "N", name)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
