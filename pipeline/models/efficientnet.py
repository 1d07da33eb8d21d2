"""EfficientNet-B0 and EfficientNet-Lite0 of MONAI's blocks, with the layer names of most published weights."""

from __future__ import annotations

from typing import Literal

from monai.networks.nets.efficientnet import EfficientNet as MonaiEfficientNet
from torch import nn

# Repeats, kernel, stride, expansion, channels before and after each stage; B0 adds squeeze and excitation.
_STAGES = (
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
)
STAGE_REPEATS = tuple(int(stage[1]) for stage in _STAGES)
_EXCITATION = "_se0.25"
_STOCHASTIC_DEPTH = 0.2  # share of a batch that skips the last block in training; less before it
SMALLEST_SIDE = 32  # it is halved five times


class EfficientNet(MonaiEfficientNet):  # type: ignore[misc]  # MONAI's classes are not typed
    """MBConv blocks, a linear layer over their mean; about 4 million weights in 2D.

    Lite0 has no squeeze and excitation, and ReLU6 for Swish: it is faster, and its features are bounded. Weights are
    random; nothing is downloaded.

    Args:
        kind: which of the two.
        dimensions: 2 or 3.
        dropout: before the linear layer.
        outputs: of the linear layer.

    Source: Tan & Le, ICML 2019; Lite0 as released with TensorFlow in 2020.
    """

    def __init__(
        self, kind: Literal["efficientnet_b0", "efficientnet_lite0"], *, dimensions: int, dropout: float, outputs: int
    ) -> None:
        excited = kind == "efficientnet_b0"
        super().__init__(
            [stage + _EXCITATION if excited else stage for stage in _STAGES],
            spatial_dims=dimensions,
            in_channels=1,
            num_classes=outputs,
            dropout_rate=dropout,
            drop_connect_rate=_STOCHASTIC_DEPTH,
        )
        activation = nn.SiLU if excited else nn.ReLU6  # MONAI's own is no layer that ONNX has
        for module in list(self.modules()):
            if hasattr(module, "_swish"):
                # Not in place, because Grad-CAM's hooks read the last features.
                module._swish = activation(inplace=module is not self)
