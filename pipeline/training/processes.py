"""Training in several processes, as torchrun starts them: one a device, one optimiser step for all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from pipeline.config.training import Training
from pipeline.errors import UsageError

_Value = TypeVar("_Value")
# One process may read all scans, or judge a fold, while the others wait for it.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """This process among those of the training.

    Attributes:
        rank: 0 is the one that prepares first, tracks and judges.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    def share(self, places: Sequence[int]) -> list[int]:
        """This process's part of a batch; the parts have equal sizes, so up to ``count - 1`` places are left out."""
        divisible = len(places) - len(places) % self.count
        return list(places[self.rank : divisible : self.count])

    def from_first(self, value: _Value) -> _Value:
        """The first process's value; all processes must call this."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: _Value) -> list[_Value]:
        """Every process's value, in order; all processes must call this."""
        values = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the batch of all processes, on any device (torch's own needs a GPU).

    The variance is computed in a second pass around the mean, because a mean of squares less the square of the mean
    loses all digits where the mean is large compared with the standard deviation.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) → the same shape."""
        if not self.training:
            return super().forward(features)
        axes = [0, *range(2, features.ndim)]
        values = features.float()
        shape = [1, -1, *[1] * (features.ndim - 2)]
        mean = _mean_of_all(values.mean(axes))
        centred = values - mean.view(shape)
        variance = _mean_of_all(centred.square().mean(axes))
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            count = features.numel() / features.shape[1] * distributed.get_world_size()
            momentum = self.momentum or 0.1
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        normal: Tensor = centred * scale.view(shape) + self.bias.view(shape)
        return normal.to(features.dtype)

    def _check_input_dim(self, features: Tensor) -> None:
        """1D, 2D and 3D alike."""


def _mean_of_all(values: Tensor) -> Tensor:
    """The mean over all processes; they have equal parts of a batch, so the mean of their means is the mean."""
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total / distributed.get_world_size()


def share_batch_norm(network: nn.Module, *, on_gpu: bool) -> nn.Module:
    """Let the batch normalisations of a network see all processes' cases; names and weights stay.

    On GPUs with torch's own, which is faster there.
    """
    if on_gpu:
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synced
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = SharedBatchNorm
    return network


def processes() -> Processes:
    """Rank and number of processes, from torchrun's environment."""
    return Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def join(config: Training) -> Processes:
    """Connect to the other processes.

    Raises:
        UsageError: when there are not as many as configured, or the batch cannot be divided among them.
    """
    group, wanted = processes(), config.devices * config.num_nodes
    if group.count != wanted:
        raise UsageError(
            f"training.devices x training.num_nodes is {wanted}, and {group.count} processes were started; use: "
            f"torchrun --nnodes {config.num_nodes} --nproc-per-node {config.devices} -m pipeline train ..."
        )
    if config.batch_size % group.count:
        raise UsageError(
            f"training.batch_size: {config.batch_size} cases cannot be divided among {group.count} processes; "
            "it counts the cases of all of them: choose a multiple"
        )
    if group.count > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if uses_gpu(config) else "gloo", timeout=_PATIENCE)
    return group


def uses_gpu(config: Training) -> bool:
    """Whether a training of this configuration computes on a GPU."""
    return torch.cuda.is_available() and config.accelerator != "cpu"
