"""``malignancy serve``: the scorer over HTTP."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from pipeline.errors import UsageError
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.model_verification import verify_model
from pipeline.service.settings import ServiceSettings
from pipeline.tracking.registry import model_folders

_PACKAGES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")


def serve(model_names: str, settings: ServiceSettings, *, on_start: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        model_names: one model, or several joined by commas as an ensemble.
        settings: how.
        on_start: called with the server's URL when it listens.

    Raises:
        UsageError: without the packages of the extra [serve], an address, or a token where one is needed.
        ModelError: when a model cannot be loaded.
        UnfinishedError: when golden scans drifted, or workers cannot be started.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"serve needs packages of the extra [serve] ({', '.join(missing)} not installed); "
            "run: pip install 'malignancy-pipeline[serve]'"
        )
    from pipeline.service.run import run_service

    folders = model_folders(model_names)
    models = Ensemble.of([verify_model(folder) for folder in folders])
    run_service(folders, models, settings, on_start=on_start)
