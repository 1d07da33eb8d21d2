"""Networks that end in one logit: a compact CNN for CPUs, and MONAI's ResNets and DenseNet."""

from __future__ import annotations

from typing import cast

import torch
from monai.networks.layers.factories import Conv, Norm
from monai.networks.nets import DenseNet121, resnet10, resnet18, resnet34, resnet50
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import Network

_RESNETS = {"resnet10": resnet10, "resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
_COMPACT_WIDTH = {2: 32, 3: 16}


def build_network(config: Network, *, dimensions: int) -> nn.Module:
    """A network from images (B, 1, R, A[, S]) to one logit each (B, 1); every side at least 28 voxels.

    Args:
        config: which network.
        dimensions: 2 or 3.
    """
    if config.name == "compact":
        return CompactCNN(dimensions, width=config.width or _COMPACT_WIDTH[dimensions], dropout=config.dropout)
    if config.name == "densenet121":
        network = DenseNet121(spatial_dims=dimensions, in_channels=1, out_channels=1, dropout_prob=config.dropout)
        network.class_layers.pool = _GlobalMean()  # adaptive pooling exports badly to ONNX in 3D
        return _PadTo(network, side=32)  # MONAI's DenseNet halves five times: below 32 nothing is left
    network = _RESNETS[config.name](spatial_dims=dimensions, n_input_channels=1, num_classes=1)
    network.avgpool = _GlobalMean()
    network.fc = nn.Sequential(nn.Dropout(config.dropout), network.fc)
    return cast("nn.Module", network)


class CompactCNN(nn.Module):
    """Four residual stages over a strided stem, global mean, one logit.

    Sized so that a CPU trains it in minutes: about 0.3 million weights at its default 3D width.
    """

    def __init__(self, dimensions: int, *, width: int, dropout: float) -> None:
        super().__init__()
        conv, norm = Conv[Conv.CONV, dimensions], Norm[Norm.BATCH, dimensions]
        widths = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(
            conv(1, width, 5, stride=2, padding=2, bias=False), norm(width), nn.ReLU(inplace=True)
        )
        stages = []
        for before, after in zip((width, *widths), (*widths, widths[-1]), strict=True):
            stages.append(_ResidualBlock(before, after, stride=1 if before == after else 2, conv=conv, norm=norm))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(_GlobalMean(), nn.Flatten(1), nn.Dropout(dropout), nn.Linear(widths[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, R, A[, S]) → logits (B, 1)."""
        logits: Tensor = self.head(self.stages(self.stem(images)))
        return logits


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, *, stride: int, conv: type[nn.Module], norm: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(before, after, 3, stride=stride, padding=1, bias=False),
            norm(after),
            nn.ReLU(inplace=True),
            conv(after, after, 3, padding=1, bias=False),
            norm(after),
        )
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(conv(before, after, 1, stride=stride, bias=False), norm(after))
        )

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.body(features) + self.shortcut(features))


class _GlobalMean(nn.Module):
    """Mean over all voxels, kept as size-1 axes, as adaptive average pooling to 1 gives it."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=tuple(range(2, features.ndim)), keepdim=True)


class _PadTo(nn.Module):
    """Pad every spatial side with zeros to at least ``side`` voxels, the image in the middle."""

    def __init__(self, network: nn.Module, *, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, images: Tensor) -> Tensor:
        pads: list[int] = []
        for size in reversed(images.shape[2:]):  # functional.pad counts from the last axis
            missing = max(self.side - size, 0)
            pads += [missing // 2, missing - missing // 2]
        logits: Tensor = self.network(functional.pad(images, pads))
        return logits


def parameter_count(network: nn.Module) -> int:
    """Number of trainable weights."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


@torch.inference_mode()
def predict_logits(network: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Logits (N,) in float64 of images (N, 1, R, A[, S]), in evaluation mode, batch by batch."""
    network.eval()
    device = next(network.parameters()).device
    batches = [network(batch.to(device)).squeeze(1) for batch in torch.split(images, batch_size)]  # (B, 1) -> (B,)
    return torch.cat(batches).double().cpu()
