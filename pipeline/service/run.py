"""The whole service: the pool, the uploads' folder, the application and its server, from start to end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from starlette.types import ASGIApp

from pipeline.machine import usable_cores
from pipeline.scoring.engines.live_pool import LivePool
from pipeline.scoring.finding.live_search import LiveRow
from pipeline.service.app import ROUTES, build_app
from pipeline.service.guard import Guard, is_loopback, require_token
from pipeline.service.metrics import ServiceMetrics
from pipeline.service.score_requests import ScoreRequests
from pipeline.service.served_models import ServedModels
from pipeline.service.server import build_server, open_listener
from pipeline.service.settings import ServiceSettings
from pipeline.service.spool import UploadSpool, upload_folder


def run_service(models: ServedModels, settings: ServiceSettings, *, on_start: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        models: that score.
        settings: how.
        on_start: called with the server's URL when it listens; the model may still be loading.

    Raises:
        UsageError: for an address that cannot be had, or one that needs a token.
        ModelError: when a model cannot be loaded.
        UnfinishedError: when golden scans drifted, or workers cannot be started.
    """
    require_token(settings.host, settings.token)
    workers = settings.workers or usable_cores()
    with open_listener(settings.host, settings.port) as listener, upload_folder(settings.temporary) as folder:
        pool = LivePool(
            models.setup(root=folder, workers=workers),
            models.identity,
            workers=workers,
            timeout_seconds=settings.timeout_seconds,
            most_waiting=settings.limits.waiting,
        )
        with closing(pool):
            server = build_server(guarded_app(pool, models, folder, settings), settings)
            pool.on_fault(server.end)
            _log_to_stderr()
            scheme = "http" if settings.certificate is None else "https"
            on_start(f"{scheme}://{settings.host}:{listener.getsockname()[1]}")
            server.run([listener])
    if pool.fault is not None:
        raise pool.fault


def guarded_app(pool: LivePool[LiveRow], models: ServedModels, folder: Path, settings: ServiceSettings) -> ASGIApp:
    """The application behind its guard.

    Args:
        pool: that scores.
        models: that it scores with.
        folder: for uploads; only this application writes to it.
        settings: token, host and limits.
    """
    spool = UploadSpool(folder, most_bytes=settings.limits.spool_bytes)
    metrics = ServiceMetrics(
        models.identity,
        {
            "unanswered_cases": ("Cases that wait for a worker or are in its hands", lambda: pool.unanswered),
            "ready_workers": ("Workers whose golden scans were right", lambda: pool.ready_workers),
            "upload_bytes": ("Bytes of uploads in the temporary folder", lambda: spool.used),
        },
        detector=None if models.detector is None else models.detector.description.identity,
    )
    requests = ScoreRequests(pool, models, spool=spool, limits=settings.limits, metrics=metrics)
    app = build_app(requests, pool, models, metrics)
    local_names = is_loopback(settings.host)
    return Guard(app, metrics=metrics, routes=ROUTES, token=settings.token, local_names=local_names)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
