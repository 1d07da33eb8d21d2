"""Building, finishing and running the networks, all of which end in a logit for each finding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TypedDict, cast

import torch
from monai.networks.nets import DenseNet121, ResNet, resnet10, resnet18, resnet34, resnet50
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.training import Network
from pipeline.models.cnn_lstm import CNNLSTM
from pipeline.models.compact import Activation, CompactCNN, PlanesCNN
from pipeline.models.efficientnet import SMALLEST_SIDE, EfficientNet
from pipeline.models.inflated import i3resnet152
from pipeline.models.softmax import SoftmaxLinear

_RESNETS = {
    "resnet10": resnet10,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "i3resnet152": i3resnet152,
}
_STAGES = 4  # of a residual network
_COMPACT_WIDTH = {2: 32, 3: 16}
_SLICE_WIDTH = 16  # every slice is a picture of its own: half the width, so that ten cost what three planes do
_ACTIVATIONS: dict[str, Activation] = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class _Blocks(TypedDict):
    pool: nn.Module
    activation: Activation


def build_network(config: Network, *, dimensions: int, outputs: int = 1) -> nn.Module:
    """A network from images (B, 1, R, A[, S]) to a logit for each finding (B, outputs); every side at least 8 voxels.

    Args:
        config: which network.
        dimensions: 2 or 3.
        outputs: logits, and while auxiliary columns are learnt these after them.
    """
    network = _build(config, dimensions, outputs)
    if config.head == "softmax":
        name, last = last_linear(network)
        network.set_submodule(name, SoftmaxLinear(last.in_features, outputs))
    return SymmetryMean(network, dimensions, turns=config.average_turns) if config.average_flips else network


def _build(config: Network, dimensions: int, outputs: int) -> nn.Module:
    blocks: _Blocks = {"pool": _POOLS[config.pooling](), "activation": _ACTIVATIONS[config.activation]}
    if config.name == "compact":
        width = config.width or _COMPACT_WIDTH[dimensions]
        return CompactCNN(dimensions, width=width, dropout=config.dropout, outputs=outputs, **blocks)
    if config.name == "planes":
        width = config.width or _COMPACT_WIDTH[2]
        return PlanesCNN(width=width, dropout=config.dropout, outputs=outputs, **blocks)
    if config.name == "cnn_lstm":
        encoder = CompactCNN(2, width=config.width or _SLICE_WIDTH, dropout=0.0, **blocks)
        hidden = encoder.features // 2  # so that both directions together have as many features as the encoder
        return CNNLSTM(
            encoder.as_encoder(), features=encoder.features, hidden=hidden, dropout=config.dropout, outputs=outputs
        )
    if config.name == "densenet121":
        network = DenseNet121(spatial_dims=dimensions, in_channels=1, out_channels=outputs, dropout_prob=config.dropout)
        network.class_layers.pool = _GlobalMean()  # adaptive pooling exports badly to ONNX in 3D
        return PadTo(network, side=32)  # MONAI's DenseNet halves five times: below 32 nothing is left
    if config.name in ("efficientnet_b0", "efficientnet_lite0"):
        efficient = EfficientNet(config.name, dimensions=dimensions, dropout=config.dropout, outputs=outputs)
        efficient._avg_pooling = _GlobalMean()
        return PadTo(efficient, side=SMALLEST_SIDE)
    network = _RESNETS[config.name](spatial_dims=dimensions, n_input_channels=1, num_classes=outputs)
    if config.stages is not None:
        _keep_stages(network, config.stages, outputs=outputs)
    network.avgpool = blocks["pool"]
    network.fc = nn.Sequential(nn.Dropout(config.dropout), network.fc)
    return cast("nn.Module", network)


def _keep_stages(network: ResNet, count: int, *, outputs: int) -> None:
    """Keep the first of a residual network's four stages, in place, with a new last layer on their features."""
    for number in range(count + 1, _STAGES + 1):
        network.set_submodule(f"layer{number}", nn.Sequential())  # gives back what it gets
    network.fc = nn.Linear(network.fc.in_features // 2 ** (_STAGES - count), outputs)  # each has twice the features


def keep_outputs(network: nn.Module, count: int) -> None:
    """Keep only the first outputs of the last layer, in place, which drops those of auxiliary columns."""
    name, last = last_linear(network)
    alone = type(last)(last.in_features, count)
    alone.load_state_dict({key: value[: alone.out_features] for key, value in last.state_dict().items()})
    network.set_submodule(name, alone)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network without wrappers that pad its input or average over mirror images."""
    while isinstance(network, SymmetryMean | PadTo):
        network = network.network
    return network


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """The layer that gives the logits, and its name."""
    return next(
        (name, module) for name, module in reversed(list(network.named_modules())) if isinstance(module, nn.Linear)
    )


class SymmetryMean(nn.Module):
    """In evaluation, the mean output over all mirror images of the input; in training, the network itself.

    Left and right, front and back, up and down carry no meaning for a lesion's malignancy here, and a network that has
    seen few cases has not learnt this exactly. Costs 4 (2D) or 8 (3D) passes a case.

    Args:
        network: images (B, 1, R, A[, S]) → (B, outputs).
        dimensions: 2 or 3.
        turns: over quarter turns in the R-A plane too; with the mirror images, one turn gives them all. Twice the cost.
    """

    def __init__(self, network: nn.Module, dimensions: int, *, turns: bool = False) -> None:
        super().__init__()
        self.network, self._turns = network, range(1 + turns)
        axes = range(2, 2 + dimensions)
        self.flips: list[tuple[int, ...]] = [
            flip for size in range(dimensions + 1) for flip in itertools.combinations(axes, size)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, R, A[, S]) → (B, outputs)."""
        if self.training:
            logits: Tensor = self.network(images)
            return logits
        turned = [torch.rot90(images, turn, (2, 3)) if turn else images for turn in self._turns]
        return torch.stack(
            [self.network(image.flip(flip) if flip else image) for image in turned for flip in self.flips]
        ).mean(dim=0)


class _GlobalMean(nn.Module):
    """Mean over all voxels, kept as size-1 axes, as adaptive average pooling to 1 gives it."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=tuple(range(2, features.ndim)), keepdim=True)


class _CenterMean(nn.Module):
    """Mean over all voxels, weighted by a Gaussian about the middle whose standard deviation is a quarter of a side.

    The lesion is in the middle; what lies at the border is mostly other anatomy.
    """

    def forward(self, features: Tensor) -> Tensor:
        for axis in range(2, features.ndim):
            size = features.shape[axis]
            places = (torch.arange(size, device=features.device, dtype=features.dtype) - (size - 1) / 2) / (size / 4)
            weights = torch.softmax(-places.square() / 2, dim=0)
            features = (features * weights.view(-1, *[1] * (features.ndim - 1 - axis))).sum(dim=axis, keepdim=True)
        return features


_POOLS = {"mean": _GlobalMean, "center": _CenterMean}


class PadTo(nn.Module):
    """Pad every spatial side with zeros to at least ``side`` voxels, the image in the middle."""

    def __init__(self, network: nn.Module, *, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, R, A[, S]) → (B, outputs)."""
        logits: Tensor = self.network(functional.pad(images, self.padding(images.shape[2:])))
        return logits

    def padding(self, sides: Sequence[int]) -> list[int]:
        """Argument of ``functional.pad`` for these sides: zeros before and after each, from the last axis on."""
        pads: list[int] = []
        for size in reversed(sides):
            missing = max(self.side - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return pads


@torch.inference_mode()
def predict_logits(network: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Logits (N, F) in float64 of images (N, 1, R, A[, S]), in evaluation mode, batch by batch."""
    network.eval()
    device = next(network.parameters()).device
    batches = [network(batch.to(device)) for batch in torch.split(images, batch_size)]
    return torch.cat(batches).double().cpu()
