"""The made folders in their default size, each written once for all tests that take it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from made_folders import MadeFolder


def copy_of(made: MadeFolder, folder: Path) -> MadeFolder:
    """The folder at another place; its files are links to those that were written, which no command may change."""
    shutil.copytree(made.folder, folder, copy_function=os.link, symlinks=True, dirs_exist_ok=True)
    return replace(made, folder=folder, table=made.table and folder / made.table.relative_to(made.folder))
