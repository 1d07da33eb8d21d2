"""A pipeline for binary malignancy classification of medical images, with calibrated probabilities."""

import importlib
import sys
from typing import Any

if sys.platform == "win32":
    raise ImportError("malignancy-pipeline runs on Linux and macOS; on Windows, use it in WSL")

from pipeline.machine import ensure_user_name, limit_threads_to_quota

# Before anything imports torch.
ensure_user_name()
limit_threads_to_quota()

__version__ = "0.1.0"
__all__ = [
    "LoadedModel",
    "__version__",
    "audit",
    "check",
    "evaluate",
    "evaluate_detector",
    "find",
    "heat_map",
    "load_model",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    """The functions of ``pipeline.api``, imported when the first of them is asked for."""
    if name in __all__:
        return getattr(importlib.import_module("pipeline.api"), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
