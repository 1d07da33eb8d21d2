"""CNNs that a CPU trains in minutes: one in 2D or 3D, and one that looks at a cube's three middle planes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

Activation = Callable[[], nn.Module]
_PLANE_OFFSETS = (-2, 0, 2)  # voxels from the centre; a plane's neighbours are its channels


class CompactCNN(nn.Module):
    """Four residual stages over a strided stem, pooling, linear outputs.

    Sized so that a CPU trains it in minutes: about 0.4 million weights at its default 3D width.

    Args:
        dimensions: 2 or 3.
        width: channels of the first stage.
        dropout: before the linear layer.
        pool: features (B, C, R, A[, S]) → (B, C, 1, 1[, 1]).
        activation: makes the hidden units.
        outputs: of the linear layer.
        channels: of the input.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        width: int,
        dropout: float,
        pool: nn.Module,
        activation: Activation,
        outputs: int = 1,
        channels: int = 1,
    ) -> None:
        super().__init__()
        conv, norm = Conv[Conv.CONV, dimensions], Norm[Norm.BATCH, dimensions]
        widths = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(conv(channels, width, 5, stride=2, padding=2, bias=False), norm(width), activation())
        stages = []
        for before, after in zip((width, *widths), (*widths, widths[-1]), strict=True):
            stride = 1 if before == after else 2
            stages.append(_ResidualBlock(before, after, stride=stride, conv=conv, norm=norm, activation=activation))
        self.stages = nn.Sequential(*stages)
        self.features = widths[-1]
        self.head = nn.Sequential(pool, nn.Flatten(1), nn.Dropout(dropout), nn.Linear(widths[-1], outputs))

    def as_encoder(self) -> nn.Sequential:
        """Itself without its head: images (B, channels, R, A[, S]) → (B, features)."""
        return nn.Sequential(self.stem, self.stages, self.head[0], nn.Flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, R, A[, S]) → (B, outputs)."""
        logits: Tensor = self.head(self.stages(self.stem(images)))
        return logits


class PlanesCNN(nn.Module):
    """One 2D network on the three planes through the centre of a cube; mean and maximum of their features.

    A lesion-centred cube is mostly not lesion: its middle planes hold what a reader looks at, in a twentieth of the
    voxels, and each case is three pictures to learn from. Each plane's neighbours two voxels away are its channels.

    Source: the multi-view design of Setio et al., IEEE TMI 2016, with three planes.
    """

    def __init__(
        self, *, width: int, dropout: float, pool: nn.Module, activation: Activation, outputs: int = 1
    ) -> None:
        super().__init__()
        channels = len(_PLANE_OFFSETS)
        encoder = CompactCNN(2, width=width, dropout=dropout, pool=pool, activation=activation, channels=channels)
        self.encoder = encoder.as_encoder()
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * encoder.features, outputs))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, N, N, N) → (B, outputs)."""
        cube = images.squeeze(1)
        slices = [cube.shape[1] // 2 + offset for offset in _PLANE_OFFSETS]
        planes = torch.stack(
            [cube[:, slices], cube[:, :, slices].transpose(1, 2), cube[:, :, :, slices].permute(0, 3, 1, 2)], dim=1
        )  # (B, 3 planes, 3 channels, N, N)
        seen = self.encoder(planes.flatten(0, 1).contiguous(memory_format=torch.channels_last))  # (3 B, features)
        seen = seen.view(-1, 3, seen.shape[1])
        logits: Tensor = self.head(torch.cat([seen.mean(dim=1), seen.amax(dim=1)], dim=1))
        return logits


class _ResidualBlock(nn.Module):
    def __init__(
        self,
        before: int,
        after: int,
        *,
        stride: int,
        conv: type[nn.Module],
        norm: type[nn.Module],
        activation: Activation,
    ) -> None:
        super().__init__()
        self.activation = activation()
        self.body = nn.Sequential(
            conv(before, after, 3, stride=stride, padding=1, bias=False),
            norm(after),
            activation(),
            conv(after, after, 3, padding=1, bias=False),
            norm(after),
        )
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(conv(before, after, 1, stride=stride, bias=False), norm(after))
        )

    def forward(self, features: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.body(features) + self.shortcut(features))
        return activated
