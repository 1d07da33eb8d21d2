"""``malignancy serve``: the scorer over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.extras import require_extra
from pipeline.jobs.find import verified_detector
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.model_verification import verify_model
from pipeline.service.settings import ServiceSettings
from pipeline.tracking.registry import model_folders

_PACKAGES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")


def serve(
    model_names: str, settings: ServiceSettings, *, find: str | None = None, on_start: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        model_names: one model, or several joined by commas as an ensemble.
        settings: how.
        find: a detector of lesions, for requests that have a whole scan searched.
        on_start: called with the server's URL when it listens.

    Raises:
        UsageError: without the packages of the extra [serve], an address, or a token where one is needed; when the
            models cannot score what the detector finds.
        ModelError: when a model cannot be loaded.
        UnfinishedError: when golden scans drifted, or workers cannot be started.
    """
    require_extra("serve", "malignancy serve", *_PACKAGES)
    from pipeline.service.run import run_service
    from pipeline.service.served_models import ServedDetector, ServedModels

    folders = model_folders(model_names)
    classifier = Ensemble.of([verify_model(folder) for folder in folders])
    detector = None if find is None else ServedDetector(*verified_detector(find, classifier))
    run_service(ServedModels(tuple(folders), classifier, settings.backend, detector), settings, on_start=on_start)
