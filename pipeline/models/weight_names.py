"""Other libraries' names of our networks' layers: MedicalNet, MONAI, torchvision, timm, RadImageNet and others.

A style is a function from a name in a weights file, without its prefix, to our name; it returns unknown names
unchanged. The style of a file is found by trying (`pipeline.models.pretrained`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate

from pipeline.models.efficientnet import STAGE_REPEATS

NameStyle = Callable[[str], str]

_RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_DENSE_LAYER = re.compile(r"^(.*denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.(.*)$")
_FIRST_BLOCKS = (0, *accumulate(STAGE_REPEATS))  # number of the first block of each stage, counted over all stages
# timm numbers the batch normalisations of a block from 1; a block without expansion lacks the first convolution.
_TIMM_EXPANDED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
_TIMM_PLAIN = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_TIMM_OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
_TIMM_EXCITATION = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
_VISION_OUTSIDE = {"0.0": "_conv_stem", "0.1": "_bn0", "8.0": "_conv_head", "8.1": "_bn1"}
_VISION_EXPANDED = {
    "0.0": "_expand_conv",
    "0.1": "_bn0",
    "1.0": "_depthwise_conv",
    "1.1": "_bn1",
    "2.fc1": "_se_reduce",
    "2.fc2": "_se_expand",
    "3.0": "_project_conv",
    "3.1": "_bn2",
}
_VISION_PLAIN = {
    "0.0": "_depthwise_conv",
    "0.1": "_bn1",
    "1.fc1": "_se_reduce",
    "1.fc2": "_se_expand",
    "2.0": "_project_conv",
    "2.1": "_bn2",
}


def styles_of(network_name: str) -> dict[str, NameStyle]:
    """The styles that weights of a network are published in, by a name for messages; ours first."""
    styles: dict[str, NameStyle] = {"the same names": lambda name: name}
    if "resnet" in network_name:
        styles["numbered layers, as RadImageNet"] = numbered_resnet
    elif network_name.startswith("densenet"):
        styles["torchvision, timm or RadImageNet"] = torchvision_densenet
    elif network_name.startswith("efficientnet"):
        styles["efficientnet_pytorch"] = numbered_efficientnet
        styles["timm"] = timm_efficientnet
        styles["torchvision"] = torchvision_efficientnet
    return styles


def numbered_resnet(name: str) -> str:
    """The children of a torchvision residual network in an ``nn.Sequential``.

    Example:
        >>> numbered_resnet("4.0.conv1.weight")
        'layer1.0.conv1.weight'
    """
    number, _, rest = name.partition(".")
    return f"{_RESNET_CHILDREN[number]}.{rest}" if number in _RESNET_CHILDREN else name


def torchvision_densenet(name: str) -> str:
    """Torchvision's dense network, of any release, with or without ``features.`` before it.

    Example:
        >>> torchvision_densenet("denseblock1.denselayer2.norm.1.weight")
        'features.denseblock1.denselayer2.layers.norm1.weight'
    """
    name = _DENSE_LAYER.sub(r"\1.layers.\2\3.\4", name)
    return name if name.startswith(("features.", "class")) else f"features.{name}"


def numbered_efficientnet(name: str) -> str:
    """Blocks counted over all stages.

    Example:
        >>> numbered_efficientnet("_blocks.2._bn1.weight")
        '_blocks.1.2._bn1.weight'
    """
    if not (parts := re.match(r"^_blocks\.(\d+)\.(_.*)$", name)):
        return name
    block = int(parts[1])
    stage = sum(block >= first for first in _FIRST_BLOCKS[1:])
    return f"_blocks.{stage}.{block}.{parts[2]}"


def timm_efficientnet(name: str) -> str:
    """Blocks counted from 0 in each stage.

    Example:
        >>> timm_efficientnet("blocks.1.1.conv_pwl.weight")
        '_blocks.1.2._project_conv.weight'
    """
    return _renamed(name, r"^blocks\.(\d)\.(\d+)\.(.*)\.(\w+)$", 0, _TIMM_OUTSIDE, (_TIMM_PLAIN, _TIMM_EXPANDED))


def torchvision_efficientnet(name: str) -> str:
    """Layers of a block counted.

    Example:
        >>> torchvision_efficientnet("features.2.1.block.3.0.weight")
        '_blocks.1.2._project_conv.weight'
    """
    pattern = r"^(?:features\.)?(\d)\.(\d+)\.block\.(.*)\.(\w+)$"
    outside = {f"features.{layer}": ours for layer, ours in _VISION_OUTSIDE.items()} | _VISION_OUTSIDE
    return _renamed(name, pattern, 1, outside, (_VISION_PLAIN, _VISION_EXPANDED))


def _renamed(
    name: str, pattern: str, first: int, outside: dict[str, str], blocks: tuple[dict[str, str], dict[str, str]]
) -> str:
    """Our name of a layer outside the blocks, or of one in a block, of which the first stage has no expansion."""
    layer, _, tensor = name.rpartition(".")
    if layer in outside:
        return f"{outside[layer]}.{tensor}"
    if not (parts := re.match(pattern, name)):
        return name
    stage, block = int(parts[1]) - first, int(parts[2])
    if not 0 <= stage < len(STAGE_REPEATS):
        return name
    ours = (blocks[min(stage, 1)] | _TIMM_EXCITATION).get(parts[3])
    return f"_blocks.{stage}.{_FIRST_BLOCKS[stage] + block}.{ours}.{parts[4]}" if ours else name
