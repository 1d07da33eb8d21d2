"""The packages of the extra [dicom], and what to say where they are missing."""

from __future__ import annotations

import importlib

from pipeline.errors import UsageError


def require_dicom_packages(purpose: str, *packages: str) -> None:
    """Refuse a job whose packages are not installed, before it begins.

    Args:
        purpose: what needs them, as the message begins.
        packages: names that are imported.

    Raises:
        UsageError: naming the first that is missing.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise UsageError(
                f"{purpose} needs {package}; install it with: pip install 'malignancy-pipeline[dicom]'"
            ) from None
