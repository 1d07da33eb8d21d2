"""Recognise folders that this program wrote among the scans, whose pictures, phantoms and tables are no input."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def is_output(name: str, inside: Collection[str], beside: Collection[str]) -> bool:
    """Whether a folder is a training's, a scoring's, a model's or the tracking store's, by names that only these hold.

    Args:
        name: of the folder.
        inside: names of what it holds.
        beside: names of what its own folder holds.
    """
    if name in ("mlartifacts", "mlartifacts-spool") and "mlflow.db" in beside:
        return True
    if "model.json" in inside and any(file_name.endswith(".safetensors") for file_name in inside):
        return True
    training = "run.json" in inside and not {"model", "checkpoints"}.isdisjoint(inside)
    scoring = "parts" in inside and not {"summary.json", "run.json"}.isdisjoint(inside)
    return training or scoring


def lies_in_output(path: Path, root: Path) -> bool:
    """Whether a file lies in such a folder below ``root``."""
    for folder in path.parents:
        if folder == root or not folder.is_relative_to(root):
            return False
        if is_output(folder.name, os.listdir(folder), os.listdir(folder.parent)):
            return True
    return False
