"""ResNet-152 inflated to 3D, as Merlin's and Astra's encoders of CT scans (I3ResNet), and the order of its axes.

Source: Blankemeier et al., Merlin, 2024 (github.com/StanfordMIMI/Merlin); inflation after Carreira & Zisserman, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from monai.networks.nets.resnet import ResNet, resnet152
from torch import Tensor

_STEM_IN_PLANE, _STEM_SLICES = 7, 3  # voxels of the first convolution


def i3resnet152(*, spatial_dims: int, n_input_channels: int, num_classes: int) -> ResNet:
    """MONAI's ResNet-152 with the first convolution of I3ResNet, in plane 7 x 7 and halving, over 3 slices.

    Args:
        spatial_dims: 3 for images (R, A, S); 2 for one slice, where it is torchvision's ResNet-152.
        n_input_channels: of the images.
        num_classes: outputs.
    """
    size, stride = (_STEM_IN_PLANE, _STEM_IN_PLANE, _STEM_SLICES), (2, 2, 1)
    network = resnet152(
        spatial_dims=spatial_dims,
        n_input_channels=n_input_channels,
        num_classes=num_classes,
        conv1_t_size=size[:spatial_dims],
        conv1_t_stride=stride[:spatial_dims],
        bias_downsample=False,
    )
    return cast("ResNet", network)


def with_slices_last(file: Mapping[str, Tensor], *, dimensions: int) -> dict[str, Tensor]:
    """The tensors of an I3ResNet's file with the kernels' axis across the slices last, as in our images (R, A, S).

    The axis is that on which the first convolution has three voxels. For a 2D network it is left out: of each kernel
    the middle plane stays, which is all that a volume of one slice meets, as zeros lie beyond it.

    Args:
        file: tensors by name; those of other networks, which have no such first convolution, stay as they are.
        dimensions: of the network, 2 or 3.
    """
    stem_sizes = sorted((_STEM_IN_PLANE, _STEM_IN_PLANE, _STEM_SLICES))
    stems = [tensor for tensor in file.values() if tensor.ndim == 5 and sorted(tensor.shape[2:]) == stem_sizes]
    if not stems:
        return dict(file)
    axis = tuple(stems[0].shape).index(_STEM_SLICES, 2)
    kernels = {name: tensor.movedim(axis, -1) for name, tensor in file.items() if tensor.ndim == 5}
    if dimensions == 2:
        kernels = {name: kernel[..., kernel.shape[-1] // 2] for name, kernel in kernels.items()}
    return {**file, **kernels}
