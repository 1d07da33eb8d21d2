"""Training on a GPU: number formats and compiled steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.config.training import Training
from pipeline.training.processes import processes, uses_gpu

Compile = Literal["off", "cuda_graphs", "inductor"]


def set_tf32(*, allowed: bool) -> None:
    """Let fp32 convolutions and matrix products of a GPU round their inputs to TF32 (10 bits of mantissa), or not.

    By default torch does so in convolutions: an fp32 network then differs from its CPU values in the third digit.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def training_forward(network: nn.Module, settings: Training) -> Callable[[Tensor], Tensor]:
    """The function by which training calls the network: compiled where that is configured and possible.

    Several processes share batch statistics, and accumulated gradients outlive a step: neither is compiled.
    """
    if not uses_gpu(settings) or processes().count > 1 or settings.accumulate_batches > 1:
        return network
    return compiled(network, settings.gpu.compile, batch_size=settings.batch_size)


def compiled(network: nn.Module, how: Compile, *, batch_size: int) -> Callable[[Tensor], Tensor]:
    """A function that runs the network compiled for full batches; a last, smaller batch runs uncompiled.

    So each network is compiled once, for one shape. The function is no module, so that names of weights do not change
    and a copy of the Lightning module copies no compiled code.

    Args:
        network: in training mode.
        how: ``cuda_graphs`` replays the recorded kernels of a step, which helps where starting them takes longer than
            running them; ``inductor`` also fuses them, and compiles for a minute or more.
        batch_size: of a whole batch.
    """
    if how == "off":
        return network

    def forward(images: Tensor) -> Tensor:
        outputs: Tensor = network(images)
        return outputs

    backend = {"cuda_graphs": "cudagraphs", "inductor": "inductor"}[how]
    compiled_forward = torch.compile(forward, backend=backend, dynamic=False)

    def run(images: Tensor) -> Tensor:
        if len(images) != batch_size:
            return forward(images)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return compiled_forward(images)

    return run
