"""The detector: a small 3D encoder-decoder with heat maps on logits, offsets and log diameters, and no anchors."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.blocks.unetr_block import UnetrUpBlock
from torch import Tensor, nn

from pipeline.config.detection import DetectorNetwork

STRIDE = 2  # input voxels along each side of one cell of the heat maps
_PRIOR = 0.01  # initial probability of every cell; nearly all of them hold no lesion
_USUAL_DIAMETER_MM = 8.0  # initial diameter of every cell


class DetectorOutput(NamedTuple):
    """Output of the detector for each cell of (B, 1, R, A, S) images; r = R / 2, likewise a and s.

    Attributes:
        heat: logits (B, C, r, a, s), one for each class; class 0 is ``nodule``.
        offset: (B, 3, r, a, s), from the cell's centre to the lesion's, in cells along R, A, S.
        log_diameter: (B, 1, r, a, s), natural logarithm of the lesion's diameter in mm.
    """

    heat: Tensor
    offset: Tensor
    log_diameter: Tensor


class Detector(nn.Module):
    """Residual encoder-decoder over a strided stem; every side of its input a multiple of ``side_multiple``.

    Cell ``i`` along an axis is centred on input voxel ``STRIDE * i``. Nothing depends on an image as a whole (batch
    normalisation, no attention), so that a window of a scan gives what the whole scan gives, a margin of ``halo``
    voxels apart.

    Args:
        config: width and levels.
        classes: how many heat maps.
    """

    def __init__(self, config: DetectorNetwork, *, classes: int) -> None:
        super().__init__()
        self.classes, self.levels = classes, config.levels
        widths = [config.width * 2 ** min(level, 2) for level in range(config.levels + 1)]
        self.stem = Convolution(
            3, 1, config.width, strides=STRIDE, kernel_size=5, norm="batch", act="relu", adn_ordering="NA"
        )
        self.encoder = nn.ModuleList(
            UnetResBlock(3, before, after, kernel_size=3, stride=1 if level == 0 else 2, norm_name="batch")
            for level, (before, after) in enumerate(zip([config.width, *widths], widths, strict=False))
        )
        self.decoder = nn.ModuleList(
            UnetrUpBlock(3, deep, fine, kernel_size=3, upsample_kernel_size=2, norm_name="batch", res_block=True)
            for fine, deep in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Sequential(
            Convolution(3, config.width, 2 * config.width, kernel_size=3, norm="batch", act="relu", adn_ordering="NA"),
            nn.Conv3d(2 * config.width, classes + 4, kernel_size=1),
        )
        last = cast("nn.Conv3d", self.head[-1])
        assert last.bias is not None
        with torch.no_grad():
            last.bias[:classes] = math.log(_PRIOR / (1 - _PRIOR))
            last.bias[classes:] = 0.0
            last.bias[-1] = math.log(_USUAL_DIAMETER_MM)

    @property
    def side_multiple(self) -> int:
        """Every side of the input must be a multiple of this, in voxels."""
        return STRIDE << self.levels

    @property
    def halo(self) -> int:
        """How far beyond a cell its output depends on the input, in voxels, rounded up to ``side_multiple``."""
        # Two 3^3 convolutions a level, at that level's step, down and up again; stem and head beside them.
        reach = 2 + 2 * STRIDE
        reach += sum(4 * STRIDE << level for level in range(self.levels)) + (2 * STRIDE << self.levels)
        return math.ceil(reach / self.side_multiple) * self.side_multiple

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images (B, 1, R, A, S), scaled to [0, 1]."""
        features = [self.stem(images)]
        for block in self.encoder:
            features.append(block(features[-1]))
        decoded = features.pop()
        for block in self.decoder:
            decoded = block(decoded, features.pop())
        heads = self.head(decoded)
        return DetectorOutput(*torch.split(heads, [self.classes, 3, 1], dim=1))
