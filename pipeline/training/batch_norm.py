"""Means and variances of batch normalisation, for weights that training never ran with."""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.training.data import CaseTensors

_MOST_BATCHES = 200  # of which a mean and a variance are known well enough, however many cases there are


@torch.no_grad()
def estimate_batch_norm(network: nn.Module, train: CaseTensors, *, batch_size: int, seed: int) -> None:
    """Replace the running means and variances by those of the training images under the present weights, in place.

    An average of weights was never used in a forward pass, so that no running statistic belongs to it: the averaged
    statistics are those of the single weights, whose features vary more. What is left is a shift of the logit that
    differs from one training to the next, the more the fewer steps there were. Batch normalisations whose weights are
    frozen keep what they were loaded with.

    Args:
        network: left in evaluation mode.
        train: the training cases; at most 200 batches of them are looked at, not augmented.
        batch_size: cases of a batch, at least.
        seed: of the draw of batches.

    Source: Izmailov et al., 2018, section 3.2; Wu and Johnson, 2021 ("precise batch normalisation").
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm) and _is_learnt(module)]
    if not layers:
        return
    device = next(network.parameters()).device
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # each batch counts the same
        layer.train()
        # Each of several processes holds all cases, so that it need not hear of the others' batches.
        layer.forward = MethodType(_BatchNorm.forward, layer)  # type: ignore[method-assign]
    for places in torch.tensor_split(order, max(len(order) // batch_size, 1))[:_MOST_BATCHES]:
        network(train.images[places].to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        del layer.forward  # that of its class again
    network.eval()


def _is_learnt(layer: _BatchNorm) -> bool:
    return layer.track_running_stats and (layer.weight is None or layer.weight.requires_grad)
