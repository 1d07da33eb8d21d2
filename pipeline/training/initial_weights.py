"""Initial weights of a network: random, or pretrained weights of which some may be frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.config.experiment import Config
from pipeline.errors import ConfigError
from pipeline.files import sha256_file
from pipeline.models.networks import build_network, unwrapped
from pipeline.models.pretrained import WeightMap, load_pretrained
from pipeline.models.stages import freeze_stages


@dataclass(frozen=True)
class InitialWeights:
    """A file of pretrained weights, which fits the network.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        source: as the configuration states it.
        map: which of its tensors were loaded, and under which names.
    """

    name: str
    sha256: str
    source: str
    map: WeightMap

    def lines(self) -> list[str]:
        """Lines to print before the training."""
        return [f"network.weights: {self.name}, SHA-256 {self.sha256[:12]}: {self.source}", *self.map.lines()]

    def to_json(self) -> dict[str, Any]:
        """For ``model.json``: the source of the initial weights, and how much of the file was loaded."""
        return {
            "file": self.name,
            "sha256": self.sha256,
            "source": self.source,
            "names": self.map.style,
            "loaded": len(self.map.loaded),
            "skipped": len(self.map.skipped),
            "random": len(self.map.missing),
        }


def start_from_weights(network: nn.Module, config: Config) -> WeightMap | None:
    """Load the configured weights into a network and freeze the configured stages, in place.

    Args:
        network: of the configuration, its weights random.
        config: the experiment.

    Returns:
        What was loaded; None where no weights are configured, and nothing was changed.

    Raises:
        ConfigError: when the file does not fit, or leaves weights random that are frozen.
    """
    settings = config.network
    if settings.weights is None:
        return None
    weight_map = load_pretrained(network, settings, dimensions=config.preprocessing.dimensions)
    only_head = config.training.mode == "frozen_features"
    frozen = freeze_stages(network, "features" if only_head else settings.freeze)
    prefix = next(name for name, module in network.named_modules() if module is unwrapped(network))
    layers = {name.removeprefix(f"{prefix}.").rpartition(".")[0] for name in frozen}
    random = [name for name in weight_map.missing if name.rpartition(".")[0] in layers]
    if random:
        raise ConfigError(
            f"network.weights: {settings.weights}: has no {random[0]!r} ({len(random)} such tensors), which would stay "
            "random for ever, being frozen; give a whole file, or freeze fewer stages"
        )
    return weight_map


def initial_weights(config: Config) -> InitialWeights | None:
    """The configured weights, tried on a network of the configuration before any scan is read; None without them.

    Raises:
        ConfigError: as `start_from_weights`.
    """
    file, source = config.network.weights, config.network.weights_source
    if file is None or source is None:
        return None
    weight_map = start_from_weights(build_network(config.network, dimensions=config.preprocessing.dimensions), config)
    return None if weight_map is None else InitialWeights(file.name, sha256_file(file), source, weight_map)
