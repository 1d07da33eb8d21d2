"""The file that ``--json`` names: written again by the command that wrote it, and never over anything else."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import read_json


def require_own_or_free(json_file: Path, *, command: str, keys: Collection[str]) -> None:
    """Refuse to write over anything but what an earlier run of the command wrote.

    Args:
        json_file: that is to be written.
        command: in words, as ``check``.
        keys: that every file of the command has.

    Raises:
        UsageError: when the name is taken by something else.
    """
    if not os.path.lexists(json_file):
        return
    try:
        content = read_json(json_file, most=1 << 32)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise UsageError(f"--json {json_file}: exists, and no {command} wrote it; name another file")
