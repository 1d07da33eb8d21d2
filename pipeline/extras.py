"""Optional packages: whether those of an extra are there, and how to install them."""

from __future__ import annotations

import importlib.util

from pipeline.errors import UsageError


def install_hint(extra: str) -> str:
    """The command that installs an extra in a clone of the repository.

    Args:
        extra: its name in ``pyproject.toml``.

    Example:
        >>> install_hint("dicom")
        "in the clone, run: .venv/bin/pip install -c constraints.txt -e '.[dicom]'"
    """
    return f"in the clone, run: .venv/bin/pip install -c constraints.txt -e '.[{extra}]'"


def require_extra(extra: str, purpose: str, *packages: str) -> None:
    """Refuse a job whose optional packages are not installed, before it begins. Imports nothing.

    Args:
        extra: that brings the packages.
        purpose: what needs them, as the message begins.
        packages: names that are imported.

    Raises:
        UsageError: naming the packages that are missing, and the command that installs them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(f"{purpose} needs {', '.join(missing)}; {install_hint(extra)}")
