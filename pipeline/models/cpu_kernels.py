"""Faster convolutions and pooling on a CPU. No value changes by more than rounding."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def to_fast_layout(network: nn.Module, *, channels_last: bool = True) -> nn.Module:
    """Lay out weights channels last, a third faster, and replace layers that are slow on a CPU; in place.

    Weights keep their names, shapes and values. Convolutions of one channel are folded where bf16 is computed, and
    pooling keeps the memory order and number format of its input.

    Args:
        network: to change.
        channels_last: whether weights are laid out so; False keeps their layout.
    """
    for module in network.modules():
        # torch's own annotations lack the 3D format.
        if channels_last and isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif channels_last and isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        faster = _FASTER.get(type(module))
        if faster and getattr(module, "in_channels", 1) == 1:  # pooling has none
            module.__class__ = faster  # as torch's own parametrizations do
        elif isinstance(module, nn.Conv2d) and _overruns_its_weights(module):
            module.__class__ = _PointwiseConv2d
        elif (careful := _EXACT_WHERE_SMALL.get(type(module))) and max(cast("nn.Conv3d", module).kernel_size) > 1:
            module.__class__ = careful
    return network


def _overruns_its_weights(module: nn.Conv2d) -> bool:
    """Whether torch 2.13 on a CPU writes beyond the weights' gradient (it aborts, or corrupts other memory).

    oneDNN's gradient of the weights does so for a strided 1 x 1 convolution of channels-last images, when the input's
    channels are no multiple of 16 and the batch is none of 8.
    """
    pointwise = max(module.kernel_size) == 1 and module.padding == (0, 0)
    return pointwise and max(module.stride) > 1 and module.in_channels % 16 != 0


class _PointwiseConv2d(nn.Conv2d):
    """A strided 1 x 1 convolution that leaves the skipped pixels out first: the same values, without the stride."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  # torch's name
        rows, columns = self.stride
        strided = input[:, :, ::rows, ::columns].contiguous(memory_format=torch.channels_last)
        return functional.conv2d(strided, weight, bias, groups=self.groups)


class _OneImage(nn.Module):
    """Mixed into a 3D convolution: on a CPU, one image on its own is given to oneDNN, as two together are.

    torch 2.13 leaves an fp32 batch of one small image to a plain loop, which takes three to five times as long; a
    server's requests and a run of one scan are such batches. Gradients keep torch's own choice.

    Source: ``use_mkldnn`` in ATen's ``Convolution.cpp``.
    """

    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"]

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        one = images.ndim == 5 and images.shape[0] == 1 and images.dtype == torch.float32
        here = images.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        inference = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        padding = self.padding if self.padding_mode == "zeros" else ""
        if not (one and here and inference) or isinstance(padding, str):
            convolved: Tensor = super()._conv_forward(images, weight, bias)  # type: ignore[misc]
            return convolved
        return torch.mkldnn_convolution(images, weight, bias, padding, self.stride, self.dilation, self.groups)


class _ExactWhereSmall(nn.Module):
    """Mixed into a convolution: on a CPU, an input smaller than the kernel along any axis is computed in fp32.

    torch 2.13's bf16 gradient of the weights reads and writes beyond its memory for such inputs, those of a network's
    last layers: NaN, a silently wrong sum, or an abort, by chance. Its fp32 is right, and costs little there.
    """

    kernel_size: tuple[int, ...]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  # torch's name
        convolve = super()._conv_forward  # type: ignore[misc]
        small = any(side < kernel for side, kernel in zip(input.shape[2:], self.kernel_size, strict=True))
        if not small or input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            plain: Tensor = convolve(input, weight, bias)
            return plain
        with torch.autocast("cpu", enabled=False):
            exact: Tensor = convolve(input.float(), weight, bias)
        return exact.to(torch.get_autocast_dtype("cpu"))


class _ExactWhereSmallConv2d(_ExactWhereSmall, nn.Conv2d):
    pass


class _ExactWhereSmallConv3d(_OneImage, _ExactWhereSmall, nn.Conv3d):
    pass


class _Folded(nn.Module):
    """Mixed into a convolution of one channel: under bf16 on a CPU, the kernel's last axis becomes channels.

    A CPU's bf16 units multiply along the channels, and are several times slower than fp32 where there is one: with the
    neighbours along the last axis as channels, a stem of 7^3 takes a quarter to a fifth of the time.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if images.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            plain: Tensor = super()._conv_forward(images, weight, bias)  # type: ignore[misc]
            return plain
        *padding, last = cast("tuple[int, ...]", self.padding)
        padded = functional.pad(images.to(torch.get_autocast_dtype("cpu")), (last, last))
        neighbours = padded.unfold(-1, self.kernel_size[-1], self.stride[-1])  # (B, 1, R[, A], S out, k)
        convolve, order = (
            (functional.conv3d, torch.channels_last_3d)
            if images.ndim == 5
            else (functional.conv2d, torch.channels_last)
        )
        return convolve(
            neighbours.squeeze(1).movedim(-1, 1).contiguous(memory_format=order),  # (B, k, R[, A], S out)
            weight.squeeze(1).movedim(-1, 1).unsqueeze(-1).contiguous(memory_format=order),
            bias,
            stride=(*self.stride[:-1], 1),
            padding=(*padding, 0),
        )


class _FoldedConv2d(_Folded, nn.Conv2d):
    pass


class _FoldedConv3d(_OneImage, _Folded, nn.Conv3d):
    pass


class _MaxPool3d(nn.MaxPool3d):
    """Pooling in the number format of its input: under autocast a CPU's gives fp32.

    Every later sum and concatenation, as of a residual or dense block, would be fp32 too: twice the memory traffic, and
    a copy of the features before each convolution.
    """

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            pooled: Tensor = super().forward(images)
        return pooled


class _AvgPool3d(nn.AvgPool3d):
    """Likewise, and channels last if its input is: a CPU's gives channels first."""

    def forward(self, images: Tensor) -> Tensor:
        last = images.is_contiguous(memory_format=torch.channels_last_3d)
        order = torch.channels_last_3d if last else torch.contiguous_format
        return super().forward(images).to(images.dtype, memory_format=order)


_EXACT_WHERE_SMALL: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: _ExactWhereSmallConv2d,
    nn.Conv3d: _ExactWhereSmallConv3d,
}
_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: _FoldedConv2d,
    nn.Conv3d: _FoldedConv3d,
    nn.MaxPool3d: _MaxPool3d,
    nn.AvgPool3d: _AvgPool3d,
}
