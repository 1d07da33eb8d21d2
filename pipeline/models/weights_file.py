"""Read a file of pretrained weights: safetensors, or PyTorch's own format without any code in it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.files import open_file

_DEEPEST = 3  # levels of nested dictionaries that are searched, as {"checkpoint": {"state_dict": {...}}}
_TORCH_STARTS = (b"PK", b"\x80")  # a zip archive, or the pickle of releases before 1.6
_UNREADABLE = (RuntimeError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU; of a checkpoint the dictionary that holds the most.

    Args:
        path: safetensors, or what ``torch.save`` wrote; told apart by the first bytes, not by the suffix.

    Raises:
        ConfigError: when it cannot be read, is of neither format, holds objects other than plain values and tensors
            (nothing of a file is ever run), or no named tensor.
    """
    try:
        with open_file(path) as handle:
            start = handle.read(9)
            handle.seek(0)
            if start[8:9] == b"{":
                return load_safetensors(handle.read())
            if not start.startswith(_TORCH_STARTS):
                raise ConfigError(
                    f"network.weights: {path}: is neither a safetensors file nor one of torch.save; save the network's "
                    "state_dict() as either"
                )
            content = torch.load(handle, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"network.weights: {path}: cannot be read ({error.strerror}); check the path") from None
    except SafetensorError as error:
        raise ConfigError(f"network.weights: {path}: is damaged ({error}); copy it again") from None
    except pickle.UnpicklingError:
        raise ConfigError(
            f"network.weights: {path}: is damaged, or holds objects other than tensors, which might run code; save the "
            "network's state_dict() alone, as safetensors"
        ) from None
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise ConfigError(f"network.weights: {path}: is damaged ({reason}); copy it again") from None
    tensors = max(_dictionaries(content), key=len, default={})
    if not tensors:
        raise ConfigError(
            f"network.weights: {path}: holds {type(content).__name__} without named tensors; save the network's "
            "state_dict()"
        )
    return tensors


def _dictionaries(content: Any, depth: int = 0) -> Iterator[dict[str, Tensor]]:
    """The named tensors of a dictionary, and of the dictionaries in it."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    yield {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    for value in content.values():
        yield from _dictionaries(value, depth + 1)
