"""Weights on disk: one safetensors file a network, verified before a tensor of it is used; no pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import ModelError
from pipeline.files import open_file, sha256_bytes
from pipeline.scoring.model_verification import changed_weights, unreadable_weights

# How layers draw their first weights: by a tensor's method, or by a function that a mode sees whole.
_DRAWS = (
    Tensor.normal_,
    Tensor.uniform_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
)
_MOST_HEADER_BYTES = 8 << 20  # names and shapes of the tensors, before them in the file
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and the hex SHA-256 that its bytes must have."""

    path: Path
    sha256: str


def weights_blob(network: nn.Module) -> bytes:
    """All tensors of a network as the bytes of a safetensors file."""
    return save_tensors({key: value.contiguous() for key, value in network.state_dict().items()})


def network_bytes(described_in: Path, build: Callable[[], nn.Module]) -> int:
    """Bytes of a network's tensors, from a network without memory, since a description may ask for any size.

    Args:
        described_in: the file that describes it, named in errors.
        build: makes it.

    Raises:
        ModelError: when no such network can be made.
    """
    try:
        with torch.device("meta"), _Undrawn():
            network = build()
        return sum(value.numel() * value.element_size() for value in network.state_dict().values())
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"{described_in}: network: none can be made of it ({str(error).splitlines()[0][:200]}); the file is damaged"
        ) from None


def load_network(
    file: WeightsFile, described_in: Path, build: Callable[[], NetworkT], *, expected_bytes: int
) -> NetworkT:
    """The network with the weights of a file, in evaluation mode.

    Args:
        file: verified before a tensor of it is used.
        described_in: the file that describes the network, named in errors.
        build: makes the network.
        expected_bytes: of its tensors, from ``network_bytes``.

    Raises:
        ModelError: when the file is missing, has other bytes, or does not fit the network.
    """
    blob = _read_weights(file.path, described_in, expected_bytes)
    if sha256_bytes(blob) != file.sha256:
        raise changed_weights(file.path)
    try:
        tensors = load_tensors(blob)
        with _Undrawn():  # every weight comes from the file
            network = build()  # not before its size is known to be that of the file
        network.load_state_dict(tensors)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{file.path}: does not fit {described_in} ({str(error).splitlines()[0]})") from None
    return network.eval()


class _Undrawn(TorchFunctionMode):
    """Skips the random initialisation of weights, for a network that is measured or filled from a file.

    To draw normal values into tensors without memory, torch would import SymPy and its compiler.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the tensor as it is in place of drawing values into it; call anything else."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]  # torch.nn.init passes it by name
        return func(*args, **kwargs)


def _read_weights(path: Path, described_in: Path, expected: int) -> bytes:
    """The bytes of a weights file, which must be about as many as the network has.

    Raises:
        ModelError: before anything is read, when it is missing, no file, or of another size.
    """
    try:
        with open_file(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            if not expected <= size <= expected + _MOST_HEADER_BYTES:
                raise ModelError(
                    f"{path}: has {size} bytes, and the network of {described_in.name} {expected}; "
                    "it does not fit: copy the model directory again"
                )
            return handle.read(size)
    except OSError as error:
        raise unreadable_weights(path, error) from None
