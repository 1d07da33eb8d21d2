"""A pipeline for binary malignancy classification of medical images, with calibrated probabilities."""

import sys

if sys.platform == "win32":
    raise ImportError("malignancy-pipeline runs on Linux and macOS; on Windows, use it in WSL")

from pipeline.machine import ensure_user_name

ensure_user_name()  # before anything imports torch

__version__ = "0.1.0"
