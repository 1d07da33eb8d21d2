"""Grad-CAM: regions of the input whose features moved the logit. A hint for a reader, not an explanation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from monai.visualize import GradCAM
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.cnn_lstm import CNNLSTM
from pipeline.models.compact import CompactCNN, PlanesCNN
from pipeline.models.efficientnet import EfficientNet
from pipeline.models.networks import PadTo, SymmetryMean

HeatPlanes = tuple[NDArray[np.float32], ...]
# Deepest first. Where a small input leaves the deepest map too few cells to localise, the next one is used.
_LAYERS = {
    CompactCNN: ("stages.3", "stages.2", "stages.1"),
    PlanesCNN: ("encoder.1.3", "encoder.1.2", "encoder.1.1"),
    CNNLSTM: ("encoder.1.3", "encoder.1.2", "encoder.1.1"),
    EfficientNet: ("_bn1", "_blocks.4", "_blocks.2", "_blocks.1", "_blocks.0"),
}
_DENSENET = ("class_layers.relu", "features.transition3", "features.transition2", "features.transition1")
_RESNET = ("layer4", "layer3", "layer2", "layer1")
_FEWEST_CELLS = 4  # along a side


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: with several, the backward pass through MONAI's hooks ends the process (torch 2.13.0, CPU)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.enable_grad()
@_one_thread()
def saliency_planes(networks: Sequence[nn.Module], image: NDArray[np.float32], *, towards: int) -> HeatPlanes:
    """Grad-CAM of one input, in the planes that a reader is shown.

    Networks that average over mirror images are shown likewise: the mean of the maps, each turned back.

    Args:
        networks: of one model; the mean over them is shown. They are copied and not changed.
        image: (1, R, A[, S]), as the network gets it.
        towards: 1 for what raised the logit (towards malignant), 0 for what lowered it.

    Returns:
        Of a 2D input one map (R, A). Of a 3D input three, through the middle: (R, A), (R, S) and (A, S). Float32, not
        negative; the largest value over all maps is 1, or 0 where no feature moved the logit that way.
    """
    of_networks = [
        _planes(copy.deepcopy(network).eval(), torch.from_numpy(image)[None], towards) for network in networks
    ]
    heat = [np.mean([planes[number] for planes in of_networks], axis=0) for number in range(len(of_networks[0]))]
    highest = max(float(plane.max()) for plane in heat)
    return tuple((plane / highest if highest > 0 else plane).astype(np.float32) for plane in heat)


def middle_planes(volume: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """The planes of (R, A[, S]) that a reader is shown: all of a picture, the three middle ones of a volume."""
    if volume.ndim == 2:
        return (volume,)
    r, a, s = (size // 2 for size in volume.shape)
    return volume[:, :, s], volume[:, a], volume[r]


def _planes(network: nn.Module, image: Tensor, towards: int) -> list[NDArray[np.float32]]:
    """Maps of one network on one input (1, 1, R, A[, S]), on a scale of its own."""
    flips: Sequence[tuple[int, ...]] = ((),)  # quarter turns too would double the time and hardly move the heat
    pads: Sequence[int] = ()
    if isinstance(network, SymmetryMean):
        flips, network = network.flips, network.network
    if isinstance(network, PadTo):
        pads, network = network.padding(image.shape[2:]), network.network
    cam = _gradcam(network, functional.pad(image, pads) if pads else image, towards)
    mirrored = [_of_one_view(cam, network, image.flip(flip) if flip else image, pads, flip) for flip in flips]
    return [np.mean([maps[number] for maps in mirrored], axis=0) for number in range(len(mirrored[0]))]


def _of_one_view(
    cam: _GradCAM, network: nn.Module, image: Tensor, pads: Sequence[int], flip: Sequence[int]
) -> list[NDArray[np.float32]]:
    padded = functional.pad(image, pads) if pads else image
    coarse = cam.compute_map(padded, class_idx=0).detach()  # the logit is the first output
    turned = {axis - 2 for axis in flip}  # of R, A, S
    if isinstance(network, PlanesCNN):
        # (3, 1, n, n): the planes across R, A and S, in that order
        maps = functional.interpolate(coarse, size=image.shape[3:], mode="bilinear", align_corners=False)
        planes = []
        for number, axes in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):
            back = [place for place, axis in enumerate(axes) if axis in turned]
            planes.append(maps[number, 0].flip(back).numpy())
        return planes
    if isinstance(network, CNNLSTM):
        coarse = coarse.permute(1, 2, 3, 0)[None]  # (S, 1, n, n) -> (1, 1, n, n, S): slices lie along the last axis
    mode = "bilinear" if coarse.ndim == 4 else "trilinear"
    fine = functional.interpolate(coarse, size=padded.shape[2:], mode=mode, align_corners=False)
    if pads:
        fine = functional.pad(fine, [-pad for pad in pads])
    return list(middle_planes(fine[0, 0].flip(sorted(turned)).numpy()))


class _GradCAM(GradCAM):  # type: ignore[misc]  # MONAI's classes are not typed
    """MONAI's Grad-CAM towards either side of the logit; gradients may have any memory layout."""

    def __init__(self, network: nn.Module, layer: str, *, towards: int) -> None:
        super().__init__(network, layer)
        self.sign = 1.0 if towards == 1 else -1.0

    def compute_map(
        self, x: Tensor, class_idx: int | None = 0, retain_graph: bool = False, layer_idx: int = -1, **kwargs: Any
    ) -> Tensor:
        """Evidence (B, 1, n, n[, n]) at the layer's resolution."""
        _, features, gradients = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **kwargs)
        feature, gradient = features[layer_idx], gradients[layer_idx]
        weights = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
        return functional.relu(self.sign * (weights * feature).sum(1, keepdim=True))


def _gradcam(network: nn.Module, image: Tensor, towards: int) -> _GradCAM:
    """Grad-CAM at the deepest layer whose map has enough cells to localise."""
    monai: tuple[str, ...] = _RESNET if hasattr(network, "layer4") else _DENSENET
    layers = next((names for kind, names in _LAYERS.items() if isinstance(network, kind)), monai)
    for layer in layers:
        cam = _GradCAM(copy.deepcopy(network), layer, towards=towards)
        if min(cast("torch.Size", cam.feature_map_size(image.shape))[2:]) >= _FEWEST_CELLS:
            break
    return cam
